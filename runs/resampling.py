"""Bootstrap and sign flips over the values of strata: the arithmetic behind ``runs.statistics``.

A stratum is a task. Intervals of means are percentile bootstrap intervals with two corrections for
small samples (Hesterberg 2015, "What teachers should know about the bootstrap", section 5):
deviations are scaled by sqrt(n / (n - 1)) within a stratum, and the level is widened from the
normal to Student's t with the degrees of freedom of Welch and Satterthwaite. p-values come from
flipping the signs of differences, which is exact for any number of questions where neither
candidate is better.

Two candidates that rarely differ may show no difference at all on few questions; that is no proof
that they are equal. For tasks of right and wrong answers (0 or 1) the resampled distribution is
therefore smoothed with half an observation per cell of the two-by-two table (Agresti and Min 2005,
"Simple improved confidence intervals for comparing matched proportions").

The share of right answers to one task has Wilson's interval (Wilson 1927, "Probable inference"),
which holds for small samples and near 0 and 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy  # its parts are loaded when they are used: scipy.stats takes a second

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
        stderr: Its standard error; NaN where a task has fewer than two questions.
        low: Lower end of the interval; NaN where ``stderr`` is.
        high: Upper end.
        n: Number of questions.
    """

    value: float
    stderr: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Stratum:
    """The values of one task, its share in the combined mean, and whether to smooth them.

    Attributes:
        share: Factor of its mean in the combined one; shares sum to 1.
        values: ``(n,)`` finite numbers.
        smooth: Whether they are differences of right (1) and wrong (0) answers.
    """

    share: float
    values: Numbers
    smooth: bool = False

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def stderr(self) -> float:
        """Standard error of the stratum's part of the mean; NaN below two values."""
        if self.n < 2:
            return math.nan
        return float(self.share * np.std(self.values, ddof=1) / math.sqrt(self.n))

    def distribution(self) -> tuple[Numbers, Numbers]:
        """Distinct values less their mean, and their chances: what is resampled."""
        if self.smooth:  # half an observation for each cell; the two cells of agreement are 0
            values = np.array((-1.0, 0.0, 1.0))
            seen = [np.count_nonzero(self.values == value) for value in values]
            chances = np.array(seen) + np.array((0.5, 1.0, 0.5))
        else:
            values, counts = np.unique(self.values, return_counts=True)
            chances = counts.astype(np.float64)
        chances /= chances.sum()
        return values - chances @ values, chances


def wilson(values: Numbers, confidence: float) -> Interval:
    """Share of right answers and Wilson's interval.

    Args:
        values: ``(n,)`` of 0 and 1, at least one.
        confidence: Coverage, in (0, 1).
    """
    n, mean = len(values), float(values.mean())
    stderr = Stratum(1.0, values).stderr
    if math.isnan(stderr):
        return Interval(value=mean, stderr=stderr, low=stderr, high=stderr, n=n)
    z = float(scipy.stats.norm.ppf((1 + confidence) / 2))
    middle = (mean + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(mean * (1 - mean) / n + (z / (2 * n)) ** 2) / (1 + z * z / n)
    # Rounding must not take the limits past 0, 1 or the mean itself.
    low, high = min(mean, max(0.0, middle - half)), max(mean, min(1.0, middle + half))
    return Interval(value=mean, stderr=stderr, low=low, high=high, n=n)


def weighted(parts: Sequence[tuple[float, Interval]]) -> Interval:
    """A weighted sum of independent estimates, from the interval of each.

    The distance from the sum to its limit is the root of the sum of squares of the parts' own
    distances (Zou and Donner 2008, "Construction of confidence limits about effect measures").

    Args:
        parts: Weight and estimate of each.
    """
    if not parts:
        return Interval(value=math.nan, stderr=math.nan, low=math.nan, high=math.nan, n=0)
    value = sum(share * part.value for share, part in parts)
    below = (share * (part.value - (part.low if share > 0 else part.high)) for share, part in parts)
    above = (share * ((part.high if share > 0 else part.low) - part.value) for share, part in parts)
    return Interval(
        value=value,
        stderr=math.hypot(*(share * part.stderr for share, part in parts)),
        low=value - math.hypot(*below),
        high=value + math.hypot(*above),
        n=sum(part.n for _, part in parts),
    )


def interval_of(
    strata: Sequence[Stratum], rng: np.random.Generator, confidence: float, resamples: int
) -> Interval:
    """The combined mean of independent strata with its bootstrap interval.

    Args:
        strata: Tasks with their shares.
        rng: Where the resamples come from.
        confidence: Coverage, in (0, 1).
        resamples: Number of bootstrap samples.

    Returns:
        The interval; it has no width where the values of every stratum are equal and not smoothed.
    """
    n = sum(stratum.n for stratum in strata)
    if n == 0:
        return Interval(value=math.nan, stderr=math.nan, low=math.nan, high=math.nan, n=0)
    value = float(sum(stratum.share * stratum.values.mean() for stratum in strata))
    stderr = math.sqrt(sum(stratum.stderr**2 for stratum in strata))
    parts = [stratum.distribution() for stratum in strata]
    variances = [
        stratum.share**2 * float(chances @ centred**2) / max(1, stratum.n - 1)
        for stratum, (centred, chances) in zip(strata, parts, strict=True)
    ]
    variance = sum(variances)
    if math.isnan(stderr) or variance == 0:  # no spread to resample: unknown, or none
        return Interval(value=value, stderr=stderr, low=value + stderr, high=value - stderr, n=n)
    # As ratios, so that squares of tiny variances cannot vanish.
    freedom = 1 / sum(
        (part / variance) ** 2 / (stratum.n - 1)
        for part, stratum in zip(variances, strata, strict=True)
    )
    tail = float(scipy.stats.norm.cdf(scipy.stats.t.ppf((1 - confidence) / 2, freedom)))
    deviations = sum(_deviations(stratum, rng, resamples) for stratum in strata)
    low, high = np.quantile(deviations, (tail, 1 - tail))
    return Interval(
        value=value, stderr=stderr, low=value + float(low), high=value + float(high), n=n
    )


def _deviations(stratum: Stratum, rng: np.random.Generator, resamples: int) -> Numbers:
    """``(resamples,)`` share times (resampled mean minus mean), scaled up for small samples.

    A bootstrap sample is fixed by how often each distinct value is in it, which is multinomial:
    for right-or-wrong questions that is three numbers instead of one per question.
    """
    centred, chances = stratum.distribution()
    n = stratum.n
    few = stratum.smooth or len(centred) <= _FEW
    drawn = stratum.values - stratum.values.mean()
    step = max(1, _BLOCK // (len(centred) if few else n))
    sums = []
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        if few:
            sums.append(rng.multinomial(n, chances, size=count) @ centred)
        else:
            sums.append(drawn[rng.integers(n, size=(count, n))].sum(axis=1))
    scaled: Numbers = stratum.share * math.sqrt(n / (n - 1)) * np.concatenate(sums) / n
    return scaled


def flip_p_value(strata: Sequence[Stratum], rng: np.random.Generator, resamples: int) -> float:
    """Share of random sign flips with a combined mean at least as large as the one seen.

    Among ``m`` differences of one size, the number that stays positive is binomial(m, 1/2).
    """
    if not strata:
        return math.nan
    flipped = np.zeros(resamples)
    seen = 0.0
    for stratum in strata:
        seen += stratum.share * float(stratum.values.mean())
        sizes, counts = np.unique(np.abs(stratum.values), return_counts=True)
        step = max(1, _BLOCK // len(sizes))
        for start in range(0, resamples, step):
            part = slice(start, min(start + step, resamples))
            shape = (part.stop - part.start, len(sizes))
            positive = rng.binomial(counts, 0.5, size=shape)
            sums = (2 * positive - counts) @ sizes
            flipped[part] += stratum.share * sums / stratum.n
    # Sums of the same numbers in another order may differ in the last digits.
    scale = 1e-9 * max(abs(seen), float(np.abs(flipped).max(initial=0.0)))
    return (1 + int(np.count_nonzero(flipped >= seen - scale))) / (1 + resamples)
