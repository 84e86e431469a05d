"""Intervals in closed form: of a share, and of a weighted sum of estimates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy  # its parts are loaded when they are used: scipy.stats takes a second

from evaluators.protocol import least_stderr

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A mean and where it may lie.

    Attributes:
        value: The mean, or weighted mean of means; NaN without any question.
        stderr: Its standard error; NaN where a task has fewer than two documents.
        low: Lower end of the interval; NaN where ``stderr`` is.
        high: Upper end.
        n: Number of questions.
    """

    value: float
    stderr: float
    low: float
    high: float
    n: int


def wilson(values: Numbers, confidence: float, *, effective: float, stderr: float) -> Interval:
    """Share of right answers and Wilson's interval (Wilson 1927, "Probable inference").

    It holds for small samples and near 0 and 1.

    Args:
        values: ``(n,)`` of 0 and 1, at least one.
        confidence: Coverage, in (0, 1).
        effective: Number of independent answers that are worth as much.
        stderr: Standard error of the share; NaN where it cannot be known.
    """
    n, mean = len(values), float(values.mean())
    if math.isnan(stderr):
        return Interval(value=mean, stderr=stderr, low=stderr, high=stderr, n=n)
    z, m = float(scipy.stats.norm.ppf((1 + confidence) / 2)), effective
    middle = (mean + z * z / (2 * m)) / (1 + z * z / m)
    half = z * math.sqrt(mean * (1 - mean) / m + (z / (2 * m)) ** 2) / (1 + z * z / m)
    # Rounding must not take the limits past 0, 1 or the mean itself.
    low, high = min(mean, max(0.0, middle - half)), max(mean, min(1.0, middle + half))
    return Interval(value=mean, stderr=stderr or least_stderr(m), low=low, high=high, n=n)


def weighted(parts: Sequence[tuple[float, Interval]], correlation: Numbers) -> Interval:
    """A weighted sum of estimates, from the interval of each.

    The distance from the sum to its limit is that of a sum whose parts have the distances of their
    own limits (Zou and Donner 2008, "Construction of confidence limits about effect measures"; with
    correlations Zou 2007, "Toward using confidence intervals to compare correlations").

    Args:
        parts: Weight and estimate of each.
        correlation: ``(parts, parts)``, of the estimates.
    """
    if not parts:
        return Interval(value=math.nan, stderr=math.nan, low=math.nan, high=math.nan, n=0)
    value = sum(share * part.value for share, part in parts)

    def size(distances: list[float]) -> float:
        found = np.array(distances)
        return float(np.sqrt(np.maximum(0.0, found @ correlation @ found)))

    signs = [math.copysign(1.0, share) for share, _ in parts]
    below = [share * (p.value - (p.low if share > 0 else p.high)) for share, p in parts]
    above = [share * ((p.high if share > 0 else p.low) - p.value) for share, p in parts]
    return Interval(
        value=value,
        stderr=size([share * part.stderr for share, part in parts]),
        low=value - size([s * d for s, d in zip(signs, below, strict=True)]),
        high=value + size([s * d for s, d in zip(signs, above, strict=True)]),
        n=sum(part.n for _, part in parts),
    )
