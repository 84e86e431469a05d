"""study.db: everything a run must remember, in one database next to Optuna's own tables.

The driver is the only writer. A result is committed to the run's tables first and told to Optuna
second, so that a crash in between loses nothing: on resume, what is complete here but still running
there is told then. Values are JSON, numbers or arrays of numbers; nothing is ever unpickled by us.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from evaluators.protocol import Failure, Outcome, Score, TaskInfo
from evaluators.workers import clock
from runs.records.pooled_evaluations import whole
from runs.records.record import Asking, Evaluation, Part, Record, Split, State
from runs.storage.database.connection import StoreError
from runs.storage.kept_texts import KeptTexts
from runs.storage.result_rows import Positions, Values, answers, positions, result
from runs.storage.tables import CANDIDATES, EVALUATIONS, pack, part
from spaces.errors import RunFailed
from spaces.recipes.recipe import Merge, Model, Recipe, Source, parameters

__all__ = ["Store", "StoreError"]

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

_PARTS = [c for c in EVALUATIONS.c if c.name not in ("asked", "outcomes")]

_NONE = Recipe(
    root=Merge(
        method="linear",
        sources=(Source(of=Model("none"), parameters=parameters(weight=1.0)),),
    )
)
"""Stands in for recipes that were not read."""


class NotUnderWayError(RunFailed, RuntimeError):
    """A result of what nobody was asked, such as a second one."""


class Store(KeptTexts):
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

        def work(connection: sa.Connection) -> int:
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

        return self._write(work, asked=True)

    def begin(self, candidate: int, split: Split, questions: Sequence[str] = ()) -> None:
        """Note that questions are handed out; of a part under way, that they are so once more.

        Args:
            candidate: Its id.
            split: What the questions belong to.
            questions: Ids; none stands for all of the split. Ignored where a part is under way,
                whose own questions are asked again.
        """
        asked = questions or self.manifest.questions.of(split)

        def work(connection: sa.Connection) -> None:
            again = connection.execute(
                sa.update(EVALUATIONS)
                .where(_under_way(candidate, split))
                .values(started=clock.now())
            )
            if again.rowcount == 0:
                self._begin(connection, candidate, split, asked)

        self._write(work)

    def _begin(
        self, connection: sa.Connection, candidate: int, split: Split, questions: Sequence[str]
    ) -> None:
        row = {
            "of": candidate,
            "what": split.value,
            "count": len(questions),
            "ids": self._pack_positions(questions),
            "now": clock.now(),
        }
        connection.execute(_BEGIN, row)

    def began(self, candidates: Collection[int]) -> None:
        """Note that workers began with what is under way of these candidates: it is an attempt."""
        if candidates:
            self._write(lambda connection: _count(connection, candidates))

    def note_trials(self, attrs: Mapping[int, Mapping[str, Any]]) -> None:
        """Write user attributes of Optuna trials, by their numbers, for who looks at the study."""
        assert self.study is not None  # its trials are read
        book = self._book
        assert book is not None
        self._write(lambda connection: book.note(connection, attrs))

    def under_way(self) -> tuple[Asking, ...]:
        """What was handed out and has not come back, in the order of the candidates."""
        query = (
            sa.select(EVALUATIONS.c.candidate, EVALUATIONS.c.split, EVALUATIONS.c.asked)
            .where(EVALUATIONS.c.state == State.RUNNING.value)
            .order_by(EVALUATIONS.c.candidate, EVALUATIONS.c.split)
        )
        return self._read(
            lambda connection: tuple(
                Asking(
                    candidate=row.candidate,
                    split=Split(row.split),
                    questions=self._ids(row.asked),
                )
                for row in connection.execute(query)
            )
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

        It ends no earlier than it began, whatever the clocks say.

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
        now = clock.now() if math.isnan(ended) else ended
        started = EVALUATIONS.c.started if math.isnan(began) else sa.literal(began)
        values: dict[str, Any] = {
            **result(outcome),
            "worker": worker,
            "started": started,
            "finished": sa.case((started > now, started), else_=now),
            # who was evaluated was begun with, whoever was told
            "attempts": sa.case((EVALUATIONS.c.attempts == 0, 1), else_=EVALUATIONS.c.attempts),
        }
        if isinstance(outcome, Score):  # in the order they came, which need not be as asked
            values["asked"] = self._pack_positions([item.question for item in outcome.outcomes])

        def work(connection: sa.Connection) -> None:
            _count(connection, begun)
            finished = connection.execute(
                sa.update(EVALUATIONS).where(_under_way(candidate, split)).values(**values)
            )
            if finished.rowcount != 1:
                raise NotUnderWayError(
                    f"{self.name}: candidate {candidate}: expected {split} questions under way to "
                    "finish, got none; nothing was written"
                )
            if isinstance(outcome, Score):
                self._keep_answers(connection, candidate, split, outcome.outcomes)
            if further:
                self._begin(connection, candidate, split, further)

        self._write(work)

    def records(self, *, recipes: bool = True) -> tuple[Record, ...]:
        """Every candidate with its evaluations, by id.

        Args:
            recipes: Whether to read their recipes, which takes most of the time; without, all have
                the same made-up one.
        """
        tasks = self.manifest.catalogue.tasks
        ids = cache(self._ids)  # of many candidates the same was planned

        def read(connection: sa.Connection) -> tuple[Record, ...]:
            candidates = connection.execute(sa.select(CANDIDATES).order_by(CANDIDATES.c.id))
            known = candidates.mappings().all()  # all of them before their parts, which may grow
            parts: dict[int, dict[Split, list[Part]]] = {}
            for row in connection.execute(
                sa.select(*_PARTS).order_by(EVALUATIONS.c.part)
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
                    evaluations=_evaluations(row["id"], parts, tasks),
                )
                for row in known
            )

        return self._read(read)

    def parts(self) -> tuple[tuple[int, Split, Part], ...]:
        """Every part of every evaluation with its candidate, in the order they were handed out."""
        query = sa.select(*_PARTS).order_by(EVALUATIONS.c.started, EVALUATIONS.c.candidate)
        return self._read(
            lambda connection: tuple(
                (row["candidate"], Split(row["split"]), part(row))
                for row in connection.execute(query).mappings()
            )
        )

    def outcomes(self, candidate: int, split: Split) -> tuple[Outcome, ...]:
        """What each question gave in all complete parts of an evaluation, in the order asked."""
        questions = self.manifest.catalogue.questions
        return tuple(
            Outcome(question=questions[position].id, value=float(value), length=_known(length))
            for _, places, numbers in self._answers(_is(candidate, split))
            for position, value, length in zip(places, *numbers, strict=True)
        )

    def fingerprint(self, candidate: int) -> str:
        """Hash of the weights that answered any questions; empty if none did."""
        query = sa.select(EVALUATIONS.c.fingerprint).where(
            (EVALUATIONS.c.candidate == candidate) & (EVALUATIONS.c.state == State.COMPLETE.value)
        )
        return self._read(lambda connection: connection.execute(query).scalar() or "")

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
        count = len(self.manifest.catalogue.questions)
        rows = self._read(lambda connection: connection.execute(query).all())
        with self._deciphering():
            for candidate, asked, outcomes in rows:
                yield candidate, *answers(asked, outcomes, count)

    def _ids(self, packed: bytes) -> tuple[str, ...]:
        questions = self.manifest.catalogue.questions
        return tuple(questions[at].id for at in positions(packed, len(questions)))

    def _pack_positions(self, questions: Sequence[str]) -> bytes:
        if not self._positions:
            known = self.manifest.catalogue.questions
            self._positions = {question.id: at for at, question in enumerate(known)}
        return pack(np.array([self._positions[name] for name in questions], dtype="<u4"))


def _evaluations(
    candidate: int, parts: Mapping[int, Mapping[Split, list[Part]]], tasks: Sequence[TaskInfo]
) -> dict[Split, Evaluation]:
    """The evaluations of a candidate in the order of the splits: rows of a part come in any."""
    mine = parts.get(candidate, {})
    if Split.SEARCH not in mine:
        raise ValueError(f"candidate {candidate}: expected what it was asked while searching")
    return {split: whole(split, mine[split], tasks) for split in Split if split in mine}


def _known(length: float) -> float | None:
    return None if math.isnan(length) else float(length)


def _count(connection: sa.Connection, candidates: Collection[int]) -> None:
    """One attempt more for what is under way of these candidates."""
    if candidates:
        connection.execute(
            sa.update(EVALUATIONS)
            .where(EVALUATIONS.c.candidate.in_(candidates))
            .where(EVALUATIONS.c.state == State.RUNNING.value)
            .values(attempts=EVALUATIONS.c.attempts + 1, started=clock.now())
        )


def _is(candidate: int, split: Split) -> sa.ColumnElement[bool]:
    return (EVALUATIONS.c.candidate == candidate) & (EVALUATIONS.c.split == split.value)


def _under_way(candidate: int, split: Split) -> sa.ColumnElement[bool]:
    return _is(candidate, split) & (EVALUATIONS.c.state == State.RUNNING.value)
