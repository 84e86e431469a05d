"""Task by task: the winner, every parent and the base on the held-out questions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import pandas as pd

from evaluators.protocol import TaskInfo
from runs.ranking.finalists import Finalist
from runs.ranking.specialists import TaskChange
from runs.ranking.verdict import Verdict
from runs.ranking.verdict_text import title
from runs.records.record import Role
from runs.report.report_tables import Table, difference_text, limits_text, score_text, task_title
from runs.statistics.intervals import Interval

MOST_COLUMNS = 4
"""Models up to which each has a column beside the winner's; more have rows."""

FRAME = {
    "task": "str",
    "model": "str",
    "role": "str",
    "score": "float64",
    "low": "float64",
    "high": "float64",
    "questions": "Int64",
    "difference": "float64",
    "difference_low": "float64",
    "difference_high": "float64",
    "change": "str",
}
"""Columns of ``by_task_frame`` with their dtypes."""

_WORDS = {
    TaskChange.GAINS: "gains over {}",
    TaskChange.MAY_GAIN: "may gain over {}",
    TaskChange.KEEPS: "within the noise of {}",
    TaskChange.MAY_LOSE: "may lose to {}",
    TaskChange.LOSES: "loses to {}",
}


def by_task_table(found: Verdict, tasks: Sequence[TaskInfo]) -> Table:
    """A row per task, or one per task and model where there are many; none without a comparison."""
    models = models_compared(found)
    if not models:
        return _table((), ())
    if len(models) <= MOST_COLUMNS:
        rows = [_beside(found, models, task, name) for task, name in _tasks(found, tasks)]
        names = [title(one.name) for one in models]
        return _table(("task", "winner", "best parent at it", *names), rows)
    rows = [
        row
        for task, name in _tasks(found, tasks)
        for row in _below(found, [found.finalists[0], *models], task, name)
    ]
    return _table(("task", "model", "held-out", "winner minus it", "best parent at it"), rows)


def _beside(found: Verdict, models: Sequence[Finalist], task: str, name: str) -> list[str]:
    cells = [name, limits_text(_score(found.finalists[0], task)), _change(found, task)]
    for one in models:
        over = difference_text(task_difference(found, one, task))
        cells.append(limits_text(_score(one, task)) + (over and f"\nwinner {over}"))
    return cells


def _below(found: Verdict, models: Sequence[Finalist], task: str, name: str) -> Iterator[list[str]]:
    for at, one in enumerate(models):
        change = _change(found, task) if at == 0 else ""
        difference = difference_text(task_difference(found, one, task))
        who = "winner" if at == 0 else title(one.name)
        yield ["" if at else name, who, limits_text(_score(one, task)), difference, change]


def specialists_table(found: Verdict, tasks: Sequence[TaskInfo]) -> Table:
    """The winner against the best parent at each task and the base alone: narrow."""
    scores = {one.name: one.held_out.tasks for one in found.finalists}
    base = next((one for one in found.finalists[1:] if one.role is Role.BASE), None)
    titles = {task.name: task_title(task) for task in tasks}
    rows = []
    for one in found.on_tasks:
        row = [
            titles[one.task],
            score_text(scores[found.winner][one.task].value),
            f"{title(one.specialist)} {score_text(scores[one.specialist][one.task].value)}",
            f"{one.change.value} {difference_text(one.difference)}",
        ]
        if base is not None:
            over = difference_text(task_difference(found, base, one.task))
            row.append(f"{score_text(_value(_score(base, one.task)))}, {over}")
        rows.append(row)
    last = () if base is None else ("base, winner minus it",)
    return _table(("task", "winner", "best parent at it", "winner minus it", *last), rows)


def by_task_frame(found: Verdict | None, tasks: Sequence[TaskInfo]) -> pd.DataFrame:
    """A row per task and model with held-out scores and differences, the winner first.

    Returns:
        A frame with the columns and dtypes of ``FRAME``.
    """
    if found is None:
        return pd.DataFrame(columns=list(FRAME)).astype(FRAME)
    against = {(one.task, one.specialist): one.change.value for one in found.on_tasks}
    rows = []
    for task in tasks:
        for one in (found.finalists[0], *models_compared(found)):
            score, over = _score(one, task.name), task_difference(found, one, task.name)
            if score is None:
                continue
            row = [task.name, one.name, one.role.value, score.value, score.low, score.high, score.n]
            row += [math.nan] * 3 if over is None else [over.value, over.low, over.high]
            rows.append([*row, against.get((task.name, one.name), "")])
    return pd.DataFrame(rows, columns=list(FRAME)).astype(FRAME)


def models_compared(found: Verdict) -> list[Finalist]:
    """The parents that the winner was compared with by rank, then the base."""
    known = [one for one in found.finalists[1:] if one.name in found.comparisons]
    return [one for role in (Role.PARENT, Role.BASE) for one in known if one.role is role]


def _tasks(found: Verdict, tasks: Sequence[TaskInfo]) -> Iterator[tuple[str, str]]:
    """Name and title of each task that the winner was asked; of several, all together last."""
    asked = [task for task in tasks if task.name in found.finalists[0].held_out.tasks]
    yield from ((task.name, task_title(task)) for task in asked)
    if len(asked) > 1:
        yield "", "all, weighted"


def _score(one: Finalist, task: str) -> Interval | None:
    return one.held_out.tasks.get(task) if task else one.held_out.combined


def task_difference(found: Verdict, one: Finalist, task: str) -> Interval | None:
    """The winner minus another at a task, or at all together where no task is named.

    Against the best of the parents, or of the recipes tried by hand, the interval is the verdict's,
    which allows for its having been chosen, and for the number of tasks: one comparison has one
    interval wherever it is shown.
    """
    comparison, winner = found.comparisons.get(one.name), found.finalists[0]
    if comparison is None:
        return None
    said = {(known.task, known.specialist): known.difference for known in found.on_tasks}
    for group in (winner.parents, winner.defaults):
        if group is not None:
            said["", group.best] = group.difference
    alone = comparison.tasks.get(task) if task else comparison.difference
    return said.get((task, one.name), alone)


def _value(found: Interval | None) -> float:
    return math.nan if found is None else found.value


def _change(found: Verdict, task: str) -> str:
    for one in found.on_tasks:
        if one.task == task:
            return _WORDS[one.change].format(title(one.specialist))
    return ""


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    words = ("task", "model", "best parent at it")
    return Table(
        headers=tuple(headers),
        numeric=tuple(header not in words for header in headers),
        rows=tuple(map(tuple, rows)),
        marks=("",) * len(rows),
    )
