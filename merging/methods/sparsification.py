"""What the task-vector methods keep of a delta: the largest, the middle, or entries at random.

A function in ``THINNERS`` turns parameters into one ``Thinning`` per input, taking thresholds or
ranks from the deltas where a method needs them; a thinning is then elementwise. ``None`` keeps
everything, and is not rescaled either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from merging.kernels.blocked_sums import Series, magnitude_bits
from merging.kernels.keep_rules import Band, Dropped, Nothing, Ranked, Thinning, Trimmed
from merging.methods.operands import Operands, as_lines, from_lines, series_of
from merging.tensor_statistics import statistics_scope
from merging.tensor_statistics.order_statistics import trim
from spaces.catalogue.method import Keeps


def row_ranks(series: Series, shape: tuple[int, ...] | None, *, chunk: int) -> tuple[Tensor, int]:
    """The rank by magnitude of every entry of a delta within its row; of equals the first is lower.

    A row runs along the second axis; one with one axis or none is a single row. Ranks of tensors
    that are ``known`` are found once, if there is a folder to keep them in.

    Args:
        series: The deltas, at least one.
        shape: Of the tensor.
        chunk: Elements to sort at a time, at least one row.

    Returns:
        ``(n,)`` int16 or, for long rows, int32, from 0, and the length of a row.
    """
    length = as_lines(series.tensor, shape, 1).shape[1]
    scope = statistics_scope.active()
    name = None if scope is None else scope.name(series.tensor, series.minus)
    if scope is None or name is None:
        return _row_ranks(series, shape, chunk), length
    name = f"{name} in {list(shape or ())}"
    return scope.statistics.mapped("ranks", name, lambda: _row_ranks(series, shape, chunk)), length


def _row_ranks(series: Series, shape: tuple[int, ...] | None, chunk: int) -> Tensor:
    rows = as_lines(series.tensor, shape, 1)
    minus = None if series.minus is None else as_lines(series.minus, shape, 1)
    count, length = rows.shape
    dtype = torch.int16 if length <= 1 << 15 else torch.int32
    ranks = torch.empty((count, length), dtype=dtype, device=series.device)
    ascending = torch.arange(length, device=series.device).to(dtype)
    step = max(1, chunk // length)
    for start in range(0, count, step):
        part = Series(
            tensor=rows[start : start + step],
            minus=None if minus is None else minus[start : start + step],
            device=series.device,
        ).part(0, step)
        order = _ascending(magnitude_bits(part.contiguous()))
        ranks[start : start + step].scatter_(1, order, ascending.expand_as(order))
    return from_lines(ranks, shape, 1)


def _ascending(rows: Tensor) -> Tensor:
    """The indices that sort every row of ``(m, length)`` int32, at least 0; of equals the first.

    Sorting numbers that hold value and index is twice as fast on a CPU as sorting indices.
    """
    if rows.device.type != "cpu":
        return rows.sort(dim=1, stable=True).indices
    keys = rows.numpy().astype(np.int64) << 32
    keys |= np.arange(keys.shape[1], dtype=np.int64)
    keys.sort(axis=1)
    return torch.from_numpy(keys).bitwise_and_((1 << 32) - 1)


def largest(series: Series, density: float, *, chunk: int) -> Trimmed:
    """The thinning of TIES: the ``max(1, floor(density n))`` largest magnitudes."""
    return trim(series, max(1, int(density * series.tensor.numel())), chunk=chunk)


def middle(series: Series, *, density: float, gamma: float, chunk: int) -> Thinning:
    """The thinning of Model Breadcrumbs.

    Of n entries it drops the ``floor(gamma n)`` largest, or fewer where ``floor(density n)`` would
    not be left, and keeps the ``floor(density n)`` next ones.
    """
    count = series.tensor.numel()
    kept = int(density * count)
    if kept == 0:
        return Nothing()
    smallest = max(0, count - kept - int(gamma * count))
    dropped = count - smallest - kept
    return Band(
        outer=trim(series, count - smallest, chunk=chunk) if smallest else None,
        inner=trim(series, dropped, chunk=chunk) if dropped else None,
    )


Thinner = Callable[[Operands, Tensor, int], list[Thinning | None]]
"""One thinning per input, for flat operands, an output on the device to use, and a chunk size."""


def _magnitude(operands: Operands, out: Tensor, chunk: int) -> list[Thinning | None]:
    return [
        largest(series, density, chunk=chunk) if density < 1 else None
        for series, density in zip(
            series_of(operands, out), operands.each("density", 1.0), strict=True
        )
    ]


def _outliers(operands: Operands, out: Tensor, chunk: int) -> list[Thinning | None]:
    return [
        middle(series, density=density, gamma=gamma, chunk=chunk) if density < 1 else None
        for series, density, gamma in zip(
            series_of(operands, out),
            operands.each("density", 1.0),
            operands.each("gamma", 0.01),
            strict=True,
        )
    ]


def _random(operands: Operands, out: Tensor, chunk: int) -> list[Thinning | None]:  # noqa: ARG001
    return [
        None if density >= 1 else Dropped(key=key, density=density)
        for key, density in zip(operands.masks, operands.each("density", 1.0), strict=True)
    ]


def _ranked(operands: Operands, out: Tensor, chunk: int) -> list[Thinning | None]:
    found: list[Thinning | None] = []
    for series, key, density, epsilon in zip(
        series_of(operands, out),
        operands.masks,
        operands.each("density", 1.0),
        operands.each("epsilon", 0.15),
        strict=True,
    ):
        if density >= 1:
            found.append(None)
            continue
        ranks, length = row_ranks(series, operands.shape, chunk=chunk)
        found.append(Ranked(key=key, ranks=ranks, length=length, density=density, epsilon=epsilon))
    return found


THINNERS: Mapping[Keeps, Thinner] = {
    Keeps.LARGEST: _magnitude,
    Keeps.MIDDLE: _outliers,
    Keeps.RANDOM: _random,
    Keeps.RANKED: _ranked,
}
"""How entries are chosen."""
