"""Order statistics: how large the k-th largest magnitude is, and which of its equals are kept.

Magnitudes of tensors that are ``known`` are counted once; of others a threshold is found by
selection. Counts are whole numbers, so chunks, threads and devices change nothing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from merging import fused, known
from merging.cache import Magnitudes
from merging.fused import spans
from merging.looks import BLOCK
from merging.series import BlockSum, Series, float_of, magnitude_bits
from merging.thinnings import Trimmed

Bits = npt.NDArray[np.int32]
Counts = npt.NDArray[np.int64]

_COUNTED = 1 << 20  # elements sorted in one go
_INFINITY = 0x7F800000
_SAMPLE = 1 << 15  # entries looked at to guess a threshold
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
    found = known_magnitudes(series, chunk=chunk)
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
    return Trimmed(bits=bits, cutoff=_position(series, bits, wanted, chunk))


def known_magnitudes(series: Series, *, chunk: int) -> Magnitudes | None:
    """The magnitudes of a tensor that has a name here, computed if need be; else ``None``."""
    scope = known.active()
    name = None if scope is None else scope.name(series.tensor, series.minus)
    if scope is None or name is None:
        return None
    return scope.statistics.magnitudes(name, lambda: count_magnitudes(series, chunk=chunk))


def count_magnitudes(series: Series, *, chunk: int) -> Magnitudes:
    """Count how often each magnitude occurs, and sum them up; one pass.

    Where there are too many different ones to be worth keeping (as in float32), those that share
    the 15 highest bits are counted together.
    """
    most = max(BLOCK, series.tensor.numel() // 16)
    norm, values, counts = BlockSum(), np.empty(0, np.int32), np.empty(0, np.int64)
    shift = 0
    for _, part in series.parts(max(chunk, _COUNTED)):
        norm.add(part.abs())
        bits = np.sort(magnitude_bits(part).cpu().numpy() >> shift)
        values, counts = _merged(values, counts, *_runs(bits))
        if len(values) > most and shift == 0:
            shift = _LOW_BITS
            starts, places = np.unique(values >> shift, return_inverse=True)
            counts = np.bincount(places, weights=counts).astype(np.int64)
            values = starts
    order = slice(None, None, -1)
    return Magnitudes(
        bits=torch.from_numpy((values[order] << shift).astype(np.int32)),
        counts=torch.from_numpy(np.cumsum(counts[order])),
        width=1 << shift,
        norm=norm.total(),
    )


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


def _position(series: Series, bits: int, wanted: int, chunk: int) -> int:
    """The index after the ``wanted``-th entry of exactly this magnitude."""
    begin = 0
    if series.minus is not None:
        begin, before = _block_of(series, bits, wanted)
        wanted -= before
    for start, stop in spans(series.tensor.numel() - begin, BLOCK if begin else chunk):
        part = series.part(begin + start, begin + stop)
        found = torch.nonzero(magnitude_bits(part) == bits).flatten()
        if found.numel() >= wanted:
            return begin + start + int(found[wanted - 1]) + 1
        wanted -= found.numel()
    raise AssertionError("fewer entries at the threshold than were counted")  # pragma: no cover


def _block_of(series: Series, bits: int, wanted: int) -> tuple[int, int]:
    """Where the block begins that has the ``wanted``-th such entry, and how many lie before it.

    The part after the last whole block if none of the whole ones has it.
    """
    assert series.minus is not None
    value = float_of(bits)
    begin, before = 0, 0
    pair = [series.tensor, series.minus]
    for (counts,) in fused.look("equal_counts", pair, floats=[value], device=series.device):
        here = int(counts.sum())
        if before + here >= wanted:
            running = counts.cumsum(0)
            at = int(torch.searchsorted(running, wanted - before))
            return begin + at * BLOCK, before + int(running[at]) - int(counts[at])
        begin, before = begin + counts.numel() * BLOCK, before + here
    return begin, before
