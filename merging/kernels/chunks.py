"""Ranges of flat tensors, and working on several at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

from merging.kernels.torch_kernels.reduction_kernels import BLOCK

NATIVE_CHUNK = 1 << 22
"""Entries of a range for the native library."""

PERIOD = 1 << 32
"""Indices after which random masks have other numbers."""

_WORTH_A_THREAD = 1 << 16

_Found = TypeVar("_Found")


def spans(count: int, chunk: int, *, whole: bool = False) -> Iterator[tuple[int, int]]:
    """Half-open ranges that cover ``count`` elements; all but the last have whole blocks.

    None goes beyond a multiple of 2**32, where random masks change.

    Args:
        count: Elements.
        chunk: Elements of a range, rounded up to whole blocks.
        whole: Let the end that is no whole block have a range of its own.
    """
    step, start = max(1, -(-chunk // BLOCK)) * BLOCK, 0
    while start < count:
        stop = min(count, start + step, (start // PERIOD + 1) * PERIOD)
        if whole and stop - start > BLOCK:
            stop -= (stop - start) % BLOCK
        yield start, stop
        start = stop


def shares(count: int, most: int) -> Iterator[tuple[int, int]]:
    """As ``spans``, of at most so many entries, so that each of torch's threads has some."""
    share = max(_WORTH_A_THREAD, -(-count // torch.get_num_threads()))
    return spans(count, min(most, share))


def signed(value: int) -> int:
    """The int32 with the same 32 low bits."""
    value %= 1 << 32
    return value - (1 << 32) if value >= 1 << 31 else value


def in_order(
    run: Callable[[int, int], _Found], parts: Iterable[tuple[int, int]]
) -> Iterator[_Found]:
    """Run over ranges, as many at a time as torch has threads; what it finds, in their order."""
    threads, waiting = torch.get_num_threads(), list(parts)
    if threads == 1 or len(waiting) == 1:
        for first, last in waiting:
            yield run(first, last)
        return
    for at in range(0, len(waiting), threads):  # not all at once: who asks may need no more
        yield from _pool(threads).map(lambda part: run(*part), waiting[at : at + threads])


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="passes")
