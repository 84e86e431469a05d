"""The leaderboard as files: CSV, Markdown, JSON, Parquet, and a page that needs nothing else."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from runs.activity.search_progress import changes, progress
from runs.output_files import replacing, write_text
from runs.ranking.finalists import Against, Finalist
from runs.ranking.leaderboard import ranked
from runs.ranking.verdict import Verdict
from runs.report import report_markdown
from runs.report.figure_images import IMAGES, images
from runs.report.html.page import page
from runs.report.learning_summary import LearningSummary
from runs.report.report_content import Details, Report
from spaces.errors import UserError
from spaces.recipes.contributions import contributions
from spaces.text.terminal_text import stripped

JSON_FORMAT = 2
"""Version of the JSON report; it grows when a key changes its meaning or goes away."""


def to_csv(report: Report) -> str:
    """The leaderboard with all its columns; missing values are empty.

    Texts that a spreadsheet would take for a formula get an apostrophe in front, and so do those
    that begin with one; control characters are left out. ``text.removeprefix("'")`` gives every
    other text back.
    """
    texts = {
        str(name): [_cell(value) for value in column]
        for name, column in report.frame.items()
        if pd.api.types.is_string_dtype(column.dtype)
    }
    text: str = report.frame.assign(**texts).to_csv(index=False, lineterminator="\n")
    return text


_FORMULA = tuple("=+-@\t\r\n'")
"""What a formula may begin with: https://owasp.org/www-community/attacks/CSV_Injection."""


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return stripped("'" + value if value.startswith(_FORMULA) else value)


def to_markdown(report: Report) -> str:
    """Verdict, leaderboard, failures and how to reproduce, for a README or an issue."""
    return report_markdown.markdown(report)


def to_html(report: Report) -> str:
    """One self-contained page: no request, everything escaped."""
    return page(report)


def to_json(report: Report) -> str:
    """Everything in the report; ``docs/report.md`` describes the keys. NaN and NA are null."""
    data: dict[str, Any] = {
        "format": JSON_FORMAT,
        "title": report.title,
        "notice": report.notice,
        "verdict": None if report.verdict is None else _verdict(report.verdict),
        "tasks": [asdict(task) for task in report.tasks],
        "columns": {name: str(dtype) for name, dtype in report.frame.dtypes.items()},
        "candidates": report.frame,
        "failures": report.failures,
        "facts": {section: dict(values) for section, values in report.facts.items()},
        "reproduce": list(report.reproduce),
        "config": report.config,
        "best_yaml": report.best_yaml,
        "learning": [_lesson(one, report.details) for one in report.learning],
        "insights": _insights(report.details),
    }
    members = [f"{json.dumps(name)}: {_json(value)}" for name, value in data.items()]
    return "{\n  " + ",\n  ".join(members) + "\n}\n"


def _json(value: Any) -> str:
    """One member of the report, as it stands in it."""
    if isinstance(value, pd.DataFrame):
        return _rows_json(value)
    text = json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False)
    return text.replace("\n", "\n  ")


def _rows_json(frame: pd.DataFrame) -> str:
    """The rows of a table; by an encoder that knows no indents, which is many times faster."""
    columns = [[plain(value) for value in frame[name].tolist()] for name in frame.columns]
    encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",\n      ", ": "))
    rows = [
        encoder.encode(dict(zip(frame.columns, row, strict=True)))
        for row in zip(*columns, strict=True)
    ]
    if not rows:
        return "[]"
    return "[\n" + ",\n".join(f"    {{\n      {row[1:-1]}\n    }}" for row in rows) + "\n  ]"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Format:
    """One kind of file.

    Attributes:
        file: Its name in the report's folder.
        text: Renders it; ``None`` for Parquet, which is no text.
    """

    file: str
    text: Callable[[Report], str] | None


FORMATS: dict[str, _Format] = {
    "html": _Format(file="report.html", text=to_html),
    "markdown": _Format(file="leaderboard.md", text=to_markdown),
    "csv": _Format(file="leaderboard.csv", text=to_csv),
    "json": _Format(file="leaderboard.json", text=to_json),
    "parquet": _Format(file="leaderboard.parquet", text=None),
}
"""Every format by name, with its file."""


class FormatError(UserError, ValueError):
    """A format that is not known; the message is one line."""


def write_report(report: Report, out: Path, formats: Sequence[str] = tuple(FORMATS)) -> list[Path]:
    """Write a report; each file appears whole or not at all, in place of an older one.

    Args:
        report: What to write.
        out: Folder to write to; it is made if need be.
        formats: Names from ``FORMATS`` and ``IMAGES``; none stands for all of ``FORMATS``.

    Returns:
        The files in the order of the formats.

    Raises:
        FormatError: If a format is not known; nothing is written then.
        BrowserError: If images are asked for and there is no browser; likewise.
    """
    names = tuple(dict.fromkeys(formats)) or tuple(FORMATS)
    known = (*FORMATS, *IMAGES)
    for name in names:
        if name not in known:
            raise FormatError(f"format: expected one of {', '.join(known)}, got {name!r}")
    drawn = {name: images(report, name) for name in names if name in IMAGES}
    # Everything is rendered before anything is written: a fault leaves the old report as it was.
    texts = {
        name: render(report) for name in names if name in FORMATS and (render := FORMATS[name].text)
    }
    written = []
    for name in names:
        for image, data in drawn.get(name, {}).items():
            path = out / "figures" / image
            with replacing(path) as draft:
                draft.write_bytes(data)
            written.append(path)
        if name in texts:
            write_text(out / FORMATS[name].file, texts[name])
        elif name in FORMATS:
            with replacing(out / FORMATS[name].file) as draft:
                report.frame.to_parquet(draft, engine="pyarrow", index=False)
        written += [out / FORMATS[name].file] if name in FORMATS else []
    return written


def _insights(details: Details | None) -> dict[str, Any] | None:
    """What matters, who was busy, and what the winner holds at each depth."""
    if details is None:
        return None
    found, timeline = details.insights, details.timeline
    winner = next(iter(ranked(details.records)), None)
    return {
        "importance": [asdict(item) for item in found.importance],
        "explained": found.explained,
        "workers": len(timeline.workers),
        "most_at_once": timeline.most_at_once,
        "utilisation": timeline.utilisation,
        "weights_over_depth": []
        if winner is None
        else [asdict(item) for item in contributions(winner.recipe, details.layers)],
        "best_so_far": [
            {
                "candidate": step.candidate,
                "best": step.best,
                "evaluations": step.evaluations,
                "questions": step.questions,
                "hours": step.hours,
            }
            for step in changes(progress(details.records, timeline))
        ],
    }


def _lesson(lesson: LearningSummary, details: Details | None) -> dict[str, Any]:
    """How one recipe was learned, and its weights over depth."""
    layers = 0 if details is None else details.layers
    found = contributions(lesson.recipe, layers) if layers else ()
    return {
        "name": lesson.name,
        "coefficients": lesson.coefficients,
        "steps": lesson.steps,
        "planned": lesson.planned,
        "losses": lesson.losses,
        "aside": [{"step": step, "loss": loss} for step, loss in lesson.aside],
        "chosen": None if lesson.chosen is None else lesson.chosen[0],
        "questions": lesson.questions,
        "seconds": lesson.seconds,
        "share": lesson.share,
        "failed": lesson.failed,
        "targets": lesson.targets,
        "weights_over_depth": [asdict(item) for item in found],
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "standing": verdict.standing.value,
        "sentence": verdict.sentence,
        "notes": list(verdict.notes),
        "winner": verdict.winner,
        "best_parent": verdict.best_parent,
        "confidence": verdict.confidence,
        "missing": list(verdict.missing),
        "on_tasks": [asdict(one) | {"change": one.change.value} for one in verdict.on_tasks],
        "comparisons": {
            name: {
                "difference": asdict(item.difference),
                "p_value": item.p_value,
                "tasks": {task: asdict(part) for task, part in item.tasks.items()},
                "left_out": list(item.left_out),
            }
            for name, item in verdict.comparisons.items()
        },
        "finalists": [_finalist(finalist) for finalist in verdict.finalists],
        "floors": [
            {"task": one.task, "kept": one.kept.value, "margin": asdict(one.margin)}
            for one in verdict.floors
        ],
    }


def _finalist(finalist: Finalist) -> dict[str, Any]:
    held_out = finalist.held_out
    return {
        "name": finalist.name,
        "role": finalist.role.value,
        "rank": finalist.rank,
        "search": finalist.search,
        "held_out": asdict(held_out.combined),
        "tasks": {task: asdict(part) for task, part in held_out.tasks.items()},
        "gap": None if finalist.gap is None else asdict(finalist.gap),
        "parents": _group(finalist.parents),
        "defaults": _group(finalist.defaults),
    }


def _group(group: Against | None) -> dict[str, Any] | None:
    if group is None:
        return None
    return {
        "best": group.best,
        "difference": asdict(group.difference),
        "p_value": group.p_value,
        "adjusted": group.adjusted,
    }


def plain(value: Any) -> Any:
    """The same values with NaN, infinities and NA as ``None``, for strict JSON."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or value is pd.NA:
        return None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
