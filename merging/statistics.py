"""Sums over whole tensors: norms of what is kept, and inner products.

Every result is the same for any chunk size, thread count and device: sums are of whole numbers, or
float64 additions in one fixed order (halving over blocks of ``BLOCK`` elements, then an exactly
rounded sum of the blocks).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from merging import fused, known
from merging.fused import spans
from merging.series import BlockSum, Series
from merging.thinnings import Dropped, Ranked, Thinning
from merging.thresholds import known_magnitudes

_NO_NORM = 1e-7


def norm_ratio(series: Series, thinning: Thinning, *, chunk: int) -> float:
    """What a thinned delta is multiplied with to get back its L1 norm.

    1 where either norm is below 1e-7, as in mergekit.
    """
    found = known_magnitudes(series)
    if found is None:
        whole, largest = _norm_and_largest(series, chunk)
    else:
        whole, largest = found.norm, found.largest
    if not math.isfinite(whole):
        return math.nan
    if whole < _NO_NORM:
        return 1.0
    kept = _kept_norm(series, thinning, largest, chunk)
    return 1.0 if kept < _NO_NORM else whole / kept


def _norm_and_largest(series: Series, chunk: int) -> tuple[float, float]:
    whole, largest = BlockSum(), 0.0
    for _, part in series.parts(chunk):
        size = part.abs()
        whole.add(size)
        largest = max(largest, float(size.max()))
    return whole.total(), largest


def _kept_norm(series: Series, thinning: Thinning, largest: float, chunk: int) -> float:
    """The L1 norm of what is kept: exact but for rounding to 2**-24 of the largest entry."""
    if series.minus is None or not isinstance(thinning, Dropped | Ranked):
        kept = BlockSum()
        for start, part in series.parts(chunk):
            kept.add(part.abs() * thinning.keep(part, start))
        return kept.total()
    power = 11 - math.frexp(largest)[1]
    name, tensors, floats = "kept_norm", [series.tensor, series.minus], [2.0**power]
    if isinstance(thinning, Ranked):
        name, tensors = "ranked_norm", [*tensors, thinning.ranks]
        floats += thinning.bounds
    whole = rest = 0.0
    for parts in fused.look(
        name, tensors, floats=floats, ints=thinning.numbers, device=series.device
    ):
        more, rests = (float(one.double().sum()) for one in parts)  # whole: in any order
        whole, rest = whole + more, rest + rests
    return math.ldexp(whole + rest / 4096, -power)


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
