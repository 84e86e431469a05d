"""The report put together: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from runs.ranking.leaderboard import ranked
from runs.records.record import Record
from runs.report.html.figure import Figure
from runs.report.html.headline import headline
from runs.report.html.leaderboard_data import answers, board, packed, recipes
from runs.report.html.learning_figures import learned_figures, loss_figure
from runs.report.html.merge_drawing import drawing
from runs.report.html.progress_figures import failures_figure, progress_figure, workers_figure
from runs.report.html.recipe_figures import depth_figure, effect_figures, importance_figure
from runs.report.html.score_figures import front_figure, kept_figure, task_figures
from runs.report.report_content import Details, Report
from runs.report.report_tables import (
    Table,
    finalists_table,
    leaderboard_table,
    learning_table,
    tasks_table,
)
from runs.report.task_tables import by_task_table

HERE = Path(__file__).parent

DRAWING = ("plotly-cartesian.min.js", "figures.js")
"""The scripts that draw, in order."""

FIRST_ROWS = 20
"""Rows of the leaderboard that are there without any script."""

MOST_MESSAGES = 30
"""Kinds of failure messages that are listed."""

_NUMBERS = re.compile(r"\b[0-9a-f]{16,}\b|\d+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """The figures of a report, each ``None`` or empty where there is nothing to show."""

    kept: Figure | None = None
    progress: Figure | None = None
    tasks: tuple[Figure, ...] = ()
    front: Figure | None = None
    learning: Figure | None = None
    learned: tuple[Figure, ...] = ()
    importance: Figure | None = None
    effects: tuple[Figure, ...] = ()
    depth: Figure | None = None
    failures: Figure | None = None
    workers: Figure | None = None

    def __iter__(self) -> Iterator[Figure]:
        """All there are, in the order of the page."""
        every = (
            *(self.kept, *self.tasks, self.progress, self.front, self.learning, *self.learned),
            *(self.importance, *self.effects, self.depth, self.failures, self.workers),
        )
        return (figure for figure in every if figure is not None)


def figures(report: Report) -> Figures:
    """All figures that a report has something to show for."""
    found = Figures(
        kept=kept_figure(report),
        tasks=tuple(task_figures(report)),
        learning=loss_figure(report.learning),
        failures=failures_figure(report),
    )
    if (details := report.details) is None:
        return found
    winner = _winner(details)
    return replace(
        found,
        progress=progress_figure(details.records, details.timeline),
        front=front_figure(report, details.records),
        learned=tuple(learned_figures(details, report.learning)),
        importance=importance_figure(details.insights),
        effects=tuple(effect_figures(details)),
        depth=None if winner is None else depth_figure(details, winner),
        workers=workers_figure(details.timeline, learned=bool(report.learning)),
    )


def page(report: Report, *, live: int | None = None) -> str:
    """The page as HTML; every text in it is escaped by the template engine.

    Args:
        report: What to show.
        live: Number of results that it knows of, for a page that a server of this run sends: it
            then asks that server where the run stands (``live.js``). ``None`` for a file.
    """
    return _template("report.html.j2").render(_values(report, live))


def _values(report: Report, live: int | None) -> dict[str, Any]:
    found, details, verdict = figures(report), report.details, report.verdict
    book = None if details is None else details.answers
    winner = None if details is None else _winner(details)
    first = report.frame[report.frame["state"] != "failed"].head(FIRST_ROWS)
    return {
        "report": report,
        "live": live,
        "headline": headline(report),
        "figures": found,
        "drawing": None if winner is None else drawing(winner.recipe),
        "by_task": None if verdict is None else by_task_table(verdict, report.tasks),
        "finalists": finalists_table(() if verdict is None else verdict.finalists, report.tasks),
        "first_rows": leaderboard_table(first, report.tasks, wide=False),
        "messages": _messages(report.failures),
        "learning": learning_table(report.learning),
        "tasks": tasks_table(report.tasks),
        "ranked": int(report.frame["rank"].notna().sum()),
        "data": {
            "figures": [figure.to_json() for figure in found],
            "board": board(report.frame, report.tasks),
            "study": None if details is None else details.study,
        },
        "recipes": "" if details is None else packed(recipes(details.records, details.recipe)),
        "answers": packed(answers(book)) if book else "",
        **_assets("report.js", *["answers.js"] * bool(book), *["live.js"] * (live is not None)),
    }


def _winner(details: Details) -> Record | None:
    return next(iter(ranked(details.records)), None)


def _messages(failures: pd.DataFrame) -> Table:
    """Failures of one kind with the same message as one row, the most frequent first.

    Messages that differ in numbers only, or in hashes, count as the same: the first one stands.
    """
    groups: dict[tuple[str, str], list[tuple[int, str]]] = {}
    columns = (failures["kind"], failures["message"], failures["candidate"])
    for kind, message, candidate in zip(*columns, strict=True):
        alike = groups.setdefault((kind, _NUMBERS.sub("#", message)), [])
        alike.append((int(candidate), message))
    order = sorted(groups.items(), key=lambda item: -len(item[1]))
    rows = tuple(
        (str(len(found)), kind, found[0][1], _ids([number for number, _ in found]))
        for (kind, _), found in order[:MOST_MESSAGES]
    )
    return Table(
        headers=("times", "kind", "message", "candidates"),
        numeric=(True, False, False, False),
        rows=rows,
        marks=("",) * len(rows),
    )


def _ids(numbers: Sequence[int]) -> str:
    listed = ", ".join(map(str, numbers[:5]))
    return listed + (f" and {len(numbers) - 5} more" if len(numbers) > 5 else "")


def image_page(shown: Sequence[Figure], *, kind: str, width: int) -> str:
    """A page that draws figures into images, and then holds these as JSON in its text."""
    data = {
        "figures": [figure.to_json() for figure in shown],
        "format": kind,
        "width": width,
        "scale": 2 if kind == "png" else 1,
    }
    return _template("images.html.j2").render(data=data, **_assets("images.js"))


@cache
def _assets(*after: str) -> dict[str, Any]:
    """Style and scripts, and the policy under which nothing else runs or is loaded."""
    scripts = [(HERE / name).read_text(encoding="utf-8") for name in (*DRAWING, *after)]
    asks = " connect-src 'self';" if "live.js" in after else ""
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    return {
        "style": (HERE / "report.css").read_text(encoding="utf-8"),
        "scripts": scripts,
        "policy": f"default-src 'none';{asks} script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data: blob:",
    }


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")


def script_json(data: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["script_json"] = script_json
    return environment.get_template(name)
