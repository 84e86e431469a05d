"""The seam between the search and everything slow: candidates in, scores or failures out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, runtime_checkable

from spaces.errors import UserError
from spaces.recipes.recipe import Recipe
from spaces.text.error_text import LINE, plain, plain_line

LARGEST = 1e100
"""Largest size of a value or score: sums of squares of such numbers are numbers still."""

FINGERPRINT = 64
"""Most characters of a fingerprint."""

MESSAGE, DETAIL = LINE, 20_000
"""Most characters that a failure keeps of its message and of its detail."""


class FailureKind(StrEnum):
    """Why a candidate has no score."""

    BUILD = "build"  # the recipe cannot be built from these checkpoints
    NON_FINITE = "non_finite"  # NaN or infinity in the merged weights or in the score
    OUT_OF_MEMORY = "out_of_memory"
    TASK = "task"  # the model could not be run on a task
    DEGENERATE = "degenerate"  # the merged model gives the same answer to every prompt
    TIMEOUT = "timeout"
    LOST_WORKER = "lost_worker"  # the process died
    NODE_GONE = "node_gone"  # its machine went away
    ERROR = "error"  # anything else


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """One item of a task.

    Attributes:
        id: Stable name ``task/hash``: the same for the same item whatever its position.
        task: Name of the task.
        position: Index of the item in the task's split, as lm-eval counts.
        document: Key shared by all questions, of any task, that are about the same document, such
            as two prompts for one item or several questions on one passage. They are split
            together and count as one cluster in statistics. Empty where nothing is known: then
            the question is a document of its own.
    """

    id: str
    task: str
    position: int
    document: str = field(default="", compare=False)  # earlier studies do not know it


@dataclass(frozen=True, kw_only=True, slots=True)
class QuestionText:
    """What a question says, for people.

    Attributes:
        prompt: What is asked, without worked examples and chat template.
        expected: The answer that counts as right; empty where none is known.
        choices: What there is to choose from; empty where the answer is written.
    """

    prompt: str = ""
    expected: str = ""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Floor:
    """What a task's value must not fall below; exactly one of the two is given.

    Attributes:
        value: The worst value that will do, in the metric's own unit and direction.
        below_best_parent: How much worse than the best parent will do, at least 0, in that unit.
    """

    value: float | None = None
    below_best_parent: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskInfo:
    """One scored task.

    Attributes:
        name: lm-eval's name.
        metric: Full metric name, such as ``exact_match,strict-match`` or ``acc,none``.
        higher_is_better: Direction of the metric.
        weight: Share in the combined score; shares need not sum to 1. 0 for a task that is only to
            be kept: it has a floor.
        mean: Whether the task's value is the plain mean over its questions.
        written: Whether its questions are answered by text that the model writes.
        asked_as: The group or tag that it was asked for by; empty where by its own name.
        aside: Number of its questions that are not asked, so that prompts can show them solved.
        floor: What its value must not fall below; ``None`` for no limit.
    """

    name: str
    metric: str
    higher_is_better: bool
    weight: float
    mean: bool = True
    written: bool = field(default=False, compare=False)  # earlier studies do not know it
    asked_as: str = field(default="", compare=False)
    aside: int = field(default=0, compare=False)
    floor: Floor | None = None

    @property
    def sign(self) -> float:
        """What turns values so that larger is better: 1 or -1."""
        return 1.0 if self.higher_is_better else -1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Catalogue:
    """What an evaluator can ask: its tasks, and every question of them in task and split order."""

    tasks: tuple[TaskInfo, ...]
    questions: tuple[Question, ...]

    def documents(self) -> dict[str, str]:
        """The document of every question by question id; its own id where none is known."""
        return {question.id: question.document or question.id for question in self.questions}


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A recipe to evaluate.

    Attributes:
        id: Number of the candidate within its run, from 0.
        recipe: What to build.
        questions: Ids of the questions to ask, each once, at least one.
        weights: ``None`` to score the recipe. Else it is learned from: the losses of right answers
            are asked for, and the gradient of their sum weighted so, by question id; a question
            without a weight gives its loss only.
        targets: Texts that count as right answers where it is learned from, by question id; other
            questions have their reference.
        texts: Most characters of an answer's text that outcomes are to hold; 0 for no texts.
    """

    id: int
    recipe: Recipe
    questions: tuple[str, ...]
    weights: Mapping[str, float] | None = None
    targets: Mapping[str, str] = field(default_factory=dict)
    texts: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What one question gave.

    Attributes:
        question: Id of the question.
        value: The metric for this item in the metric's own unit (1 or 0 for right or wrong); NaN
            where the metric exists only for a whole task, and where the task gave none.
        length: Characters of the written answer, up to where it was told to stop; the mean where it
            was given several times; ``None`` where none is written.
        text: The answer, if texts were asked for: as it was written, or the choice that was made
            with the log-likelihoods of all. Of a long one the middle is left out.
    """

    question: str
    value: float
    length: float | None = None
    text: str = field(default="", compare=False)  # tells nothing that the value does not


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskScore:
    """The value of one task over the questions asked.

    Attributes:
        task: Name of the task.
        value: In the metric's own unit and direction.
        stderr: Standard error of ``value``; NaN where it cannot be known (one question).
        n: Number of questions that count.
        unmarked: Number of further questions, to which the task gave no value.
        length: Mean characters of an answer, over all questions; ``None`` where none is written.
        cut_off: Share of the answers, in [0, 1], that ended neither with a stop sequence nor with
            the end of text, but with the most tokens allowed; ``None`` where none is written, or
            nobody noted it.
        looped: Share of the answers that went on repeating themselves to the letter; likewise.
        tokens: Tokens of what the model was shown, and of what it wrote; 0 where nobody counts.
    """

    task: str
    value: float
    stderr: float
    n: int
    unmarked: int = 0
    length: float | None = None
    cut_off: float | None = None
    looped: float | None = None
    tokens: int = 0

    @property
    def doubt(self) -> float:
        """Standard error to go by: not 0 where all answers were right, or all wrong."""
        certain = self.stderr == 0 and self.value in (0.0, 1.0) and self.n > 0
        return least_stderr(self.n) if certain else self.stderr


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """The result of a candidate that could be built and scored.

    Attributes:
        value: Weighted mean over tasks, larger is better (lower-is-better tasks count negatively).
        stderr: Standard error of ``value``.
        tasks: One entry per task that was asked, in the catalogue's order.
        outcomes: One entry per question asked.
        fingerprint: Hash of the merged weights.
        build_seconds: Time to build the weights.
        score_seconds: Time to answer the questions.
    """

    value: float
    stderr: float
    tasks: tuple[TaskScore, ...]
    outcomes: tuple[Outcome, ...]
    fingerprint: str
    build_seconds: float
    score_seconds: float

    @classmethod
    def of(
        cls,
        infos: Sequence[TaskInfo],
        tasks: Sequence[TaskScore],
        *,
        outcomes: tuple[Outcome, ...],
        fingerprint: str,
        build_seconds: float,
        score_seconds: float,
    ) -> Score:
        """The result over the tasks that were asked; ``infos`` has their weights."""
        value, stderr = combine(tasks, infos)
        return cls(
            value=value,
            stderr=stderr,
            tasks=tuple(tasks),
            outcomes=outcomes,
            fingerprint=fingerprint,
            build_seconds=build_seconds,
            score_seconds=score_seconds,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class LossGradient:
    """How the loss of right answers moves with the coefficients of a recipe.

    Attributes:
        losses: By question asked: of a written answer, in nats per token; of a choice, in nats.
            Questions without a known right answer are left out.
        gradient: ``(n,)`` derivative of the weighted sum of the losses by each coefficient
            (``spaces.recipes.coefficients``).
        tokens: Tokens that went through the model, padding not counted.
        passes: Forward passes that a differentiated question cost as much as: 3, or 4 where memory
            did not hold the activations, so that they were computed twice.
        build_seconds: Time to build the weights.
        seconds: Time for forward and backward passes.
    """

    losses: Mapping[str, float]
    gradient: tuple[float, ...]
    tokens: int
    passes: int = 3
    build_seconds: float
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """The result of a candidate that has no score.

    Texts may be a stranger's: whatever they are given as, what is kept of them is bounded and can
    be stored and shown.

    Attributes:
        kind: Class of the cause.
        message: One line for people, of at most ``MESSAGE`` characters.
        detail: Traceback or other context, of at most ``DETAIL`` characters; may be empty.
        fingerprint: Hash of the merged weights where they were built; else empty.
    """

    kind: FailureKind
    message: str
    detail: str = ""
    fingerprint: str = ""

    def __post_init__(self) -> None:
        fit = {
            "kind": FailureKind(self.kind),
            "message": plain_line(str(self.message), MESSAGE),
            "detail": plain(str(self.detail), DETAIL),
            "fingerprint": plain_line(str(self.fingerprint), FINGERPRINT),
        }
        for name, value in fit.items():
            object.__setattr__(self, name, value)


class Evaluator(Protocol):
    """Builds recipes and scores them, one at a time; lives in one process."""

    def catalogue(self) -> Catalogue:
        """The tasks and questions that can be asked; the same for the life of the evaluator."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of how it is set up, one sentence each."""
        ...

    def evaluate(self, candidate: Candidate) -> Score | Failure:
        """Build and score one candidate; whatever goes wrong with it comes back as a Failure."""
        ...

    def close(self) -> None:
        """Give back memory and devices; calling it twice is fine."""
        ...


@runtime_checkable
class Differentiable(Protocol):
    """An evaluator that can also tell how a loss moves with a recipe's coefficients."""

    def gradient(self, candidate: Candidate) -> LossGradient | Failure:
        """Build one candidate and differentiate the weighted losses of its questions."""
        ...


def evaluated(evaluator: Evaluator, candidate: Candidate) -> Score | LossGradient | Failure:
    """What an evaluator makes of a candidate: scored, or differentiated where it has weights."""
    if candidate.weights is None:
        return evaluator.evaluate(candidate)
    if isinstance(evaluator, Differentiable):
        return evaluator.gradient(candidate)
    return Failure(
        kind=FailureKind.TASK,
        message=f"{type(evaluator).__name__}: expected an evaluator with a gradient, got none",
    )


def scored(outcome: Score | LossGradient | Failure) -> Score | Failure:
    """The outcome of a candidate that was to be scored.

    Raises:
        TypeError: If it was to be learned from.
    """
    if isinstance(outcome, LossGradient):
        raise TypeError("outcome: expected a score or a failure, got a gradient")
    return outcome


EvaluatorFactory = Callable[[], Evaluator]
"""Makes an evaluator inside a worker; picklable (a class or ``functools.partial`` of one)."""


class EvaluatorError(UserError, RuntimeError):
    """The evaluator itself cannot work (unknown task, model that does not load): ends the run.

    Attributes:
        problems: One line each, complete sentences that say what to do.
    """


def least_stderr(n: float) -> float:
    """Standard error of a share where all ``n`` answers are right, or all are wrong.

    The deviation of the answers is then 0, which says nothing about the next one. This is what half
    a right answer and half a wrong one besides give: about 0.7 / n.

    Args:
        n: Number of independent answers, above 0.
    """
    return math.sqrt(0.5 * (n + 0.5) / (n + 1)) / (n + 1)


def combine(scores: Sequence[TaskScore], tasks: Sequence[TaskInfo]) -> tuple[float, float]:
    """Weighted mean over tasks and its standard error, larger is better.

    Tasks whose metric is lower-is-better enter with a minus sign. Tasks are taken as independent:
    the variance is the sum of squared shares times squared standard errors. Answers that are all
    right, or all wrong, have a standard error of 0 of their own, and count with ``least_stderr``.

    Args:
        scores: Values per task; each task at most once.
        tasks: Weights and directions; tasks without a score, or a weight, are left out of the mean.

    Returns:
        Value and standard error; NaN for both when nothing was scored.
    """
    by_name = {score.task: score for score in scores}
    asked = [(task, by_name[task.name]) for task in tasks if task.weight and task.name in by_name]
    total = sum(task.weight for task, _ in asked)
    if not asked:
        return math.nan, math.nan
    value = sum(task.weight / total * task.sign * score.value for task, score in asked)
    variance = sum((task.weight / total * score.doubt) ** 2 for task, score in asked)
    return value, math.sqrt(variance)


def attention(tasks: Sequence[TaskInfo]) -> dict[str, float]:
    """How much of the questions, and of a loss, each task gets; need not sum to 1.

    As much as its weight. A task that is only to be kept gets as much as the others on average: its
    floor is to be known as surely as their scores, and with less it would be unlearned.
    """
    members: dict[str, list[TaskInfo]] = {}
    for task in tasks:
        members.setdefault(task.asked_as or task.name, []).append(task)
    weights = [sum(task.weight for task in found) for found in members.values()]
    counting = [weight for weight in weights if weight] or [1.0]
    usual = math.fsum(counting) / len(counting)
    return {
        task.name: task.weight or usual / len(found) for found in members.values() for task in found
    }
