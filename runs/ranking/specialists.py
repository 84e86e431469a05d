"""The winner task by task: what it gains and loses against the best parent at each.

A mean over tasks hides what a merge forgets. Which parent is the best at a task, its specialist, is
decided by answers to search questions, so that the held-out ones judge a pair that was named
beforehand. A task that was not searched on names nobody: every parent is compared with there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from evaluators.protocol import TaskInfo
from runs.ranking.finalists import Entry
from runs.records.record import Role
from runs.statistics.comparisons import ALONE, Comparison, Documents, lead, paired
from runs.statistics.intervals import Interval
from runs.statistics.resampling import DEFAULT, Resampling


class TaskChange(StrEnum):
    """What became of a task."""

    GAINS = "gains"  # better than its specialist beyond doubt
    MAY_GAIN = "may gain"  # better by the interval, while the test of the same answers has doubts
    KEEPS = "keeps"  # the difference could be chance
    MAY_LOSE = "may lose"  # worse by the interval, while the test of the same answers has doubts
    LOSES = "loses"  # worse beyond doubt


@dataclass(frozen=True, kw_only=True, slots=True)
class OnTask:
    """The winner against the specialist of one task.

    Attributes:
        task: Name of the task.
        specialist: Name of the parent; where none was named by search questions, the one that the
            winner is the furthest behind.
        difference: Winner minus specialist; above 0 the winner is better, whatever the direction.
            The error rate of the interval is shared among all such comparisons (Bonferroni).
        change: What the difference comes to.
        kept: The winner's share of the specialist's score, from 0; NaN where scores have no ratio,
            as those where less is better.
        points: Whether answers are worth 0 to 1, so that a difference is in points of a hundred.
    """

    task: str
    specialist: str
    difference: Interval
    change: TaskChange
    kept: float
    points: bool


def on_tasks(
    entries: Sequence[Entry],
    *,
    tasks: Sequence[TaskInfo],
    documents: Documents = ALONE,
    how: Resampling = DEFAULT,
) -> tuple[OnTask, ...]:
    """Compare the winner with the specialist of every task that both were asked.

    A gain or a loss is said anywhere where there is none in no more runs than the confidence
    leaves, however many tasks there are.
    """
    winner = entries[0]
    parents = [entry for entry in entries if entry.role is Role.PARENT and entry.outcomes]
    rivals = {
        task.name: [rival for rival in _rivals(task, parents) if rival is not winner]
        for task in tasks
        if task.mean and task.name in winner.outcomes
    }
    count = sum(map(len, rivals.values()))
    strict = replace(how, confidence=1 - (1 - how.confidence) / max(1, count))
    found = []
    for task in tasks:
        compared = [
            _on_task(task, winner, rival, documents=documents, how=strict)
            for rival in rivals.get(task.name, ())
        ]
        known = [one for one in compared if one.difference.n]
        if known:
            found.append(min(known, key=_worst_first))
    return tuple(found)


def _worst_first(one: OnTask) -> tuple[bool, float]:
    return one.change is not TaskChange.LOSES, one.difference.value


def _rivals(task: TaskInfo, parents: Sequence[Entry]) -> list[Entry]:
    """The best parent by search questions; all of them where none was asked any of the task."""
    known = {at: _expected(entry, task) for at, entry in enumerate(parents)}
    best = max(
        (at for at, value in known.items() if math.isfinite(value)),
        key=lambda at: (known[at], -at),
        default=None,
    )
    return list(parents) if best is None else [parents[best]]


def _expected(entry: Entry, task: TaskInfo) -> float:
    """What search questions say of an entry on a task, larger is better; NaN without any."""
    if task.name in entry.expected:
        return entry.expected[task.name]
    values = [one.value for one in entry.search if one.task == task.name]
    return task.sign * values[0] if values else math.nan


def _on_task(
    task: TaskInfo,
    winner: Entry,
    rival: Entry,
    *,
    documents: Documents,
    how: Resampling,
) -> OnTask:
    ours, theirs = ({task.name: one.outcomes.get(task.name, {})} for one in (winner, rival))
    found = paired(ours, theirs, [task], documents=documents, how=how)
    change = _change(
        found, lambda: lead(theirs, ours, [task], documents=documents, how=how)[1], how
    )
    pairs = [
        (value, theirs[task.name][name])
        for name, value in ours[task.name].items()
        if math.isfinite(value) and math.isfinite(theirs[task.name].get(name, math.nan))
    ]
    values = [value for pair in pairs for value in pair]
    whole, part = math.fsum(pair[1] for pair in pairs), math.fsum(pair[0] for pair in pairs)
    ratio = task.higher_is_better and whole > 0 and min(values) >= 0
    return OnTask(
        task=task.name,
        specialist=rival.name,
        difference=found.difference,
        change=change,
        kept=part / whole if ratio else math.nan,
        points=all(0 <= value <= 1 for value in values),
    )


def _change(found: Comparison, losing: Callable[[], float], how: Resampling) -> TaskChange:
    """What a difference comes to; a claim needs the interval and the one-sided test to agree.

    Args:
        found: Winner against specialist.
        losing: Computes the p-value of the winner's being worse; asked only where that matters.
        how: Confidence.
    """
    if found.clear(how.confidence):
        return TaskChange.GAINS
    if found.difference.low > 0:
        return TaskChange.MAY_GAIN
    if found.difference.high < 0:
        sure = losing() < (1 - how.confidence) / 2
        return TaskChange.LOSES if sure else TaskChange.MAY_LOSE
    return TaskChange.KEEPS
