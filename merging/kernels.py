"""The arithmetic of the merge methods, on one tensor at a time.

Inputs of any float dtype are read as float32, merged chunk by chunk, and cast once on the way
out. Only single multiplications, additions and divisions of float32 numbers are used (no fused
multiply-add, no library sums), so that a result has the same bits for any chunk size and thread
count, and on any device that rounds as IEEE 754 says. Formulas: docs/methods.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from merging.masks import MaskKey
from merging.statistics import (
    Dropped,
    Series,
    Thinning,
    inner_products,
    load,
    norm_ratio,
    spans,
    trim,
)

CPU_CHUNK = 1 << 17
"""Elements at a time on a CPU: the working set stays in the cache."""
DEVICE_CHUNK = 1 << 24
"""Elements at a time elsewhere: large enough to fill the device."""

_PARALLEL = 0.9995  # |cosine| above which slerp is a straight line
_NO_WEIGHT = 1e-8  # a sum of weights below this does not divide


@dataclass(frozen=True, kw_only=True, slots=True)
class Operands:
    """What a method merges for one tensor.

    Attributes:
        inputs: Tensors of one shape, any float dtype and device, in merge order. For slerp the
            first is where the arc starts.
        base: What deltas are taken from; ``None`` for methods without a base.
        per_input: Values of ``weight``, ``density``, ``scale``: one per input.
        shared: Values of ``t``, ``lambda``, ``normalize``, ``rescale``.
        masks: Keys of the random masks, one per input, for the methods that use them.
    """

    inputs: Sequence[Tensor]
    base: Tensor | None = None
    per_input: Mapping[str, Sequence[float]] = field(default_factory=dict)
    shared: Mapping[str, float | bool] = field(default_factory=dict)
    masks: Sequence[MaskKey] = ()


Kernel = Callable[[Operands, Tensor, int], None]
"""Merges flat operands into a flat output, so many elements at a time."""


def combine(
    method: str, operands: Operands, *, out: Tensor | None = None, chunk: int | None = None
) -> Tensor:
    """Merge one tensor.

    Args:
        method: Name in ``spaces.methods.METHODS``.
        operands: Inputs and resolved parameters.
        out: Contiguous tensor to overwrite, any float dtype and device; computing happens on its
            device. ``None`` makes a float32 one on the device of the first input.
        chunk: Elements at a time; the result does not depend on it. ``None`` suits the device.

    Returns:
        ``out``.

    Raises:
        ValueError: If shapes differ, or ``out`` is not contiguous.
    """
    tensors = [*operands.inputs, *([] if operands.base is None else [operands.base])]
    if out is None:
        out = torch.empty_like(
            tensors[0], dtype=torch.float32, memory_format=torch.contiguous_format
        )
    shapes = {tuple(tensor.shape) for tensor in (*tensors, out)}
    if len(shapes) > 1:
        raise ValueError(f"{method}: expected tensors of one shape, got {sorted(shapes)}")
    if not out.is_contiguous():
        raise ValueError(f"{method}: expected a contiguous output, got strides {out.stride()}")
    flat = Operands(
        inputs=[tensor.detach().reshape(-1) for tensor in operands.inputs],
        base=None if operands.base is None else operands.base.detach().reshape(-1),
        per_input=operands.per_input,
        shared=operands.shared,
        masks=operands.masks,
    )
    size = chunk or (CPU_CHUNK if out.device.type == "cpu" else DEVICE_CHUNK)
    KERNELS[method](flat, out.detach().view(-1), size)
    return out


def linear(operands: Operands, out: Tensor, chunk: int) -> None:
    """sum(w x), divided by sum(w) if ``normalize``."""
    weights = list(operands.per_input["weight"])
    if operands.shared.get("normalize", True):
        total = math.fsum(weights)
        weights = [weight / total for weight in weights]
    _weighted_sum(operands.inputs, weights, out, chunk)


def slerp(operands: Operands, out: Tensor, chunk: int) -> None:
    """The arc between two tensors; a straight line where they are (anti)parallel."""
    if len(operands.inputs) == 1:  # the other one does not have this tensor
        _weighted_sum(operands.inputs, [1.0], out, chunk)
        return
    start, end = (Series(tensor=x, minus=None, device=out.device) for x in operands.inputs)
    gram = inner_products(start, end, chunk=chunk)
    weights = slerp_weights(*gram, t=float(operands.shared["t"]))
    _weighted_sum(operands.inputs, weights, out, chunk)


def slerp_weights(aa: float, ab: float, bb: float, *, t: float) -> tuple[float, float]:
    """The coefficients of slerp's two inputs, from their inner products.

    Args:
        aa: <a, a>.
        ab: <a, b>.
        bb: <b, b>.
        t: Position on the arc; 0 gives a, 1 gives b; may lie outside.
    """
    norms = [math.sqrt(square) if math.sqrt(square) > 1e-8 else 1.0 for square in (aa, bb)]
    cosine = max(-1.0, min(1.0, ab / (norms[0] * norms[1])))
    if not abs(cosine) <= _PARALLEL:
        return 1.0 - t, t
    angle = math.acos(cosine)
    return math.sin((1.0 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


def passthrough(operands: Operands, out: Tensor, chunk: int) -> None:
    """The input, times ``scale``."""
    scale = operands.per_input.get("scale", (1.0,))
    _weighted_sum(operands.inputs, scale, out, chunk)


def task_arithmetic(operands: Operands, out: Tensor, chunk: int) -> None:
    """The base plus lambda sum(w delta)."""
    _task_vectors(operands, [None] * len(operands.inputs), out, chunk, consensus=False)


def ties(operands: Operands, out: Tensor, chunk: int) -> None:
    """Trim by magnitude, elect signs, take the mean of what agrees."""
    thinnings: list[Thinning | None] = []
    for series, density in zip(_deltas(operands, out), _densities(operands), strict=True):
        count = max(1, int(density * out.numel()))
        thin = density < 1 and out.numel() > 0
        thinnings.append(trim(series, count, chunk=chunk) if thin else None)
    _task_vectors(operands, thinnings, out, chunk, consensus=True)


def dare_linear(operands: Operands, out: Tensor, chunk: int) -> None:
    """Drop at random, scale back, sum."""
    _task_vectors(operands, _drops(operands), out, chunk, consensus=False)


def dare_ties(operands: Operands, out: Tensor, chunk: int) -> None:
    """Drop at random, scale back, elect signs, sum what agrees."""
    _task_vectors(operands, _drops(operands), out, chunk, consensus=True)


KERNELS: Mapping[str, Kernel] = {
    "linear": linear,
    "slerp": slerp,
    "task_arithmetic": task_arithmetic,
    "ties": ties,
    "dare_linear": dare_linear,
    "dare_ties": dare_ties,
    "passthrough": passthrough,
}
"""The method's arithmetic by name."""


def _weighted_sum(
    inputs: Sequence[Tensor], weights: Sequence[float], out: Tensor, chunk: int
) -> None:
    for start, stop in spans(out.numel(), chunk):
        total: Tensor | None = None
        for tensor, weight in zip(inputs, weights, strict=True):
            part = load(tensor, start, stop, out.device)
            part = part if weight == 1.0 else part * weight
            total = part if total is None else total + part
        if total is not None:
            out[start:stop].copy_(total)


def _deltas(operands: Operands, out: Tensor) -> list[Series]:
    return [Series(tensor=x, minus=operands.base, device=out.device) for x in operands.inputs]


def _densities(operands: Operands) -> Sequence[float]:
    return operands.per_input.get("density", [1.0] * len(operands.inputs))


def _drops(operands: Operands) -> list[Thinning | None]:
    """Density 1 keeps everything, and is not rescaled."""
    return [
        None if density >= 1 else Dropped(key=key, density=density)
        for key, density in zip(operands.masks, _densities(operands), strict=True)
    ]


def _task_vectors(
    operands: Operands,
    thinnings: Sequence[Thinning | None],
    out: Tensor,
    chunk: int,
    *,
    consensus: bool,
) -> None:
    """What the task-vector methods share: base + lambda (thinned, weighted, summed deltas)."""
    assert operands.base is not None  # the plan gives these methods a base
    series = _deltas(operands, out)
    weights = operands.per_input["weight"]
    factors = [
        norm_ratio(one, thinning, chunk=chunk)
        if thinning is not None and operands.shared.get("rescale", False)
        else 1.0
        for one, thinning in zip(series, thinnings, strict=True)
    ]
    normalize = bool(operands.shared.get("normalize", False))
    strength = float(operands.shared.get("lambda", 1.0))
    for start, stop in spans(out.numel(), chunk):
        deltas = []
        for one, thinning, factor, weight in zip(series, thinnings, factors, weights, strict=True):
            delta = one.part(start, stop)
            if thinning is not None:
                delta.mul_(thinning.keep(delta, start))
            if factor != 1.0:
                delta.mul_(factor)
            deltas.append(delta.mul_(weight))
        mixed = _vote(deltas, weights, normalize) if consensus else _sum(deltas, weights, normalize)
        if strength != 1.0:
            mixed.mul_(strength)
        out[start:stop].copy_(mixed.add_(load(operands.base, start, stop, out.device)))


def _sum(deltas: list[Tensor], weights: Sequence[float], normalize: bool) -> Tensor:
    """The sum of the weighted deltas; the first one is overwritten."""
    total = deltas[0]
    for delta in deltas[1:]:
        total.add_(delta)
    divisor = math.fsum(weights)
    if normalize and abs(divisor) >= _NO_WEIGHT:
        total.mul_(1.0 / divisor)
    return total


def _vote(deltas: list[Tensor], weights: Sequence[float], normalize: bool) -> Tensor:
    """The sum of the weighted deltas that have the sign of the sum; a sum of 0 counts as plus.

    ``normalize`` divides by the weights of those that agree, where these do not cancel.
    """
    sign = deltas[0].clone()
    for delta in deltas[1:]:
        sign.add_(delta)
    sign.ge_(0.0).mul_(2.0).sub_(1.0)
    mixed, divisor = torch.zeros_like(sign), torch.zeros_like(sign)
    for delta, weight in zip(deltas, weights, strict=True):
        agreeing = delta.mul_(sign).clamp_min_(0.0)  # 0 where signs differ; NaN stays NaN
        mixed.add_(agreeing)
        if normalize:
            divisor.add_(agreeing.sign().mul_(weight))
    if normalize:
        nobody = torch.eq(divisor, 0.0, out=torch.empty_like(divisor))
        mixed.div_(divisor.add_(nobody))
    return mixed.mul_(sign)
