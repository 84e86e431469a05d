"""Answers of parents: what is learned where a task's reference alone says nothing.

A task may look for its answer in a longer text, such as a number after a chain of thought.
Learning to write the bare reference would unlearn what leads to it. There the parents are asked
search questions, and what they wrote and got right is learned instead. Where marks are no right or
wrong, such as those of summaries, it is what the parent wrote that has the best score at the task.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from evaluators.harness.answers.answer_texts import BETWEEN
from evaluators.protocol import Score, TaskInfo
from runs.storage.store import Store

FACT = "parents' answers"
"""The fact that holds them."""

MOST = 60
"""Questions of a task that parents are asked to learn from, besides those kept aside."""

FEWEST = 8
"""Answers to learn from, below which a task counts as one without right answers."""

LONGEST = 4_000
"""Most characters of an answer that is learned from."""

ASKED = 2 * LONGEST
"""Characters that are asked for, so that no longer answer is cut down to a fit length."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ParentAnswers:
    """What the parents that were asked have written.

    Attributes:
        tasks: Whose references alone say nothing; empty where there is no such task.
        asked: The questions that each parent is asked; empty before that is decided.
        graded: Those of the tasks whose marks are no right or wrong.
        right: Answers marked right, by parent and question; a parent is in it once it was asked.
        written: All other answers, likewise.
        values: Score of each parent at each task, larger is better.
    """

    tasks: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()
    graded: tuple[str, ...] = ()
    right: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    written: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    values: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, store: Store) -> ParentAnswers:
        """What a study holds; nothing where that cannot be read."""
        try:
            text = store.fact(FACT) or ""
            if text.startswith("{"):  # of versions that kept right answers only
                old = json.loads(text)
                right = json.loads(zlib.decompress(base64.b64decode(old["right"])))
                return cls(tasks=tuple(old["tasks"]), right=right)
            data: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(text)))
            for key in ("tasks", "asked", "graded"):
                data[key] = tuple(data[key])
            return cls(**data)
        except (ValueError, KeyError, TypeError, AttributeError, zlib.error):
            return cls()

    def facts(self) -> dict[str, str]:
        """What a study keeps of it."""
        packed = zlib.compress(json.dumps(asdict(self)).encode())
        return {FACT: base64.b64encode(packed).decode()}

    def heard(
        self, parent: str, score: Score | None, tasks: Mapping[str, TaskInfo], of: Mapping[str, str]
    ) -> ParentAnswers:
        """With what one more parent wrote, where that is one answer of a fit length.

        Args:
            parent: Who was asked.
            score: What came of it; ``None`` where nothing did.
            tasks: By name.
            of: The task of every question.
        """
        answered = score.outcomes if score is not None else ()
        marks: dict[str, set[float]] = {of[one.question]: set() for one in answered}
        for one in answered:
            if not math.isnan(one.value):  # a task may leave some questions without a mark
                marks[of[one.question]].add(one.value)
        graded = {
            task
            for task, values in marks.items()
            if not values or values - {0.0, 1.0} or not tasks[task].higher_is_better
        }
        texts: dict[bool, dict[str, str]] = {True: {}, False: {}}
        for one in answered:
            if 0 < len(one.text) <= LONGEST and BETWEEN not in one.text:
                right = one.value == 1.0 and tasks[of[one.question]].higher_is_better
                texts[right][one.question] = one.text
        values = (
            {one.task: tasks[one.task].sign * one.value for one in score.tasks} if score else {}
        )
        return replace(
            self,
            graded=tuple(sorted({*self.graded, *graded})),
            right={**self.right, parent: texts[True]},
            written={**self.written, parent: texts[False]},
            values={**self.values, parent: values},
        )

    def targets(self, of: Mapping[str, str], aside: Collection[str]) -> dict[str, str]:
        """What to learn, by question; nothing of a task that has too little.

        Args:
            of: The task of every question.
            aside: Questions that are kept aside; at least one of them has to be among these.
        """
        found: dict[str, str] = {}
        for task in self.tasks:
            texts = self._own(task, of) if task in self.graded else self._right(task, of)
            learned = texts.keys() - set(aside)
            if FEWEST <= len(learned) < len(texts):
                found |= texts
        return found

    def words(self, targets: Collection[str], of: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        """Each task with what is learned, such as ``41 answers that parents got right``."""
        for task, count in sorted(Counter(of[name] for name in targets).items()):
            best = f"of {self._best(task)}, the best at it"
            whose = best if task in self.graded else "that parents got right"
            yield task, f"{count} answers {whose}"

    def _right(self, task: str, of: Mapping[str, str]) -> dict[str, str]:
        """One right answer to each question, of the parent with the most right ones."""
        by_parent = [
            {name: text for name, text in texts.items() if of[name] == task}
            for texts in self.right.values()
        ]
        found: dict[str, str] = {}
        for texts in sorted(by_parent, key=len):
            found |= texts
        return found

    def _own(self, task: str, of: Mapping[str, str]) -> dict[str, str]:
        """All answers of the parent that is best at a task whose marks are no right or wrong."""
        best = self._best(task)
        if not best:
            return {}
        texts = {**self.written[best], **self.right[best]}
        return {name: text for name, text in texts.items() if of[name] == task}

    def _best(self, task: str) -> str:
        """The parent with the best score at a task; none where none could be asked."""
        scores = {name: values[task] for name, values in self.values.items() if task in values}
        return max(scores, key=lambda name: scores[name], default="")
