"""How sure a difference is: intervals and paired tests over what each question gave.

Two candidates answered the same questions, so what counts is the difference per question: the
difficulty of the questions cancels. Tasks are strata: resampling happens within each, and the
task weights combine the means, as they do in the score.

Intervals are percentile bootstrap intervals with two corrections for small samples (Hesterberg
2015, "What teachers should know about the bootstrap", section 5): deviations are scaled by
sqrt(n / (n - 1)) within a stratum, and the level is widened from the normal to Student's t with
the degrees of freedom of Welch and Satterthwaite. p-values come from flipping the signs of the
differences, which is exact for any number of questions where neither candidate is better.

Two candidates that rarely differ may show no difference at all on few questions; that is no proof
that they are equal. For tasks of right and wrong answers (0 or 1) the resampled distribution is
therefore smoothed with half an observation per cell of the two-by-two table (Agresti and Min 2005,
"Simple improved confidence intervals for comparing matched proportions").
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from evaluators.base import Catalogue, Outcome, TaskInfo

Numbers = npt.NDArray[np.float64]

Outcomes = Mapping[str, Mapping[str, float]]
"""What one candidate got: by task, the value of each question by its id."""

_BLOCK = 2_000_000  # random numbers held at a time


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """How much better one candidate is than another on the questions both answered.

    Attributes:
        difference: Combined by task weight, first minus second; above 0 the first is better,
            whatever the direction of the metrics.
        p_value: Chance of a difference at least this large if neither were better (one-sided);
            NaN without any question.
        tasks: The difference on each task, oriented the same way, in the metric's own unit.
        left_out: Tasks that could not be compared question by question.
    """

    difference: Interval
    p_value: float
    tasks: Mapping[str, Interval]
    left_out: tuple[str, ...]

    def clear(self, confidence: float) -> bool:
        """Whether the first is better beyond doubt: by the interval and by the p-value."""
        # The interval has no width where all differences are equal; the p-value still knows n.
        return self.difference.low > 0 and self.p_value < (1 - confidence) / 2


@dataclass(frozen=True, slots=True)
class _Stratum:
    """The values of one task, its share in the combined mean, and whether to smooth them."""

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
        values, counts = np.unique(self.values, return_counts=True)
        chances = counts.astype(np.float64)
        if self.smooth:  # half an observation for each cell; the two cells of agreement are 0
            values = np.concatenate((values, (-1.0, 0.0, 1.0)))
            chances = np.concatenate((chances, (0.5, 1.0, 0.5)))
        chances /= chances.sum()
        return values - chances @ values, chances


def by_task(outcomes: Iterable[Outcome], catalogue: Catalogue) -> dict[str, dict[str, float]]:
    """Outcomes of one candidate grouped by task, in the catalogue's order of tasks."""
    task_of = {question.id: question.task for question in catalogue.questions}
    grouped: dict[str, dict[str, float]] = {task.name: {} for task in catalogue.tasks}
    for outcome in outcomes:
        grouped[task_of[outcome.question]][outcome.question] = outcome.value
    return {task: values for task, values in grouped.items() if values}


def interval(
    values: Sequence[float] | Numbers,
    *,
    rng: np.random.Generator,
    confidence: float = DEFAULT.confidence,
    resamples: int = DEFAULT.resamples,
) -> Interval:
    """Mean of independent values, its standard error and interval.

    Args:
        values: ``(n,)`` finite numbers.
        rng: Where the resamples come from.
        confidence: Coverage, in (0, 1).
        resamples: Number of bootstrap samples.

    Returns:
        The interval; it has no width where all values are equal.
    """
    stratum = _Stratum(1.0, np.asarray(values, dtype=np.float64))
    return _interval([stratum] if stratum.n else [], rng, confidence, resamples)


def score(outcomes: Outcomes, tasks: Sequence[TaskInfo], *, how: Resampling = DEFAULT) -> Interval:
    """The combined score of one candidate, larger is better, with its interval."""
    tables = [(task, _oriented(outcomes, task)) for task in tasks]
    total = sum(task.weight for task, table in tables if table)
    strata = [
        _Stratum(task.weight / total, _sorted(table.values())) for task, table in tables if table
    ]
    return _interval(strata, how.generator(), how.confidence, how.resamples)


def paired(
    first: Outcomes, second: Outcomes, tasks: Sequence[TaskInfo], *, how: Resampling = DEFAULT
) -> Comparison:
    """Compare two candidates on the questions that both answered.

    Args:
        first: What the one candidate got.
        second: What the other got.
        tasks: Weights and directions; tasks with no common question, and those whose value is not
            a mean over questions, are left out.
        how: Confidence, number of resamples and seed.

    Returns:
        The difference, combined and per task. The order of questions does not matter.
    """
    rng = how.generator()
    differences = [(task, *_differences(first, second, task)) for task in tasks]
    compared = [(task, values, smooth) for task, values, smooth in differences if len(values)]
    total = sum(task.weight for task, _, _ in compared)
    strata = [_Stratum(task.weight / total, values, smooth) for task, values, smooth in compared]
    return Comparison(
        difference=_interval(strata, rng, how.confidence, how.resamples),
        p_value=_p_value(strata, rng, how.resamples),
        tasks={
            task.name: _interval(
                [_Stratum(1.0, values, smooth)], rng, how.confidence, how.resamples
            )
            for task, values, smooth in compared
        },
        left_out=tuple(task.name for task, values, _ in differences if not len(values)),
    )


def _differences(first: Outcomes, second: Outcomes, task: TaskInfo) -> tuple[Numbers, bool]:
    """First minus second on common questions, sorted; and whether answers are right or wrong."""
    ours, theirs = _oriented(first, task), _oriented(second, task)
    common = ours.keys() & theirs.keys()
    values = {abs(table[name]) for table in (ours, theirs) for name in common}
    return _sorted([ours[name] - theirs[name] for name in common]), values <= {0.0, 1.0}


def _oriented(outcomes: Outcomes, task: TaskInfo) -> dict[str, float]:
    """Finite values of a task by question, larger is better; empty where there are none to use."""
    if not task.mean:
        return {}
    sign = 1.0 if task.higher_is_better else -1.0
    values = outcomes.get(task.name, {})
    return {name: sign * value for name, value in values.items() if math.isfinite(value)}


def _sorted(values: Iterable[float]) -> Numbers:
    return np.sort(np.array(list(values), dtype=np.float64))


def _interval(
    strata: Sequence[_Stratum], rng: np.random.Generator, confidence: float, resamples: int
) -> Interval:
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
    tail = float(stats.norm.cdf(stats.t.ppf((1 - confidence) / 2, freedom)))
    deviations = sum(_deviations(stratum, rng, resamples) for stratum in strata)
    low, high = np.quantile(deviations, (tail, 1 - tail))
    return Interval(
        value=value, stderr=stderr, low=value + float(low), high=value + float(high), n=n
    )


def _deviations(stratum: _Stratum, rng: np.random.Generator, resamples: int) -> Numbers:
    """``(resamples,)`` share times (resampled mean minus mean), scaled up for small samples.

    A bootstrap sample is fixed by how often each distinct value is in it, which is multinomial:
    for right-or-wrong questions that is three numbers instead of one per question.
    """
    centred, chances = stratum.distribution()
    n = stratum.n
    step = max(1, _BLOCK // len(centred))
    blocks = [
        rng.multinomial(n, chances, size=min(step, resamples - start)) @ centred
        for start in range(0, resamples, step)
    ]
    scaled: Numbers = stratum.share * math.sqrt(n / (n - 1)) * np.concatenate(blocks) / n
    return scaled


def _p_value(strata: Sequence[_Stratum], rng: np.random.Generator, resamples: int) -> float:
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
