"""Task vectors in one pass: thinned deltas, scaled, summed or put to the vote, onto the base."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from merging.kernels import dispatch
from merging.kernels.keep_rules import NUMBERS, Band, Dropped, Nothing, Ranked, Thinning, Trimmed
from spaces.catalogue.method import Keeps

_EVERYTHING, _NOTHING = -1.0, 3e38  # limits that all, and no, finite magnitudes are larger than
_NO_MASK = (1, 0, (1 << 31) - 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixture:
    """What happens to the deltas after thinning.

    Attributes:
        scales: What each is multiplied with.
        divisors: Weights whose sum over the deltas that agree divides the consensus, where it is
            not 0; zeros divide by nothing. Without consensus they do nothing.
        strength: What the sum is multiplied with.
        family: How deltas are thinned, which names the passes.
        consensus: Sum only what has the sign of the whole sum.
    """

    scales: Sequence[float]
    divisors: Sequence[float]
    strength: float
    family: Keeps
    consensus: bool

    @property
    def name(self) -> str:
        """Of the pass in ``merging.kernels.torch_kernels.merge_kernels.MERGES``."""
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
    ints_of = _INTS[mixture.family]
    floats_of = _rank_bounds if mixture.family is Keeps.RANKED else _bounds
    limits = [floats_of(one) for one in thinnings]
    dispatch.merge(
        mixture.name,
        inputs,
        base,
        out,
        floats=[[mixture.strength], mixture.scales, mixture.divisors, *zip(*limits, strict=True)],
        ints=lambda start: list(zip(*(ints_of(one, start) for one in thinnings), strict=True)),
        ranks=_ranks(thinnings, out) if mixture.family is Keeps.RANKED else (),
        chunk=chunk,
    )


def _bounds(thinning: Thinning | None) -> tuple[float, ...]:
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


def _rank_bounds(thinning: Thinning | None) -> tuple[float, ...]:
    """What random numbers must be below; all are below ``NUMBERS``."""
    return thinning.bounds if isinstance(thinning, Ranked) else (float(NUMBERS), 0.0)


def _rank_mask(thinning: Thinning | None, start: int) -> tuple[int, ...]:
    return thinning.numbers(start) if isinstance(thinning, Ranked) else _NO_MASK[:2]


_INTS: Mapping[Keeps, Callable[[Thinning | None, int], tuple[int, ...]]] = {
    Keeps.LARGEST: _limits,
    Keeps.MIDDLE: _limits,
    Keeps.RANDOM: _mask,
    Keeps.RANKED: _rank_mask,
}
"""The whole numbers of an input as of an index, by family."""


def _ranks(thinnings: Sequence[Thinning | None], out: Tensor) -> list[Tensor]:
    """Those of each input; zeros for inputs that are not thinned."""
    none = torch.zeros(1, dtype=torch.int16).expand(out.numel())
    return [one.ranks if isinstance(one, Ranked) else none for one in thinnings]
