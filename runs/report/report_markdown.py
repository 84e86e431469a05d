"""The report as Markdown, for a pull request, an issue or a README."""

from __future__ import annotations

import re

import pandas as pd

from runs.records.record import Role, role_of
from runs.report.report_content import Report
from runs.report.report_tables import (
    Table,
    failures_table,
    finalists_table,
    leaderboard_table,
    learning_table,
    tasks_table,
)
from runs.report.task_tables import by_task_table
from spaces.text.terminal_text import stripped

MOST_ROWS = 50
"""Candidates and failures that are listed; parents, average and default recipes always are."""


def markdown(report: Report) -> str:
    """The page as GitHub-flavoured Markdown."""
    parts = [f"# {escaped(report.title)}"]
    if report.notice:
        parts.append(f"> **{escaped(report.notice)}**")
    verdict = report.verdict
    if verdict is not None:
        parts.append(f"**Verdict:** {escaped(' '.join((verdict.sentence + '.', *verdict.notes)))}")
        by_task = by_task_table(verdict, report.tasks)
        if by_task.rows:
            parts += ["## Task by task", _markdown_table(by_task)]
        finals = finalists_table(verdict.finalists, report.tasks)
        parts += ["## Finalists", _markdown_table(finals)]
    parts += ["## Leaderboard", *_leaderboard(report)]
    if report.why_first:
        parts.append(escaped(report.why_first))
    if report.learning:
        parts += ["## Learning", _markdown_table(learning_table(report.learning))]
    if len(report.failures):
        shown = failures_table(report.failures.head(MOST_ROWS))
        parts += ["## Failures", _markdown_table(shown), *_rest(len(report.failures) - MOST_ROWS)]
    parts += ["## Tasks", _markdown_table(tasks_table(report.tasks))]
    if report.best_yaml:
        parts += ["## Best recipe", code_block(report.best_yaml, "yaml")]
    if report.reproduce or report.facts:
        parts.append("## How to reproduce")
    if report.reproduce:
        parts.append(code_block("\n".join(report.reproduce), "sh"))
    if report.config:
        parts += ["config.yaml:", code_block(report.config, "yaml")]
    for section, values in report.facts.items():
        known = {name: "none" if value is None else str(value) for name, value in values.items()}
        lines = [f"- {escaped(name)}: {escaped(value)}" for name, value in known.items()]
        parts.append("\n".join([f"**{escaped(section)}**", "", *lines]))
    return "\n\n".join(parts) + "\n"


def _leaderboard(report: Report) -> list[str]:
    """The head of the leaderboard, and everything that stands for comparison."""
    frame = report.frame[report.frame["state"] != "failed"]
    kept = [
        at < MOST_ROWS or role_of(origin) is not Role.SEARCHED
        for at, origin in enumerate(frame["origin"])
    ]
    shown = frame[pd.Series(kept, index=frame.index, dtype=bool)]
    table = leaderboard_table(shown, report.tasks, wide=False)
    if not table.rows:
        return ["No candidate has been scored yet."]
    return [_markdown_table(table), *_rest(len(frame) - len(shown))]


def _rest(count: int) -> list[str]:
    return [f"{count} more are in the other formats."] if count > 0 else []


def _markdown_table(table: Table) -> str:
    head, *rows = (f"| {' | '.join(map(escaped, row))} |" for row in (table.headers, *table.rows))
    sides = " | ".join("---:" if numeric else "---" for numeric in table.numeric)
    return "\n".join([head, f"| {sides} |", *rows])


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, on one line: no HTML, links, code or table borders."""
    line = stripped(" ".join(text.split()))
    line = re.sub(r"([\\`*~\[\]|])", r"\\\1", line).replace("&", "&amp;").replace("<", "&lt;")
    return line.replace("://", ":&#47;&#47;")  # or an address alone becomes a link


def code_block(text: str, language: str) -> str:
    """A code block whose fence is longer than any in the text."""
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"
