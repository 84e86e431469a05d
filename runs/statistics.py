"""How sure a score or a difference is: intervals and paired tests over what each question gave.

Two candidates answered the same questions, so what counts is the difference per question: the
difficulty of the questions cancels. Tasks are strata: resampling happens within each, and the
task weights combine the means, as they do in the score. ``runs.resampling`` does the arithmetic.

Intervals and p-values are about the population that the questions were drawn from: what would come
out on ever more questions of the same kind.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from evaluators.base import Catalogue, Outcome, TaskInfo
from runs.resampling import (
    DEFAULT,
    Interval,
    Numbers,
    Resampling,
    Stratum,
    flip_p_value,
    interval_of,
    weighted,
    wilson,
)

Outcomes = Mapping[str, Mapping[str, float]]
"""What one candidate got: by task, the value of each question by its id."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """What one candidate can do, with intervals.

    Attributes:
        combined: Over the tasks by their weights, larger is better.
        tasks: Value of each task in the metric's own unit and direction; tasks whose value is not
            a mean over questions are left out.
    """

    combined: Interval
    tasks: Mapping[str, Interval]


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
    stratum = Stratum(1.0, np.asarray(values, dtype=np.float64))
    return interval_of([stratum] if stratum.n else [], rng, confidence, resamples)


def score(outcomes: Outcomes, tasks: Sequence[TaskInfo], *, how: Resampling = DEFAULT) -> Scores:
    """The scores of one candidate, combined and per task, with their intervals.

    Args:
        outcomes: What it got; tasks without outcomes are left out.
        tasks: Weights and directions.
        how: Confidence, number of resamples and seed.
    """
    rng = how.generator()
    found: dict[str, Interval] = {}
    for task in tasks:
        values = _sorted(_finite(outcomes, task).values())
        if not len(values):
            continue
        if _right_or_wrong(values):
            found[task.name] = wilson(values, how.confidence)
        else:
            found[task.name] = interval(
                values, rng=rng, confidence=how.confidence, resamples=how.resamples
            )
    return Scores(combined=combined(found, tasks), tasks=found)


def combined(found: Mapping[str, Interval], tasks: Sequence[TaskInfo]) -> Interval:
    """Weighted mean over tasks, larger is better, with its interval.

    Args:
        found: Value of each task in the metric's own unit and direction.
        tasks: Weights and directions; those that were not found are left out of the mean.
    """
    asked = [task for task in tasks if task.name in found]
    total = sum(task.weight for task in asked)
    return weighted([(_sign(task) * task.weight / total, found[task.name]) for task in asked])


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
    compared = _strata(first, second, tasks)
    strata = list(compared.values())
    return Comparison(
        difference=interval_of(strata, rng, how.confidence, how.resamples),
        p_value=flip_p_value(strata, rng, how.resamples),
        tasks={
            name: interval_of([replace(stratum, share=1.0)], rng, how.confidence, how.resamples)
            for name, stratum in compared.items()
        },
        left_out=tuple(task.name for task in tasks if task.name not in compared),
    )


def difference(
    first: Outcomes, second: Outcomes, tasks: Sequence[TaskInfo], *, how: Resampling = DEFAULT
) -> Interval:
    """The combined difference of ``paired`` alone."""
    strata = list(_strata(first, second, tasks).values())
    return interval_of(strata, how.generator(), how.confidence, how.resamples)


def lead(
    first: Outcomes, second: Outcomes, tasks: Sequence[TaskInfo], *, how: Resampling = DEFAULT
) -> tuple[int, float]:
    """The number of common questions and the p-value of ``paired`` alone: much faster."""
    strata = list(_strata(first, second, tasks).values())
    common = sum(stratum.n for stratum in strata)
    return common, flip_p_value(strata, how.generator(), how.resamples)


def _strata(first: Outcomes, second: Outcomes, tasks: Sequence[TaskInfo]) -> dict[str, Stratum]:
    """The differences of every task with common questions, with its share in the combined mean."""
    found = {task.name: _differences(first, second, task) for task in tasks}
    weights = {task.name: task.weight for task in tasks if len(found[task.name][0])}
    total = sum(weights.values())
    return {name: Stratum(weight / total, *found[name]) for name, weight in weights.items()}


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """p-values corrected for being several (Holm 1979), in the same order.

    Calling those below a level significant is then wrong about any of them with at most that
    chance, however they depend on each other.

    Args:
        p_values: In [0, 1]; NaN stays NaN and does not count.
    """
    known = sorted((p, at) for at, p in enumerate(p_values) if not math.isnan(p))
    adjusted = [math.nan] * len(p_values)
    largest = 0.0
    for place, (p, at) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - place) * p))
        adjusted[at] = largest
    return tuple(adjusted)


def _differences(first: Outcomes, second: Outcomes, task: TaskInfo) -> tuple[Numbers, bool]:
    """First minus second on common questions, sorted; and whether answers are right or wrong."""
    ours, theirs = _finite(first, task), _finite(second, task)
    common = ours.keys() & theirs.keys()
    answers = _sorted(table[name] for table in (ours, theirs) for name in common)
    differences = _sorted(_sign(task) * (ours[name] - theirs[name]) for name in common)
    return differences, _right_or_wrong(answers)


def _right_or_wrong(values: Numbers) -> bool:
    return bool(np.isin(values, (0.0, 1.0)).all())


def _finite(outcomes: Outcomes, task: TaskInfo) -> dict[str, float]:
    """Finite values of a task by question; empty where there are none to use."""
    if not task.mean:
        return {}
    values = outcomes.get(task.name, {})
    return {name: value for name, value in values.items() if math.isfinite(value)}


def _sign(task: TaskInfo) -> float:
    return 1.0 if task.higher_is_better else -1.0


def _sorted(values: Iterable[float]) -> Numbers:
    return np.sort(np.array(list(values), dtype=np.float64))
