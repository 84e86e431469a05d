"""Running passes: as compiled loops over memory where warmed up for, eagerly elsewhere.

Nothing is ever compiled in the middle of a build: a pass that was not warmed up runs eagerly over
chunks that stay in the cache. Both ways give the same bits, so which one runs is a matter of speed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from merging.compiled import LOOK_FLOATS, LOOK_INTS, Library, Variant, called, library
from merging.looks import BLOCK, IN_BLOCKS
from merging.passes import AT_ONCE, FLOAT_ROWS, INT_ROWS

_COMPILED_CHUNK = 1 << 22
_BLOCKS_CHUNK = 1 << 18  # sums stay in the cache, and a search for an entry may stop early
_CONVERTED_CHUNK = 1 << 17  # copies in another dtype stay in the cache
_EAGER_CHUNK = 1 << 16  # temporaries stay in the cache
_DEVICE_CHUNK = 1 << 24
_FEW = 1 << 17  # entries of all inputs up to which calls take more time than what they compute
_PERIOD = 1 << 32  # indices after which random masks have other numbers
_READ = (torch.bfloat16, torch.float16, torch.float32)

Ints = Callable[[int], Sequence[Sequence[int]]]
"""Rows of whole numbers, as of an index."""
LookInts = Callable[[int], Sequence[int]]
"""Whole numbers as of an index."""


def no_ints(start: int) -> Sequence[Sequence[int]]:  # noqa: ARG001 - as all of this kind
    """For passes that read none."""
    return ()


def merge(
    name: str,
    inputs: Sequence[Tensor],
    base: Tensor | None,
    out: Tensor,
    *,
    floats: Sequence[Sequence[float]],
    ints: Ints = no_ints,
    ranks: Sequence[Tensor] = (),
    chunk: int | None = None,
) -> None:
    """Run a pass over flat tensors.

    Args:
        name: In ``merging.passes.MERGES``.
        inputs: ``(n,)`` each, any float dtype and device.
        base: ``(n,)``, or ``None`` for passes without.
        out: ``(n,)`` to overwrite; computing happens on its device.
        floats: Rows of the pass's numbers: one per input, or one for all.
        ints: Rows of its whole numbers, as int32 values.
        ranks: ``(n,)`` whole numbers, one per input, for passes that read them.
        chunk: Elements at a time; ``None`` suits the device. Changes nothing but speed.
    """
    tensors = [*inputs, inputs[0] if base is None else base]
    kind = Variant(
        name=name,
        inputs=len(inputs),
        read=read_as(tensors),
        written=out.dtype if out.dtype in _READ else torch.float32,
    )
    wide = replace(kind, read=torch.float32, written=torch.float32)
    run, size = chosen(kind, out.device), _CONVERTED_CHUNK if ranks else _COMPILED_CHUNK
    if run is None:
        run, size, kind = chosen(wide, out.device), _CONVERTED_CHUNK, wide
    compiled = run is not None
    if run is None:
        at_once = name in AT_ONCE and are_few(inputs)
        run, size = _eager(name, at_once=at_once), _EAGER_CHUNK
    numbers = _table(floats, FLOAT_ROWS, len(inputs), torch.float32, out.device)
    for first, last in spans(out.numel(), _chunk(chunk, out.device, size), whole=compiled):
        fit = _padded_part if compiled and last - first < BLOCK else _part
        *parts, origin = [fit(one, first, last, out.device, kind.read) for one in tensors]
        parts += [fit(one, first, last, out.device, torch.float32) for one in ranks]
        words = _table(ints(first), INT_ROWS, len(inputs), torch.int32, out.device)
        target = out[first:last]
        made = target
        if out.dtype != kind.written or len(origin) != len(target):
            made = torch.empty_like(origin, dtype=kind.written)
        run([*parts, origin, made, numbers, words])
        if made is not target:
            target.copy_(made[: len(target)])


def look(
    name: str,
    tensors: Sequence[Tensor],
    *,
    device: torch.device,
    floats: Sequence[float] = (),
    ints: LookInts = lambda _: (),
    chunk: int | None = None,
) -> Iterator[Sequence[Tensor]]:
    """Run a pass without output over flat tensors.

    Args:
        name: In ``merging.looks.LOOKS``; those in blocks leave out the end that is no whole block.
        tensors: ``(n,)`` each: of floats, or of whole numbers: words alone, and ranks after floats.
        device: Where to compute.
        floats: The pass's numbers.
        ints: Its whole numbers, as int32 values.
        chunk: Elements at a time; ``None`` suits the device.

    Yields:
        What the pass returns for each chunk, in order.
    """
    inputs = [one for one in tensors if one.dtype.is_floating_point]
    read, ranks = (read_as(inputs), torch.float32) if inputs else (torch.int32, torch.int32)
    run = chosen(Variant(name=name, inputs=len(tensors), read=read), device)
    total, large = tensors[0].numel(), _COMPILED_CHUNK
    if name in IN_BLOCKS:
        total, large = total // BLOCK * BLOCK, _BLOCKS_CHUNK
    if len(tensors) > len(inputs) > 0:
        large = _CONVERTED_CHUNK
    numbers = _padded(floats, LOOK_FLOATS, torch.float32, device)
    size = _chunk(chunk, device, _EAGER_CHUNK if run is None else large)
    for first, last in spans(total, size, whole=True):
        fit = _padded_part if run is not None and last - first < BLOCK else _part
        parts = [
            fit(one, first, last, device, read if one.dtype.is_floating_point else ranks)
            for one in tensors
        ]
        words = _padded(ints(first), LOOK_INTS, torch.int32, device)
        yield (run or _eager(name))([*parts, numbers, words])


def seal(words: Tensor, masks: tuple[int, int], *, chunk: int | None = None) -> tuple[int, int]:
    """The hash of words as an unsigned 64-bit number, and their largest exponent field.

    Args:
        words: ``(n,)`` int32.
        masks: Of the exponents in the low and high half of a word.
        chunk: Words at a time; the result does not depend on it.
    """
    low = high = largest = 0
    for found in look(
        "seal",
        [words],
        device=words.device,
        ints=lambda first: (signed(first), *masks),
        chunk=chunk,
    ):
        first, second, exponent = map(int, found)
        low, high, largest = low + first, high + second, max(largest, exponent)
    return hash_of(low, high), largest


def hash_of(low: int, high: int) -> int:
    """The hash whose two sums these are."""
    return (low + (high << 32)) % (1 << 64)


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
        stop = min(count, start + step, (start // _PERIOD + 1) * _PERIOD)
        if whole and stop - start > BLOCK:
            stop -= (stop - start) % BLOCK
        yield start, stop
        start = stop


def signed(value: int) -> int:
    """The int32 with the same 32 low bits."""
    value %= 1 << 32
    return value - (1 << 32) if value >= 1 << 31 else value


def read_as(tensors: Sequence[Tensor]) -> torch.dtype:
    """The dtype that tensors are read as: their own if it is one, float32 if not."""
    first = tensors[0].dtype
    same = first in _READ and all(tensor.dtype == first for tensor in tensors)
    return first if same else torch.float32


def are_few(tensors: Sequence[Tensor]) -> bool:
    """Whether calls for so few entries in all take more time than what they compute."""
    return sum(one.numel() for one in tensors) <= _FEW


def _eager(name: str, *, at_once: bool = False) -> Library:
    """A pass in the form of a compiled one."""

    def run(tensors: list[Tensor]) -> Sequence[Tensor]:
        with torch.no_grad():
            return called(name, tensors, at_once=at_once)

    return run


def chosen(variant: Variant, device: torch.device) -> Library | None:
    """The compiled pass, if there is one that runs here."""
    return library(variant) if device.type == "cpu" else None


def _part(flat: Tensor, start: int, stop: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Contiguous elements on a device and in a dtype; a view where they are."""
    part = flat[start:stop]
    if part.device != device:
        part = part.to(device, non_blocking=True)
    if part.dtype != dtype:
        part = part.to(dtype)
    return part.contiguous()


def _padded_part(
    flat: Tensor, start: int, stop: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """The end of a tensor as a whole block, zeros behind it."""
    made = torch.zeros(BLOCK, dtype=dtype, device=device)
    made[: stop - start].copy_(flat[start:stop])
    return made


def _chunk(asked: int | None, device: torch.device, on_cpu: int) -> int:
    return asked or (on_cpu if device.type == "cpu" else _DEVICE_CHUNK)


def _table(
    rows: Sequence[Sequence[float]],
    height: int,
    width: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """``(height, width)``: rows of one number are repeated, rows left out are 0."""
    filled = [[*row] * width if len(row) == 1 else [*row] for row in rows]
    filled += [[0] * width] * (height - len(filled))
    return torch.tensor(filled, dtype=dtype, device=device)


def _padded(
    numbers: Sequence[float], length: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    filled = [*numbers, *[0] * (length - len(numbers))]
    return torch.tensor(filled, dtype=dtype, device=device)
