"""Records of a run as tables with fixed columns and dtypes, and the order that decides the winner.

Candidates are ranked by what they did on the search questions alone. Held-out scores stand beside
it and never choose: picking by them would spoil the one unbiased number there is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from evaluators.protocol import TaskInfo, TaskScore
from runs.ranking.floors import broken_text, floored
from runs.ranking.pareto_front import clear_front
from runs.records.pooled_evaluations import QUARANTINED, pooled
from runs.records.record import (
    ANSWER_LENGTH,
    MEASURES,
    PARAMETERS,
    PARENT,
    SCORE,
    Evaluation,
    Record,
    Split,
    State,
)

_FIRST = {
    "rank": "Int64",
    "front": "boolean",
    "expected": "float64",
    "expected_stderr": "float64",
    "score": "float64",
    "stderr": "float64",
    "estimate": "float64",
}
_HELD_OUT = {
    "held_out": "float64",
    "held_out_stderr": "float64",
    "held_out_questions": "Int64",
}
_MEASURES = {"answer_length": "float64", "answer_length_stderr": "float64", "parameters": "Int64"}
_LAST = {
    "method": "str",
    "origin": "str",
    "key": "str",
    "fingerprint": "str",
    "state": "str",
    "failure": "str",
    "message": "str",
    "build_seconds": "float64",
    "score_seconds": "float64",
    "worker": "str",
    "trial": "Int64",
    "candidate": "int64",
    "questions": "Int64",
    "unmarked": "Int64",
}

FAILURE_COLUMNS = {
    "candidate": "int64",
    "split": "str",
    "kind": "str",
    "quarantined": "bool",
    "message": "str",
    "method": "str",
    "origin": "str",
    "key": "str",
    "worker": "str",
    "trial": "Int64",
    "attempts": "int64",
}
"""Columns of the failures table with their dtypes."""

_STATE_ORDER = {State.COMPLETE: 0, State.RUNNING: 1, State.FAILED: 2}


def columns(tasks: Sequence[TaskInfo]) -> dict[str, str]:
    """Columns of the leaderboard with their dtypes, in order.

    A task ``x`` has ``task:x`` and ``task_stderr:x`` for the search questions, ``held_out:x`` and
    ``held_out_stderr:x`` for the held-out ones, in the metric's own unit and direction, and
    ``expected:x`` and ``expected_stderr:x``, where larger is better. So do the measures. The first
    less that of the parent best in ``x`` is ``over_parents:x``. With a floor it has ``margin:x``
    and ``margin_stderr:x``, below 0 where the floor is broken, and ``broken`` says which floors
    are, and by how much. Where answers are written it has ``length:x``, ``cut_off:x`` and
    ``looped:x``: mean characters of an answer, and the shares that ended with the most tokens
    allowed and that repeated themselves, over the search and held-out questions asked.
    """
    expected: dict[str, str] = {}
    answers: dict[str, str] = {}
    search: dict[str, str] = {}
    held_out: dict[str, str] = {}
    for name in (*(task.name for task in tasks), *MEASURES):
        expected |= {f"expected:{name}": "float64", f"expected_stderr:{name}": "float64"}
    expected |= {f"over_parents:{task.name}": "float64" for task in tasks}
    for task in tasks:
        search |= {f"task:{task.name}": "float64", f"task_stderr:{task.name}": "float64"}
        held_out |= {f"held_out:{task.name}": "float64", f"held_out_stderr:{task.name}": "float64"}
    for task in (task for task in tasks if task.written):
        answers |= {f"{what}:{task.name}": "float64" for what in ("length", "cut_off", "looped")}
    floors: dict[str, str] = {}
    for task in floored(tasks):
        floors |= {f"margin:{task.name}": "float64", f"margin_stderr:{task.name}": "float64"}
    floors |= {"broken": "str"} if floors else {}
    first = {**_FIRST, **floors, **expected}
    return {**first, **search, **_HELD_OUT, **held_out, **_MEASURES, **answers, **_LAST}


def leaderboard(records: Sequence[Record], tasks: Sequence[TaskInfo]) -> pd.DataFrame:
    """Every candidate as a row: ranked ones first, then running, then failed ones, by id.

    Args:
        records: As the store gives them, in any order.
        tasks: The run's tasks, in the order of the columns.

    Returns:
        A frame with the columns and dtypes of ``columns(tasks)``, also when it has no rows, and an
        index from 0. Numbers that do not exist are NaN or NA; texts that do not are empty.
    """
    order = ranked(records)
    ranks = {record.id: rank for rank, record in enumerate(order, start=1)}
    others = sorted((r for r in records if r.id not in ranks), key=lambda r: (_state(r), r.id))
    on_front, specialists = fronts(order), _specialists(records, tasks)
    rows = [
        _row(record, tasks, ranks.get(record.id))
        | _over(record, specialists)
        | ({"front": record.id in on_front} if record.objectives else {})
        for record in (*order, *others)
    ]
    return _frame(rows, columns(tasks))


def _specialists(records: Sequence[Record], tasks: Sequence[TaskInfo]) -> dict[str, float]:
    """What is expected of the best parent in each task."""
    known = [one.objectives for one in records if one.objectives and one.origin.startswith(PARENT)]
    names = [task.name for task in tasks if known and all(task.name in one for one in known)]
    return {name: max(one[name].value for one in known) for name in names}


def _over(record: Record, specialists: Mapping[str, float]) -> dict[str, float]:
    return {
        f"over_parents:{name}": record.objectives[name].value - value
        for name, value in specialists.items()
        if name in record.objectives
    }


def failures(records: Sequence[Record]) -> pd.DataFrame:
    """Every failed evaluation as a row, by candidate, search before held-out.

    Returns:
        A frame with the columns and dtypes of ``FAILURE_COLUMNS``, also when it has no rows.
    """
    rows = []
    for record in sorted(records, key=lambda record: record.id):
        for split in Split:
            evaluation = record.evaluations.get(split)
            if evaluation is None or evaluation.state is not State.FAILED:
                continue
            rows.append(
                _about(record)
                | {
                    "split": split.value,
                    "kind": _kind(evaluation),
                    "quarantined": evaluation.failure_kind in QUARANTINED,
                    "message": evaluation.failure_message,
                    "worker": evaluation.worker,
                    "attempts": evaluation.attempts,
                }
            )
    return _frame(rows, FAILURE_COLUMNS)


def ranked(records: Sequence[Record]) -> tuple[Record, ...]:
    """Candidates that have a search score, the best first; equal ones by lower id.

    Those that are expected to keep every floor come first, the others by how far they are from it,
    and then by the posterior's mean less one standard deviation, so that a recipe of which little
    is known has to be better to come before one that was asked everything; by the search score
    where there is no posterior, after those that have one.
    """
    scored = [record for record in records if math.isfinite(score_of(record))]
    return tuple(sorted(scored, key=_merit))


def contenders(records: Sequence[Record], *, objectives: Sequence[str] = ()) -> tuple[Record, ...]:
    """Ranked candidates in the order in which they deserve a closer look.

    Args:
        records: With what is known of each objective.
        objectives: Of the run, where there are several: the best in each task on the front and then
            all of the front come right after the first in rank. The best in a measure is not taken
            for it: the smallest model is seldom a good one.

    Returns:
        The first in rank first, however many objectives there are.
    """
    order = ranked(records)
    chosen = list(order[:1])
    if objectives:
        on_front = fronts(order)
        members = [record for record in order if record.id in on_front]
        tasks = [name for name in objectives if name not in (SCORE, *MEASURES)]
        chosen += [
            max(members, key=lambda r: r.objectives[name].value) for name in tasks if members
        ]
        chosen += members
    return tuple({record.id: record for record in (*chosen, *order)}.values())


def fronts(records: Sequence[Record]) -> frozenset[int]:
    """Ids of the candidates on the front of what is to be expected of them in each objective.

    Differences within the standard error of the difference count as none; of equals the first in
    rank is on it (``runs.ranking.pareto_front.clear_front``). Only those are that come
    nearest to keeping every floor.
    """
    known = [record for record in ranked(records) if record.objectives]
    known = [record for record in known if record.shortfall == known[0].shortfall]
    points = [[one.value for one in record.objectives.values()] for record in known]
    errors = [[one.stderr for one in record.objectives.values()] for record in known]
    best = clear_front(points, errors)
    return frozenset(record.id for record, is_on in zip(known, best, strict=True) if is_on)


def _merit(record: Record) -> tuple[bool, float, float, int]:
    known = record.posterior
    if known is None:
        return True, record.shortfall, -score_of(record), record.id
    doubt = 0.0 if math.isnan(known.stderr) else known.stderr
    return False, record.shortfall, doubt - known.value, record.id


def best(records: Sequence[Record]) -> Record | None:
    """The winner: the first in rank, held-out scores not looked at; ``None`` without any."""
    return next(iter(ranked(records)), None)


def score_of(record: Record, split: Split = Split.SEARCH) -> float:
    """The combined score on a split, larger is better; NaN unless that evaluation is complete."""
    evaluation = record.evaluations.get(split)
    return math.nan if evaluation is None else evaluation.value


def unmarked(record: Record) -> int:
    """How many questions, of both splits, a candidate answered that got no value of their task."""
    return sum(task.unmarked for part in record.evaluations.values() for task in part.tasks)


def written(record: Record) -> dict[str, TaskScore]:
    """What a candidate wrote, by task: over the questions of both splits that it was asked."""
    found: dict[str, list[TaskScore]] = {}
    for part in record.evaluations.values():
        for task in part.tasks:
            if task.length is not None:
                found.setdefault(task.task, []).append(task)
    return {name: pooled(scores) for name, scores in found.items()}


def _state(record: Record) -> int:
    evaluation = record.evaluations.get(Split.SEARCH)
    return _STATE_ORDER[evaluation.state] if evaluation else _STATE_ORDER[State.RUNNING]


def _kind(evaluation: Evaluation) -> str:
    return evaluation.failure_kind.value if evaluation.failure_kind else ""


def _about(record: Record) -> dict[str, Any]:
    return {
        "candidate": record.id,
        "method": record.recipe.title,
        "origin": record.origin,
        "key": record.recipe.key,
        "trial": record.trial,
    }


def _row(record: Record, tasks: Sequence[TaskInfo], rank: int | None) -> dict[str, Any]:
    row = _about(record) | {"rank": rank}
    if record.estimate is not None:
        row["estimate"] = record.estimate.value
    if record.posterior is not None:
        row["expected"] = record.posterior.value
        row["expected_stderr"] = record.posterior.stderr
    for name, known in record.objectives.items():
        row |= {f"expected:{name}": known.value, f"expected_stderr:{name}": known.stderr}
    for name, margin in record.margins.items():
        row |= {f"margin:{name}": margin.value, f"margin_stderr:{name}": margin.stderr}
    row["broken"] = broken_text(record)
    if (length := record.measures.get(ANSWER_LENGTH)) is not None:
        row |= {"answer_length": length.value, "answer_length_stderr": length.stderr}
    if (size := record.measures.get(PARAMETERS)) is not None:
        row["parameters"] = round(size.value)
    search = record.evaluations.get(Split.SEARCH)
    if search is not None:
        row |= {
            "state": search.state.value,
            "failure": _kind(search),
            "message": search.failure_message,
            "fingerprint": search.fingerprint,
            "worker": search.worker,
            "build_seconds": search.build_seconds,
            "score_seconds": search.score_seconds,
            "questions": search.questions,
            "unmarked": unmarked(record),
        }
        for name, score in written(record).items():
            row |= {f"length:{name}": score.length, f"cut_off:{name}": score.cut_off}
            row |= {f"looped:{name}": score.looped}
        row |= _scores(search, tasks, "score", "stderr", "task")
    held_out = record.evaluations.get(Split.HELD_OUT)
    if held_out is not None and held_out.state is State.COMPLETE:
        row["held_out_questions"] = held_out.questions
        row |= _scores(held_out, tasks, "held_out", "held_out_stderr", "held_out")
    return row


def _scores(
    evaluation: Evaluation, tasks: Sequence[TaskInfo], value: str, stderr: str, prefix: str
) -> dict[str, Any]:
    """Combined and per-task columns of one evaluation; nothing where it is not complete."""
    if evaluation.state is not State.COMPLETE:
        return {}
    row = {value: evaluation.value, stderr: evaluation.stderr}
    known = {task.name for task in tasks}
    for score in evaluation.tasks:
        if score.task in known:
            row[f"{prefix}:{score.task}"] = score.value
            row[f"{prefix}_stderr:{score.task}"] = score.doubt
    return row


def _frame(rows: Sequence[dict[str, Any]], dtypes: dict[str, str]) -> pd.DataFrame:
    data = {
        name: pd.Series([_cell(row.get(name), dtype) for row in rows], dtype=dtype)
        for name, dtype in dtypes.items()
    }
    return pd.DataFrame(data, columns=list(dtypes))


def _cell(value: Any, dtype: str) -> Any:
    if value is not None:
        return value
    return {"float64": math.nan, "str": ""}.get(dtype, pd.NA)
