"""Reports for people: what the tables show, as Markdown and as one HTML page."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from evaluators.base import TaskInfo
from runs.finalists import Finalist
from runs.page_tables import (
    Table,
    failures_table,
    finalists_table,
    leaderboard_table,
    tasks_table,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """What a page shows; see ``runs.report.Report``.

    Attributes:
        title: Name of the run.
        notice: Warning on top; may be empty.
        standing: The verdict's standing; empty without a verdict.
        sentence: The verdict's sentence.
        notes: Further sentences about it.
        finalists: Everyone who was asked the held-out questions, the winner first.
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
    notes: tuple[str, ...]
    finalists: tuple[Finalist, ...]
    frame: pd.DataFrame
    failures: pd.DataFrame
    tasks: tuple[TaskInfo, ...]
    facts: Mapping[str, Mapping[str, Any]]
    best_yaml: str
    reproduce: tuple[str, ...]


def markdown(view: View) -> str:
    """The page as GitHub-flavoured Markdown."""
    parts = [f"# {escaped(view.title)}"]
    if view.notice:
        parts.append(f"> **{escaped(view.notice)}**")
    if view.sentence:
        parts.append(f"**Verdict:** {escaped(' '.join((view.sentence + '.', *view.notes)))}")
    if view.finalists:
        finals = finalists_table(view.finalists, view.tasks)
        parts += ["## Finalists", _markdown_table(finals)]
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
        finalists=finalists_table(view.finalists, view.tasks),
        leaderboard=leaderboard_table(view.frame, view.tasks, wide=True),
        failures=failures_table(view.failures),
        tasks=tasks_table(view.tasks),
        ranked=int(view.frame["rank"].notna().sum()),
    )
