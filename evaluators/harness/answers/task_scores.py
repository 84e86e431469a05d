"""From the metric of each question to the value of a task and its standard error."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from evaluators.protocol import Outcome, TaskScore

Aggregation = Callable[[Sequence[Any]], Any]
"""What makes one number of the metric's items."""

GROUPS = 50
"""Most groups of the jackknife: its cost is one aggregation each, its noise about 10 %."""


def task_score(
    task: str, items: Mapping[str, Any], *, aggregate: Aggregation, mean: bool
) -> TaskScore:
    """The value of a task over the questions asked.

    Args:
        task: Name of the task.
        items: What the metric gave for each question, at least one, in split order.
        aggregate: The task's own aggregation.
        mean: Whether that is the plain mean, whose standard error has a closed form.

    Raises:
        TypeError: If the aggregation does not give a number.
    """
    values = list(items.values())
    value = float(aggregate(values))
    stderr = mean_stderr([float(item) for item in values]) if mean else jackknife(values, aggregate)
    return TaskScore(task=task, value=value, stderr=stderr, n=len(values))


def mean_stderr(values: Sequence[float]) -> float:
    """Standard error of a mean, ``s / sqrt(n)`` with the sample deviation, as lm-eval has it.

    Returns:
        In the unit of the values; NaN for fewer than two.
    """
    n = len(values)
    if n < 2:
        return math.nan
    mean = math.fsum(values) / n
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    return math.sqrt(variance / n)


def jackknife(items: Sequence[Any], aggregate: Aggregation, *, groups: int = GROUPS) -> float:
    """Standard error of any aggregation by leaving out one group of items at a time.

    With as many groups as items it is the ordinary jackknife; with ``g`` groups of near equal size,
    ``(g - 1) / g`` times the sum of squared deviations of the ``g`` values (Shao and Tu 1995,
    The Jackknife and Bootstrap, section 2.3). Items are dealt out in turn, so that a trend over the
    split does not matter.

    Args:
        items: What the metric gave for each question.
        aggregate: The task's own aggregation.
        groups: Most groups, at least 2.

    Returns:
        In the unit of the aggregated value; NaN for fewer than two items, or where the aggregation
        is not a number for some of the subsets.
    """
    count = min(groups, len(items))
    if count < 2:
        return math.nan
    values = []
    for left_out in range(count):
        rest = [item for place, item in enumerate(items) if place % count != left_out]
        try:
            values.append(float(aggregate(rest)))
        except (ValueError, ZeroDivisionError, OverflowError):  # too few of a kind are left
            return math.nan
    mean = math.fsum(values) / count if all(map(math.isfinite, values)) else math.nan
    squares = math.fsum((value - mean) ** 2 for value in values)
    return math.sqrt((count - 1) / count * squares)


def outcome(
    question: str,
    item: Any,
    *,
    aggregate: Aggregation,
    mean: bool,
    by_item: bool,
    length: float | None = None,
) -> Outcome:
    """What one question gave, in the metric's own unit.

    Args:
        question: Id of the question.
        item: What the metric gave for it; ``None`` if nothing.
        aggregate: The task's own aggregation.
        mean: Whether that is the plain mean.
        by_item: Whether the aggregation of a single item means something (a perplexity does,
            a correlation does not).
        length: Of the written answer, if there is one.
    """
    value = math.nan
    if item is not None and (mean or by_item):
        value = float(item) if mean else float(aggregate([item]))
    value = value if math.isfinite(value) else math.nan
    return Outcome(question=question, value=value, length=length)
