"""Results as rows of study.db and back: what one candidate's questions gave."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from evaluators.protocol import LARGEST, Failure, Outcome, Score
from runs.records.record import State
from runs.storage.tables import null_if_nan, pack, unpack

Positions = npt.NDArray[np.uint32]
Values = npt.NDArray[np.float64]


def result(outcome: Score | Failure) -> dict[str, Any]:
    """The columns of an evaluation that hold what came back, but for the questions asked."""
    if isinstance(outcome, Score):
        return {
            "state": State.COMPLETE.value,
            "value": outcome.value,
            "stderr": null_if_nan(outcome.stderr),
            "tasks": json.dumps([asdict(task) for task in outcome.tasks]),
            "questions": len(outcome.outcomes),
            "build_seconds": outcome.build_seconds,
            "score_seconds": outcome.score_seconds,
            "outcomes": pack(_numbers(outcome.outcomes)),
            "fingerprint": outcome.fingerprint,
        }
    return {
        "state": State.FAILED.value,
        "failure_kind": outcome.kind.value,
        "failure_message": outcome.message,
        "failure_detail": outcome.detail,
        "fingerprint": outcome.fingerprint,
    }


def _numbers(outcomes: Sequence[Outcome]) -> Values:
    """Values of outcomes, and after them the lengths of the answers where any was written."""
    pairs = [(one.value, math.nan if one.length is None else one.length) for one in outcomes]
    numbers = np.array(pairs, dtype="<f8").reshape(-1, 2).T
    return numbers[: 1 if np.isnan(numbers[1]).all() else 2].copy()


def positions(packed: bytes, count: int) -> Positions:
    """Places of questions in the catalogue.

    Raises:
        ValueError: If there are more, or others.
    """
    found = unpack(packed, "<u4", most=count)
    if (found >= count).any():
        raise ValueError(f"expected places of {count} questions, got others")
    return found


def answers(asked: bytes, outcomes: bytes, count: int) -> tuple[Positions, Values]:
    """``(n,)`` places in the catalogue, and ``(2, n)`` values and lengths of written answers.

    Raises:
        ValueError: If they do not belong to each other, or to no questions of the run.
    """
    places = positions(asked, count)
    flat = unpack(outcomes, "<f8", most=2 * len(places))
    if len(flat) not in (len(places), 2 * len(places)):
        raise ValueError(f"expected answers to {len(places)} questions, got {len(flat)} numbers")
    numbers = flat.reshape(-1, len(places)) if len(places) else np.empty((1, 0))
    numbers = np.where(np.abs(numbers) <= LARGEST, numbers, math.nan)
    if len(numbers) == 1:  # nothing was written
        numbers = np.vstack([numbers, np.full_like(numbers, math.nan)])
    return places, numbers
