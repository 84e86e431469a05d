"""Sums over whole tensors: norms of what is kept, and inner products.

Every result is the same for any chunk size, thread count and device: sums are float64 additions in
one fixed order (halving over blocks of ``BLOCK`` elements, then an exactly rounded sum of the
blocks).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from merging import fused, known
from merging.fused import spans
from merging.looks import BLOCK
from merging.series import BlockSum, Series
from merging.thinnings import Dropped, Ranked, Thinning
from merging.thresholds import known_magnitudes


def norm_ratio(series: Series, thinning: Thinning, *, chunk: int) -> float:
    """What a thinned delta is multiplied with to get back its L1 norm.

    1 where either norm is below 1e-7, as in mergekit.
    """
    found = known_magnitudes(series, chunk=chunk)
    before, after, begin = BlockSum(), BlockSum(), 0
    for rows in _kept_rows(series, thinning):
        after.add_rows(rows)
        begin += rows.shape[0] * BLOCK
    for start, stop in spans(series.tensor.numel(), chunk):
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


def _kept_rows(series: Series, thinning: Thinning) -> Iterator[Tensor]:
    """Partial sums of what a random mask keeps, for whole blocks; nothing for other thinnings."""
    if series.minus is None or not isinstance(thinning, Dropped | Ranked):
        return
    name, tensors, floats = "kept_norm", [series.tensor, series.minus], list[float]()
    if isinstance(thinning, Ranked):
        name, tensors, floats = "ranked_norm", [*tensors, thinning.ranks], [*thinning.bounds]
    for (rows,) in fused.look(
        name, tensors, floats=floats, ints=thinning.numbers, device=series.device
    ):
        yield rows


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
