"""Evaluators of a user's own, in Python: a class that asks a model questions, and how it is found.

What builds recipes, keeps a model resident, and turns faults into failures is here; what the
questions are and what an answer is worth is the user's. ``docs/own-evaluator.md`` has an example.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import importlib.util
import statistics
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from evaluators.harness.answers.task_scores import task_score
from evaluators.harness.questions.document_keys import keys_of
from evaluators.harness.questions.question_ids import Documents, Keys, about, questions_of
from evaluators.harness_spec import HarnessSpec
from evaluators.protocol import (
    LARGEST,
    Candidate,
    Catalogue,
    Evaluator,
    EvaluatorError,
    Failure,
    FailureKind,
    Outcome,
    Question,
    QuestionText,
    Score,
    TaskInfo,
)
from evaluators.resident_models.candidate_failures import NonFiniteScoreError, failure_from
from evaluators.resident_models.model_builder import BuiltModel, ModelBuilder, Models
from spaces.catalogue.extensions import EVALUATORS_GROUP, ExtensionError, additions, loaded
from spaces.text.error_text import class_and_last_line


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnFactory:
    """Makes a user's evaluator, inside each worker.

    Attributes:
        reference: ``path/to/file.py:Name``, ``package.module:Name``, or the name of an evaluator
            that an installed package has; called with the spec.
        spec: Models, tasks, device and all else of the config.
    """

    reference: str
    spec: HarnessSpec

    def __call__(self) -> Evaluator:
        """Import it and call it.

        Raises:
            EvaluatorError: If it cannot be imported or made.
        """
        make = found(self.reference)
        try:
            made = make(self.spec)
        except EvaluatorError:
            raise
        except (Exception, SystemExit) as error:
            raise EvaluatorError(
                [f"evaluator {self.reference}: cannot be made: {class_and_last_line(error)}"]
            ) from error
        missing = [name for name in ("catalogue", "evaluate", "close") if not hasattr(made, name)]
        if missing:
            raise EvaluatorError(
                [
                    f"evaluator {self.reference}: expected an object with catalogue, evaluate and "
                    f"close, got {type(made).__name__} without {', '.join(missing)}"
                ]
            )
        if self.spec.quantise is not None and not isinstance(made, ModelEvaluator):
            raise EvaluatorError(
                [
                    f"evaluator {self.reference}: expected a ModelEvaluator, whose weights can be "
                    f"quantised, got {type(made).__name__}"
                ]
            )
        return made


def found(reference: str) -> Callable[[HarnessSpec], Evaluator]:
    """What a reference names.

    Raises:
        EvaluatorError: If there is no such thing, or it cannot be called.
    """
    place, _, name = reference.rpartition(":")
    try:
        if not place and reference in additions(EVALUATORS_GROUP):
            made: Any = loaded(additions(EVALUATORS_GROUP)[reference])
        elif place.endswith(".py"):
            made = getattr(_from_file(Path(place)), name)
        else:
            made = getattr(importlib.import_module(place), name)
    except ExtensionError as error:
        raise EvaluatorError(error.problems) from error
    except (Exception, SystemExit) as error:
        text = (
            f"expected file.py:NAME or module:NAME, or a name that a package has, got "
            f"{reference!r}: {class_and_last_line(error)}"
        )
        raise EvaluatorError([f"evaluator: {text}"]) from error
    if not callable(made):
        raise EvaluatorError([f"evaluator {reference}: expected something to call, got {made!r}"])
    make: Callable[[HarnessSpec], Evaluator] = made
    return make


def _from_file(path: Path) -> ModuleType:
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    name = f"own_evaluator_{path.stem}_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    beside = str(path.resolve().parent)
    if beside not in sys.path:
        sys.path.append(beside)  # last: what lies there hides no library
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class ModelEvaluator(ABC):
    """Asks models questions of a user's own; subclasses say which, and what an answer is worth.

    Nothing is loaded before the first candidate, so that the questions can be had on a machine
    without room for a model.
    """

    def __init__(self, spec: HarnessSpec) -> None:
        self.spec = spec
        self._items = {task: tuple(items) for task, items in self.questions().items()}
        self._catalogue = self._listed()
        self._kept_builder: ModelBuilder | None = None

    @abstractmethod
    def questions(self) -> Mapping[str, Sequence[Any]]:
        """Questions by task: plain values, the same in the same order at every call."""

    @abstractmethod
    def answer(
        self, model: Any, tokenizer: Any, task: str, questions: Sequence[Any]
    ) -> Sequence[float | tuple[float, str]]:
        """What the answers of a model are worth.

        Args:
            model: A transformers model on its device, in eval mode; do not change its weights.
            tokenizer: Its tokenizer.
            task: Name of the task.
            questions: Some of its questions.

        Returns:
            One finite number per question, or a pair of it and the answer's text; the task's score
            is the mean of the numbers.
        """

    def question_texts(self) -> dict[str, QuestionText]:
        """What the questions say, for people, by id: the plain values themselves."""
        return {
            one.id: QuestionText(prompt=_said(self._items[one.task][one.position]))
            for one in self._catalogue.questions
        }

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of how it is set up."""
        return ()

    def catalogue(self) -> Catalogue:
        """The tasks of the config, and their questions."""
        return self._catalogue

    def evaluate(self, candidate: Candidate) -> Score | Failure:
        """Build and score one candidate; whatever goes wrong comes back as a Failure."""
        fingerprint, other = "", FailureKind.ERROR
        try:
            builder = self._builder()
        except EvaluatorError as error:
            return failure_from(error, other=other)
        try:
            asked = self._asked(candidate.questions)
            started = time.perf_counter()
            model = builder.build(candidate.recipe)
            fingerprint, built = model.fingerprint, time.perf_counter()
            other = FailureKind.TASK
            with torch.inference_mode():
                answers = {task: self._answers(model, task, ids) for task, ids in asked.items()}
            done = time.perf_counter()
            score = self._scored(answers, fingerprint, build=built - started, score=done - built)
        except Exception as error:  # noqa: BLE001 - whatever else it is, it is this candidate's
            builder.check_lost(error)
            failure = failure_from(error, other=other, fingerprint=fingerprint)
        else:
            builder.keep(candidate.recipe, model)
            return score
        builder.free()
        return failure

    def close(self) -> None:
        """Give back memory; calling it twice is fine."""
        if self._kept_builder is not None:
            self._kept_builder.close()
            self._kept_builder = None

    def _scored(
        self,
        answers: Mapping[str, Mapping[str, tuple[float, str]]],
        fingerprint: str,
        *,
        build: float,
        score: float,
    ) -> Score:
        tasks = tuple(
            task_score(
                task,
                {name: value for name, (value, _) in found.items()},
                aggregate=statistics.fmean,
                mean=True,
            )
            for task, found in answers.items()
        )
        return Score.of(
            self._catalogue.tasks,
            tasks,
            outcomes=tuple(
                Outcome(question=name, value=value, text=text)
                for found in answers.values()
                for name, (value, text) in found.items()
            ),
            fingerprint=fingerprint,
            build_seconds=build,
            score_seconds=score,
        )

    def _listed(self) -> Catalogue:
        problems: list[str] = []
        tasks, questions, keys = [], list[Question](), list[Keys]()
        for wanted in self.spec.tasks:
            items = self._items.get(wanted.name, ())[: wanted.limit]
            if not items:
                known = ", ".join(self._items) or "none"
                problems.append(
                    f"task {wanted.name}: expected a task of the evaluator with questions (one of "
                    f"{known}), got none"
                )
            tasks.append(
                TaskInfo(
                    name=wanted.name,
                    metric=wanted.metric or f"{type(self).__name__},{_digest(type(self))}",
                    higher_is_better=not wanted.lower_is_better,
                    weight=wanted.weight,
                    floor=wanted.floor,
                )
            )
            questions += questions_of(wanted.name, items)
            try:
                keys += keys_of(items, group_by=wanted.group_by)
            except EvaluatorError as error:
                problems += [f"task {wanted.name}: {problem}" for problem in error.problems]
        if problems:
            raise EvaluatorError(problems)
        named = about(questions, keys, Documents(keys))
        return Catalogue(tasks=tuple(tasks), questions=named)

    def _asked(self, ids: Sequence[str]) -> dict[str, list[Question]]:
        """The questions by task, in the catalogue's order."""
        known = {question.id: question for question in self._catalogue.questions}
        if not ids or len(set(ids)) != len(ids) or not set(ids) <= known.keys():
            raise ValueError("questions: expected ids of the catalogue, each once and at least one")
        wanted = set(ids)
        found: dict[str, list[Question]] = {}
        for question in self._catalogue.questions:
            if question.id in wanted:
                found.setdefault(question.task, []).append(question)
        return found

    def _builder(self) -> ModelBuilder:
        if self._kept_builder is None:
            self._kept_builder = ModelBuilder(self.spec, Models.open(self.spec))
        return self._kept_builder

    def _answers(
        self, built: BuiltModel, task: str, asked: Sequence[Question]
    ) -> dict[str, tuple[float, str]]:
        items = copy.deepcopy([self._items[task][question.position] for question in asked])
        skeleton, tokenizer = built.skeleton, built.desk.tokenizer
        answers = [_worth(one) for one in self.answer(skeleton.model, tokenizer, task, items)]
        if len(answers) != len(items):
            raise ValueError(f"answer: expected {len(items)} numbers, got {len(answers)}")
        if skeleton.broken or not all(abs(value) <= LARGEST for value, _ in answers):
            raise NonFiniteScoreError(
                f"task {task}: logits or values that are NaN, infinite or larger than {LARGEST:g}"
            )
        return {question.id: one for question, one in zip(asked, answers, strict=True)}


def _said(item: Any) -> str:
    """A question as text: of several fields a line each."""
    if isinstance(item, Mapping):
        return "\n".join(f"{name}: {value}" for name, value in item.items())
    return str(item)


def _worth(answer: Any) -> tuple[float, str]:
    """What an answer is worth, and its text where there is one."""
    value, text = answer if isinstance(answer, tuple) else (answer, "")
    return _number(value), str(text)


def _number(value: Any) -> float:
    """An answer's worth; a text is none, though Python would read it.

    Raises:
        TypeError: If it is no number.
        OverflowError: If it is a whole number that is too large.
    """
    if isinstance(value, str | bytes):
        raise TypeError(f"answer: expected numbers, got {type(value).__name__}")
    return float(value)


def _digest(kind: type) -> str:
    """Hash of the file a class is from, 8 hex digits: a changed evaluator is another metric."""
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    content = Path(file).read_bytes() if file else kind.__qualname__.encode()
    return hashlib.sha256(content).hexdigest()[:8]
