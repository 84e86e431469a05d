"""Which entries of a delta are kept: what the task-vector methods decide before the elements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from merging.kernels import random_masks
from merging.kernels.blocked_sums import float_of, magnitude_bits
from merging.kernels.random_masks import MaskKey
from merging.kernels.torch_kernels.mask_kernels import kept_by_rank

_LAST = (1 << 31) - 1
NUMBERS = 1 << 24
"""How many uniform numbers there are behind a mask."""


class Thinning(Protocol):
    """Which entries of a delta are kept."""

    def keep(self, delta: Tensor, start: int) -> Tensor:
        """1 or 0 (float32) per entry of ``delta`` ``(m,)``, which begins at index ``start``."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Trimmed:
    """Thinning by magnitude.

    Attributes:
        bits: The threshold on the magnitude: its float32 bits, which sort like the value.
        cutoff: Entries equal to the threshold are kept where their index is below this.
    """

    bits: int
    cutoff: int

    def limits(self) -> tuple[float, float]:
        """What kept magnitudes are larger than, before the cutoff and from there on."""
        if self.bits == 0:
            return -1.0, -1.0
        return float_of(self.bits - 1), float_of(self.bits)

    def cutoff_from(self, start: int) -> int:
        """The cutoff counted from an index, as an int32 number."""
        return min(max(0, self.cutoff - start), _LAST)

    def keep(self, delta: Tensor, start: int) -> Tensor:
        bits = magnitude_bits(delta)  # a new tensor, so it may be overwritten
        inside = min(max(0, self.cutoff - start), delta.numel())
        bits[:inside].ge_(self.bits)
        bits[inside:].gt_(self.bits)
        return bits.to(torch.float32)


@dataclass(frozen=True, kw_only=True, slots=True)
class Band:
    """Thinning by magnitude, from both ends: what ``outer`` keeps and ``inner`` does not.

    Attributes:
        outer: Keeps all but the smallest; ``None`` keeps everything.
        inner: Keeps the largest, which are dropped; ``None`` keeps nothing.
    """

    outer: Trimmed | None
    inner: Trimmed | None

    def keep(self, delta: Tensor, start: int) -> Tensor:
        kept = torch.ones_like(delta) if self.outer is None else self.outer.keep(delta, start)
        # A zero may be kept by inner only, and must not come out as -1 (it would not matter).
        return kept if self.inner is None else kept.sub_(self.inner.keep(delta, start)).clamp_(0.0)


class Nothing:
    """Thinning that keeps no entry."""

    def keep(self, delta: Tensor, start: int) -> Tensor:  # noqa: ARG002 - the protocol's
        return torch.zeros_like(delta)


@dataclass(frozen=True, kw_only=True, slots=True)
class Dropped:
    """Random thinning by a counter-based mask."""

    key: MaskKey
    density: float

    def numbers(self, start: int) -> tuple[int, int, int]:
        """The mask as int32 numbers for ``mask_kernels.kept``, as of an index."""
        return random_masks.numbers(self.key, density=self.density, start=start)

    def keep(self, delta: Tensor, start: int) -> Tensor:
        stop = start + delta.numel()
        return random_masks.keep(
            self.key, density=self.density, start=start, stop=stop, device=delta.device
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Ranked:
    """The random thinning of DELLA, which keeps large entries of a row more often.

    An entry of rank k (0 for the smallest magnitude) of a row of n is kept with probability
    density - epsilon + 2 epsilon k / (n - 1); the only entry of a row, with the density.

    Attributes:
        key: Which random numbers.
        ranks: ``(n,)`` of all entries within their rows, int16 or int32.
        length: Entries of a row.
        density: Mean probability.
        epsilon: Half the range of probabilities.
    """

    key: MaskKey
    ranks: Tensor
    length: int
    density: float
    epsilon: float

    def numbers(self, start: int) -> tuple[int, int]:
        """Step and offset of the random numbers, as of an index."""
        return random_masks.counter(self.key, start)

    @property
    def bounds(self) -> tuple[float, float]:
        """What ``mask_kernels.kept_by_rank`` compares with: the least, and its growth with rank."""
        if self.length == 1:
            return float(round(self.density * NUMBERS)), 0.0
        least = round((self.density - self.epsilon) * NUMBERS)
        return float(least), 2 * self.epsilon * NUMBERS / (self.length - 1)

    def keep(self, delta: Tensor, start: int) -> Tensor:
        device, stop = delta.device, start + delta.numel()
        at = torch.arange(delta.numel(), dtype=torch.int32, device=device)
        counter = torch.tensor(self.numbers(start), dtype=torch.int32, device=device)
        bounds = torch.tensor(self.bounds, dtype=torch.float32, device=device)
        return kept_by_rank(at, self.ranks[start:stop].to(device), counter, bounds)
