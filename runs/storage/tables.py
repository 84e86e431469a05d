"""The run's own tables in study.db, and rows as values."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa
from sqlalchemy.engine import RowMapping

from evaluators.protocol import LARGEST, FailureKind, TaskScore
from runs.records.record import Part, State
from runs.storage.database import study_lock

METADATA = sa.MetaData()
FACTS = sa.Table(
    "merge_search_run",
    METADATA,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
CANDIDATES = sa.Table(
    "merge_search_candidate",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("key", sa.String(64), nullable=False, unique=True),
    sa.Column("recipe", sa.Text, nullable=False),
    sa.Column("origin", sa.Text, nullable=False),
    sa.Column("trial", sa.Integer),
    # Positions in the run's list of questions (uint32), deflated: what it is to be asked at first.
    sa.Column("planned", sa.LargeBinary, nullable=False),
)
EVALUATIONS = sa.Table(
    "merge_search_evaluation",
    METADATA,
    sa.Column("candidate", sa.ForeignKey("merge_search_candidate.id"), primary_key=True),
    sa.Column("split", sa.String(16), primary_key=True),
    sa.Column("part", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("questions", sa.Integer, nullable=False),
    # Positions as above, known from the start, and values (float64), each deflated; after the
    # values as many lengths of answers, where any was written.
    sa.Column("asked", sa.LargeBinary, nullable=False),
    sa.Column("outcomes", sa.LargeBinary),
    sa.Column("started", sa.Float, nullable=False),
    sa.Column("finished", sa.Float),
    sa.Column("worker", sa.Text, nullable=False, default=""),
    sa.Column("fingerprint", sa.String(64), nullable=False, default=""),
    sa.Column("value", sa.Float),
    sa.Column("stderr", sa.Float),
    sa.Column("tasks", sa.Text, nullable=False, default="[]"),
    sa.Column("build_seconds", sa.Float),
    sa.Column("score_seconds", sa.Float),
    sa.Column("failure_kind", sa.String(32)),
    sa.Column("failure_message", sa.Text, nullable=False, default=""),
    sa.Column("failure_detail", sa.Text, nullable=False, default=""),
)
QUESTION_TEXTS = sa.Table(
    "merge_search_question_text",
    METADATA,
    # Position in the run's list of tasks; deflated JSON: prompt, right answer and choices of each.
    sa.Column("task", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("texts", sa.LargeBinary, nullable=False),
)
ANSWER_TEXTS = sa.Table(
    "merge_search_answer_text",
    METADATA,
    sa.Column("candidate", sa.ForeignKey("merge_search_candidate.id"), primary_key=True),
    sa.Column("split", sa.String(16), primary_key=True),
    sa.Column("part", sa.Integer, primary_key=True, autoincrement=False),
    # Deflated JSON: a text for each question of that part of an evaluation, in its order.
    sa.Column("texts", sa.LargeBinary, nullable=False),
)
ADDED = (QUESTION_TEXTS, ANSWER_TEXTS)
"""Tables that studies of earlier versions lack, until they are driven again."""

LOCK = study_lock.table(METADATA)


def pack(values: npt.NDArray[np.generic]) -> bytes:
    """An array as deflated little-endian bytes."""
    return zlib.compress(values.tobytes())


def unpack(data: bytes, dtype: str, *, most: int) -> npt.NDArray[Any]:
    """The array that ``pack`` was given.

    Args:
        data: As packed; from a stranger it may swell a thousand times.
        dtype: Of the array.
        most: Numbers that there may be: no more than those are inflated.

    Raises:
        ValueError: If there are more, or no whole ones.
        zlib.error: If it is not what ``pack`` gives.
    """
    return np.frombuffer(_inflated(data, most * np.dtype(dtype).itemsize), dtype=dtype)


def _inflated(data: bytes, most: int) -> bytes:
    inflater = zlib.decompressobj()
    content = inflater.decompress(data, most + 1)  # one byte more tells whether there are more
    if len(content) > most:
        raise ValueError(f"expected at most {most} bytes, got more")
    if not inflater.eof:
        raise zlib.error("incomplete or truncated stream")
    return content


def pack_texts(values: Sequence[Any]) -> bytes:
    """Texts, or lists of them, as deflated JSON."""
    return zlib.compress(json.dumps(values, separators=(",", ":")).encode("ascii"), 1)


def unpack_texts(data: bytes, *, count: int, each: int) -> list[Any]:
    """The values that ``pack_texts`` was given.

    Args:
        data: As packed; from a stranger it may swell a thousand times.
        count: How many there are.
        each: Characters that one may have.

    Raises:
        ValueError: If there are more or fewer, or it is no list.
        zlib.error: If it is not what ``pack_texts`` gives.
    """
    found = json.loads(_inflated(data, count * (12 * each + 100)))  # an emoji is 12 bytes of JSON
    if not isinstance(found, list) or len(found) != count:
        raise ValueError(f"expected {count} texts, got others")
    return found


def null_if_nan(value: float) -> float | None:
    """What SQL holds for a number: it knows no NaN."""
    return None if math.isnan(value) else value


def nan_if_null(value: float | None) -> float:
    """The number that SQL holds as ``null_if_nan`` gave it."""
    return math.nan if value is None else value


def part(row: RowMapping) -> Part:
    """A part of an evaluation from its row; the outcomes of questions are read elsewhere.

    Scores that nothing can be reckoned with, which earlier versions kept, are a failure.
    It ends no earlier than it began: the clock may have been set back meanwhile.
    """
    found = _part(row)
    numbers = [found.value, found.stderr]
    numbers += [number for one in found.tasks for number in (one.value, one.stderr)]
    if not any(abs(number) > LARGEST for number in numbers):
        return found
    return replace(
        found,
        state=State.FAILED,
        value=math.nan,
        stderr=math.nan,
        tasks=(),
        failure_kind=FailureKind.NON_FINITE,
        failure_message=f"score: expected finite numbers of at most {LARGEST:g}, got {found.value}",
    )


def _part(row: RowMapping) -> Part:
    started, finished = row["started"], row["finished"]
    return Part(
        state=State(row["state"]),
        value=nan_if_null(row["value"]),
        stderr=nan_if_null(row["stderr"]),
        tasks=tuple(TaskScore(**task) for task in json.loads(row["tasks"])),
        questions=row["questions"],
        build_seconds=nan_if_null(row["build_seconds"]),
        score_seconds=nan_if_null(row["score_seconds"]),
        worker=row["worker"],
        fingerprint=row["fingerprint"],
        failure_kind=FailureKind(row["failure_kind"]) if row["failure_kind"] else None,
        failure_message=row["failure_message"],
        started=datetime.fromtimestamp(started, UTC),
        finished=datetime.fromtimestamp(max(started, finished), UTC) if finished else None,
        attempts=row["attempts"],
    )
