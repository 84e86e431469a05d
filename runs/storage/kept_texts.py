"""What questions say and what candidates answered, kept in study.db beside the outcomes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from evaluators.protocol import Outcome, Question, QuestionText
from runs.records.record import Role, Split, State, role_of
from runs.storage.result_rows import positions
from runs.storage.run_database import RunDatabase
from runs.storage.tables import (
    ANSWER_TEXTS,
    CANDIDATES,
    EVALUATIONS,
    QUESTION_TEXTS,
    pack_texts,
    unpack_texts,
)
from spaces.text.error_text import fitted

LONGEST_TEXT = 2_000
"""Most characters of a prompt, of a right answer and of an answer; a middle is left out."""

QUESTIONS_ROOM = 50_000_000
"""Characters that prompts may have together: of very many questions each gets less."""

CHOICES, LONGEST_CHOICE = 26, 300
"""Most choices of a question that are kept, and most characters of each."""

LEFT = 0.75
"""Share of the room that is taken after texts had to go."""


class KeptTexts(RunDatabase):
    """The texts of a study.

    Attributes:
        room: Bytes that answers may take, compressed; 0 keeps none. When it is full, the answers of
            searched recipes go, of the lowest scores first, but for those that were asked held-out
            questions.
    """

    def __init__(self, engine: Engine, *, name: str) -> None:
        super().__init__(engine, name=name)
        self.room = 0.0
        self._taken = math.inf  # at most so many bytes; infinite before it was looked up

    def keep_questions(self, texts: Mapping[str, QuestionText]) -> None:
        """Keep what questions say, by their ids, in place of what was kept before."""
        each = max(100, min(LONGEST_TEXT, QUESTIONS_ROOM // max(1, len(texts))))
        rows = [
            {"task": at, "texts": pack_texts([_row(texts.get(one.id), each) for one in asked])}
            for at, asked in enumerate(self._by_task())
            if any(one.id in texts for one in asked)
        ]

        def work(connection: sa.Connection) -> None:
            connection.execute(sa.delete(QUESTION_TEXTS))
            if rows:
                connection.execute(sa.insert(QUESTION_TEXTS), rows)

        self._write(work)

    def question_texts(self) -> dict[str, QuestionText]:
        """What questions say, by id, as far as it was kept."""
        by_task, query = self._by_task(), sa.select(QUESTION_TEXTS)
        found: dict[str, QuestionText] = {}
        with self._deciphering():
            for row in self._rows(query, QUESTION_TEXTS):
                asked = by_task[row.task]
                each = 2 * LONGEST_TEXT + CHOICES * LONGEST_CHOICE
                rows = unpack_texts(row.texts, count=len(asked), each=each)
                for question, (prompt, expected, choices) in zip(asked, rows, strict=True):
                    if prompt or expected or choices:
                        found[question.id] = QuestionText(
                            prompt=str(prompt),
                            expected=str(expected),
                            choices=tuple(map(str, choices)),
                        )
        return found

    def answered_in_words(self) -> frozenset[int]:
        """The candidates of which answers are kept."""
        query = sa.select(ANSWER_TEXTS.c.candidate).distinct()
        return frozenset(number for (number,) in self._rows(query, ANSWER_TEXTS))

    def answer_texts(self, candidate: int, split: Split) -> dict[str, str]:
        """What a candidate answered to the questions of a split, by id, as far as it was kept."""
        questions = self.manifest.catalogue.questions
        columns = ("candidate", "split", "part")
        same = sa.and_(*(ANSWER_TEXTS.c[name] == EVALUATIONS.c[name] for name in columns))
        query = (
            sa.select(EVALUATIONS.c.asked, ANSWER_TEXTS.c.texts)
            .select_from(ANSWER_TEXTS.join(EVALUATIONS, same))
            .where(ANSWER_TEXTS.c.candidate == candidate, ANSWER_TEXTS.c.split == split.value)
            .order_by(ANSWER_TEXTS.c.part)
        )
        found: dict[str, str] = {}
        with self._deciphering():
            for row in self._rows(query, ANSWER_TEXTS):
                places = positions(row.asked, len(questions))
                words = unpack_texts(row.texts, count=len(places), each=LONGEST_TEXT)
                pairs = zip(places, words, strict=True)
                found |= {questions[at].id: str(text) for at, text in pairs}
        return found

    def _by_task(self) -> list[list[Question]]:
        catalogue = self.manifest.catalogue
        found: dict[str, list[Question]] = {task.name: [] for task in catalogue.tasks}
        for question in catalogue.questions:
            found[question.task].append(question)
        return list(found.values())

    def _rows(self, query: sa.Select[Any], table: sa.Table) -> Sequence[sa.Row[Any]]:
        """What a query finds; nothing in a study of an earlier version, which lacks the table."""

        def work(connection: sa.Connection) -> Sequence[sa.Row[Any]]:
            if not sa.inspect(connection).has_table(table.name):
                return ()
            return connection.execute(query).all()

        return self._read(work)

    def _keep_answers(
        self,
        connection: sa.Connection,
        candidate: int,
        split: Split,
        outcomes: Sequence[Outcome],
    ) -> None:
        """Keep the texts of the part that was finished last, if there are any and there is room."""
        texts = [fitted(one.text, LONGEST_TEXT) for one in outcomes]
        if not self.room or not any(texts):
            return
        packed = pack_texts(texts)
        self._taken += len(packed)
        if self._taken > self.room:
            self._taken = _make_room(connection, self.room, len(packed))
        if self._taken > self.room:
            return
        last = (
            sa.select(sa.func.max(EVALUATIONS.c.part))
            .where(EVALUATIONS.c.candidate == candidate, EVALUATIONS.c.split == split.value)
            .scalar_subquery()
        )
        row = {"candidate": candidate, "split": split.value, "part": last, "texts": packed}
        connection.execute(sa.insert(ANSWER_TEXTS).values(row))


def _row(text: QuestionText | None, each: int) -> list[object]:
    text = text or QuestionText()
    choices = [fitted(one, LONGEST_CHOICE) for one in text.choices[:CHOICES]]
    return [fitted(text.prompt, each), fitted(text.expected, each), choices]


def _make_room(connection: sa.Connection, room: float, more: int) -> int:
    """Bytes that answers take with some more; where that is too much, some go."""
    size = sa.func.sum(sa.func.length(ANSWER_TEXTS.c.texts))
    taken = (connection.execute(sa.select(size)).scalar() or 0) + more
    if taken <= room:
        return int(taken)
    value = (
        sa.select(sa.func.avg(EVALUATIONS.c.value))
        .where(EVALUATIONS.c.candidate == CANDIDATES.c.id)
        .where(EVALUATIONS.c.split == Split.SEARCH.value)
        .where(EVALUATIONS.c.state == State.COMPLETE.value)
        .scalar_subquery()
    )
    first = sa.func.min(ANSWER_TEXTS.c.split)  # held-out, where there are answers to those too
    query = (
        sa.select(CANDIDATES.c.id, CANDIDATES.c.origin, size, first)
        .join(ANSWER_TEXTS, ANSWER_TEXTS.c.candidate == CANDIDATES.c.id)
        .group_by(CANDIDATES.c.id, CANDIDATES.c.origin)
        .order_by(value)
    )
    gone = []
    for number, origin, bytes_, split in connection.execute(query):
        if taken <= LEFT * room:
            break
        if role_of(origin) is Role.SEARCHED and split != Split.HELD_OUT.value:
            gone.append({"number": number})
            taken -= bytes_
    if gone:
        drop = sa.delete(ANSWER_TEXTS).where(ANSWER_TEXTS.c.candidate == sa.bindparam("number"))
        connection.execute(drop, gone)
    return int(taken)
