"""A recipe of a run as YAML, for use elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from runs.ranking.verdict import Verdict, name_of
from runs.records.manifest import Manifest
from runs.records.record import Record, Split, State
from runs.report.task_tables import models_compared
from spaces.mergekit import to_yaml


def recipe_meta(record: Record, verdict: Verdict | None = None) -> dict[str, Any]:
    """What an exported recipe says about its place in a run: plain values by name, in order.

    Scores are exact, so that those of a rebuilt model can be compared with them.

    Args:
        record: The candidate.
        verdict: Of the run; it is told of the winner only, with the scores of parents and base.
    """
    meta: dict[str, Any] = {"candidate": record.id, "origin": record.origin}
    search = record.evaluations.get(Split.SEARCH)
    if search is not None and search.fingerprint:
        meta["fingerprint"] = search.fingerprint
    if record.posterior is not None:
        known = record.posterior
        meta["expected"] = {
            "value": known.value,
            "stderr": None if math.isnan(known.stderr) else known.stderr,
        }
    for split, name in ((Split.SEARCH, "score"), (Split.HELD_OUT, "held_out")):
        evaluation = record.evaluations.get(split)
        if evaluation is not None and evaluation.state is State.COMPLETE:
            meta[name] = {
                "value": evaluation.value,
                "stderr": None if math.isnan(evaluation.stderr) else evaluation.stderr,
                "questions": evaluation.questions,
                "tasks": {score.task: score.value for score in evaluation.tasks},
            }
    if verdict is not None and verdict.winner == name_of(record):
        meta |= _judged(verdict)
    return meta


def _judged(verdict: Verdict) -> dict[str, Any]:
    found = {
        one.name: {
            "value": one.held_out.combined.value,
            "tasks": {task: score.value for task, score in one.held_out.tasks.items()},
        }
        for one in models_compared(verdict)
    }
    return {"verdict": verdict.sentence} | ({"compared": found} if found else {})


def recipe_text(
    record: Record,
    manifest: Manifest,
    places: Mapping[str, str],
    verdict: Verdict | None = None,
) -> str:
    """A candidate's recipe as YAML, with its place in the run."""
    return to_yaml(
        record.recipe,
        places,
        meta=recipe_meta(record, verdict),
        inputs_dtype=manifest.inputs_dtype,
    )
