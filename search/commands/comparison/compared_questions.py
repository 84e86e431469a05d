"""The questions that two candidates answered, with what a study keeps of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from evaluators.protocol import Outcome, QuestionText
from runs.records.record import Record, Split
from runs.statistics.paired_answers import PairedAnswers
from runs.storage.store import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class QuestionFilter:
    """Which questions to show.

    Attributes:
        task: Of this task alone; ``None`` for all.
        text: That have this text in prompt, right answer or an answer, whatever its case.
        everything: Also those on which both candidates are level.
        most: At most so many.
    """

    task: str | None = None
    text: str = ""
    everything: bool = False
    most: int = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class AnsweredQuestion:
    """One question as two candidates answered it.

    Attributes:
        id: Of the question.
        task: Its task.
        better: 1 where the first is better, -1 where the second is, 0 where they are level.
        said: What it says; empty where that was not kept.
        values: What the answers are worth, in the metric's unit.
        answers: Their texts; empty where they were not kept.
    """

    id: str
    task: str
    better: int
    said: QuestionText
    values: tuple[float, float]
    answers: tuple[str, str]

    def holds(self, text: str) -> bool:
        """Whether a text stands in it, whatever its case."""
        texts = (self.id, self.said.prompt, self.said.expected, *self.answers)
        return any(text.lower() in one.lower() for one in texts)


def answered(
    store: Store,
    records: tuple[Record, Record],
    split: Split,
    outcomes: tuple[Sequence[Outcome], Sequence[Outcome]],
    found: PairedAnswers,
) -> Iterator[AnsweredQuestion]:
    """The questions that were compared, with the texts that the study keeps."""
    said = store.question_texts()
    texts = [store.answer_texts(record.id, split) for record in records]
    values = [{one.question: one.value for one in got} for got in outcomes]
    task_of = {one.id: one.task for one in store.manifest.catalogue.questions}
    for name, better in found.better.items():
        yield AnsweredQuestion(
            id=name,
            task=task_of[name],
            better=better,
            said=said.get(name, QuestionText()),
            values=(values[0][name], values[1][name]),
            answers=(texts[0].get(name, ""), texts[1].get(name, "")),
        )
