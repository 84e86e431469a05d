"""Linear combinations of tensors, with coefficients for all of it or for each line of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from merging.kernels import dispatch
from merging.kernels.blocked_sums import load
from merging.methods.operands import Kernel, Operands, as_lines, series_of
from merging.tensor_statistics.inner_products import gram
from spaces.catalogue.method import Combination


def combination(found: Combination) -> Kernel:
    """The kernel of a method that is one linear combination."""

    def merge(operands: Operands, out: Tensor, chunk: int) -> None:
        axis = found.line_axis(operands.shared)
        if axis is not None:
            _by_lines(found, operands, out, axis=axis, chunk=chunk)
            return
        products = gram(series_of(operands, out), chunk=chunk) if found.uses_gram else ()
        coefficients = found.of(products, operands.per_input, operands.shared)
        dispatch.merge(
            "weighted_sum" if operands.base is None else "whole_sum",
            operands.inputs,
            operands.base,
            out,
            floats=[coefficients] if operands.base is None else [[1.0], coefficients],
            chunk=operands.asked_chunk,
        )

    return merge


def combined(
    parts: Sequence[Tensor], coefficients: Sequence[float | Tensor], base: Tensor | None
) -> Tensor:
    """``sum_i c_i x_i``, or ``base + sum_i c_i (x_i - base)``: elementwise.

    Args:
        parts: Float32 tensors of one shape; not written to.
        coefficients: One per part: a number, or a float32 tensor that broadcasts.
        base: Float32 tensor of the same shape, or ``None``.
    """
    total: Tensor | None = None
    for part, coefficient in zip(parts, coefficients, strict=True):
        moved = part if base is None else part - base
        if isinstance(coefficient, Tensor) or coefficient != 1.0:
            moved = moved * coefficient
        total = moved if total is None else total + moved
    assert total is not None  # there is at least one input
    return total if base is None else total + base


def line_grams(lines: Sequence[Tensor]) -> Tensor:
    """The Gram matrix of every line: ``(m, k, k)`` float64, the same for any number of lines.

    Args:
        lines: k tensors ``(m, length)``, float32.
    """
    wide = [one.double() for one in lines]
    rows: list[list[Tensor]] = []
    for i, left in enumerate(wide):
        row = [rows[j][i] for j in range(i)]
        row += [line_sums(left * right) for right in wide[i:]]
        rows.append(row)
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def line_sums(values: Tensor) -> Tensor:
    """The sum of every line of ``(m, length)``: elementwise additions in one fixed order."""
    while values.shape[1] > 1:
        if values.shape[1] % 2:
            values = torch.nn.functional.pad(values, (0, 1))
        half = values.shape[1] // 2
        values = values[:, :half] + values[:, half:]
    return values[:, 0]


def _by_lines(
    found: Combination, operands: Operands, out: Tensor, *, axis: int, chunk: int
) -> None:
    """As ``combination``, with a Gram matrix and coefficients for every line along an axis.

    The axis is the first or the last, so that the lines are a view of the output.
    """
    inputs = [as_lines(x, operands.shape, axis) for x in operands.inputs]
    base = None if operands.base is None else as_lines(operands.base, operands.shape, axis)
    target = as_lines(out, operands.shape, axis)
    count, length = target.shape
    step = max(1, chunk // length)
    for start in range(0, count, step):
        stop = min(count, start + step)
        parts = [load(x, start, stop, out.device) for x in inputs]
        origin = None if base is None else load(base, start, stop, out.device)
        deltas = parts if origin is None else [part - origin for part in parts]
        columns = [
            found.of(products, operands.per_input, operands.shared)
            for products in line_grams(deltas).tolist()
        ]
        table = torch.tensor(columns, dtype=torch.float64).to(torch.float32).to(out.device)
        coefficients = [table[:, at, None] for at in range(len(parts))]
        target[start:stop].copy_(combined(parts, coefficients, origin))
