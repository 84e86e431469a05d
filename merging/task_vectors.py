"""The methods that thin deltas, weigh them, perhaps vote on signs, and add the sum to the base."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from merging.operands import Kernel, Operands, series_of
from merging.sparsify import THINNERS
from merging.statistics import Thinning, load, norm_ratio, spans
from merging.thinned import FAMILIES, Mixture, merge_thinned

_NO_WEIGHT = 1e-8  # a sum of weights below this does not divide

CONSENSUS = frozenset({"ties", "dare_ties", "della", "breadcrumbs_ties"})
"""The methods that elect signs and sum what agrees; the others sum everything."""


def task_vectors(method: str) -> Kernel:
    """The kernel of a method that thins deltas: base + lambda (thinned, weighted, summed)."""
    thinner, consensus = THINNERS[method], method in CONSENSUS

    def merge(operands: Operands, out: Tensor, chunk: int) -> None:
        assert operands.base is not None  # the plan gives these methods a base
        thinnings = thinner(operands, out, chunk)
        factors = rescaling(operands, thinnings, out, chunk)
        weights = operands.per_input["weight"]
        normalize = operands.flag("normalize", False)
        strength = operands.number("lambda", 1.0)
        if method in FAMILIES:
            whole = math.fsum(weights)
            divides = normalize and not consensus and abs(whole) >= _NO_WEIGHT
            mixture = Mixture(
                scales=[factor * weight for factor, weight in zip(factors, weights, strict=True)],
                divisors=weights if normalize else [0.0] * len(weights),
                strength=strength / whole if divides else strength,
                family=FAMILIES[method],
                consensus=consensus,
            )
            merge_thinned(
                operands.inputs,
                operands.base,
                thinnings,
                mixture,
                out,
                chunk=operands.asked_chunk,
            )
            return
        series = series_of(operands, out)
        for start, stop in spans(out.numel(), chunk):
            deltas = []
            for one, thinning, factor, weight in zip(
                series, thinnings, factors, weights, strict=True
            ):
                delta = one.part(start, stop)
                keep = None if thinning is None else thinning.keep(delta, start)
                deltas.append(weighed(delta, keep, factor, weight))
            mixed = (vote if consensus else total)(deltas, weights, normalize)
            if strength != 1.0:
                mixed.mul_(strength)
            out[start:stop].copy_(mixed.add_(load(operands.base, start, stop, out.device)))

    return merge


def rescaling(
    operands: Operands, thinnings: Sequence[Thinning | None], out: Tensor, chunk: int
) -> list[float]:
    """What each thinned delta is multiplied with: its L1 norm restored, or 1."""
    if not operands.flag("rescale", False):
        return [1.0] * len(thinnings)
    return [
        1.0 if thinning is None else norm_ratio(series, thinning, chunk=chunk)
        for series, thinning in zip(series_of(operands, out), thinnings, strict=True)
    ]


def weighed(delta: Tensor, keep: Tensor | None, factor: float, weight: float) -> Tensor:
    """A delta thinned by a mask of 1 and 0, rescaled and weighed; it is overwritten."""
    if keep is not None:
        delta.mul_(keep)
    if factor != 1.0:
        delta.mul_(factor)
    return delta.mul_(weight)


def total(deltas: list[Tensor], weights: Sequence[float], normalize: bool) -> Tensor:
    """The sum of the weighted deltas; the first one is overwritten."""
    found = deltas[0]
    for delta in deltas[1:]:
        found.add_(delta)
    divisor = math.fsum(weights)
    if normalize and abs(divisor) >= _NO_WEIGHT:
        found.mul_(1.0 / divisor)
    return found


def elected(deltas: Sequence[Tensor]) -> Tensor:
    """The sign of the sum, per entry: 1 or -1; a sum of 0 counts as plus."""
    sign = deltas[0].clone()
    for delta in deltas[1:]:
        sign.add_(delta)
    return sign.ge_(0.0).mul_(2.0).sub_(1.0)


def vote(deltas: list[Tensor], weights: Sequence[float], normalize: bool) -> Tensor:
    """The sum of the weighted deltas that have the elected sign; they are overwritten.

    ``normalize`` divides by the weights of those that agree, where these do not cancel.
    """
    sign = elected(deltas)
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
