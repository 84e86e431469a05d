"""Sums over series, and counts of their magnitudes, by the native library.

What it finds is what ``blocked_sums`` and ``order_statistics`` find by calls of torch and
NumPy, bit for bit, many times as fast. ``None`` where there is no library for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from merging.kernels.blocked_sums import Series, total_of
from merging.kernels.chunks import NATIVE_CHUNK, in_order, shares
from merging.kernels.native.abi import FLOATS, readable
from merging.kernels.native.native_library import library_on
from merging.kernels.native.native_sums import NativeSums
from merging.kernels.torch_kernels.reduction_kernels import BLOCK
from merging.tensor_statistics.statistics_cache import PLACE_STEP, Magnitudes

_FEW = 1 << 16  # entries that are all looked at together
_HIGH_BITS = 16  # of a float32 without its sign: so many low ones are left out


def products(series: Sequence[Series]) -> dict[tuple[int, int], float] | None:
    """The inner products of any two series of one length that lack the same tensor.

    Returns:
        By position of the first and of the second, which is not smaller.
    """
    found = _library(series[0])
    if found is None or any(one.minus is not series[0].minus for one in series):
        return None

    def run(first: int, last: int) -> list[float]:
        tensors, minus = zip(*(_pair(one, first, last) for one in series), strict=True)
        return found.products(tensors, minus[0]).tolist()

    pairs = [(i, j) for i in range(len(series)) for j in range(i, len(series))]
    sums: list[list[float]] = [[] for _ in pairs]
    for part in _over(series[0], run):
        blocks = len(part) // len(pairs)
        for at, one in enumerate(sums):
            one += part[at * blocks : (at + 1) * blocks]
    return {pair: total_of(one) for pair, one in zip(pairs, sums, strict=True)}


def norm_and_largest(series: Series) -> tuple[float, float] | None:
    """The L1 norm, and the largest magnitude."""
    found = _library(series)
    if found is None:
        return None

    def run(first: int, last: int) -> list[float]:
        return found.magnitudes(*_pair(series, first, last)).tolist()

    sums: list[float] = []
    largest = 0.0
    for part in _over(series, run):
        blocks = len(part) // 2
        sums += part[:blocks]
        largest = max(largest, *part[blocks:])
    return total_of(sums), largest


def count_magnitudes(series: Series) -> Magnitudes | None:
    """How often each magnitude occurs, or those that share the 15 highest bits, and where."""
    found, count = _library(series), series.tensor.numel()
    if found is None:
        return None
    tensor, minus = _pair(series, 0, count)
    most = max(BLOCK, count // PLACE_STEP)
    distinct = found.distinct(tensor, minus, most=most, step=PLACE_STEP)
    if distinct is None:
        times = found.high_bits(tensor, minus).flip(0)
        there = times.nonzero().flatten()
        bits = ((len(times) - 1 - there) << _HIGH_BITS).to(torch.int32)
        distinct = bits, times[there], torch.empty(0, dtype=torch.int32)
        width = 1 << _HIGH_BITS
    else:
        width = 1
    bits, times, places = distinct
    norm = norm_and_largest(series)
    assert norm is not None  # there is a library
    return Magnitudes(
        bits=bits,
        counts=times.cumsum(0),
        places=places.to(torch.int32) if count <= 1 << 31 else places,
        width=width,
        norm=norm[0],
    )


def select(
    series: Series, count: int, *, low: int = 0, high: int = (1 << 31) - 1
) -> tuple[int, int, int] | None:
    """Of magnitudes whose bits lie between two: those of the ``count``-th largest, how many are
    larger, and how many equal.

    Args:
        series: The deltas.
        count: 1 to the number of such magnitudes.
        low: The least bits.
        high: The most bits, these included.
    """
    found, total, before = _library(series), series.tensor.numel(), 0
    if found is None:
        return None
    tensor, minus = _pair(series, 0, total)
    if total > _FEW and high - low >= 1 << _HIGH_BITS:
        from_top = found.high_bits(tensor, minus).flip(0).cumsum(0)
        at = int(torch.searchsorted(from_top, count))
        before = int(from_top[at - 1]) if at else 0
        low = (len(from_top) - 1 - at) << _HIGH_BITS
        high = low + (1 << _HIGH_BITS) - 1
    bits, larger, equal = found.ranked_bits(tensor, minus, low=low, high=high, count=count - before)
    return bits, before + larger, equal


def position(series: Series, bits: int, wanted: int, *, begin: int) -> int | None:
    """The index after the ``wanted``-th entry of exactly this magnitude from ``begin`` on.

    Args:
        series: The deltas.
        bits: Of the magnitude.
        wanted: At least 1, and no more than there are.
        begin: The first index looked at.
    """
    found, count = _library(series), series.tensor.numel()
    if found is None:
        return None
    tensor, minus = _pair(series, 0, count)
    at = found.position(tensor, minus, bits=bits, wanted=wanted, begin=begin)
    assert at >= 0, "fewer entries at the threshold than were counted"
    return at + 1


def _over(series: Series, run: Callable[[int, int], list[float]]) -> Iterator[list[float]]:
    return in_order(run, shares(series.tensor.numel(), NATIVE_CHUNK))


def _library(series: Series) -> NativeSums | None:
    found = library_on(series.device)
    return None if found is None else found.sums


def _pair(series: Series, start: int, stop: int) -> tuple[Tensor, Tensor | None]:
    """Entries of the tensor, and of what is subtracted, as the library reads them."""
    tensor, minus = (
        None if one is None else readable(one, start, stop, FLOATS, series.device)
        for one in (series.tensor, series.minus)
    )
    assert tensor is not None
    return tensor, minus
