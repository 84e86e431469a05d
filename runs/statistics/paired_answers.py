"""Two candidates question by question: what both got right, and what only one of them did."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluators.protocol import Catalogue, Outcome, TaskInfo
from runs.statistics.comparisons import Comparison, by_task, paired
from runs.statistics.intervals import Interval
from runs.statistics.resampling import DEFAULT, Resampling


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedTask:
    """How the answers of two candidates to a task's questions go together.

    Attributes:
        task: The task.
        first: Questions on which only the first is right, or is better where there is more than
            right and wrong.
        second: Likewise of the second.
        level: Questions with the same value for both.
        right: How many of these both got right; ``None`` where there is more than right and wrong.
        difference: First minus second, larger is better; ``None`` where the task's value is not a
            mean over questions.
    """

    task: TaskInfo
    first: int
    second: int
    level: int
    right: int | None
    difference: Interval | None

    @property
    def wrong(self) -> int | None:
        """Questions that both got wrong; ``None`` where there is more than right and wrong."""
        return None if self.right is None else self.level - self.right

    @property
    def questions(self) -> int:
        """Questions with a value for both."""
        return self.first + self.second + self.level


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedAnswers:
    """Two candidates on the questions that both answered.

    Attributes:
        tasks: The tasks with such questions, in the catalogue's order.
        better: By question, in the catalogue's order: 1 where the first is better, -1 where the
            second is, 0 where both have the same value.
        comparison: The paired test that verdicts use.
    """

    tasks: tuple[PairedTask, ...]
    better: Mapping[str, int]
    comparison: Comparison


def paired_answers(
    first: Sequence[Outcome],
    second: Sequence[Outcome],
    catalogue: Catalogue,
    *,
    how: Resampling = DEFAULT,
) -> PairedAnswers:
    """Compare two candidates question by question; questions without a value are left out."""
    ours, theirs = by_task(first, catalogue), by_task(second, catalogue)
    documents = catalogue.documents()
    comparison = paired(ours, theirs, catalogue.tasks, documents=documents, how=how)
    tasks: list[PairedTask] = []
    better: dict[str, int] = {}
    for task in catalogue.tasks:
        mine, other = ours.get(task.name, {}), theirs.get(task.name, {})
        pairs = {
            name: (mine[name], other[name])
            for name in mine.keys() & other.keys()
            if not math.isnan(mine[name] - other[name])
        }
        if pairs:
            tasks.append(_counted(task, pairs, comparison.tasks.get(task.name)))
            better |= {name: _sign(task.sign * (a - b)) for name, (a, b) in pairs.items()}
    order = [question.id for question in catalogue.questions if question.id in better]
    return PairedAnswers(
        tasks=tuple(tasks), better={name: better[name] for name in order}, comparison=comparison
    )


def _counted(
    task: TaskInfo, pairs: Mapping[str, tuple[float, float]], difference: Interval | None
) -> PairedTask:
    signs = [_sign(task.sign * (a - b)) for a, b in pairs.values()]
    judged = {value for pair in pairs.values() for value in pair} <= {0.0, 1.0}
    right = float(task.higher_is_better)
    return PairedTask(
        task=task,
        first=signs.count(1),
        second=signs.count(-1),
        level=signs.count(0),
        right=sum(a == b == right for a, b in pairs.values()) if judged else None,
        difference=difference,
    )


def _sign(number: float) -> int:
    return (number > 0) - (number < 0)
