"""What candidates answered, as far as people may read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evaluators.protocol import Question, QuestionText, TaskInfo


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerSheet:
    """What one candidate answered.

    Attributes:
        candidate: Its id.
        name: What to call it.
        values: What each answer is worth, in the metric's own unit, by question.
        texts: The answers themselves, by question, as far as they were kept.
    """

    candidate: int
    name: str
    values: Mapping[str, float]
    texts: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerBook:
    """The answers of several candidates.

    Attributes:
        tasks: The run's tasks.
        questions: Those that any of them answered, in the catalogue's order.
        held_out: Which of them were held out from the search.
        said: What the questions say, by id, as far as it was kept.
        sheets: The candidates that people are most likely to ask for first.
        left_out: Number of candidates with kept answers that have no sheet.
    """

    tasks: tuple[TaskInfo, ...]
    questions: tuple[Question, ...]
    held_out: frozenset[str]
    said: Mapping[str, QuestionText]
    sheets: tuple[AnswerSheet, ...]
    left_out: int = 0
