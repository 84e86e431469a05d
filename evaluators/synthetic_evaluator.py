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
from spaces.catalogue.method_catalogue import METHODS, BaseRule
from spaces.recipes.recipe import (
    ByFilter,
    Gradient,
    Merge,
    Model,
    Parameter,
    Parameters,
    Recipe,
    Source,
)

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
        shares = contributions(recipe.root)
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


def contributions(node: Model | Merge) -> dict[str, float]:
    """How much of each model a merge holds, to first order in the weights.

    Gradients and filters count with their mean, slices with their length, and a density as the
    share of the delta that it keeps, half rescaled; what else thins a delta counts likewise: enough
    for a landscape that depends on every parameter, not a prediction.
    """
    if isinstance(node, Model):
        return {node.name: 1.0}
    if not node.slices:
        return _merged(node, node.sources, node.parameters)
    total = sum(part.length for part in node.slices) or 1
    result: dict[str, float] = {}
    for part in node.slices:
        table = dict(node.parameters) | dict(part.parameters)
        _add(result, _merged(node, part.sources, tuple(table.items())), part.length / total)
    return result


def _merged(node: Merge, sources: tuple[Source, ...], shared: Parameters) -> dict[str, float]:
    rule = METHODS[node.method].base
    base = contributions(node.base) if node.base is not None else {}
    result: dict[str, float] = {}
    if rule is BaseRule.ENDPOINT and node.base is not None:
        position = _position(node, shared)
        for source in sources:
            share = 1.0 - position if source.of == node.base else position
            _add(result, contributions(source.of), share)
        return result
    inputs = [source for source in sources if not rule.apart or source.of != node.base]
    weights = [_weight(node, source, shared) for source in inputs]
    total = sum(weights)
    scale = 1.0 / total if abs(total) > 1e-6 and _value(node, "normalize", shared) else 1.0
    if node.base is not None:
        scale *= _value(node, "lambda", shared) * _share(node, shared)
        _add(result, base, 1.0 - scale * total)
    for source, weight in zip(inputs, weights, strict=True):
        _add(result, contributions(source.of), scale * weight)
    return result


def _weight(node: Merge, source: Source, shared: Parameters) -> float:
    own = tuple((dict(shared) | dict(source.parameters)).items())
    return _value(node, "weight", own) * (1.0 + _value(node, "density", own)) / 2.0


def _position(node: Merge, shared: Parameters) -> float:
    """How far a merge of two is from the one that is its base."""
    match node.method:
        case "slerp":
            return _value(node, "t", shared)
        case "nearswap":  # half way at the usual change of a weight
            t = _value(node, "t", shared)
            return t / (t + 1e-3)
        case _:
            return 0.5


def _share(node: Merge, shared: Parameters) -> float:
    """What of the deltas a merge keeps, by the parameters that few methods have."""
    names = ("gamma", "epsilon", "select_topk", "r", "alpha")
    known = [name for name in names if METHODS[node.method].parameter(name) is not None]
    given = {name: _value(node, name, shared) for name in known}
    share = (1.0 + given.get("select_topk", 1.0)) / 2.0
    share *= 1.0 - given.get("gamma", 0.0) / 2.0
    epsilon = given.get("epsilon", 0.0)
    share *= 1.0 - epsilon / 4.0 if METHODS[node.method].random else 1e-2 / (1e-2 + epsilon)
    return share * (1.0 + given.get("r", 0.0) * given.get("alpha", 0.0) / 2.0)


def _value(node: Merge, name: str, table: Parameters) -> float:
    """The mean of a parameter, else its default, else 1."""
    for known, value in table:
        if known == name:
            return _mean(value)
    spec = METHODS[node.method].parameter(name)
    return 1.0 if spec is None or spec.default is None else float(spec.default)


def _mean(value: Parameter) -> float:
    match value:
        case ByFilter(cases):
            return sum(_mean(case.value) for case in cases) / len(cases)
        case Gradient(anchors):
            return sum(anchors) / len(anchors)
        case _:
            return float(value)


def _add(result: dict[str, float], shares: Mapping[str, float], factor: float) -> None:
    for name, share in shares.items():
        result[name] = result.get(name, 0.0) + factor * share


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
