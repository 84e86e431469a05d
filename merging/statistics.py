"""What has to be known of a whole tensor before its elements can be merged.

Order statistics and sums over a tensor, taken chunk by chunk. Every result is the same for any
chunk size, thread count and device: counts are integers, and sums are float64 additions in one
fixed order (halving over blocks of ``BLOCK`` elements, then an exactly rounded sum of the blocks).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from merging import fused, known, masks
from merging.cache import Magnitudes
from merging.fused import spans
from merging.masks import MaskKey
from merging.passes import BLOCK

__all__ = [
    "BLOCK",
    "BlockSum",
    "Dropped",
    "Series",
    "Thinning",
    "Trimmed",
    "count_magnitudes",
    "float_of",
    "gram",
    "inner_products",
    "known_magnitudes",
    "load",
    "magnitude_bits",
    "norm_ratio",
    "spans",
    "trim",
]

Bits = npt.NDArray[np.int32]
Counts = npt.NDArray[np.int64]

_COUNTED = 1 << 20  # elements sorted in one go
_INFINITY = 0x7F800000
_SAMPLE = 1 << 15  # entries looked at to guess a threshold
_LOW_BITS = 16  # a float32 without its sign: 15 high bits, then 16 low ones


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """A tensor, or its difference from another one, as float32 chunks.

    Attributes:
        tensor: ``(n,)``, any float dtype and device.
        minus: ``(n,)`` what is subtracted; ``None`` for nothing.
        device: Where chunks are computed.
    """

    tensor: Tensor
    minus: Tensor | None
    device: torch.device

    def part(self, start: int, stop: int) -> Tensor:
        """Elements ``start`` to ``stop`` in float32; aliases the tensor where it can."""
        part = load(self.tensor, start, stop, self.device)
        return part if self.minus is None else part - load(self.minus, start, stop, self.device)

    def parts(self, chunk: int) -> Iterator[tuple[int, Tensor]]:
        """Every chunk with the index it starts at."""
        for start, stop in spans(self.tensor.numel(), chunk):
            yield start, self.part(start, stop)


def load(flat: Tensor, start: int, stop: int, device: torch.device) -> Tensor:
    """Elements of a flat tensor on ``device`` in float32; may alias it, so do not write to it."""
    return flat[start:stop].to(device).to(torch.float32)


class Thinning(Protocol):
    """Which entries of a delta are kept."""

    def keep(self, delta: Tensor, start: int) -> Tensor:
        """1 or 0 (float32) per entry of ``delta`` ``(m,)``, which begins at index ``start``."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Dropped:
    """Random thinning by a counter-based mask."""

    key: MaskKey
    density: float

    def keep(self, delta: Tensor, start: int) -> Tensor:
        stop = start + delta.numel()
        return masks.keep(
            self.key, density=self.density, start=start, stop=stop, device=delta.device
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Trimmed:
    """Thinning by magnitude.

    Attributes:
        bits: The threshold on the magnitude: its float32 bits, which sort like the value.
        cutoff: Entries equal to the threshold are kept where their index is below this.
    """

    bits: int
    cutoff: int

    def keep(self, delta: Tensor, start: int) -> Tensor:
        bits = magnitude_bits(delta)  # a new tensor, so it may be overwritten
        inside = min(max(0, self.cutoff - start), delta.numel())
        bits[:inside].ge_(self.bits)
        bits[inside:].gt_(self.bits)
        return bits.to(torch.float32)


def magnitude_bits(delta: Tensor) -> Tensor:
    """The bits of the magnitudes (float32) as int32; NaN sorts on top, so it is never lost."""
    return delta.abs().view(torch.int32)


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
    counted = fused.equal_counts(series.tensor, series.minus, value, device=series.device)
    for counts in counted:
        here = int(counts.sum())
        if before + here >= wanted:
            running = counts.cumsum(0)
            at = int(torch.searchsorted(running, wanted - before))
            return begin + at * BLOCK, before + int(running[at]) - int(counts[at])
        begin, before = begin + counts.numel() * BLOCK, before + here
    return begin, before


def float_of(bits: int) -> float:
    """The float32 number with these bits."""
    return float(np.array([bits], np.int32).view(np.float32)[0])


def norm_ratio(series: Series, thinning: Thinning, *, chunk: int) -> float:
    """What a thinned delta is multiplied with to get back its L1 norm.

    1 where either norm is below 1e-7, as in mergekit.
    """
    found = known_magnitudes(series, chunk=chunk)
    before, after, begin, total = BlockSum(), BlockSum(), 0, series.tensor.numel()
    if isinstance(thinning, Dropped) and series.minus is not None and total < 1 << 32:
        ints = masks.numbers(thinning.key, density=thinning.density)
        for rows in fused.kept_norm(series.tensor, series.minus, ints, device=series.device):
            after.add_rows(rows)
            begin += rows.shape[0] * BLOCK
    for start, stop in spans(total, chunk):
        if found is None or stop > begin:
            part = series.part(start, stop)
            size = part.abs()
            if found is None:
                before.add(size)
            if stop > begin:  # the end that is no whole block, or all of it
                rest = max(0, begin - start)
                after.add(size[rest:] * thinning.keep(part[rest:], start + rest))
    whole, kept = before.total() if found is None else found.norm, after.total()
    return 1.0 if whole < 1e-7 or kept < 1e-7 else whole / kept


def inner_products(first: Series, second: Series, *, chunk: int) -> tuple[float, float, float]:
    """The Gram matrix of two tensors: <a, a>, <a, b>, <b, b>."""
    (aa, ab), (_, bb) = gram([first, second], chunk=chunk)
    return aa, ab, bb


def gram(series: Sequence[Series], *, chunk: int) -> list[list[float]]:
    """The inner products of tensors with each other: ``(k, k)``, symmetric, in float64.

    Those of tensors that are ``known`` are computed once.

    Args:
        series: k tensors of one length.
        chunk: Elements at a time.
    """
    scope, count = known.active(), len(series)
    names = [None if scope is None else scope.name(one.tensor, one.minus) for one in series]

    def product(i: int, j: int) -> float:
        if scope is None or names[i] is None or names[j] is None:
            return _product(series[i], series[j], chunk)
        pair = " * ".join(sorted((str(names[i]), str(names[j]))))
        return scope.statistics.number(
            "products", pair, lambda: _product(series[i], series[j], chunk)
        )

    upper = {(i, j): product(i, j) for i in range(count) for j in range(i, count)}
    return [[upper[min(i, j), max(i, j)] for j in range(count)] for i in range(count)]


def _product(first: Series, second: Series, chunk: int) -> float:
    total = BlockSum()
    for start, stop in spans(first.tensor.numel(), chunk):
        left = first.part(start, stop).double()
        right = left if second is first else second.part(start, stop).double()
        total.add(left * right)
    return total.total()


class BlockSum:
    """A float64 sum whose rounding depends on nothing but the numbers and their indices."""

    def __init__(self) -> None:
        self._blocks: list[Tensor] = []

    def add(self, values: Tensor) -> None:
        """Take the next elements; all calls but the last bring whole blocks."""
        wide = values.double()
        if rest := -wide.numel() % BLOCK:
            wide = torch.nn.functional.pad(wide, (0, rest))
        self.add_rows(wide.view(-1, BLOCK))

    def add_rows(self, rows: Tensor) -> None:
        """Take the next blocks, ``(blocks, 2**k)`` float64, halved as often as one likes."""
        while rows.shape[1] > 1:  # elementwise additions: no device or thread has a say in them
            half = rows.shape[1] // 2
            rows = rows[:, :half] + rows[:, half:]
        self._blocks.append(rows.flatten())

    def total(self) -> float:
        """The sum; NaN or infinity where an element is."""
        blocks: list[float] = torch.cat(self._blocks).tolist() if self._blocks else []
        if all(map(math.isfinite, blocks)):
            return math.fsum(blocks)
        return sum(blocks)
