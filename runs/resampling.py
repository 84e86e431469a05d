"""Bootstrap and sign flips over clusters of answers: the arithmetic behind ``runs.statistics``.

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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import scipy  # its parts are loaded when they are used: scipy.stats takes a second

from evaluators.base import least_stderr

Numbers = npt.NDArray[np.float64]

_BLOCK = 2_000_000  # random numbers held at a time
_FEW = 16  # distinct values up to which counting them is faster than drawing one by one


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


@dataclass(frozen=True, kw_only=True)
class Stratum:
    """Clusters of questions of one task, or of several that are about the same documents.

    Attributes:
        sums: ``(g,)``, what each cluster adds to the mean: they sum up to the stratum's part of it.
        parts: ``(g,)``, what each adds to the deviation of the mean from its expected value; they
            sum up to 0.
        imagined: What else is drawn from, half as likely each as a cluster: empty where any answer
            is more than right or wrong.
        n: Number of questions.
    """

    sums: Numbers
    parts: Numbers
    imagined: Numbers = field(default_factory=lambda: np.empty(0))
    n: int

    @property
    def clusters(self) -> int:
        return len(self.parts)

    @property
    def value(self) -> float:
        return float(self.sums.sum())

    @property
    def smooth(self) -> bool:
        """Whether answers are right or wrong, so that there is something imagined."""
        return bool(len(self.imagined))

    @property
    def variance(self) -> float:
        """Of the mean, from what was seen; NaN below two clusters."""
        if self.clusters < 2:
            return math.nan
        return self._scale * float(self.parts @ self.parts)

    @property
    def least_variance(self) -> float:
        """The same, and what is imagined where no spread was seen: agreement is no certainty."""
        return self.variance or self._scale * self._second_moment

    @property
    def smoothed_variance(self) -> float:
        """Of what is resampled."""
        return self._second_moment * self.clusters / max(1, self.clusters - 1)

    @property
    def _scale(self) -> float:
        return self.clusters / (self.clusters - 1)

    @property
    def _second_moment(self) -> float:
        centred, chances = self.distribution
        return self.clusters * float(chances @ centred**2)

    @cached_property
    def _pool(self) -> Numbers:
        return (
            np.concatenate([self.parts, self.parts, self.imagined]) if self.smooth else self.parts
        )

    @cached_property
    def distribution(self) -> tuple[Numbers, Numbers]:
        """Distinct values less their mean, and their chances: what is resampled."""
        values, counts = np.unique(self._pool, return_counts=True)
        chances = counts / len(self._pool)
        return values - chances @ values, chances

    def resampled(
        self, rng: np.random.Generator, resamples: int, *, squares: bool
    ) -> tuple[Numbers, Numbers]:
        """``(resamples,)`` sums of as many values as clusters, and sums of their squares.

        A bootstrap sample is fixed by how often each distinct value is in it, which is multinomial:
        for independent right-or-wrong questions that is three numbers instead of one per question.

        Args:
            rng: Where the resamples come from.
            resamples: Their number.
            squares: Whether the squares are needed; else they are zeros.
        """
        centred, chances = self.distribution
        few = len(centred) <= _FEW
        pool = self._pool - self._pool.mean()
        sums, second = np.zeros(resamples), np.zeros(resamples)
        for part in _blocks(resamples, len(centred) if few else self.clusters):
            count = part.stop - part.start
            if few:
                drawn = rng.multinomial(self.clusters, chances, size=count)
                sums[part] = drawn @ centred
                second[part] = drawn @ centred**2 if squares else 0.0
            else:
                values = pool[rng.integers(len(pool), size=(count, self.clusters))]
                sums[part] = values.sum(axis=1)
                second[part] = np.einsum("ij,ij->i", values, values) if squares else 0.0
        return sums, second


def _blocks(count: int, width: int) -> Iterator[slice]:
    """Slices of so many rows that are held at a time."""
    step = max(1, _BLOCK // max(1, width))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


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


def interval_of(
    strata: Sequence[Stratum], rng: np.random.Generator, confidence: float, resamples: int
) -> Interval:
    """The combined mean of independent strata with its bootstrap interval.

    Args:
        strata: What it is made of.
        rng: Where the resamples come from.
        confidence: Coverage of the interval, in (0, 1).
        resamples: Number of bootstrap samples.

    Returns:
        The interval; it has no width where the values of every stratum are equal and not smoothed.
    """
    n = sum(stratum.n for stratum in strata)
    if n == 0:
        return Interval(value=math.nan, stderr=math.nan, low=math.nan, high=math.nan, n=0)
    value = math.fsum(stratum.value for stratum in strata)
    stderr = math.sqrt(sum(stratum.least_variance for stratum in strata))
    if math.isnan(stderr):
        return Interval(value=value, stderr=stderr, low=stderr, high=stderr, n=n)
    ends = [
        _percentiles([s for s in strata if s.smooth], rng, confidence, resamples),
        _studentised([s for s in strata if not s.smooth], rng, confidence, resamples),
    ]
    low, high = (math.hypot(*sides) for sides in zip(*ends, strict=True))
    return Interval(value=value, stderr=stderr, low=value - low, high=value + high, n=n)


def _percentiles(
    strata: Sequence[Stratum], rng: np.random.Generator, confidence: float, resamples: int
) -> tuple[float, float]:
    """Distances from the mean down to the lower end and up to the upper one."""
    variances = [stratum.smoothed_variance for stratum in strata]
    if not sum(variances) > 0:
        return 0.0, 0.0
    tail = _wider((1 - confidence) / 2, variances, strata)
    deviations = np.zeros(resamples)
    for stratum in strata:
        scale = math.sqrt(stratum.clusters / (stratum.clusters - 1))
        deviations += scale * stratum.resampled(rng, resamples, squares=False)[0]
    low, high = np.quantile(deviations, (tail, 1 - tail))
    return -float(low), float(high)


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


def _studentised(
    strata: Sequence[Stratum], rng: np.random.Generator, confidence: float, resamples: int
) -> tuple[float, float]:
    """The same from the studentised bootstrap."""
    variances = [stratum.variance for stratum in strata]
    stderr = math.sqrt(sum(variances))
    if stderr == 0:
        return 0.0, 0.0
    tail = _wider((1 - confidence) / 2, variances, strata)
    low, high = np.quantile(_student(strata, rng, resamples), (tail, 1 - tail))
    return float(high) * stderr, -float(low) * stderr


def _student(strata: Sequence[Stratum], rng: np.random.Generator, resamples: int) -> Numbers:
    """``(resamples,)`` deviations of resampled means over their own standard errors.

    A little of the sample's own variance is added to that of a resample: a few values drawn alike
    have no spread, which proves nothing.
    """
    sums, variances = np.zeros(resamples), np.zeros(resamples)
    for stratum in strata:
        g = stratum.clusters
        total, squares = stratum.resampled(rng, resamples, squares=True)
        spread = np.maximum(0.0, squares - total**2 / g) * g / (g - 1)
        sums += total
        variances += (g**2 * spread + stratum.least_variance) / (g**2 + 1)
    return np.asarray(sums / np.sqrt(variances))


def p_value(strata: Sequence[Stratum], rng: np.random.Generator, resamples: int) -> float:
    """One-sided, that the combined mean is above 0: by sign flips and, for graded values, more.

    Args:
        strata: What the mean is made of.
        rng: Where flips and resamples come from.
        resamples: Number of each.

    Returns:
        At least 1 / (1 + resamples); NaN without any question.
    """
    if not strata:
        return math.nan
    flipped = _flips(strata, rng, resamples)
    variances = [stratum.variance for stratum in strata]
    if all(stratum.smooth for stratum in strata) or not sum(variances) > 0:
        return flipped
    seen = math.fsum(stratum.value for stratum in strata) / math.sqrt(sum(variances))
    beyond = np.count_nonzero(_student(strata, rng, resamples) >= seen)
    share = scipy.stats.norm.ppf((1 + beyond) / (1 + resamples))
    return max(flipped, float(scipy.stats.t.cdf(share, _freedom(variances, strata))))


def _flips(strata: Sequence[Stratum], rng: np.random.Generator, resamples: int) -> float:
    """Share of random sign flips with a combined mean at least as large as the one seen.

    Among ``m`` clusters of one size, the number that stays positive is binomial(m, 1/2).
    """
    flipped = np.zeros(resamples)
    seen = 0.0
    for stratum in strata:
        seen += stratum.value
        sizes, counts = np.unique(np.abs(stratum.sums), return_counts=True)
        for part in _blocks(resamples, len(sizes)):
            shape = (part.stop - part.start, len(sizes))
            positive = rng.binomial(counts, 0.5, size=shape)
            flipped[part] += (2 * positive - counts) @ sizes
    # Sums of the same numbers in another order may differ in the last digits.
    scale = 1e-9 * max(abs(seen), float(np.abs(flipped).max(initial=0.0)))
    return (1 + int(np.count_nonzero(flipped >= seen - scale))) / (1 + resamples)
