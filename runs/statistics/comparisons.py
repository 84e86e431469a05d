"""How sure a score or a difference is: intervals and paired tests over what each question gave.

Two candidates answered the same questions, so what counts is the difference per question: the
difficulty of the questions cancels. Questions about the same document, in whatever task, are no
independent evidence: whole documents are resampled (``answer_clusters``). The task weights combine
the means, as they do in the score. ``runs.statistics.resampling`` does the arithmetic.

Intervals and p-values are about the population that the documents were drawn from: what would come
out on ever more documents of the same kind.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from evaluators.protocol import Catalogue, Outcome, TaskInfo
from runs.statistics.answer_clusters import Column, correlation, effective, strata
from runs.statistics.intervals import Interval, weighted, wilson
from runs.statistics.resampling import DEFAULT, Resampling, Sample

Outcomes = Mapping[str, Mapping[str, float]]
"""What one candidate got: by task, the value of each question by its id."""

Documents = Mapping[str, str]
"""The document of each question by its id; a question that is not in it is named like its own."""

ALONE: Documents = MappingProxyType({})
"""No two questions with different ids are about the same document."""


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


def score(
    outcomes: Outcomes,
    tasks: Sequence[TaskInfo],
    *,
    documents: Documents = ALONE,
    how: Resampling = DEFAULT,
) -> Scores:
    """The scores of one candidate, combined and per task, with their intervals.

    Args:
        outcomes: What it got; tasks without outcomes are left out.
        tasks: Weights and directions.
        documents: What the questions are about.
        how: Confidence, number of resamples and seed.
    """
    found = {
        task.name: _column(values, 1.0, documents, right=_right_or_wrong(values.values()))
        for task in tasks
        if (values := _finite(outcomes, task))
    }
    rng = how.generator()
    known = {name: _interval(column, rng, how) for name, column in found.items()}
    counting = [task for task in tasks if task.weight and task.name in found]
    total = sum(task.weight for task in counting)
    return Scores(
        combined=weighted(
            [(task.sign * task.weight / total, known[task.name]) for task in counting],
            correlation([found[task.name] for task in counting]),
        ),
        tasks=known,
    )


def _interval(column: Column, rng: np.random.Generator, how: Resampling) -> Interval:
    """Mean of one task: Wilson's interval of right answers, else a bootstrap interval."""
    alone = strata([replace(column, right=False)])
    if not column.right:
        return Sample(alone, rng, how.resamples).interval(how.confidence)
    return wilson(
        column.values,
        how.confidence,
        effective=effective(column.values, column.documents),
        stderr=math.sqrt(alone[0].variance),
    )


def paired(
    first: Outcomes,
    second: Outcomes,
    tasks: Sequence[TaskInfo],
    *,
    documents: Documents = ALONE,
    how: Resampling = DEFAULT,
) -> Comparison:
    """Compare two candidates on the questions that both answered.

    Args:
        first: What the one candidate got.
        second: What the other got.
        tasks: Weights and directions; tasks with no common question, and those whose value is not
            a mean over questions, are left out.
        documents: What the questions are about.
        how: Confidence, number of resamples and seed.

    Returns:
        The difference, combined and per task. The order of questions does not matter.
    """
    rng = how.generator()
    compared = _differences(first, second, tasks, documents)

    def sample(columns: Iterable[Column]) -> Sample:
        return Sample(strata(list(columns)), rng, how.resamples)

    together = sample(_counting(compared))
    found = together.interval(how.confidence)
    return Comparison(
        difference=found,
        p_value=together.p_value,
        tasks={
            name: sample([replace(column, share=1.0)]).interval(how.confidence)
            for name, column in compared.items()
        }
        if len(compared) > 1
        else dict.fromkeys(compared, found),
        left_out=tuple(task.name for task in tasks if task.name not in compared),
    )


def difference(
    first: Outcomes,
    second: Outcomes,
    tasks: Sequence[TaskInfo],
    *,
    documents: Documents = ALONE,
    how: Resampling = DEFAULT,
) -> Interval:
    """The combined difference of ``paired`` alone."""
    clusters = strata(_counting(_differences(first, second, tasks, documents)))
    return Sample(clusters, how.generator(), how.resamples).interval(how.confidence)


def lead(
    first: Outcomes,
    second: Outcomes,
    tasks: Sequence[TaskInfo],
    *,
    documents: Documents = ALONE,
    how: Resampling = DEFAULT,
) -> tuple[int, float]:
    """The number of common questions and the p-value of ``paired`` alone: much faster."""
    clusters = strata(_counting(_differences(first, second, tasks, documents)))
    found = Sample(clusters, how.generator(), how.resamples)
    return found.n, found.p_value


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


def _differences(
    first: Outcomes, second: Outcomes, tasks: Sequence[TaskInfo], documents: Documents
) -> dict[str, Column]:
    """First minus second by task, where both answered something, oriented and with its share."""
    pairs = {task.name: (_finite(first, task), _finite(second, task)) for task in tasks}
    asked = [task for task in tasks if pairs[task.name][0].keys() & pairs[task.name][1].keys()]
    weights = {task.name: task.weight for task in asked}
    if not any(weights.values()):  # tasks that are only to be kept, by themselves
        weights = dict.fromkeys(weights, 1.0)
    total = sum(weights.values())
    found = {}
    for task in asked:
        ours, theirs = pairs[task.name]
        common = ours.keys() & theirs.keys()
        found[task.name] = _column(
            {name: task.sign * (ours[name] - theirs[name]) for name in common},
            weights[task.name] / total,
            documents,
            right=_right_or_wrong(table[name] for table in (ours, theirs) for name in common),
        )
    return found


def _counting(columns: Mapping[str, Column]) -> list[Column]:
    """Those that have a share in the combined difference."""
    return [column for column in columns.values() if column.share]


def _column(
    values: Mapping[str, float], share: float, documents: Documents, *, right: bool
) -> Column:
    """Values by question as a column, in an order that does not depend on theirs."""
    names = sorted(values)
    return Column(
        share=share,
        values=np.array([values[name] for name in names], dtype=np.float64),
        documents=[documents.get(name, name) for name in names],
        right=right,
    )


def _right_or_wrong(values: Iterable[float]) -> bool:
    return all(value in (0.0, 1.0) for value in values)


def _finite(outcomes: Outcomes, task: TaskInfo) -> dict[str, float]:
    """Finite values of a task by question; empty where there are none to use."""
    if not task.mean:
        return {}
    values = outcomes.get(task.name, {})
    return {name: value for name, value in values.items() if math.isfinite(value)}
