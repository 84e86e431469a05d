"""The methods that thin deltas, weigh them, perhaps vote on signs, and add the sum to the base."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from merging.kernels.keep_rules import Thinning
from merging.methods.fused_task_vectors import Mixture, merge_thinned
from merging.methods.operands import Kernel, Operands, series_of
from merging.methods.sparsification import THINNERS
from merging.tensor_statistics.inner_products import norm_ratios
from spaces.catalogue.method import TaskVectors

NO_WEIGHT = 1e-8  # a sum of weights below this does not divide


def task_vectors(arithmetic: TaskVectors) -> Kernel:
    """The kernel of a method that thins deltas: base + lambda (thinned, weighted, summed)."""

    def merge(operands: Operands, out: Tensor, chunk: int) -> None:
        assert operands.base is not None  # the plan gives these methods a base
        thinnings = THINNERS[arithmetic.keeps](operands, out, chunk)
        factors = rescaling(operands, thinnings, out, chunk)
        weights = operands.per_input["weight"]
        normalize = operands.flag("normalize", False)
        strength = operands.number("lambda", 1.0)
        whole = math.fsum(weights)
        divides = normalize and not arithmetic.votes and abs(whole) >= NO_WEIGHT
        mixture = Mixture(
            scales=[factor * weight for factor, weight in zip(factors, weights, strict=True)],
            divisors=weights if normalize else [0.0] * len(weights),
            strength=strength / whole if divides else strength,
            family=arithmetic.keeps,
            consensus=arithmetic.votes,
        )
        merge_thinned(
            operands.inputs,
            operands.base,
            thinnings,
            mixture,
            out,
            chunk=operands.asked_chunk,
        )

    return merge


def rescaling(
    operands: Operands, thinnings: Sequence[Thinning | None], out: Tensor, chunk: int
) -> list[float]:
    """What each thinned delta is multiplied with: its L1 norm restored, or 1."""
    if not operands.flag("rescale", False):
        return [1.0] * len(thinnings)
    return norm_ratios(series_of(operands, out), thinnings, chunk=chunk)
