"""Scores as an exported recipe notes them: plain values, for the card of the model it makes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runs.ranking.verdict_text import title as in_words
from runs.report.report_markdown import escaped
from runs.report.report_tables import score_text

_COLUMNS = (("score", "search questions"), ("held_out", "held-out questions"))


def noted_scores(meta: Mapping[str, Any]) -> str:
    """A table of the scores in a recipe file's own block; empty where there are none.

    A row per task and one for the score; a column per kind of question, and one for the held-out
    scores of each model that the recipe was compared with. What is not written as
    ``recipe_meta`` writes it, such as a score that is just a number, is shown as far as it goes.
    """
    noted = {
        title: value if isinstance(value, Mapping) else {"value": value}
        for key, title in _COLUMNS
        if (value := meta.get(key)) is not None
    }
    noted = {title: value for title, value in noted.items() if _number(value.get("value"))}
    if noted:
        others = meta.get("compared")
        for name, value in others.items() if isinstance(others, Mapping) else ():
            if isinstance(value, Mapping):
                noted[f"held-out, {escaped(in_words(str(name)))}"] = value
    if not noted:
        return ""
    tasks = dict.fromkeys(str(task) for value in noted.values() for task in _tasks(value))
    rows = [
        ["task", *noted],
        ["---", *["---:"] * len(noted)],
        *(
            [escaped(task), *(_score(_tasks(value).get(task)) for value in noted.values())]
            for task in tasks
        ),
        ["**score**", *(_score(v.get("value"), v.get("stderr")) for v in noted.values())],
    ]
    if any("questions" in value for value in noted.values()):
        counts = (escaped(str(value.get("questions", ""))) for value in noted.values())
        rows.append(["questions", *counts])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def noted_verdict(meta: Mapping[str, Any]) -> str:
    """The verdict that a recipe file notes, as a paragraph; empty without one."""
    verdict = meta.get("verdict")
    return f"**Verdict:** {escaped(verdict)}." if isinstance(verdict, str) and verdict else ""


def _tasks(value: Mapping[str, Any]) -> Mapping[str, Any]:
    found = value.get("tasks")
    return found if isinstance(found, Mapping) else {}


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _score(value: Any, stderr: Any = None) -> str:
    if not _number(value):
        return ""
    return score_text(float(value), float(stderr) if _number(stderr) else float("nan"))
