"""What has to be known of a whole tensor before its elements can be merged.

Order statistics and sums over a tensor, taken chunk by chunk. Every result is the same for any
chunk size, thread count and device: counts are integers, and sums are float64 additions in one
fixed order (halving over blocks of ``BLOCK`` elements, then an exactly rounded sum of the blocks).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from merging import masks
from merging.masks import MaskKey

BLOCK = 4096
"""Chunk sizes are rounded up to a multiple of this many elements."""

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


def spans(count: int, chunk: int) -> Iterator[tuple[int, int]]:
    """Half-open ranges that cover ``count`` elements; all but the last have whole blocks."""
    step = max(1, -(-chunk // BLOCK)) * BLOCK
    for start in range(0, count, step):
        yield start, min(count, start + step)


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

    Of entries with equal magnitude the ones that come first are kept. The threshold is found by
    counting: a histogram of the high bits, then one of the low bits within the bin that holds it.
    Zeros at the threshold are all kept, which changes nothing: a delta of 0 adds 0.

    Args:
        series: The deltas.
        count: Number kept, 1 to the number of elements.
        chunk: Elements at a time.
    """
    device, total = series.device, series.tensor.numel()
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
    bits_at = (top << _LOW_BITS) | bottom
    wanted, equal = count - above - before, int(low[bottom])
    cutoff = total if bits_at == 0 or wanted == equal else _position(series, bits_at, wanted, chunk)
    return Trimmed(bits=bits_at, cutoff=cutoff)


def _bin_of(histogram: Tensor, count: int) -> tuple[int, int]:
    """The bin that holds the ``count``-th largest entry, and how many lie in bins above it."""
    from_top = histogram.flip(0).cumsum(0)
    place = int(torch.searchsorted(from_top, count))
    index = histogram.numel() - 1 - place
    return index, int(from_top[place]) - int(histogram[index])


def _position(series: Series, bits: int, wanted: int, chunk: int) -> int:
    """The index after the ``wanted``-th entry of exactly this magnitude."""
    for start, part in series.parts(chunk):
        found = torch.nonzero(magnitude_bits(part) == bits).flatten()
        if found.numel() >= wanted:
            return start + int(found[wanted - 1]) + 1
        wanted -= found.numel()
    raise AssertionError("fewer entries at the threshold than were counted")  # pragma: no cover


def norm_ratio(series: Series, thinning: Thinning, *, chunk: int) -> float:
    """What a thinned delta is multiplied with to get back its L1 norm.

    1 where either norm is below 1e-7, as in mergekit.
    """
    before, after = _BlockSum(), _BlockSum()
    for start, part in series.parts(chunk):
        size = part.abs()
        before.add(size)
        after.add(size * thinning.keep(part, start))
    whole, kept = before.total(), after.total()
    return 1.0 if whole < 1e-7 or kept < 1e-7 else whole / kept


def inner_products(first: Series, second: Series, *, chunk: int) -> tuple[float, float, float]:
    """The Gram matrix of two tensors: <a, a>, <a, b>, <b, b>."""
    sums = (_BlockSum(), _BlockSum(), _BlockSum())
    for (_, a), (_, b) in zip(first.parts(chunk), second.parts(chunk), strict=True):
        left, right = a.double(), b.double()
        for block_sum, product in zip(
            sums, (left * left, left * right, right * right), strict=True
        ):
            block_sum.add(product)
    return sums[0].total(), sums[1].total(), sums[2].total()


class _BlockSum:
    """A float64 sum whose rounding depends on nothing but the numbers and their indices."""

    def __init__(self) -> None:
        self._blocks: list[Tensor] = []

    def add(self, values: Tensor) -> None:
        """Take the next elements; all calls but the last bring whole blocks."""
        wide = values.double()
        if rest := -wide.numel() % BLOCK:
            wide = torch.nn.functional.pad(wide, (0, rest))
        rows = wide.view(-1, BLOCK)
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
