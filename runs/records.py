"""What a run remembers about each candidate: plain values read from study.db."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from evaluators.base import FailureKind, TaskScore
from spaces.recipe import Recipe

PARENT = "parent "
"""How the origin of a parent alone starts; its name follows."""

AVERAGE = "plain average"
"""The origin of the equal-weight mean of all parents."""


def is_baseline(origin: str) -> bool:
    """Whether a recipe of that origin is a parent alone or the plain average."""
    return origin.startswith(PARENT) or origin == AVERAGE


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
class Evaluation:
    """One evaluation of a candidate on one split.

    Attributes:
        split: Which questions were asked.
        state: Where it stands; the fields below hold when it is complete or failed.
        value: Combined score, larger is better; NaN unless complete.
        stderr: Its standard error; NaN unless complete.
        tasks: Value per task; empty unless complete.
        questions: Number of questions asked.
        build_seconds: Time to build the weights; NaN unless complete.
        score_seconds: Time to answer the questions; NaN unless complete.
        worker: Name of the worker; empty while it runs.
        fingerprint: Hash of the merged weights; empty when they were not built.
        failure_kind: Class of the failure; ``None`` unless failed.
        failure_message: One line; empty unless failed.
        started: When it was handed out, UTC.
        finished: When it came back, UTC; ``None`` while it runs.
        attempts: How often it was handed out; above 1 after a crash of the driver.
    """

    split: Split
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
class Record:
    """One distinct recipe of a run.

    Attributes:
        id: Number of the candidate, from 0 in the order they were taken up.
        recipe: The recipe.
        origin: Where it came from: ``parent NAME``, ``plain average``, another seed's name, or
            the sampler's name.
        trial: Number of its Optuna trial; ``None`` for seeds outside the space.
        evaluations: By split; the search split is there from the start.
    """

    id: int
    recipe: Recipe
    origin: str
    trial: int | None
    evaluations: Mapping[Split, Evaluation] = field(default_factory=dict)

    @property
    def is_baseline(self) -> bool:
        """Whether it is a parent alone or the plain average."""
        return is_baseline(self.origin)
