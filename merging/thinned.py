"""Task vectors in one pass: thinned deltas, scaled, summed or put to the vote, onto the base."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from merging import fused, masks
from merging.sparsify import Band, Nothing
from merging.statistics import Dropped, Thinning, Trimmed, float_of

_PERIOD = 1 << 32  # indices after which a mask has other numbers
_EVERYTHING, _NOTHING = -1.0, float("inf")  # limits that every magnitude, and none, is larger than
_NO_MASK = (1, 0, (1 << 31) - 1)


FAMILIES: Mapping[str, str] = {
    "ties": "trimmed",
    "dare_linear": "dropped",
    "dare_ties": "dropped",
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
    numbers = [mixture.strength, *mixture.scales, *mixture.divisors]
    for start, stop in _pieces(thinnings, out.numel()):
        limits: list[float] = []
        ints: list[int] = []
        if mixture.family == "dropped":
            ints = [number for one in thinnings for number in _mask(one, start)]
        else:
            limits = [_lower(one, start) for one in thinnings]
        if mixture.family == "banded":
            limits += [_upper(one, start) for one in thinnings]
        fused.merge(
            mixture.name,
            inputs,
            base,
            out,
            floats=[*numbers, *limits],
            ints=ints,
            chunk=chunk,
            start=start,
            stop=stop,
        )


def _pieces(thinnings: Sequence[Thinning | None], count: int) -> Iterator[tuple[int, int]]:
    """Ranges of indices over which every limit and mask stays the same."""
    cuts = {count, *range(_PERIOD, count, _PERIOD)}
    for thinning in thinnings:
        ends = (thinning.outer, thinning.inner) if isinstance(thinning, Band) else (thinning,)
        cuts.update(end.cutoff for end in ends if isinstance(end, Trimmed))
    start = 0
    for stop in sorted(cuts):
        if start < stop <= count:
            yield start, stop
            start = stop


def _lower(thinning: Thinning | None, start: int) -> float:
    """What magnitudes must be larger than from this index on."""
    if isinstance(thinning, Nothing):
        return _NOTHING
    end = thinning.outer if isinstance(thinning, Band) else thinning
    return _limit(end, start) if isinstance(end, Trimmed) else _EVERYTHING


def _upper(thinning: Thinning | None, start: int) -> float:
    """What magnitudes must not be larger than from this index on."""
    inner = thinning.inner if isinstance(thinning, Band) else None
    return _NOTHING if inner is None else _limit(inner, start)


def _limit(thinning: Trimmed, start: int) -> float:
    """What to be larger than: before the cutoff the threshold itself is kept, after it not."""
    if thinning.bits == 0:
        return _EVERYTHING
    return float_of(thinning.bits - 1 if start < thinning.cutoff else thinning.bits)


def _mask(thinning: Thinning | None, start: int) -> tuple[int, int, int]:
    """Step, offset and limit of a mask as of this index."""
    if not isinstance(thinning, Dropped):
        return _NO_MASK
    period, first = divmod(start, _PERIOD)
    numbers = masks.numbers(thinning.key, density=thinning.density, period=period)
    assert first == 0  # random masks are cut at periods only
    return numbers
