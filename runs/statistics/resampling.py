"""Bootstrap and sign flips over clusters of answers: the arithmetic behind ``comparisons``.

What is resampled are whole clusters: all answers about one document, over all tasks. A stratum
holds clusters that share no task with those of another, which is one task, or several that are
about the same documents. A mean over questions is a ratio of two sums over clusters; to first order
its deviation is a sum of one number per cluster (Cochran 1977, "Sampling Techniques", section 9A),
so that everything here works on these numbers.

Two kinds of intervals:

- Of right-or-wrong answers: percentile bootstrap with two corrections for few clusters (Hesterberg
  2015, "What teachers should know about the bootstrap", section 5): deviations are scaled by
  sqrt(g / (g - 1)) for g clusters, and the level is widened from the normal to Student's t with the
  degrees of freedom of Welch and Satterthwaite. Two candidates that rarely differ may show no
  difference at all on few questions; that is no proof that they are equal. So what is drawn from is
  smoothed with half an observation per cell of the two-by-two table (Agresti and Min 2005, "Simple
  improved confidence intervals for comparing matched proportions"), where an observation weighs as
  much as the clusters leave of one (their design effect).
- Of any other values, which may be skewed: studentised bootstrap (Efron and Tibshirani 1993, "An
  Introduction to the Bootstrap", section 12.5), every deviation over its own standard error. The
  level is widened in the same way.

p-values come from flipping the signs of whole clusters. That is exact where independent questions
are answered right or wrong and neither candidate is better on any task, since differences are then
symmetric. Differences of other values need not be: there the share of studentised deviations as
large as the one seen counts too, and the larger of both is taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy  # its parts are loaded when they are used: scipy.stats takes a second

from runs.statistics.intervals import Interval, Numbers
from runs.statistics.strata import Stratum


@dataclass(frozen=True, kw_only=True, slots=True)
class Resampling:
    """How intervals and p-values are computed; the same settings give the same numbers.

    Attributes:
        confidence: Coverage of the intervals, in (0, 1).
        resamples: Number of bootstrap samples and of sign flips, at least 100.
        seed: Of the random numbers, at least 0.
    """

    confidence: float = 0.95
    resamples: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 < self.confidence < 1.0:
            raise ValueError(f"confidence: expected a value in (0, 1), got {self.confidence}")
        if self.resamples < 100:
            raise ValueError(f"resamples: expected at least 100, got {self.resamples}")
        if self.seed < 0:
            raise ValueError(f"seed: expected at least 0, got {self.seed}")

    def generator(self) -> np.random.Generator:
        """A fresh generator; every call gives the same sequence."""
        return np.random.default_rng(self.seed)


DEFAULT = Resampling()
"""95 % intervals from 10 000 resamples."""


class Sample:
    """A mean over independent strata, with resamples of it.

    Args:
        strata: Their means sum up to it; may be none.
        rng: Where the resamples come from.
        resamples: Number of bootstrap samples and of sign flips.
    """

    def __init__(self, strata: Sequence[Stratum], rng: np.random.Generator, resamples: int) -> None:
        self._strata, self._rng, self._resamples = strata, rng, resamples

    @property
    def n(self) -> int:
        """Number of questions."""
        return sum(stratum.n for stratum in self._strata)

    @cached_property
    def _drawn(self) -> list[tuple[Numbers, Numbers]]:
        return [stratum.resampled(self._rng, self._resamples) for stratum in self._strata]

    @property
    def _value(self) -> float:
        return math.fsum(stratum.value for stratum in self._strata)

    def interval(self, confidence: float) -> Interval:
        """The mean with its bootstrap interval.

        Args:
            confidence: Coverage of the interval, in (0, 1).

        Returns:
            The interval; it has no width where the values of every stratum are equal and not
            smoothed. Differences of right answers end at -1 and 1.
        """
        value, n, nan = self._value, self.n, math.nan
        if not n:
            return Interval(value=nan, stderr=nan, low=nan, high=nan, n=0)
        stderr = math.sqrt(sum(stratum.least_variance for stratum in self._strata))
        if math.isnan(stderr):
            return Interval(value=value, stderr=nan, low=nan, high=nan, n=n)
        ends = (self._percentiles(confidence), self._studentised(confidence))
        low, high = (math.hypot(*sides) for sides in zip(*ends, strict=True))
        farthest = 1.0 if all(stratum.smooth for stratum in self._strata) else math.inf
        return Interval(
            value=value,
            stderr=stderr,
            low=max(value - low, -farthest),
            high=min(value + high, farthest),
            n=n,
        )

    def _percentiles(self, confidence: float) -> tuple[float, float]:
        """Distances from the mean of the smooth strata to the lower end and to the upper one."""
        at = [at for at, stratum in enumerate(self._strata) if stratum.smooth]
        strata = [self._strata[i] for i in at]
        variances = [stratum.smoothed_variance for stratum in strata]
        if not sum(variances) > 0:
            return 0.0, 0.0
        tail = _wider((1 - confidence) / 2, variances, strata)
        deviations = np.zeros(self._resamples)
        for i, stratum in zip(at, strata, strict=True):
            scale = math.sqrt(stratum.clusters / (stratum.clusters - 1))
            deviations += scale * self._drawn[i][0]
        low, high = np.quantile(deviations, (tail, 1 - tail))
        return -float(low), float(high)

    def _studentised(self, confidence: float) -> tuple[float, float]:
        """Distances from the mean of the graded strata to the lower end and to the upper one."""
        at = [at for at, stratum in enumerate(self._strata) if not stratum.smooth]
        strata = [self._strata[i] for i in at]
        variances = [stratum.variance for stratum in strata]
        stderr = math.sqrt(sum(variances))
        if stderr == 0:
            return 0.0, 0.0
        tail = _wider((1 - confidence) / 2, variances, strata)
        low, high = np.quantile(_student(strata, [self._drawn[i] for i in at]), (tail, 1 - tail))
        return float(high) * stderr, -float(low) * stderr

    @cached_property
    def p_value(self) -> float:
        """One-sided, that the mean is above 0: by sign flips and, for graded values, more.

        At least 1 / (1 + resamples); NaN without any question.
        """
        if not self._strata:
            return math.nan
        flips = sum(stratum.flipped(self._rng, self._resamples) for stratum in self._strata)
        # Sums of the same numbers in another order may differ in the last digits.
        scale = 1e-9 * max(abs(self._value), float(np.abs(flips).max(initial=0.0)))
        flipped = _share(int(np.count_nonzero(flips >= self._value - scale)), self._resamples)
        variances = [stratum.variance for stratum in self._strata]
        if all(stratum.smooth for stratum in self._strata) or not sum(variances) > 0:
            return flipped
        seen = self._value / math.sqrt(sum(variances))
        beyond = int(np.count_nonzero(_student(self._strata, self._drawn) >= seen))
        normal = scipy.stats.norm.ppf(_share(beyond, self._resamples))
        return max(flipped, float(scipy.stats.t.cdf(normal, _freedom(variances, self._strata))))


def _share(count: int, of: int) -> float:
    """A share of random samples that is never 0, as the sample seen is one of them."""
    return (1 + count) / (1 + of)


def _student(strata: Sequence[Stratum], drawn: Sequence[tuple[Numbers, Numbers]]) -> Numbers:
    """``(resamples,)`` deviations of resampled means over their own standard errors.

    A little of the sample's own variance is added to that of a resample: a few values drawn alike
    have no spread, which proves nothing.
    """
    sums, variances = np.zeros(len(drawn[0][0])), np.zeros(len(drawn[0][0]))
    for stratum, (total, squares) in zip(strata, drawn, strict=True):
        g = stratum.clusters
        spread = np.maximum(0.0, squares - total**2 / g) * g / (g - 1)
        sums += total
        variances += (g**2 * spread + stratum.least_variance) / (g**2 + 1)
    return np.asarray(sums / np.sqrt(variances))


def _wider(tail: float, variances: Sequence[float], strata: Sequence[Stratum]) -> float:
    """A tail of the normal distribution at the same distance as one of Student's t.

    Args:
        tail: Probability beyond, of Student's t.
        variances: Of the means of the strata, not all 0.
        strata: With their numbers of clusters.
    """
    freedom = _freedom(variances, strata)
    return float(scipy.stats.norm.cdf(scipy.stats.t.ppf(tail, freedom)))


def _freedom(variances: Sequence[float], strata: Sequence[Stratum]) -> float:
    """Degrees of freedom of Welch and Satterthwaite."""
    variance = sum(variances)
    # As ratios, so that squares of tiny variances cannot vanish.
    return 1 / sum(
        (part / variance) ** 2 / (stratum.clusters - 1)
        for part, stratum in zip(variances, strata, strict=True)
    )
