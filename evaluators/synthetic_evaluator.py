"""A closed-form evaluator: scores recipes by arithmetic on their weights, without any model.

It ships with the product for tests, docs and ``search run --dry-run``. The landscape is smooth and
has its optimum inside the space: every question has a point in the plane of parents' shares (how
much of each parent the result should hold), and it is answered right when the recipe's shares lie
near enough. Parents alone are mediocre, a balanced mix is better, and recipes that are alike
answer alike.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from evaluators.protocol import (
    Candidate,
    Catalogue,
    EvaluatorError,
    Failure,
    FailureKind,
    Floor,
    Outcome,
    Question,
    QuestionText,
    Score,
    TaskInfo,
    TaskScore,
)
from spaces.recipes.model_shares import model_shares
from spaces.recipes.recipe import Recipe

CENTRE = 0.45
"""Share of every parent that suits all tasks."""

SPECIALITY = 0.25
"""What a task wants more of its own parent."""

SPREAD = 0.12
"""Largest distance, per parent, of a question's point from its task's."""

REACH = (0.15, 1.15)
"""Distances within which the hardest and the easiest question are answered right."""

TOKENS = 100
"""Tokens that a question is pretended to take."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SyntheticSpec:
    """The landscape, and what goes wrong in it.

    Attributes:
        parents: Names of the models that count; others (the base) contribute nothing. At least one.
        tasks: Name and weight of each task; task ``k`` prefers parent ``k``, in turn.
        floors: Name of a task and what its value must not fall below.
        questions: Questions per task, at least 1.
        lower_is_better: Tasks that report wrong answers instead of right ones.
        seed: Another seed gives other questions.
        seconds: Time that an evaluation takes.
        fail_rate: Share of recipes that fail, 0 to 1, chosen by their keys.
        fail_when: Recipes for which it is true fail; must be picklable.
        failure: Kind of those failures.
        exit_on: Numbers of candidates at which the process ends without a word.
    """

    parents: tuple[str, ...]
    tasks: tuple[tuple[str, float], ...]
    floors: tuple[tuple[str, Floor], ...] = ()
    questions: int = 100
    lower_is_better: tuple[str, ...] = ()
    seed: int = 0
    seconds: float = 0.0
    fail_rate: float = 0.0
    fail_when: Callable[[Recipe], bool] | None = None
    failure: FailureKind = FailureKind.ERROR
    exit_on: tuple[int, ...] = ()

    def problems(self) -> list[str]:
        """What is wrong with it, one line each."""
        found = []
        if not self.parents:
            found.append("parents: expected at least one, got none")
        if not self.tasks:
            found.append("tasks: expected at least one, got none")
        names = [name for name, _ in self.tasks]
        if len(set(names)) != len(names):
            found.append(f"tasks: expected each name once, got {names}")
        found += [
            f"task {name}: weight: expected a number of at least 0, got {weight}"
            for name, weight in self.tasks
            if not (weight >= 0 and math.isfinite(weight))
        ]
        if self.questions < 1:
            found.append(f"questions: expected at least 1, got {self.questions}")
        if not 0.0 <= self.fail_rate <= 1.0:
            found.append(f"fail_rate: expected a value in [0, 1], got {self.fail_rate}")
        return found


class SyntheticEvaluator:
    """Scores recipes by the landscape of its spec; deterministic and instantaneous.

    Raises:
        EvaluatorError: If the spec cannot be.
    """

    def __init__(self, spec: SyntheticSpec) -> None:
        problems = spec.problems()
        if problems:
            raise EvaluatorError(problems)
        self._spec = spec
        self._catalogue = _catalogue(spec)
        self._task_of = {question.id: question.task for question in self._catalogue.questions}
        self._number = {name: number for number, (name, _) in enumerate(spec.tasks)}

    @property
    def notes(self) -> tuple[str, ...]:
        return ()

    def catalogue(self) -> Catalogue:
        return self._catalogue

    def evaluate(self, candidate: Candidate) -> Score | Failure:
        started = time.perf_counter()
        if candidate.id in self._spec.exit_on:
            os._exit(1)
        if self._spec.seconds > 0:
            time.sleep(self._spec.seconds)
        recipe = candidate.recipe
        fingerprint = hashlib.sha256(recipe.key.encode()).hexdigest()[:16]
        unknown = [name for name in candidate.questions if name not in self._task_of]
        if unknown or not candidate.questions:
            return Failure(
                kind=FailureKind.ERROR,
                message=f"questions: expected ids of the catalogue, got {unknown[:3] or 'none'}",
            )
        if self._fails(recipe):
            return Failure(
                kind=self._spec.failure,
                message=f"recipe {recipe.key} fails by order of the fake's spec",
                fingerprint=fingerprint,
            )
        shares = model_shares(recipe.root)
        point = [shares.get(name, 0.0) for name in self._spec.parents]
        outcomes = tuple(
            Outcome(
                question=question,
                value=self._answer(question, point),
                length=_length(question, shares),
            )
            for question in candidate.questions
        )
        if candidate.texts:
            outcomes = tuple(replace(one, text=self._words(one)) for one in outcomes)
        tasks = self._task_scores(outcomes)
        return Score.of(
            self._catalogue.tasks,
            tasks,
            outcomes=outcomes,
            fingerprint=fingerprint,
            build_seconds=0.0,
            score_seconds=time.perf_counter() - started,
        )

    def close(self) -> None:
        """Nothing to give back."""

    def question_texts(self) -> dict[str, QuestionText]:
        """What the questions say, by id: made up, as all of it."""
        return {
            one.id: QuestionText(
                prompt=f"Question {one.position} of {one.task}:", expected=_word(one.id)
            )
            for one in self._catalogue.questions
        }

    def _words(self, outcome: Outcome) -> str:
        """An answer that goes with what it is worth."""
        right = outcome.value != float(
            self._task_of[outcome.question] in self._spec.lower_is_better
        )
        return _word(outcome.question) if right else _word("wrong", outcome.question)

    def _fails(self, recipe: Recipe) -> bool:
        if self._spec.fail_when is not None and self._spec.fail_when(recipe):
            return True
        return self._spec.fail_rate > _fraction("fail", recipe.key)

    def _answer(self, question: str, point: list[float]) -> float:
        """1 if the recipe's shares lie within the question's reach of its point, else 0."""
        spec = self._spec
        task = self._task_of[question]
        preferred = self._number[task] % len(spec.parents)
        squares = 0.0
        for number, share in enumerate(point):
            jitter = SPREAD * (2.0 * _fraction("at", question, str(number)) - 1.0)
            target = CENTRE + SPECIALITY * (number == preferred) + jitter
            squares += (share - target) ** 2
        near, far = REACH
        right = math.sqrt(squares) <= near + (far - near) * _fraction("reach", question)
        return float(right != (task in spec.lower_is_better))

    def _task_scores(self, outcomes: Iterable[Outcome]) -> tuple[TaskScore, ...]:
        values: dict[str, list[float]] = {}
        for outcome in outcomes:
            values.setdefault(self._task_of[outcome.question], []).append(outcome.value)
        return tuple(
            _mean_score(task.name, values[task.name])
            for task in self._catalogue.tasks
            if task.name in values
        )


def _catalogue(spec: SyntheticSpec) -> Catalogue:
    tasks = tuple(
        TaskInfo(
            name=name,
            metric="acc,none",
            higher_is_better=name not in spec.lower_is_better,
            weight=weight,
            written=True,
            floor=dict(spec.floors).get(name),
        )
        for name, weight in spec.tasks
    )
    questions = tuple(
        Question(id=f"{name}/{_digest(str(spec.seed), name, str(n))}", task=name, position=n)
        for name, _ in spec.tasks
        for n in range(spec.questions)
    )
    return Catalogue(tasks=tasks, questions=questions)


def _length(question: str, shares: Mapping[str, float]) -> float:
    """Characters of an answer: the more is added up, the longer they get, by the question."""
    total = sum(abs(share) for share in shares.values())
    return float(round((20.0 + 40.0 * _fraction("length", question)) * (0.5 + total)))


def _word(*parts: str) -> str:
    return f"answer {_digest(*parts)[:6]}"


def _mean_score(task: str, values: list[float]) -> TaskScore:
    n = len(values)
    mean = sum(values) / n
    variance = sum((value - mean) ** 2 for value in values) / (n - 1) if n > 1 else math.nan
    return TaskScore(task=task, value=mean, stderr=math.sqrt(variance / n), n=n, tokens=TOKENS * n)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _fraction(*parts: str) -> float:
    """A number in [0, 1) that depends on nothing but ``parts``."""
    return int(_digest(*parts)[:13], 16) / 2.0**52
