"""What every candidate answered, and scores made comparable between different questions.

Candidates answer different questions, and some questions are harder than others. So from every
answer the difficulty of its question is taken away: what the other candidates got on it, on
average. With o the answers of one candidate to the questions A of a task that it was asked, and d
the mean answer of the others to each question (shrunk to the task's mean by 2 imagined answers),

    estimate = mean over A of (o - d) + mean over all questions of the task of d,

which is the plain mean of o where all were asked. Its variance is that of o - d, pooled over all
candidates, over the number of questions asked, and at least what half an answer of each kind tells
where answers are right or wrong: all right is no certainty. Estimates of all candidates change with
every new answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.protocol import Catalogue, Outcome, TaskInfo, TaskScore
from runs.records.record import ANSWER_LENGTH, Estimate, Record, Split
from runs.storage.store import Store
from search.samplers.estimation.estimates import Estimates
from search.samplers.estimation.task_answers import TaskAnswers

Array = NDArray[np.float64]


class ComparableScores:
    """Collects answers and estimates every candidate's score from all of them."""

    def __init__(self, catalogue: Catalogue, questions: Sequence[str]) -> None:
        counting, about = set(questions), catalogue.documents()
        self._position = {question.id: at for at, question in enumerate(catalogue.questions)}
        columns: dict[str, dict[str, int]] = {}
        for question in catalogue.questions:
            if question.id in counting:
                of = columns.setdefault(question.task, {})
                of[question.id] = len(of)
        self._tasks = {
            info.name: TaskAnswers(
                info=info, column=columns[info.name], documents=_codes(columns[info.name], about)
            )
            for info in catalogue.tasks
            if info.name in columns
        }
        self._lengths = {
            name: TaskAnswers(info=_LENGTH, column=task.column, documents=task.documents)
            for name, task in self._tasks.items()
            if task.info.written
        }
        number = {name: at for at, name in enumerate(self._tasks)}
        # by position in the catalogue: number of the task and column in it, -1 if it does not count
        self._place = np.array(
            [
                (number[question.task], columns[question.task][question.id])
                if question.id in counting
                else (-1, -1)
                for question in catalogue.questions
            ],
            dtype=np.int64,
        ).reshape(-1, 2)
        self._row: dict[int, int] = {}
        self._apart: set[int] = set()
        self._known: dict[str, Estimates] = {}  # what was estimated since the last answer

    @classmethod
    def of_study(cls, store: Store, records: Sequence[Record] | None = None) -> ComparableScores:
        """Everything that the candidates of a study answered while searching."""
        found = cls(store.manifest.catalogue, store.manifest.questions.search)
        for candidate, positions, numbers in store.answers(Split.SEARCH):
            found._take(candidate, positions, numbers)
        for record in store.records() if records is None else records:
            if record.id in found._row:
                found._take_scores(record.id, record.evaluations[Split.SEARCH].tasks)
        return found

    def add(
        self, candidate: int, outcomes: Sequence[Outcome], scores: Iterable[TaskScore] = ()
    ) -> None:
        """Take in answers of a candidate.

        Args:
            candidate: Its id; may have answered other questions before.
            outcomes: One per question.
            scores: Of tasks whose metric is no mean over questions; others are ignored.
        """
        positions = np.array([self._position[item.question] for item in outcomes], dtype=np.int64)
        values = np.array([item.value for item in outcomes], dtype=np.float64)
        lengths = np.array([item.length for item in outcomes], dtype=np.float64)  # None: NaN
        self._take(candidate, positions, np.vstack([values, lengths]))
        self._take_scores(candidate, scores)

    def _take(self, candidate: int, positions: NDArray[Any], numbers: Array) -> None:
        row = self._row.setdefault(candidate, len(self._row))
        places = self._place[positions]
        values, lengths = numbers
        for number, (name, task) in enumerate(self._tasks.items()):
            task.grow(row + 1)
            here = places[:, 0] == number
            if task.info.mean:
                task.put(row, places[here, 1], values[here])
            if name in self._lengths:
                self._lengths[name].grow(row + 1)
                self._lengths[name].put(row, places[here, 1], lengths[here])
        if candidate not in self._apart:
            self._known.clear()

    def _take_scores(self, candidate: int, scores: Iterable[TaskScore]) -> None:
        for score in scores:
            task = self._tasks.get(score.task)
            if task is not None and not task.info.mean:
                value = _oriented(task.info, score.value)
                task.whole[self._row[candidate]] = Estimate(value=value, stderr=score.doubt)
                if candidate not in self._apart:
                    self._known.clear()

    def set_apart(self, candidate: int) -> None:
        """What a candidate answers is kept, but counts for nothing until it is let in."""
        self._apart.add(candidate)
        if candidate in self._row:
            self._known.clear()

    def let_in(self, candidate: int) -> None:
        """What a candidate answers counts from now on."""
        if candidate in self._apart:
            self._apart.remove(candidate)
            self._known.clear()

    @property
    def tasks(self) -> tuple[TaskInfo, ...]:
        """The tasks that have questions among those that count."""
        return tuple(task.info for task in self._tasks.values())

    def __contains__(self, candidate: int) -> bool:
        """Whether a candidate has answered anything."""
        return candidate in self._row

    def answered(self, candidate: int) -> frozenset[str]:
        """Ids of the questions of question-wise tasks that a candidate has answered."""
        row = self._row.get(candidate)
        if row is None:
            return frozenset()
        return frozenset(
            name
            for task in self._tasks.values()
            for name, column in task.column.items()
            if task.asked[row, column]
        )

    def of(self, candidate: int) -> Mapping[str, Mapping[str, float]]:
        """A candidate's answers by task and question, in the metrics' own units."""
        row = self._row[candidate]
        return {
            name: {
                question: _oriented(task.info, float(task.values[row, column]))
                for question, column in task.column.items()
                if task.asked[row, column]
            }
            for name, task in self._tasks.items()
        }

    def table(self) -> Estimates:
        """Of candidates that answered something of every task: the score, then each task's."""
        if "scores" not in self._known:
            self._known["scores"] = self._estimate()
        return self._known["scores"]

    def lengths(self) -> Estimates:
        """Mean characters of a written answer, made comparable like the scores, with a minus sign.

        Of those candidates that wrote something in every task where answers are written.
        """
        if "lengths" not in self._known:
            self._known["lengths"] = self._estimate_lengths()
        return self._known["lengths"]

    def _estimate(self) -> Estimates:
        counting, weights = self._counting(), np.array([info.weight for info in self.tasks])
        if not counting.any():
            return Estimates.none(1 + len(weights))
        parts = [
            task.estimates(counting) if task.info.mean else _wholes(task.whole, counting)
            for task in self._tasks.values()
        ]
        values = np.array([part for part, _ in parts])  # (tasks, rows that count)
        variances = np.array([doubt for _, doubt in parts])
        counts, total = weights > 0, weights.sum()
        value = weights[counts] @ values[counts] / total
        stderr = np.sqrt(weights[counts] ** 2 @ variances[counts]) / total
        found = np.vstack([value, values]), np.vstack([stderr, np.sqrt(variances)])
        return self._of_rows(counting, *found)

    def _estimate_lengths(self) -> Estimates:
        """Means over all questions that are answered in writing."""
        tasks, counting = self._lengths.values(), self._counting()
        if not tasks or not counting.any():
            return Estimates.none(1)
        shares = np.array([len(task.column) for task in tasks], dtype=np.float64)
        parts = [task.estimates(counting) for task in tasks]
        value = shares @ np.array([part for part, _ in parts]) / shares.sum()
        variance = shares**2 @ np.array([doubt for _, doubt in parts])
        return self._of_rows(counting, value[None], np.sqrt(variance)[None] / shares.sum())

    def _counting(self) -> NDArray[np.bool_]:
        """Whether each candidate counts, in the order of the tables' rows."""
        return np.array([candidate not in self._apart for candidate in self._row], dtype=bool)

    def _of_rows(self, counting: NDArray[np.bool_], values: Array, stderrs: Array) -> Estimates:
        """Estimates, ``(quantities, rows)``, of candidates of whom the first quantity is known."""
        numbers = np.fromiter(self._row, dtype=np.int64, count=len(self._row))[counting]
        return Estimates(numbers, values.T, stderrs.T).only(np.isfinite(values[0]))


def _codes(names: Iterable[str], about: Mapping[str, str]) -> NDArray[np.int64]:
    """Documents of questions as numbers from 0."""
    known: dict[str, int] = {}
    found = [known.setdefault(about[name], len(known)) for name in names]
    return np.array(found, dtype=np.int64)


_LENGTH = TaskInfo(
    name=ANSWER_LENGTH, metric="characters", higher_is_better=False, weight=1.0, mean=True
)


def _oriented(info: TaskInfo, value: float) -> float:
    """Larger is better; its own inverse."""
    return info.sign * value


def _wholes(known: Mapping[int, Estimate], counting: NDArray[np.bool_]) -> tuple[Array, Array]:
    value, variance = np.full(len(counting), math.nan), np.full(len(counting), math.nan)
    for row, estimate in known.items():
        value[row], variance[row] = estimate.value, estimate.stderr**2
    return value[counting], variance[counting]
