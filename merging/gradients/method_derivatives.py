"""How one merged tensor moves with its weights: the derivative of a merge method.

Symbols: ``x_j`` the inputs, ``b`` the base, ``w_j`` the weights, ``o`` the output, ``g`` the
derivative of a loss by ``o``. A method's derivative takes ``g`` to ``dL/dw_j`` (numbers) and, where
an input is itself a merge, to ``dL/dx_j`` and ``dL/db`` (tensors).

Linear: ``o = sum_j c_j x_j``; task arithmetic: ``o = b + sum_j c_j (x_j - b)``; with the
coefficients ``c`` that ``linear_coefficients`` makes of ``w``. So ``dL/dc_j`` is ``<g, x_j>`` or
``<g, x_j - b>``.

Task vectors: ``o = b + s sum_j a_j w_j u_j / d``: ``u_j`` the thinned and rescaled delta, ``a_j`` 1
where it has the elected sign (everywhere without an election), ``d`` the sum of the weights that
agree (1 unless normalised). Which entries are kept, which signs are elected and what rescaling
multiplies with are held: the output is piecewise linear in the weights, and this is the derivative
of the piece. A weight of exactly 0 counts as a small positive one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from merging.kernels.chunks import spans
from merging.methods.method_registry import CPU_CHUNK, DEVICE_CHUNK
from merging.methods.operands import Operands, series_of
from merging.methods.sparsification import THINNERS
from merging.methods.task_vectors import NO_WEIGHT, rescaling
from spaces.catalogue.method import TaskVectors
from spaces.catalogue.method_catalogue import METHODS

COMBINED = frozenset({"linear", "task_arithmetic"})
"""Linear combinations whose coefficients depend on the weights alone."""

_THINNED = {
    name: method.arithmetic
    for name, method in METHODS.items()
    if isinstance(method.arithmetic, TaskVectors)
}

DIFFERENTIABLE = COMBINED | _THINNED.keys()
"""Methods that have a derivative by their weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Slope:
    """The derivative of a loss by what one merge was made of.

    Attributes:
        weights: By each weight.
        inputs: By each input, ``(n,)`` float32; ``None`` where it was not asked for.
        base: By the base, likewise.
    """

    weights: tuple[float, ...]
    inputs: tuple[Tensor | None, ...]
    base: Tensor | None


def slope(
    method: str, operands: Operands, gradient: Tensor, *, wanted: Sequence[bool], base: bool
) -> Slope:
    """Take the derivative of a loss by a merged tensor back to its weights and inputs.

    Args:
        method: One of ``DIFFERENTIABLE``.
        operands: Inputs, base and parameters; tensors ``(n,)``.
        gradient: ``(n,)`` derivative by the merged tensor; computing happens on its device.
        wanted: Which inputs' derivatives are wanted.
        base: Whether the base's is.
    """
    if method in COMBINED:
        return _combined(method, operands, gradient, wanted=wanted, base=base)
    return _task_vectors(method, operands, gradient, wanted=wanted, base=base)


def _combined(
    method: str, operands: Operands, gradient: Tensor, *, wanted: Sequence[bool], base: bool
) -> Slope:
    weights = operands.per_input["weight"]
    normalize = operands.flag("normalize", method == "linear")
    strength = 1.0 if method == "linear" else operands.number("lambda", 1.0)
    whole = math.fsum(weights)
    divides = normalize and (method == "linear" or abs(whole) >= NO_WEIGHT)
    factor = strength / whole if divides else strength
    products = [0.0] * len(weights)
    for start, stop in spans(gradient.numel(), _size(gradient)):
        g = gradient[start:stop].double()
        for index, one in enumerate(series_of(operands, gradient)):
            products[index] += float(g @ one.part(start, stop).double())
    shared = (
        math.fsum(w * p for w, p in zip(weights, products, strict=True)) / whole if divides else 0.0
    )
    coefficients = [factor * weight for weight in weights]
    rest = 1.0 - math.fsum(coefficients)
    return Slope(
        weights=tuple(factor * (product - shared) for product in products),
        inputs=tuple(
            gradient.float() * coefficient if want else None
            for coefficient, want in zip(coefficients, wanted, strict=True)
        ),
        base=gradient.float() * rest if base else None,
    )


def _task_vectors(
    method: str, operands: Operands, gradient: Tensor, *, wanted: Sequence[bool], base: bool
) -> Slope:
    weights = operands.per_input["weight"]
    votes, normalize = _THINNED[method].votes, operands.flag("normalize", False)
    whole = math.fsum(weights)
    divides = normalize and not votes and abs(whole) >= NO_WEIGHT
    strength = operands.number("lambda", 1.0) / (whole if divides else 1.0)
    back = [torch.empty_like(gradient, dtype=torch.float32) if want else None for want in wanted]
    left = torch.empty_like(gradient, dtype=torch.float32) if base else None
    sums, mixed = [0.0] * len(weights), 0.0
    for start, stop, kept in _thinned(method, operands, gradient):
        g = gradient[start:stop].double()
        agree = _agreeing(weights, kept) if votes else [torch.ones_like(g)] * len(kept)
        divisor = torch.ones_like(g)
        if votes and normalize:
            divisor = torch.stack([a * w for a, w in zip(agree, weights, strict=True)]).sum(0)
            divisor = torch.where(divisor == 0.0, 1.0, divisor)
        pull = g * strength / divisor
        mix = torch.stack(
            [a * w * u.delta for a, w, u in zip(agree, weights, kept, strict=True)]
        ).sum(0)
        mixed += float(pull @ mix)
        for index, (a, one) in enumerate(zip(agree, kept, strict=True)):
            moved = one.delta - mix / divisor if votes and normalize else one.delta
            sums[index] += float(pull @ (a * moved))
        shares = [pull * a * w * u.factor for a, w, u in zip(agree, weights, kept, strict=True)]
        for target, share in zip(back, shares, strict=True):
            if target is not None:
                target[start:stop] = share
        if left is not None:
            left[start:stop] = g - torch.stack(shares).sum(0)
    shared = mixed / whole if divides else 0.0
    return Slope(weights=tuple(one - shared for one in sums), inputs=tuple(back), base=left)


@dataclass(frozen=True, kw_only=True, slots=True)
class _ThinnedChunk:
    """A chunk of a thinned delta, float64, and what each entry of the delta was multiplied with."""

    delta: Tensor
    factor: Tensor


def _thinned(
    method: str, operands: Operands, gradient: Tensor
) -> Iterator[tuple[int, int, list[_ThinnedChunk]]]:
    """The thinned and rescaled deltas, chunk by chunk."""
    size, deltas = _size(gradient), series_of(operands, gradient)
    thinnings = THINNERS[_THINNED[method].keeps](operands, gradient, size)
    factors = rescaling(operands, thinnings, gradient, size)
    for start, stop in spans(gradient.numel(), size):
        kept = []
        for one, thinning, scale in zip(deltas, thinnings, factors, strict=True):
            delta = one.part(start, stop)
            keep = torch.ones_like(delta) if thinning is None else thinning.keep(delta, start)
            factor = keep.double() * scale
            kept.append(_ThinnedChunk(delta=delta.double() * factor, factor=factor))
        yield start, stop, kept


def _agreeing(weights: Sequence[float], kept: Sequence[_ThinnedChunk]) -> list[Tensor]:
    """1 where an input has the elected sign: that of the weighted sum, plus where it is 0."""
    total = torch.stack([w * one.delta for w, one in zip(weights, kept, strict=True)]).sum(0)
    sign = torch.where(total >= 0.0, 1.0, -1.0)
    return [
        (math.copysign(1.0, weight) * one.delta * sign > 0.0).double()
        for weight, one in zip(weights, kept, strict=True)
    ]


def _size(gradient: Tensor) -> int:
    return CPU_CHUNK if gradient.device.type == "cpu" else DEVICE_CHUNK
