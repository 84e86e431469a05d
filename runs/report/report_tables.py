"""What the reports show as tables: cells as text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from evaluators.protocol import TaskInfo
from runs.ranking.finalists import Against, Finalist
from runs.ranking.floors import floor_text, floored
from runs.ranking.verdict_text import p_text, signed, title
from runs.records.record import Role, is_baseline
from runs.report.learning_summary import LearningSummary
from runs.statistics.intervals import Interval


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Cells as text.

    Attributes:
        headers: One per column.
        numeric: Whether a column holds numbers, which go to the right.
        rows: Cells by row.
        marks: What a row is: ``best``, ``baseline`` or nothing.
    """

    headers: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[str, ...], ...]
    marks: tuple[str, ...]


def leaderboard_table(frame: pd.DataFrame, tasks: Sequence[TaskInfo], *, wide: bool) -> Table:
    """The leaderboard without failed candidates, numbers with their standard errors.

    Args:
        frame: As ``runs.ranking.leaderboard.leaderboard`` gives it.
        tasks: The run's tasks.
        wide: With the columns that identify a candidate and its worker.
    """
    shown = frame[frame["state"] != "failed"]
    names, cells = [], []
    for name, numeric, values in _columns(shown, tasks, wide):
        names.append((name, numeric))
        cells.append(values)
    marks = []
    for rank, origin in zip(shown["rank"], shown["origin"], strict=True):
        is_best = not pd.isna(rank) and rank == 1
        marks.append("best" if is_best else "baseline" if is_baseline(origin) else "")
    return Table(
        headers=tuple(name for name, _ in names),
        numeric=tuple(numeric for _, numeric in names),
        rows=tuple(zip(*cells, strict=True)),
        marks=tuple(marks),
    )


def _columns(
    frame: pd.DataFrame, tasks: Sequence[TaskInfo], wide: bool
) -> Iterator[tuple[str, bool, list[str]]]:
    """Header, whether numeric, and cells of each column that has anything to show."""
    yield "#", True, texts(frame["rank"])
    if not _blank(frame["front"], frame):
        yield "front", False, yes(frame["front"])
    if not _blank(frame["expected"], frame):
        yield "expected", True, _scores(frame["expected"], frame["expected_stderr"])
    yield "score", True, _scores(frame["score"], frame["stderr"])
    for task in tasks:
        values, stderr = frame[f"task:{task.name}"], frame[f"task_stderr:{task.name}"]
        if not _blank(values, frame):
            yield task_title(task), True, _scores(values, stderr)
    if not _blank(frame["held_out"], frame):
        yield "held-out", True, _scores(frame["held_out"], frame["held_out_stderr"])
        for task in tasks:
            values, stderr = frame[f"held_out:{task.name}"], frame[f"held_out_stderr:{task.name}"]
            if not _blank(values, frame):
                yield f"held-out {task_title(task)}", True, _scores(values, stderr)
    lengths = frame["answer_length"]
    if not _blank(lengths, frame):
        yield "answer length", True, _scores(lengths, frame["answer_length_stderr"])
    for task in (task for task in tasks if task.written):
        for column, words in (("cut_off", "cut off"), ("looped", "looping")):
            found = frame[f"{column}:{task.name}"]
            if (found > 0).any():
                yield f"{words} {task_title(task)}", True, shares(found)
    if frame["parameters"].nunique() > 1:  # it says nothing where all have the same
        yield "parameters", True, [f"{n:,}" if not pd.isna(n) else "" for n in frame["parameters"]]
    yield "method", False, texts(frame["method"])
    yield "origin", False, texts(frame["origin"])
    if any(frame["state"] == "running"):
        yield "state", False, texts(frame["state"])
    yield "questions", True, texts(frame["questions"])
    yield "build s", True, [seconds_text(value) for value in frame["build_seconds"]]
    yield "score s", True, [seconds_text(value) for value in frame["score_seconds"]]
    if wide:
        yield "worker", False, texts(frame["worker"])
        yield "trial", True, texts(frame["trial"])
    yield "id", True, texts(frame["candidate"])
    if wide:
        yield "recipe key", False, texts(frame["key"])
        yield "fingerprint", False, texts(frame["fingerprint"])


def finalists_table(finalists: Sequence[Finalist], tasks: Sequence[TaskInfo]) -> Table:
    """Everyone who was asked the held-out questions, the winner first: intervals and p-values."""
    columns = [
        column for column in _finalist_columns(finalists, tasks) if any(column[2]) or not finalists
    ]
    return Table(
        headers=tuple(name for name, _, _ in columns),
        numeric=tuple(numeric for _, numeric, _ in columns),
        rows=tuple(zip(*(cells for _, _, cells in columns), strict=True)),
        marks=tuple(
            "best" if at == 0 else "" if finalist.role is Role.SEARCHED else "baseline"
            for at, finalist in enumerate(finalists)
        ),
    )


def _finalist_columns(
    finalists: Sequence[Finalist], tasks: Sequence[TaskInfo]
) -> Iterator[tuple[str, bool, list[str]]]:
    yield "recipe", False, [title(one.name) for one in finalists]
    yield "#", True, ["" if one.rank is None else str(one.rank) for one in finalists]
    yield "held-out", True, [_on_two_lines(limits_text(one.held_out.combined)) for one in finalists]
    yield from _group_columns("best parent", [one.parents for one in finalists])
    own = any(one.role is Role.OWN for one in finalists)
    tried = "best recipe tried by hand" if own else "best default recipe"
    yield from _group_columns(tried, [one.defaults for one in finalists])
    yield "search", True, [score_text(one.search) for one in finalists]
    gaps = [_on_two_lines(difference_text(one.gap)) for one in finalists]
    yield "search − held-out", True, gaps
    for task in tasks:
        found = [limits_text(one.held_out.tasks.get(task.name)) for one in finalists]
        yield f"held-out {task_title(task)}", True, [_on_two_lines(part) for part in found]


def _group_columns(
    name: str, groups: Iterable[Against | None]
) -> Iterator[tuple[str, bool, list[str]]]:
    found = list(groups)
    yield (
        f"over the {name}",
        True,
        ["" if one is None else _on_two_lines(difference_text(one.difference)) for one in found],
    )
    yield "p", True, ["" if one is None else p_text(one.p_value) for one in found]
    yield "p corrected", True, ["" if one is None else p_text(one.adjusted) for one in found]


def _on_two_lines(limits: str) -> str:
    """The interval below the value: a table of many such columns stays half as wide."""
    return limits.replace(" (", "\n(")


def limits_text(found: Interval | None) -> str:
    """``0.683 (0.641 to 0.722)``."""
    if found is None or math.isnan(found.value):
        return ""
    text = score_text(found.value)
    if math.isnan(found.low):
        return text
    return f"{text} ({score_text(found.low)} to {score_text(found.high)})"


def difference_text(found: Interval | None) -> str:
    """``+0.031 (+0.004 to +0.058)``."""
    if found is None or math.isnan(found.value):
        return ""
    text = signed(found.value)
    return (
        text if math.isnan(found.low) else f"{text} ({signed(found.low)} to {signed(found.high)})"
    )


_LEARNING = (
    "recipe",
    "coefficients",
    "steps",
    "loss before",
    "loss chosen",
    "after step",
    "questions",
    "of the budget",
    "s of work",
    "learned from",
    "ended early",
)


def learning_table(lessons: Sequence[LearningSummary]) -> Table:
    """What was learned before the search, and what that cost."""
    rows = [
        (
            one.name,
            str(one.coefficients),
            f"{one.steps} of {one.planned}" if one.planned else str(one.steps),
            "" if one.chosen is None else score_text(one.aside[0][1]),
            "" if one.chosen is None else score_text(one.chosen[1]),
            "" if one.chosen is None else str(one.chosen[0]),
            f"{one.questions:,}",
            "" if math.isnan(one.share) else f"{100 * one.share:.0f} %",
            seconds_text(one.seconds),
            one.targets or "references",
            one.failed,
        )
        for one in lessons
    ]
    return Table(
        headers=_LEARNING,
        numeric=tuple(name not in ("recipe", "learned from", "ended early") for name in _LEARNING),
        rows=tuple(rows),
        marks=("",) * len(rows),
    )


def failures_table(failures: pd.DataFrame) -> Table:
    """The failures with kind and message."""
    titles = {
        "candidate": "id",
        "split": "questions",
        "kind": "kind",
        "message": "message",
        "method": "method",
        "origin": "origin",
        "worker": "worker",
        "attempts": "attempts",
    }
    cells = [texts(failures[name]) for name in titles]
    return Table(
        headers=tuple(titles.values()),
        numeric=tuple(name in ("candidate", "attempts") for name in titles),
        rows=tuple(zip(*cells, strict=True)),
        marks=("",) * len(failures),
    )


def tasks_table(tasks: Sequence[TaskInfo]) -> Table:
    """The tasks with metric, direction, share in the score, and floor where any has one."""
    total = sum(task.weight for task in tasks)
    floors = bool(floored(tasks))
    return Table(
        headers=("task", "metric", "better", "share") + ("floor",) * floors,
        numeric=(False, False, False, True) + (False,) * floors,
        rows=tuple(
            (
                task.name,
                task.metric,
                "higher" if task.higher_is_better else "lower",
                f"{100 * task.weight / total:.0f} %",
                *(floor_text(task.floor) for _ in range(floors)),
            )
            for task in tasks
        ),
        marks=("",) * len(tasks),
    )


def _blank(values: pd.Series[Any], frame: pd.DataFrame) -> bool:
    """Whether a column says nothing; an empty table keeps its columns."""
    return len(frame) > 0 and bool(values.isna().all())


def yes(values: pd.Series[Any]) -> list[str]:
    """``yes`` where it is so, empty where it is not or not known."""
    return ["yes" if not pd.isna(value) and bool(value) else "" for value in values]


def task_title(task: TaskInfo) -> str:
    """Its name, with an arrow where less is better."""
    return task.name if task.higher_is_better else f"{task.name} ↓"


def texts(values: pd.Series[Any]) -> list[str]:
    """Values as cells; empty where there is none."""
    return ["" if pd.isna(value) else str(value) for value in values]


def _scores(values: pd.Series[Any], stderrs: pd.Series[Any]) -> list[str]:
    return [
        score_text(float(value), float(stderr))
        for value, stderr in zip(values, stderrs, strict=True)
    ]


def score_text(value: float, stderr: float = math.nan) -> str:
    """``0.683 ± 0.021``; without the error where it is not known, empty without a value."""
    if math.isnan(value):
        return ""
    digits = 3 if abs(value) < 100 else 1
    return f"{value:.{digits}f}" + ("" if math.isnan(stderr) else f" ± {stderr:.{digits}f}")


def shares(values: Iterable[float | None]) -> list[str]:
    """Shares in per cent; nothing where there is none."""
    return ["" if value is None or pd.isna(value) else f"{value:.0%}" for value in values]


def seconds_text(value: float) -> str:
    """``0.35``, ``12``; empty where it is not known."""
    if math.isnan(value):
        return ""
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"
