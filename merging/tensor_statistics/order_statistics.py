"""Order statistics: how large the k-th largest magnitude is, and which of its equals are kept.

Magnitudes of tensors that are ``known`` are counted once; of others a threshold is found by
selection. Counts are whole numbers, so chunks, threads and devices change nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from merging.kernels.blocked_sums import BlockSum, Series, magnitude_bits
from merging.kernels.keep_rules import Trimmed
from merging.kernels.torch_kernels.reduction_kernels import BLOCK
from merging.tensor_statistics import series_sums, statistics_scope
from merging.tensor_statistics.statistics_cache import PLACE_STEP, Magnitudes

Bits = npt.NDArray[np.int32]
Counts = npt.NDArray[np.int64]

_INFINITY = 0x7F800000
_SAMPLE = 1 << 15  # entries looked at to guess a threshold
_INDEX_BITS = 20  # of an index into what is sorted in one go
_COUNTED = 1 << _INDEX_BITS
_NEAREST, _FARTHEST = 1 << 9, 1 << 15  # entries looked at one by one from a noted place on
_LOW_BITS = 16  # a float32 without its sign: 15 high bits, then 16 low ones


def trim(series: Series, count: int, *, chunk: int) -> Trimmed:
    """The thinning that keeps exactly the ``count`` largest magnitudes.

    Of entries with equal magnitude the ones that come first are kept. Zeros at the threshold are
    all kept, which changes nothing: a delta of 0 adds 0. Of tensors that are ``known``, the
    magnitudes are counted once; what is left is to find where the last entry kept lies.

    Args:
        series: The deltas.
        count: Number kept, 1 to the number of elements.
        chunk: Elements at a time.
    """
    found = known_magnitudes(series)
    begin, near = 0, BLOCK
    if found is None:
        bits, before, equal = _select(series, count, chunk=chunk)
    else:
        bits, before, equal = found.find(count)
        if found.width > 1:
            bits, inner, equal = _within(series, bits, found.width, count - before, chunk=chunk)
            before += inner
    wanted = count - before
    if bits == 0 or bits > _INFINITY or wanted == equal:  # what is not finite shows anyway
        return Trimmed(bits=bits, cutoff=series.tensor.numel())
    if found is not None and found.width == 1:
        begin, wanted = found.place(count)
        near = min(max(_NEAREST, 2 * PLACE_STEP * series.tensor.numel() // equal), _FARTHEST)
    cutoff = _position(series, bits, wanted, begin=begin, near=near, chunk=chunk)
    return Trimmed(bits=bits, cutoff=cutoff)


def known_magnitudes(series: Series) -> Magnitudes | None:
    """The magnitudes of a tensor that has a name here, computed if need be; else ``None``."""
    scope = statistics_scope.active()
    name = None if scope is None else scope.name(series.tensor, series.minus)
    if scope is None or name is None:
        return None
    return scope.statistics.magnitudes(name, lambda: count_magnitudes(series))


def count_magnitudes(series: Series, *, chunk: int = _COUNTED) -> Magnitudes:
    """Count how often each magnitude occurs, and sum them up; one pass.

    Where there are too many different ones to be worth keeping (as in float32), those that share
    the 15 highest bits are counted together.
    """
    natively = series_sums.count_magnitudes(series)
    if natively is not None:
        return natively
    most = max(BLOCK, series.tensor.numel() // 16)
    norm, shift = BlockSum(), 0
    values, counts, places = np.empty(0, np.int32), np.empty(0, np.int64), Places()
    for start, part in series.parts(min(chunk, _COUNTED)):
        norm.add(part.abs())
        bits = magnitude_bits(part).cpu().numpy()
        if shift:
            found, times = _runs(np.sort(bits >> shift))
        else:
            order = np.sort((bits.astype(np.int64) << _INDEX_BITS) | np.arange(len(bits)))
            found, times = _runs((order >> _INDEX_BITS).astype(np.int32))
            places.add(order & (_COUNTED - 1), start, found, times, _before(values, counts, found))
        values, counts = _merged(values, counts, found, times)
        if len(values) > most and shift == 0:
            shift = _LOW_BITS
            starts, bins = np.unique(values >> shift, return_inverse=True)
            counts = np.bincount(bins, weights=counts).astype(np.int64)
            values = starts
    descending = slice(None, None, -1)
    return Magnitudes(
        bits=torch.from_numpy((values[descending] << shift).astype(np.int32)),
        counts=torch.from_numpy(np.cumsum(counts[descending])),
        places=torch.from_numpy(np.empty(0, np.int32) if shift else places.by_bin()),
        width=1 << shift,
        norm=norm.total(),
    )


class Places:
    """Where every ``PLACE_STEP``-th entry of each magnitude lies, noted chunk by chunk."""

    def __init__(self) -> None:
        self._bits: list[Bits] = []
        self._at: list[Counts] = []

    def add(self, order: Counts, start: int, bits: Bits, times: Counts, before: Counts) -> None:
        """Take the next chunk.

        Args:
            order: Its indices, by magnitude and then index.
            start: The index that it begins at.
            bits: The magnitudes in it, ascending.
            times: How often each occurs in it.
            before: How often each occurred before it.
        """
        skipped = -(before + 1) % PLACE_STEP  # entries up to the first one to note
        noted = np.maximum(0, (times - skipped + PLACE_STEP - 1) // PLACE_STEP)
        begins = np.cumsum(times) - times + skipped
        number = np.arange(noted.sum()) - np.repeat(np.cumsum(noted) - noted, noted)
        self._at.append(start + order[np.repeat(begins, noted) + number * PLACE_STEP])
        self._bits.append(np.repeat(bits, noted))

    def by_bin(self) -> npt.NDArray[np.signedinteger[Any]]:
        """All of them, magnitudes descending, indices of each ascending."""
        order = np.argsort(-np.concatenate(self._bits), kind="stable")
        places: Counts = np.concatenate(self._at)[order]
        return places.astype(np.int32) if places.max(initial=0) < 1 << 31 else places


def _before(values: Bits, counts: Counts, found: Bits) -> Counts:
    """How often each of these was counted so far."""
    if not len(values):
        return np.zeros(len(found), np.int64)
    at = np.minimum(np.searchsorted(values, found), len(values) - 1)
    before: Counts = np.where(values[at] == found, counts[at], 0)
    return before


def _runs(ordered: Bits) -> tuple[Bits, Counts]:
    """Distinct values of a sorted array, and how often each occurs."""
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    return ordered[starts], np.diff(np.append(starts, len(ordered)))


def _merged(values: Bits, counts: Counts, more: Bits, times: Counts) -> tuple[Bits, Counts]:
    """The union of two lists of distinct values, their counts added."""
    if not len(values):
        return more, times
    together = np.concatenate((values, more))
    order = np.argsort(together, kind="stable")
    together, weights = together[order], np.concatenate((counts, times))[order]
    starts = np.flatnonzero(np.concatenate(([True], together[1:] != together[:-1])))
    return together[starts], np.add.reduceat(weights, starts)


def _select(series: Series, count: int, *, chunk: int) -> tuple[int, int, int]:
    """The ``count``-th largest magnitude's bits, how many are larger, and how many are equal."""
    if series.device.type != "cpu":
        return _select_by_counting(series, count, chunk=chunk)
    natively = series_sums.select(series, count)
    if natively is not None:
        return natively
    total = series.tensor.numel()
    bits = np.empty(total, np.int32)
    for start, part in series.parts(chunk):
        bits[start : start + part.numel()] = magnitude_bits(part).numpy()
    low, high = _bracket(bits, count)
    above = int(np.count_nonzero(bits > high))
    near = bits[(bits >= low) & (bits <= high)]
    if not above < count <= above + len(near):  # the sample was not like the whole
        near, above = bits, 0
    near.partition(len(near) - (count - above))
    found = int(near[len(near) - (count - above)])
    larger = above + int(np.count_nonzero(near > found))
    return found, larger, int(np.count_nonzero(near == found))


def _bracket(bits: Bits, count: int) -> tuple[int, int]:
    """Bits that the ``count``-th largest most likely lies between, from a sample."""
    sample = np.sort(bits[:: max(1, len(bits) // _SAMPLE)])
    at = len(sample) - round(count / len(bits) * len(sample))
    margin = len(sample) // 64 + 1
    return int(sample[max(0, at - margin)]), int(sample[min(len(sample) - 1, at + margin)])


def _within(
    series: Series, start: int, width: int, count: int, *, chunk: int
) -> tuple[int, int, int]:
    """As ``_select``, among magnitudes whose bits lie in one bin."""
    natively = series_sums.select(series, count, low=start, high=start + width - 1)
    if natively is not None:
        return natively
    inside = []
    for _, part in series.parts(chunk):
        bits = magnitude_bits(part)
        inside.append(bits[(bits >= start) & (bits <= start + (width - 1))].cpu())
    ordered = np.sort(torch.cat(inside).numpy())
    found = ordered[len(ordered) - count]
    first, last = np.searchsorted(ordered, found, "left"), np.searchsorted(ordered, found, "right")
    return int(found), int(len(ordered) - last), int(last - first)


def _select_by_counting(series: Series, count: int, *, chunk: int) -> tuple[int, int, int]:
    """As ``_select``, by a histogram of the high bits, then one of the low bits in its bin."""
    device = series.device
    high = torch.zeros(1 << 15, dtype=torch.int64, device=device)
    for _, part in series.parts(chunk):
        high += torch.bincount(magnitude_bits(part) >> _LOW_BITS, minlength=1 << 15)
    top, above = _bin_of(high, count)
    bins = 1 << _LOW_BITS
    low = torch.zeros(bins + 2, dtype=torch.int64, device=device)  # one bin more at either end
    for _, part in series.parts(chunk):
        place = magnitude_bits(part).sub_(top << _LOW_BITS).clamp_(-1, bins).add_(1)
        low += torch.bincount(place, minlength=bins + 2)
    low = low[1:-1]
    bottom, before = _bin_of(low, count - above)
    return (top << _LOW_BITS) | bottom, above + before, int(low[bottom])


def _bin_of(histogram: Tensor, count: int) -> tuple[int, int]:
    """The bin that holds the ``count``-th largest entry, and how many lie in bins above it."""
    from_top = histogram.flip(0).cumsum(0)
    place = int(torch.searchsorted(from_top, count))
    index = histogram.numel() - 1 - place
    return index, int(from_top[place]) - int(histogram[index])


def _position(series: Series, bits: int, wanted: int, *, begin: int, near: int, chunk: int) -> int:
    """The index after the ``wanted``-th entry of exactly this magnitude from ``begin`` on.

    It most likely lies among the ``near`` next entries.
    """
    if wanted == 0:
        return begin
    natively = series_sums.position(series, bits, wanted, begin=begin)
    if natively is not None:
        return natively
    total, step = series.tensor.numel(), near
    while begin < total:
        stop = min(total, begin + step)
        found = torch.nonzero(magnitude_bits(series.part(begin, stop)) == bits).flatten()
        if found.numel() >= wanted:
            return begin + int(found[wanted - 1]) + 1
        wanted, begin, step = wanted - found.numel(), stop, chunk  # it is far away
    raise AssertionError("fewer entries at the threshold than were counted")  # pragma: no cover
