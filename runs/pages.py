"""Reports for people: what the tables show, as Markdown and as one HTML page."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from evaluators.base import TaskInfo
from runs.records import is_baseline


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """What a page shows; see ``runs.report.Report``.

    Attributes:
        title: Name of the run.
        notice: Warning on top; may be empty.
        standing: The verdict's standing; empty without a verdict.
        sentence: The verdict's sentence.
        frame: The leaderboard.
        failures: The failures.
        tasks: The run's tasks.
        facts: Sections of names and values.
        best_yaml: The best recipe; may be empty.
        reproduce: Commands.
    """

    title: str
    notice: str
    standing: str
    sentence: str
    frame: pd.DataFrame
    failures: pd.DataFrame
    tasks: tuple[TaskInfo, ...]
    facts: Mapping[str, Mapping[str, Any]]
    best_yaml: str
    reproduce: tuple[str, ...]


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
        frame: As ``runs.leaderboard.leaderboard`` gives it.
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
    yield "#", True, _texts(frame["rank"])
    yield "score", True, _scores(frame["score"], frame["stderr"])
    for task in tasks:
        values, stderr = frame[f"task:{task.name}"], frame[f"task_stderr:{task.name}"]
        if not _blank(values, frame):
            yield _task_title(task), True, _scores(values, stderr)
    if not _blank(frame["held_out"], frame):
        yield "held-out", True, _scores(frame["held_out"], frame["held_out_stderr"])
        for task in tasks:
            values, stderr = frame[f"held_out:{task.name}"], frame[f"held_out_stderr:{task.name}"]
            if not _blank(values, frame):
                yield f"held-out {_task_title(task)}", True, _scores(values, stderr)
    yield "method", False, _texts(frame["method"])
    yield "origin", False, _texts(frame["origin"])
    if any(frame["state"] == "running"):
        yield "state", False, _texts(frame["state"])
    yield "questions", True, _texts(frame["questions"])
    yield "build s", True, [_seconds(value) for value in frame["build_seconds"]]
    yield "score s", True, [_seconds(value) for value in frame["score_seconds"]]
    if wide:
        yield "worker", False, _texts(frame["worker"])
        yield "trial", True, _texts(frame["trial"])
    yield "id", True, _texts(frame["candidate"])
    if wide:
        yield "recipe key", False, _texts(frame["key"])
        yield "fingerprint", False, _texts(frame["fingerprint"])


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
    cells = [_texts(failures[name]) for name in titles]
    return Table(
        headers=tuple(titles.values()),
        numeric=tuple(name in ("candidate", "attempts") for name in titles),
        rows=tuple(zip(*cells, strict=True)),
        marks=("",) * len(failures),
    )


def tasks_table(tasks: Sequence[TaskInfo]) -> Table:
    """The tasks with metric, direction and share in the score."""
    total = sum(task.weight for task in tasks)
    return Table(
        headers=("task", "metric", "better", "share"),
        numeric=(False, False, False, True),
        rows=tuple(
            (
                task.name,
                task.metric,
                "higher" if task.higher_is_better else "lower",
                f"{100 * task.weight / total:.0f} %",
            )
            for task in tasks
        ),
        marks=("",) * len(tasks),
    )


def _blank(values: pd.Series[Any], frame: pd.DataFrame) -> bool:
    """Whether a column says nothing; an empty table keeps its columns."""
    return len(frame) > 0 and bool(values.isna().all())


def _task_title(task: TaskInfo) -> str:
    return task.name if task.higher_is_better else f"{task.name} ↓"


def _texts(values: pd.Series[Any]) -> list[str]:
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


def _seconds(value: float) -> str:
    if math.isnan(value):
        return ""
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def markdown(view: View) -> str:
    """The page as GitHub-flavoured Markdown."""
    parts = [f"# {escaped(view.title)}"]
    if view.notice:
        parts.append(f"> **{escaped(view.notice)}**")
    if view.sentence:
        parts.append(f"**Verdict:** {escaped(view.sentence)}.")
    parts.append("## Leaderboard")
    table = leaderboard_table(view.frame, view.tasks, wide=False)
    parts.append(_markdown_table(table) if table.rows else "No candidate has been scored yet.")
    if len(view.failures):
        parts += ["## Failures", _markdown_table(failures_table(view.failures))]
    parts += ["## Tasks", _markdown_table(tasks_table(view.tasks))]
    if view.best_yaml:
        parts += ["## Best recipe", code_block(view.best_yaml, "yaml")]
    if view.reproduce or view.facts:
        parts.append("## How to reproduce")
    if view.reproduce:
        parts.append(code_block("\n".join(view.reproduce), "sh"))
    for section, values in view.facts.items():
        lines = [f"- {escaped(name)}: {escaped(_fact(value))}" for name, value in values.items()]
        parts.append("\n".join([f"**{escaped(section)}**", "", *lines]))
    return "\n\n".join(parts) + "\n"


def _fact(value: Any) -> str:
    return "none" if value is None else str(value)


def _markdown_table(table: Table) -> str:
    lines = [
        table.headers,
        tuple("---:" if numeric else "---" for numeric in table.numeric),
    ]
    head = [f"| {' | '.join(map(escaped, lines[0]))} |", f"| {' | '.join(lines[1])} |"]
    return "\n".join([*head, *(f"| {' | '.join(map(escaped, row))} |" for row in table.rows)])


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, on one line: no HTML, links, code or table borders."""
    line = " ".join(text.split())
    return re.sub(r"([\\`*\[\]|])", r"\\\1", line).replace("&", "&amp;").replace("<", "&lt;")


def code_block(text: str, language: str) -> str:
    """A code block whose fence is longer than any in the text."""
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def html(view: View) -> str:
    """The page as self-contained HTML; every text is escaped by the template engine."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("report.html.j2").render(
        view=view,
        leaderboard=leaderboard_table(view.frame, view.tasks, wide=True),
        failures=failures_table(view.failures),
        tasks=tasks_table(view.tasks),
        ranked=int(view.frame["rank"].notna().sum()),
    )
