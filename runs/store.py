"""study.db: everything a run must remember, in one database next to Optuna's own tables.

The driver is the only writer. A result is committed to the run's tables first and told to Optuna
second, so that a crash in between loses nothing: on resume, what is complete here but still running
there is told then. Values are JSON, numbers or arrays of numbers; nothing is ever unpickled by us.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from evaluators.base import LARGEST, Failure, Outcome, Score
from runs.database import StoreError
from runs.evaluations import whole
from runs.records import Asking, Part, Record, Split, State
from runs.run_database import RunDatabase
from runs.tables import (
    CANDIDATES,
    EVALUATIONS,
    null_if_nan,
    pack,
    part,
    unpack,
)
from spaces.recipe import Merge, Model, Recipe, Source, parameters

__all__ = ["Store", "StoreError"]

Positions = npt.NDArray[np.uint32]
Values = npt.NDArray[np.float64]

UNKNOWN = (math.nan, math.nan)
"""The span of an evaluation of which nobody took the time."""

# Statements of every candidate are made once: making one takes as long as executing it.
_LAST = sa.select(sa.func.max(CANDIDATES.c.id))
_NEW = sa.insert(CANDIDATES)
_BEGIN = sa.insert(EVALUATIONS).values(
    candidate=sa.bindparam("of"),
    split=sa.bindparam("what"),
    part=sa.select(sa.func.count())
    .where(EVALUATIONS.c.candidate == sa.bindparam("of"))
    .where(EVALUATIONS.c.split == sa.bindparam("what"))
    .scalar_subquery(),
    state=State.RUNNING.value,
    attempts=0,
    questions=sa.bindparam("count"),
    asked=sa.bindparam("ids"),
    started=sa.bindparam("now"),
)

_NONE = Recipe(
    root=Merge(
        method="linear",
        sources=(Source(of=Model("none"), parameters=parameters(weight=1.0)),),
    )
)
"""Stands in for recipes that were not read."""


class Store(RunDatabase):
    """One run's study: its candidates, what they were asked and what they answered."""

    def __init__(self, engine: Engine, *, name: str) -> None:
        super().__init__(engine, name=name)
        self._positions: dict[str, int] = {}

    def add(
        self,
        recipe: Recipe,
        *,
        origin: str,
        trial: int | None,
        planned: Sequence[str] = (),
        questions: Sequence[str] = (),
    ) -> int:
        """Take up a recipe that the run has not seen; ids count up from 0.

        Args:
            recipe: Any that the run has not.
            origin: Where it comes from; see ``Record``.
            trial: Number of its Optuna trial, if it has one.
            planned: Ids of the search questions it is to be asked; none stands for all.
            questions: Those that it is asked now; none stands for all that are planned.

        Returns:
            The id of the candidate. Its search evaluation is begun in the same transaction.
        """
        planned = planned or self.manifest.questions.search
        with self._writing(asked=True) as connection:
            last = connection.execute(_LAST).scalar()
            number = 0 if last is None else last + 1
            row = {
                "id": number,
                "key": recipe.key,
                "recipe": json.dumps(recipe.to_dict()),
                "origin": origin,
                "trial": trial,
                "planned": self._pack_positions(planned),
            }
            connection.execute(_NEW, row)
            self._begin(connection, number, Split.SEARCH, questions or planned)
        return number

    def begin(self, candidate: int, split: Split, questions: Sequence[str] = ()) -> None:
        """Note that questions are handed out; of a part under way, that they are so once more.

        Args:
            candidate: Its id.
            split: What the questions belong to.
            questions: Ids; none stands for all of the split. Ignored where a part is under way,
                whose own questions are asked again.
        """
        with self._writing() as connection:
            again = connection.execute(
                sa.update(EVALUATIONS)
                .where(_under_way(candidate, split))
                .values(started=datetime.now(UTC).timestamp())
            )
            if again.rowcount == 0:
                asked = questions or self.manifest.questions.of(split)
                self._begin(connection, candidate, split, asked)

    def _begin(
        self, connection: sa.Connection, candidate: int, split: Split, questions: Sequence[str]
    ) -> None:
        row = {
            "of": candidate,
            "what": split.value,
            "count": len(questions),
            "ids": self._pack_positions(questions),
            "now": datetime.now(UTC).timestamp(),
        }
        connection.execute(_BEGIN, row)

    def began(self, candidates: Collection[int]) -> None:
        """Note that workers began with what is under way of these candidates: it is an attempt."""
        if candidates:
            with self._writing() as connection:
                _count(connection, candidates)

    def under_way(self) -> tuple[Asking, ...]:
        """What was handed out and has not come back, in the order of the candidates."""
        query = (
            sa.select(EVALUATIONS.c.candidate, EVALUATIONS.c.split, EVALUATIONS.c.asked)
            .where(EVALUATIONS.c.state == State.RUNNING.value)
            .order_by(EVALUATIONS.c.candidate, EVALUATIONS.c.split)
        )
        with self._reading() as connection:
            return tuple(
                Asking(
                    candidate=row.candidate,
                    split=Split(row.split),
                    questions=self._ids(row.asked),
                )
                for row in connection.execute(query)
            )

    def finish(
        self,
        candidate: int,
        split: Split,
        outcome: Score | Failure,
        *,
        worker: str,
        further: Sequence[str] = (),
        span: tuple[float, float] = UNKNOWN,
        begun: Collection[int] = (),
    ) -> None:
        """Record the result of the part under way in one transaction; durable when this returns.

        Args:
            candidate: Its id.
            split: What was asked.
            outcome: What came back.
            worker: Who it came from.
            further: Ids of questions that it is asked next, if any: a part begun with this.
            span: When the worker was given it and when it answered, in seconds since 1970; NaN
                stands for when it was handed out, and for now.
            begun: Candidates that workers began with meanwhile; as for ``began``.
        """
        began, ended = span
        values: dict[str, Any] = {
            "worker": worker,
            "finished": datetime.now(UTC).timestamp() if math.isnan(ended) else ended,
            "fingerprint": outcome.fingerprint,
            # who was evaluated was begun with, whoever was told
            "attempts": sa.case((EVALUATIONS.c.attempts == 0, 1), else_=EVALUATIONS.c.attempts),
        }
        if not math.isnan(began):
            values["started"] = began
        if isinstance(outcome, Score):
            values |= {
                "state": State.COMPLETE.value,
                "value": outcome.value,
                "stderr": null_if_nan(outcome.stderr),
                "tasks": json.dumps([asdict(task) for task in outcome.tasks]),
                "questions": len(outcome.outcomes),
                "build_seconds": outcome.build_seconds,
                "score_seconds": outcome.score_seconds,
                # in the order they came, which need not be the order they were asked in
                "asked": self._pack_positions([item.question for item in outcome.outcomes]),
                "outcomes": pack(_numbers(outcome.outcomes)),
            }
        else:
            values |= {
                "state": State.FAILED.value,
                "failure_kind": outcome.kind.value,
                "failure_message": outcome.message,
                "failure_detail": outcome.detail,
            }
        with self._writing() as connection:
            _count(connection, begun)
            connection.execute(
                sa.update(EVALUATIONS).where(_under_way(candidate, split)).values(**values)
            )
            if further:
                self._begin(connection, candidate, split, further)

    def records(self, *, recipes: bool = True) -> tuple[Record, ...]:
        """Every candidate with its evaluations, by id.

        Args:
            recipes: Whether to read their recipes, which takes most of the time; without, all have
                the same made-up one.
        """
        tasks = self.manifest.catalogue.tasks
        ids = cache(self._ids)  # of many candidates the same was planned
        with self._reading() as connection:
            candidates = connection.execute(
                sa.select(CANDIDATES).order_by(CANDIDATES.c.id)
            ).mappings()
            columns = [c for c in EVALUATIONS.c if c.name not in ("asked", "outcomes")]
            parts: dict[int, dict[Split, list[Part]]] = {}
            for row in connection.execute(
                sa.select(*columns).order_by(EVALUATIONS.c.part)
            ).mappings():
                of = parts.setdefault(row["candidate"], {})
                of.setdefault(Split(row["split"]), []).append(part(row))
            return tuple(
                Record(
                    id=row["id"],
                    recipe=Recipe.from_dict(json.loads(row["recipe"])) if recipes else _NONE,
                    origin=row["origin"],
                    trial=row["trial"],
                    planned=ids(row["planned"]),
                    # In the order of the splits: rows of the same part come in any.
                    evaluations={
                        split: whole(split, done, tasks)
                        for split in Split
                        if (done := parts.get(row["id"], {}).get(split))
                    },
                )
                for row in candidates
            )

    def parts(self) -> tuple[tuple[int, Split, Part], ...]:
        """Every part of every evaluation with its candidate, in the order they were handed out."""
        columns = [c for c in EVALUATIONS.c if c.name not in ("asked", "outcomes")]
        query = sa.select(*columns).order_by(EVALUATIONS.c.started, EVALUATIONS.c.candidate)
        with self._engine.connect() as connection:
            rows = connection.execute(query).mappings()
            return tuple((row["candidate"], Split(row["split"]), part(row)) for row in rows)

    def recipe(self, candidate: int) -> Recipe:
        """The recipe of one candidate."""
        query = sa.select(CANDIDATES.c.recipe).where(CANDIDATES.c.id == candidate)
        with self._engine.connect() as connection:
            return Recipe.from_dict(json.loads(connection.execute(query).scalar_one()))

    def outcomes(self, candidate: int, split: Split) -> tuple[Outcome, ...]:
        """What each question gave in all complete parts of an evaluation, in the order asked."""
        questions = self.manifest.catalogue.questions
        return tuple(
            Outcome(question=questions[position].id, value=float(value), length=_known(length))
            for _, positions, numbers in self._answers(_is(candidate, split))
            for position, value, length in zip(positions, *numbers, strict=True)
        )

    def fingerprint(self, candidate: int) -> str:
        """Hash of the weights that answered any questions; empty if none did."""
        query = sa.select(EVALUATIONS.c.fingerprint).where(
            (EVALUATIONS.c.candidate == candidate) & (EVALUATIONS.c.state == State.COMPLETE.value)
        )
        with self._reading() as connection:
            return connection.execute(query).scalar() or ""

    def answers(self, split: Split) -> Iterator[tuple[int, Positions, Values]]:
        """The outcomes of every complete part of a split, by candidate.

        Yields:
            The candidate's id, ``(n,)`` places in the catalogue's questions, ``(2, n)`` values and
            lengths of written answers, NaN where there are none.
        """
        return self._answers(EVALUATIONS.c.split == split.value)

    def _answers(self, where: sa.ColumnElement[bool]) -> Iterator[tuple[int, Positions, Values]]:
        query = (
            sa.select(EVALUATIONS.c.candidate, EVALUATIONS.c.asked, EVALUATIONS.c.outcomes)
            .where(where & EVALUATIONS.c.outcomes.is_not(None))
            .order_by(EVALUATIONS.c.candidate, EVALUATIONS.c.part)
        )
        with self._reading() as connection:
            count = len(self.manifest.catalogue.questions)
            for candidate, asked, outcomes in connection.execute(query):
                positions, flat = unpack(asked, "<u4"), unpack(outcomes, "<f8")
                known = len(flat) in (len(positions), 2 * len(positions))
                if not known or (positions >= count).any():
                    raise ValueError(f"candidate {candidate}: answers to no questions of the run")
                numbers = flat.reshape(-1, len(positions))
                numbers = np.where(np.abs(numbers) <= LARGEST, numbers, math.nan)
                if len(numbers) == 1:  # nothing was written
                    numbers = np.vstack([numbers, np.full_like(numbers, math.nan)])
                yield candidate, positions, numbers

    def _ids(self, packed: bytes) -> tuple[str, ...]:
        questions = self.manifest.catalogue.questions
        return tuple(questions[position].id for position in unpack(packed, "<u4"))

    def _pack_positions(self, questions: Sequence[str]) -> bytes:
        if not self._positions:
            known = self.manifest.catalogue.questions
            self._positions = {question.id: at for at, question in enumerate(known)}
        return pack(np.array([self._positions[name] for name in questions], dtype="<u4"))


def _numbers(outcomes: Sequence[Outcome]) -> Values:
    """Values of outcomes, and after them the lengths of the answers where any was written."""
    pairs = [(one.value, math.nan if one.length is None else one.length) for one in outcomes]
    numbers = np.array(pairs, dtype="<f8").reshape(-1, 2).T
    return numbers[: 1 if np.isnan(numbers[1]).all() else 2].copy()


def _known(length: float) -> float | None:
    return None if math.isnan(length) else float(length)


def _count(connection: sa.Connection, candidates: Collection[int]) -> None:
    """One attempt more for what is under way of these candidates."""
    if candidates:
        connection.execute(
            sa.update(EVALUATIONS)
            .where(EVALUATIONS.c.candidate.in_(candidates))
            .where(EVALUATIONS.c.state == State.RUNNING.value)
            .values(attempts=EVALUATIONS.c.attempts + 1, started=datetime.now(UTC).timestamp())
        )


def _is(candidate: int, split: Split) -> sa.ColumnElement[bool]:
    return (EVALUATIONS.c.candidate == candidate) & (EVALUATIONS.c.split == split.value)


def _under_way(candidate: int, split: Split) -> sa.ColumnElement[bool]:
    return _is(candidate, split) & (EVALUATIONS.c.state == State.RUNNING.value)
