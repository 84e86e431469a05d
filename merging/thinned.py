"""Task vectors in one pass: thinned deltas, scaled, summed or put to the vote, onto the base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from merging import fused
from merging.thinnings import Band, Dropped, Nothing, Ranked, Thinning, Trimmed

_EVERYTHING, _NOTHING = -1.0, float("inf")  # limits that every magnitude, and none, is larger than
_NO_MASK = (1, 0, (1 << 31) - 1)
_NO_RANKS = (1, 0, 1 << 24, 0, 1)


FAMILIES: Mapping[str, str] = {
    "ties": "trimmed",
    "dare_linear": "dropped",
    "dare_ties": "dropped",
    "della": "ranked",
    "della_linear": "ranked",
    "breadcrumbs": "banded",
    "breadcrumbs_ties": "banded",
}
"""Which passes thin the deltas of a method."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixture:
    """What happens to the deltas after thinning.

    Attributes:
        scales: What each is multiplied with.
        divisors: Weights whose sum over the deltas that agree divides the consensus, where it is
            not 0; zeros divide by nothing. Without consensus they do nothing.
        strength: What the sum is multiplied with.
        family: How deltas are thinned, a value of ``FAMILIES``.
        consensus: Sum only what has the sign of the whole sum.
    """

    scales: Sequence[float]
    divisors: Sequence[float]
    strength: float
    family: str
    consensus: bool

    @property
    def name(self) -> str:
        """Of the pass in ``merging.passes.MERGES``."""
        return f"{self.family}_{'vote' if self.consensus else 'sum'}"


def merge_thinned(
    inputs: Sequence[Tensor],
    base: Tensor,
    thinnings: Sequence[Thinning | None],
    mixture: Mixture,
    out: Tensor,
    *,
    chunk: int | None = None,
) -> None:
    """Overwrite ``out`` with the base plus the mixture of thinned deltas.

    Args:
        inputs: ``(n,)`` each.
        base: ``(n,)``.
        thinnings: One per input, of kinds that the family knows.
        mixture: How they are put together.
        out: ``(n,)``.
        chunk: Elements at a time; ``None`` suits the way it runs. Changes nothing but speed.
    """
    numbers_of = {"trimmed": _limits, "banded": _limits, "dropped": _mask, "ranked": _rank_mask}
    ints_of = numbers_of[mixture.family]
    limits = [_bounds(one) for one in thinnings]
    fused.merge(
        mixture.name,
        inputs,
        base,
        out,
        floats=[[mixture.strength], mixture.scales, mixture.divisors, *zip(*limits, strict=True)],
        ints=lambda start: list(zip(*(ints_of(one, start) for one in thinnings), strict=True)),
        ranks=_ranks(thinnings, out) if mixture.family == "ranked" else (),
        chunk=chunk,
    )


def _bounds(thinning: Thinning | None) -> tuple[float, float, float, float]:
    """What magnitudes must be larger than, before and after a cutoff, and must not likewise."""
    if isinstance(thinning, Nothing):
        return _NOTHING, _NOTHING, _NOTHING, _NOTHING
    outer, inner = _ends(thinning)
    lower = (_EVERYTHING, _EVERYTHING) if outer is None else outer.limits()
    return *lower, *((_NOTHING, _NOTHING) if inner is None else inner.limits())


def _limits(thinning: Thinning | None, start: int) -> tuple[int, ...]:
    return tuple(0 if end is None else end.cutoff_from(start) for end in _ends(thinning))


def _ends(thinning: Thinning | None) -> tuple[Trimmed | None, Trimmed | None]:
    """What keeps the largest, and what takes the very largest away."""
    if isinstance(thinning, Band):
        return thinning.outer, thinning.inner
    return thinning if isinstance(thinning, Trimmed) else None, None


def _mask(thinning: Thinning | None, start: int) -> tuple[int, ...]:
    return thinning.numbers(start) if isinstance(thinning, Dropped) else _NO_MASK


def _rank_mask(thinning: Thinning | None, start: int) -> tuple[int, ...]:
    return thinning.numbers(start) if isinstance(thinning, Ranked) else _NO_RANKS


def _ranks(thinnings: Sequence[Thinning | None], out: Tensor) -> list[Tensor]:
    """Those of each input; zeros for inputs that are not thinned."""
    found = [one.ranks if isinstance(one, Ranked) else None for one in thinnings]
    dtypes = [one.dtype for one in found if one is not None]
    none = torch.zeros(1, dtype=dtypes[0] if dtypes else torch.int16).expand(out.numel())
    return [none if one is None else one for one in found]
