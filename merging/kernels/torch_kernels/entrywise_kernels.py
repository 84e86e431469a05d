"""The passes of the methods that choose entry by entry, in the form of ``merge_kernels``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from merging.kernels.table_rows import FloatRow, IntRow


def changed(delta: Tensor, epsilon: Tensor | float) -> Tensor:
    """Whether a delta is larger than epsilon; NaN is, so that it is not lost."""
    return (delta.abs() <= epsilon).logical_not()


def ram_mean(
    inputs: Sequence[Tensor], base: Tensor, out: Tensor, at: Tensor, floats: Tensor, ints: Tensor
) -> None:
    """Base plus the mean of the deltas over the inputs that changed an entry."""
    del at, ints
    origin = base.to(torch.float32)
    deltas = [x.to(torch.float32) - origin for x in inputs]
    active = [changed(delta, floats[FloatRow.EPSILON, 0]).to(torch.float32) for delta in deltas]
    count = active[0]
    for one in active[1:]:
        count = count + one
    alone = (count == 1.0).to(torch.float32)
    mixed = torch.zeros_like(origin)
    for index, delta in enumerate(deltas):
        mixed = mixed + delta * active[index] * (alone * floats[FloatRow.MORE, index] + 1.0)
    out.copy_(mixed / count.clamp_min(1.0) + origin)


def sce_mean(
    inputs: Sequence[Tensor], base: Tensor, out: Tensor, at: Tensor, floats: Tensor, ints: Tensor
) -> None:
    """Base plus the mean by share of the deltas with the sign of their sum."""
    del at, ints
    origin = base.to(torch.float32)
    deltas = [x.to(torch.float32) - origin for x in inputs]
    out.copy_(_agreed(deltas, floats) + origin)


def sce_selected(
    inputs: Sequence[Tensor], base: Tensor, out: Tensor, at: Tensor, floats: Tensor, ints: Tensor
) -> None:
    """As ``sce_mean``, of the entries whose variance is above a limit."""
    origin = base.to(torch.float32)
    deltas = [x.to(torch.float32) - origin for x in inputs]
    limit = torch.where(
        at < ints[IntRow.OUTER_CUTOFF, 0],
        floats[FloatRow.SPREAD_BEFORE, 0],
        floats[FloatRow.SPREAD_AFTER, 0],
    )
    keep = (variance(deltas) > limit).to(torch.float32)
    out.copy_(_agreed([delta * keep for delta in deltas], floats) + origin)


def near_pair(
    inputs: Sequence[Tensor], base: Tensor, out: Tensor, at: Tensor, floats: Tensor, ints: Tensor
) -> None:
    """The first input, moved to the last one where the two are near."""
    del base, at, ints
    start, end = inputs[0].to(torch.float32), inputs[-1].to(torch.float32)
    apart = torch.maximum((start - end).abs(), floats[FloatRow.NEAREST, 0])
    share = (floats[FloatRow.NEAR_T, 0] / apart).clamp(0.0, 1.0)
    out.copy_(share * end + (1.0 - share) * start)


def variance(deltas: Sequence[Tensor]) -> Tensor:
    """The population variance of every entry across the inputs: float32, exactly 0 for equals.

    Sums of float64 numbers: those of equal float32 numbers are exact, and so is their mean.
    """
    wide = [delta.double() for delta in deltas]
    mean = wide[0]
    # A tensor: by a number of Python, GPUs do not divide but multiply with its rounded inverse.
    count = torch.full((), float(len(wide)), dtype=mean.dtype, device=mean.device)
    for delta in wide[1:]:
        mean = mean + delta
    mean = mean / count
    spread = torch.zeros_like(mean)
    for delta in wide:
        spread = spread + (delta - mean) * (delta - mean)
    return (spread / count).to(torch.float32)


def _agreed(deltas: Sequence[Tensor], floats: Tensor) -> Tensor:
    """The mean by share of the deltas with the sign of the sum; 0 in sum counts as plus."""
    total = deltas[0]
    for delta in deltas[1:]:
        total = total + delta
    sign = torch.where(total >= 0.0, 1.0, -1.0)
    mixed, divisor = torch.zeros_like(sign), torch.zeros_like(sign)
    for index, delta in enumerate(deltas):
        agreeing = delta * sign
        mixed = mixed + agreeing.relu() * floats[FloatRow.SHARE, index]  # NaN stays
        divisor = divisor + torch.where(agreeing <= 0.0, 0.0, floats[FloatRow.SHARE, index])
    return mixed / torch.maximum(divisor, floats[FloatRow.LEAST_SHARE, 0]) * sign
