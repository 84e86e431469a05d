"""Which questions guide the search, and which are kept back to check its result."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import dataclass

from evaluators.base import Catalogue, Question
from runs.records import Split

FEWEST_HELD_OUT = 20
"""Held-out questions of a task below which no interval says anything."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Questions:
    """The questions of a run, each in exactly one split, in the run's fixed order.

    Attributes:
        search: Ids that candidates are scored on while searching.
        held_out: Ids asked only of finished candidates, to report; may be empty.
    """

    search: tuple[str, ...]
    held_out: tuple[str, ...]

    def of(self, split: Split) -> tuple[str, ...]:
        """The ids of one split."""
        return self.search if split is Split.SEARCH else self.held_out


def divide(catalogue: Catalogue, held_out: float | tuple[str, ...], *, seed: int) -> Questions:
    """Split and shuffle the questions of a catalogue.

    Order and split come from a hash of seed and question id, so that they depend neither on the
    order of the tasks nor on any random generator, and adding a question moves no other one.

    Args:
        catalogue: All questions.
        held_out: Share of each task's questions to hold out, in [0, 1), or names of whole tasks.
        seed: The run's seed.

    Returns:
        Both splits. A share above 0 holds out at least one question of a task and leaves at least
        one, where the task has two.
    """
    ranked = sorted(catalogue.questions, key=lambda question: _rank(question, seed))
    if isinstance(held_out, tuple):
        return Questions(
            search=tuple(q.id for q in ranked if q.task not in held_out),
            held_out=tuple(q.id for q in ranked if q.task in held_out),
        )
    kept_back: set[str] = set()
    for task in catalogue.tasks:
        ids = [question.id for question in ranked if question.task == task.name]
        count = round(held_out * len(ids))
        if held_out > 0 and len(ids) > 1:
            count = min(max(count, 1), len(ids) - 1)
        # From the end, so that the first questions of the order are always search questions.
        kept_back.update(ids[len(ids) - count :])
    return Questions(
        search=tuple(q.id for q in ranked if q.id not in kept_back),
        held_out=tuple(q.id for q in ranked if q.id in kept_back),
    )


def held_out_problems(
    questions: Questions, catalogue: Catalogue, held_out: float | tuple[str, ...]
) -> list[str]:
    """What is wrong with a split: tasks with too few held-out questions to judge a winner by.

    Args:
        questions: As ``divide`` gave them.
        catalogue: All questions.
        held_out: What they were divided by; 0 holds nothing out and is fine.

    Returns:
        One line with all such tasks, or nothing.
    """
    if held_out == 0:
        return []
    asked = Counter(question.task for question in catalogue.questions)
    task_of = {question.id: question.task for question in catalogue.questions}
    kept = Counter(task_of[name] for name in questions.held_out)
    names = (
        held_out if isinstance(held_out, tuple) else tuple(task.name for task in catalogue.tasks)
    )
    few = [name for name in names if kept[name] < FEWEST_HELD_OUT]
    if not few:
        return []
    got = ", ".join(f"{kept[name]} of the {asked[name]} of {name!r}" for name in few)
    share = math.ceil(100 * FEWEST_HELD_OUT / max(1, min(asked[name] for name in few))) / 100
    raised = (
        f"hold out {share:g} or more, " if not isinstance(held_out, tuple) and share <= 0.9 else ""
    )
    return [
        f"held_out: expected at least {FEWEST_HELD_OUT} questions of a task, got {got}; {raised}"
        "take tasks with more questions (or a larger limit), or set held_out: 0"
    ]


def _rank(question: Question, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{question.id}".encode()).digest()
