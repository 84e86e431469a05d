"""What each task is learned from: its references, answers of parents, or nothing.

Which it is shows when a task is asked: one whose references give no loss is learned from answers of
parents (``parent_answers``), or left out. All of it is in the study before the next step.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace

from evaluators.protocol import Score, attention
from runs.storage.store import Store
from search.engine.learning.adam_descent import Batches, per_task
from search.engine.learning.learning_plan import FEWEST_QUESTIONS, kept_aside
from search.engine.learning.parent_answers import MOST, ParentAnswers

FACT = "tasks not learned"
"""The fact that holds why nothing is learned from some tasks."""

NOTHING = "no right answers"


class TaskSources:
    """The questions that are learned from, by task, and what counts as their answers.

    Args:
        store: Its search questions are divided; nothing else is asked.
        batch: Questions of a step.
        seed: Of their order.

    Attributes:
        task_of: The task of every question.
        answers: Of the parents that were asked.
        targets: What is learned in place of references, by question.
        left_out: Why nothing is learned from a task, by name.
        aside: Questions to choose the coefficients by.
        batches: Which of the others each step sees.
    """

    def __init__(self, store: Store, *, batch: int, seed: int) -> None:
        manifest = store.manifest
        self._store, self._seed = store, seed
        self._search = manifest.questions.search
        self._all_aside = kept_aside(self._search, manifest.catalogue.documents())
        self.task_of = {one.id: one.task for one in manifest.catalogue.questions}
        searched = {self.task_of[name] for name in self._search}
        self._tasks = {one.name: one for one in manifest.catalogue.tasks if one.name in searched}
        self._weights = attention(list(self._tasks.values()))  # one only to be kept counts too
        self.size = len(self._tasks) * per_task(batch, len(self._tasks))
        self.answers = ParentAnswers.of(store)
        self.targets: dict[str, str] = {}
        self.left_out: dict[str, str] = {}
        with suppress(ValueError, TypeError):
            self.left_out = dict(json.loads(store.fact(FACT) or "{}"))
        self._taught = False  # whether the parents have answered, where references say nothing
        self._divide()

    @property
    def waits(self) -> bool:
        """Whether the parents have to be asked before there is another step."""
        return bool(self.answers.tasks) and not self._taught

    @property
    def nothing(self) -> str:
        """Why there is nothing to learn from; empty where there is something."""
        count = sum(self.task_of[name] not in self.left_out for name in self._search)
        if count >= FEWEST_QUESTIONS and self.batches.tasks and self.aside:
            return ""
        each = "; ".join(f"{task}: {why}" for task, why in self.left_out.items())
        return f"it needs {FEWEST_QUESTIONS} search questions to learn from, got {count} ({each})"

    def share(self, task: str) -> float:
        """Share of a task in the loss."""
        return self._weights[task] / sum(self._weights[one] for one in self.batches.tasks)

    def mean(self, names: Iterable[str], losses: Mapping[str, float]) -> float:
        """Mean loss over the tasks by their weights."""
        by_task: dict[str, list[float]] = {}
        for name in names:
            by_task.setdefault(self.task_of[name], []).append(losses[name])
        total = sum(self._weights[task] for task in by_task)
        return sum(
            self._weights[task] * math.fsum(values) / len(values) / total
            for task, values in by_task.items()
        )

    def silent(self, asked: Iterable[str], losses: Mapping[str, float]) -> bool:
        """Whether tasks gave no loss at all; then parents are to be asked, or they are left out."""
        found = {self.task_of[one] for one in asked} - {self.task_of[one] for one in losses}
        unknown = found - self.left_out.keys() - set(self.answers.tasks)
        written = {task for task in unknown if self._tasks[task].written and not self._taught}
        if written:
            tasks = tuple(sorted({*self.answers.tasks, *written}))
            self._keep(replace(self.answers, tasks=tasks))
        if others := unknown - written:
            self._leave_out(others, NOTHING)
        return bool(unknown) or self.waits

    def to_ask(self) -> tuple[str, ...]:
        """Questions for every parent: the first ones of each such task, and those kept aside."""
        if not self.answers.asked:
            tasks = self.answers.tasks
            first = (name for task in tasks for name in self.batches.tasks.get(task, ())[:MOST])
            aside = (name for name in self.aside if self.task_of[name] in tasks)
            self._keep(replace(self.answers, asked=(*first, *aside)))
        return self.answers.asked

    def give_up(self) -> None:
        """Leave out the tasks that parents would have to be asked for."""
        self._leave_out(
            self.answers.tasks, f"{NOTHING}, and no budget to ask the parents for theirs"
        )
        self._keep(ParentAnswers())

    def hear(self, parent: str, score: Score | None) -> Mapping[str, str]:
        """What a study keeps once one more parent was asked; ``None`` where that failed."""
        self.answers = self.answers.heard(parent, score, self._tasks, self.task_of)
        return self.answers.facts()

    def teach(self) -> None:
        """Choose what is learned of what the parents wrote."""
        self.targets, self._taught = self.answers.targets(self.task_of, self._all_aside), True
        taught = {self.task_of[name] for name in self.targets}
        self._leave_out(set(self.answers.tasks) - taught, f"{NOTHING}, and too few of the parents")

    def lines(self) -> Iterator[str]:
        """What there is to say of tasks that are not learned from their references."""
        if words := ", ".join(self._taught_words()):
            yield f"learned from, in place of references, {words}"
        for task, why in self.left_out.items():
            yield f"learning is off for {task}: {why}"
        if self.nothing:
            yield f"learning is off: {self.nothing}"

    def words(self) -> str:
        """What is learned from by task, where that is no reference; empty where all are."""
        left_out = (f"{task}: nothing ({why})" for task, why in self.left_out.items())
        return ", ".join((*self._taught_words(), *left_out))

    def _taught_words(self) -> Iterator[str]:
        for task, what in self.answers.words(self.targets, self.task_of):
            yield f"{task}: {what}"

    def _leave_out(self, tasks: Iterable[str], reason: str) -> None:
        self.left_out |= dict.fromkeys(sorted(tasks), reason)
        self._store.set_fact(FACT, json.dumps(self.left_out))
        self._divide()

    def _keep(self, answers: ParentAnswers) -> None:
        self.answers = answers
        self._store.set_facts(answers.facts())

    def _divide(self) -> None:
        """Keep some questions aside; all that are asked have a right answer, as far as is known."""
        self.aside = tuple(name for name in self._all_aside if self._speaks(name))
        tasks: dict[str, list[str]] = {}
        for name in self._search:
            if name not in self._all_aside and self._speaks(name):
                tasks.setdefault(self.task_of[name], []).append(name)
        self.batches = Batches(tasks=tasks, size=self.size, seed=self._seed)

    def _speaks(self, name: str) -> bool:
        """Whether a right answer to a question is known, as far as is known by now."""
        task = self.task_of[name]
        if task in self.left_out:
            return False
        return not (self._taught and task in self.answers.tasks) or name in self.targets
