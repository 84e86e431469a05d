"""Sums over whole tensors: norms of what is kept, and inner products.

Every result is the same for any chunk size, thread count and device: sums are of whole numbers, or
float64 additions in one fixed order (halving over blocks of ``BLOCK`` elements, then an exactly
rounded sum of the blocks).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from torch import Tensor

from merging.kernels import batched_dispatch, dispatch
from merging.kernels.blocked_sums import BlockSum, Series
from merging.kernels.chunks import spans
from merging.kernels.keep_rules import Dropped, Ranked, Thinning
from merging.tensor_statistics import series_sums as sums
from merging.tensor_statistics import statistics_scope
from merging.tensor_statistics.order_statistics import known_magnitudes

_NO_NORM = 1e-7


def norm_ratios(
    series: Sequence[Series], thinnings: Sequence[Thinning | None], *, chunk: int
) -> list[float]:
    """What each thinned delta is multiplied with to get back its L1 norm.

    1 where either norm is below 1e-7, as in mergekit, and where nothing is thinned.
    """
    ratios, asked = [1.0] * len(series), list[tuple[int, _ThinnedSeries]]()
    for index, (one, thinning) in enumerate(zip(series, thinnings, strict=True)):
        if thinning is None:
            continue
        whole, largest = _norm_and_largest(one, chunk)
        if not math.isfinite(whole):
            ratios[index] = math.nan
        elif whole >= _NO_NORM:
            ratios[index] = whole
            asked.append((index, _ThinnedSeries(series=one, thinning=thinning, largest=largest)))
    norms = _kept_norms([kept for _, kept in asked], chunk)
    for (index, _), norm in zip(asked, norms, strict=True):
        ratios[index] = 1.0 if norm < _NO_NORM else ratios[index] / norm
    return ratios


def _norm_and_largest(series: Series, chunk: int) -> tuple[float, float]:
    found = known_magnitudes(series)
    if found is not None:
        return found.norm, found.largest
    natively = sums.norm_and_largest(series)
    if natively is not None:
        return natively
    whole, largest = BlockSum(), 0.0
    for _, part in series.parts(chunk):
        size = part.abs()
        whole.add(size)
        largest = max(largest, float(size.max()))
    return whole.total(), largest


@dataclass(frozen=True, kw_only=True, slots=True)
class _ThinnedSeries:
    """What is kept of a delta.

    Attributes:
        series: The delta.
        thinning: What is kept of it.
        largest: Its largest magnitude.
    """

    series: Series
    thinning: Thinning
    largest: float

    @property
    def look(self) -> str | None:
        """The pass that finds its norm; ``None`` where there is none.

        What a pass finds is exact but for rounding to 2**-24 of the largest entry.
        """
        if self.series.minus is None:
            return None
        return _LOOKS.get(type(self.thinning))

    @property
    def tensors(self) -> list[Tensor]:
        """What the pass reads."""
        assert self.series.minus is not None
        ranks = [self.thinning.ranks] if isinstance(self.thinning, Ranked) else []
        return [self.series.tensor, self.series.minus, *ranks]

    @property
    def floats(self) -> list[float]:
        """The numbers of the pass: a factor that makes magnitudes at most 2**11 comes first."""
        bounds = self.thinning.bounds if isinstance(self.thinning, Ranked) else ()
        return [2.0**self._power, *bounds]

    def numbers(self, start: int) -> Sequence[int]:
        """Its whole numbers as of an index."""
        assert isinstance(self.thinning, Dropped | Ranked)
        return self.thinning.numbers(start)

    def norm(self, whole: float, rest: float) -> float:
        """From the sums that the pass found."""
        return math.ldexp(whole + rest / 4096, -self._power)

    @property
    def _power(self) -> int:
        return 11 - math.frexp(self.largest)[1]


_LOOKS: Mapping[type, str] = {Dropped: "kept_norm", Ranked: "ranked_norm"}


def _kept_norms(kept: Sequence[_ThinnedSeries], chunk: int) -> list[float]:
    """L1 norms of what is kept, in order; of few entries together, which changes nothing."""
    names = {one.look for one in kept}
    if len(kept) < 2 or len(names) > 1 or None in names:
        return [_kept_norm(one, chunk) for one in kept]
    name, device, sets = str(kept[0].look), kept[0].series.device, [one.tensors for one in kept]
    if not batched_dispatch.suits(sets, device):
        return [_kept_norm(one, chunk) for one in kept]
    parts = batched_dispatch.look(
        name,
        sets,
        device=device,
        floats=[one.floats for one in kept],
        ints=[one.numbers(0) for one in kept],
    )
    sums = zip(*(one.double().sum(dim=1).tolist() for one in parts), strict=True)
    return [one.norm(*found) for one, found in zip(kept, sums, strict=True)]


def _kept_norm(kept: _ThinnedSeries, chunk: int) -> float:
    if kept.look is None:
        total = BlockSum()
        for start, part in kept.series.parts(chunk):
            total.add(part.abs() * kept.thinning.keep(part, start))
        return total.total()
    whole, rest = dispatch.total(
        kept.look,
        kept.tensors,
        floats=kept.floats,
        ints=kept.numbers,
        device=kept.series.device,
    )
    return kept.norm(whole, rest)


def gram(series: Sequence[Series], *, chunk: int) -> list[list[float]]:
    """The inner products of tensors with each other: ``(k, k)``, symmetric, in float64.

    Those of tensors that are ``known`` are computed once.

    Args:
        series: k tensors of one length.
        chunk: Elements at a time.
    """
    scope, count = statistics_scope.active(), len(series)
    names = [None if scope is None else scope.name(one.tensor, one.minus) for one in series]

    @cache
    def together() -> dict[tuple[int, int], float] | None:
        return sums.products(series)

    def computed(i: int, j: int) -> float:
        found = together()
        return _product(series[i], series[j], chunk) if found is None else found[i, j]

    def product(i: int, j: int) -> float:
        if scope is None or names[i] is None or names[j] is None:
            return computed(i, j)
        pair = " * ".join(sorted((str(names[i]), str(names[j]))))
        return scope.statistics.number("products", pair, lambda: computed(i, j))

    upper = {(i, j): product(i, j) for i in range(count) for j in range(i, count)}
    return [[upper[min(i, j), max(i, j)] for j in range(count)] for i in range(count)]


def _product(first: Series, second: Series, chunk: int) -> float:
    total = BlockSum()
    for start, stop in spans(first.tensor.numel(), chunk):
        left = first.part(start, stop).double()
        right = left if second is first else second.part(start, stop).double()
        total.add(left * right)
    return total.total()
