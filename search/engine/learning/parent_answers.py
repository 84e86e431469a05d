"""Answers that parents got right: what is learned where a task's reference alone says nothing.

A task may look for its answer in a longer text, such as a number after a chain of thought.
Learning to write the bare reference would unlearn what leads to it. There the parents are asked
search questions, and what they wrote and got right is learned instead.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from evaluators.harness.answers.answer_texts import BETWEEN
from evaluators.protocol import Outcome
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
    """What the parents that were asked got right.

    Attributes:
        tasks: Whose references alone say nothing; empty where there is no such task.
        right: Answers by parent and question; a parent is in it once it was asked.
    """

    tasks: tuple[str, ...] = ()
    right: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, store: Store) -> ParentAnswers:
        """What a study holds; nothing where that cannot be read."""
        try:
            data = json.loads(store.fact(FACT) or "{}")
            packed = base64.b64decode(data["right"])
            return cls(tasks=tuple(data["tasks"]), right=json.loads(zlib.decompress(packed)))
        except (ValueError, KeyError, TypeError, zlib.error):
            return cls()

    def facts(self) -> dict[str, str]:
        """What a study keeps of it."""
        packed = base64.b64encode(zlib.compress(json.dumps(self.right).encode()))
        return {FACT: json.dumps({"tasks": self.tasks, "right": packed.decode()})}

    def heard(self, parent: str, right: Sequence[Outcome]) -> ParentAnswers:
        """With what one more parent got right, where that is one answer of a fit length."""
        texts = {
            one.question: one.text
            for one in right
            if 0 < len(one.text) <= LONGEST and BETWEEN not in one.text
        }
        return replace(self, right={**self.right, parent: texts})

    def wanted(
        self, learned: Mapping[str, Sequence[str]], aside: Sequence[str], task_of: Mapping[str, str]
    ) -> tuple[str, ...]:
        """The questions to ask parents: of each task the first ones, and those kept aside."""
        first = (name for task in self.tasks for name in learned.get(task, ())[:MOST])
        return (*first, *(name for name in aside if task_of[name] in self.tasks))

    def targets(self, task_of: Mapping[str, str]) -> dict[str, str]:
        """One answer to each question, of the parent with the most right ones at its task."""
        counts = Counter(
            (parent, task_of[name]) for parent, texts in self.right.items() for name in texts
        )
        found: dict[str, tuple[int, str]] = {}
        for parent, texts in self.right.items():
            for name, text in texts.items():
                count = counts[parent, task_of[name]]
                if name not in found or count > found[name][0]:
                    found[name] = count, text
        return {name: text for name, (_, text) in found.items()}

    def words(self, targets: Collection[str], task_of: Mapping[str, str]) -> str:
        """Such as ``gsm8k: 41 answers that parents got right``."""
        counts = Counter(task_of[name] for name in targets)
        each = (f"{task}: {counts[task]} answers that parents got right" for task in self.tasks)
        return ", ".join(each)
