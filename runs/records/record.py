"""What a run remembers about each candidate: plain values read from study.db."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from evaluators.protocol import FailureKind, TaskScore
from spaces.recipes.recipe import Recipe

PARENT = "parent "
"""How the origin of a parent alone starts; its name follows."""

BASE = "base"
"""The origin of the base alone."""

AVERAGE = "plain average"
"""The origin of the equal-weight mean of all parents."""

LEARNED = "learned "
"""How the origin of a recipe starts whose coefficients were learned; what was learned follows."""

SAMPLED = "sampler "
"""How the origin of a recipe starts that another package's sampler proposed; its name follows."""

OWN = "seed "
"""How the origin of a recipe of the user's starts; its file, or the earlier study, follows."""

SAMPLERS = ("auto", "surrogate", "tpe", "cmaes", "gp", "nsga2", "nsga3", "random", "qmc")
"""Names a config may give for the sampler; the origin of what it proposes."""


LOGGERS = ("tensorboard", "mlflow", "wandb")
"""Names a config may give for loggers."""

SCORE = "score"
"""The objective that the weighted sum of the tasks' scores is."""

ANSWER_LENGTH = "answer_length"
PARAMETERS = "parameters"
MEASURES = (ANSWER_LENGTH, PARAMETERS)
"""What else of a candidate is known, and can be an objective: smaller is better."""


class Role(StrEnum):
    """What a candidate is in a run."""

    PARENT = "parent"  # one parent alone
    BASE = "base"  # the base alone: what everything comes from, and no rival
    AVERAGE = "average"  # the plain average of all parents
    DEFAULT = "default"  # another first recipe: what anyone would try by hand
    OWN = "own"  # a first recipe of the user's: from a file, or the best of an earlier study
    SEARCHED = "searched"  # proposed by a sampler


def role_of(origin: str) -> Role:
    """The role of a recipe of that origin."""
    if origin.startswith(PARENT):
        return Role.PARENT
    if origin in (BASE, AVERAGE):
        return Role.BASE if origin == BASE else Role.AVERAGE
    if origin.startswith(OWN):
        return Role.OWN
    searched = origin in SAMPLERS or origin.startswith((LEARNED, SAMPLED))
    return Role.SEARCHED if searched else Role.DEFAULT


def is_baseline(origin: str) -> bool:
    """Whether a recipe of that origin is a parent or the base alone, or the plain average."""
    return role_of(origin) in (Role.PARENT, Role.BASE, Role.AVERAGE)


def is_known_good(origin: str) -> bool:
    """Whether a recipe of that origin was tried because it is known to be good elsewhere."""
    return role_of(origin) in (Role.DEFAULT, Role.OWN)


class Split(StrEnum):
    """Which questions an evaluation asked."""

    SEARCH = "search"
    HELD_OUT = "held_out"


class State(StrEnum):
    """Where an evaluation stands."""

    RUNNING = "running"
    COMPLETE = "complete"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A score and how sure it is.

    Attributes:
        value: Combined over tasks, larger is better.
        stderr: Its standard error; NaN where it cannot be known.
    """

    value: float
    stderr: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Asking:
    """Questions handed out that have not come back.

    Attributes:
        candidate: Id of the candidate.
        split: What the questions belong to.
        questions: Their ids.
    """

    candidate: int
    split: Split
    questions: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Questions of one split that were handed to a worker together, and what came of them.

    Attributes:
        state: Where it stands.
        value: Combined score over the questions answered, larger is better; NaN without any.
        stderr: Its standard error; NaN without any.
        tasks: Value per task; empty without any.
        questions: Number of questions answered; those asked where none was.
        build_seconds: Time to build the weights; NaN unless questions were answered.
        score_seconds: Time to answer the questions; NaN unless questions were answered.
        worker: Name of the worker; empty while it runs.
        fingerprint: Hash of the merged weights; empty when they were not built.
        failure_kind: Class of the failure; ``None`` if there was none.
        failure_message: One line; empty if there was none.
        started: When a worker was given it, UTC; when it was handed out, as long as none was.
        finished: When the answers came back, UTC; ``None`` while it runs.
        attempts: How often a worker began with the same questions; above 1 after a crash of the
            driver, 0 while they wait for a worker.
    """

    state: State
    value: float
    stderr: float
    tasks: tuple[TaskScore, ...]
    questions: int
    build_seconds: float
    score_seconds: float
    worker: str
    fingerprint: str
    failure_kind: FailureKind | None
    failure_message: str
    started: datetime
    finished: datetime | None
    attempts: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation(Part):
    """All that a candidate was asked of one split; the fields are those of its parts together.

    It is running while questions are under way; worker and failure are those of the last part that
    has one, and it failed only if that condemns the answers too (``pooled_evaluations.whole``).

    Attributes:
        split: Which questions were asked.
        asked: Number of questions handed out, those included that a failure left without answers.
    """

    split: Split
    asked: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One distinct recipe of a run.

    Attributes:
        id: Number of the candidate, from 0 in the order they were taken up.
        recipe: The recipe.
        origin: Where it came from: ``parent NAME``, ``plain average``, another seed's name, or
            the sampler's name.
        trial: Number of its Optuna trial; ``None`` for seeds outside the space.
        planned: Ids of the search questions that it was to be asked when it was taken up. With
            fewer answers it is under way, failed, or was stopped because it was clearly behind.
        evaluations: By split; the search split is there from the start.
        estimate: Search score made comparable between candidates that answered different
            questions; ``None`` where it was not computed, or there is no score.
        posterior: What is to be expected of the candidate in the light of all others; likewise.
        objectives: The same for each objective of the run, else for each task that is searched on,
            by its name, larger is better (measures with a minus sign); empty where there is one
            task only.
        measures: What is known of the measures, by name: mean characters of a written answer to a
            search question, made comparable like the score; number of parameters.
        margins: Of each task with a floor, what is expected less the floor: below 0 it is broken.
        shortfall: How far it is from keeping every floor (``floors``); 0 where it does.
    """

    id: int
    recipe: Recipe
    origin: str
    trial: int | None
    planned: tuple[str, ...] = ()
    evaluations: Mapping[Split, Evaluation] = field(default_factory=dict)
    estimate: Estimate | None = None
    posterior: Estimate | None = None
    objectives: Mapping[str, Estimate] = field(default_factory=dict)
    measures: Mapping[str, Estimate] = field(default_factory=dict)
    margins: Mapping[str, Estimate] = field(default_factory=dict)
    shortfall: float = 0.0

    @property
    def is_baseline(self) -> bool:
        """Whether it is a parent or the base alone, or the plain average."""
        return is_baseline(self.origin)
