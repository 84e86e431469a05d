"""Where candidates are evaluated: the Pool protocol, and a pool of one in this process."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from evaluators.protocol import (
    Candidate,
    Catalogue,
    EvaluatorFactory,
    Failure,
    FailureKind,
    LossGradient,
    Score,
    scored,
)
from evaluators.workers import clock
from evaluators.workers.attempt import attempt

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What came back for one candidate.

    Attributes:
        candidate: As it was submitted.
        outcome: Score or failure; losses and gradient where the candidate was learned from.
        worker: Name of the worker, such as ``local`` or ``node-a/1``.
        began: When that worker was given it, in seconds since 1970; NaN if nobody knows.
        ended: When it answered, or was given up; likewise.
    """

    candidate: Candidate
    outcome: Score | LossGradient | Failure
    worker: str
    began: float = math.nan
    ended: float = math.nan

    @property
    def scored(self) -> Score | Failure:
        """The outcome of a candidate that was to be scored."""
        return scored(self.outcome)


@dataclass(kw_only=True, slots=True)
class Attendance:
    """How long a worker was there, and how much of that it worked.

    Attributes:
        worker: Its name.
        node: Its machine.
        gpus: Its GPUs.
        joined: When it was set up, in seconds since 1970.
        left: When it ended; ``None`` while it is there.
        busy: Seconds in which it had a candidate, up to the last answer.
        candidates: How many candidates it was given and answered.
    """

    worker: str
    node: str
    gpus: float
    joined: float
    left: float | None = None
    busy: float = 0.0
    candidates: int = 0


class Pool(Protocol):
    """Workers that evaluate candidates; results come back in the order they finish."""

    @property
    def size(self) -> int:
        """Number of workers now, those that are being set up included; at least 1."""
        ...

    @property
    def pending(self) -> int:
        """Number of candidates submitted whose result was not yet taken."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What the first worker that was set up has to say, one sentence each."""
        ...

    def catalogue(self) -> Catalogue:
        """The tasks and questions of the evaluators.

        Raises:
            EvaluatorError: If the workers cannot be set up; the run cannot go on.
        """
        ...

    @property
    def gpus(self) -> float:
        """GPUs of one worker; a fraction where several share one."""
        ...

    def submit(self, candidate: Candidate, *, near: str = "", keep: bool = False) -> None:
        """Give a candidate to the next free worker; returns at once.

        Args:
            candidate: What to evaluate.
            near: Name of the worker that has its weights: it gets the candidate if it is free now.
            keep: Whether the worker stays free after this one until ``next`` is called again: more
                may be asked of the same candidate.
        """
        ...

    def next(self, timeout: float | None = None) -> Result | None:
        """The next finished result; ``None`` after ``timeout`` seconds or if nothing is pending."""
        ...

    def hurry(self, on: bool) -> None:
        """Say whether nothing more is to be done but what is pending: no straggler is waited for.

        What takes much longer than usual is then given to a free worker too, and the first answer
        counts; if that one takes as long, the candidate is given up.
        """
        ...

    def withdraw(self) -> tuple[Candidate, ...]:
        """Take back what no worker has begun with."""
        ...

    def begun(self) -> tuple[int, ...]:
        """Ids of the candidates that a worker was given since this was last asked, each once.

        A candidate is named before its result is there to be taken.
        """
        ...

    def attendance(self) -> Sequence[Attendance]:
        """Every worker that was set up so far, in the order they joined."""
        ...

    def news(self) -> tuple[str, ...]:
        """What happened to the workers since this was last asked, one sentence each."""
        ...

    def close(self) -> None:
        """Stop the workers, dropping what they are at; calling it twice is fine."""
        ...


class SerialPool:
    """One evaluator in this process; work is done inside ``next``, one candidate a call.

    Args:
        make: Makes the evaluator.
        timeout: Longest time for one candidate in seconds, after which the evaluator is replaced;
            ``None`` for no limit. It holds in the main thread, see ``evaluators.workers.attempt``.
    """

    def __init__(self, make: EvaluatorFactory, *, timeout: float | None = None) -> None:
        self._make, self._timeout = make, timeout
        self._evaluator = make()
        self._waiting: deque[Candidate] = deque()
        self._named: Candidate | None = None  # of those that wait, who was said to be begun with
        self._attendance = Attendance(worker="local", node="local", gpus=0.0, joined=clock.now())

    @property
    def size(self) -> int:
        return 1

    @property
    def pending(self) -> int:
        return len(self._waiting)

    @property
    def notes(self) -> tuple[str, ...]:
        return self._evaluator.notes

    def catalogue(self) -> Catalogue:
        return self._evaluator.catalogue()

    @property
    def gpus(self) -> float:
        return 0.0

    def submit(self, candidate: Candidate, *, near: str = "", keep: bool = False) -> None:
        del near, keep  # there is one
        self._waiting.append(candidate)

    def next(self, timeout: float | None = None) -> Result | None:
        del timeout  # work starts when it is asked for, so there is nothing to wait for
        if not self._waiting:
            return None
        candidate, began = self._waiting.popleft(), clock.now()
        outcome, ended = attempt(self._evaluator, candidate, timeout=self._timeout), clock.now()
        if isinstance(outcome, Failure) and outcome.kind is FailureKind.TIMEOUT:
            self._end()  # it may be half done with anything
            self._evaluator = self._make()
        self._attendance.busy += ended - began
        self._attendance.candidates += 1
        return Result(
            candidate=candidate, outcome=outcome, worker="local", began=began, ended=ended
        )

    def hurry(self, on: bool) -> None:
        """There is nobody else to do it."""

    def withdraw(self) -> tuple[Candidate, ...]:
        waiting = tuple(self._waiting)
        self._waiting.clear()
        return waiting

    def begun(self) -> tuple[int, ...]:
        """The one that ``next`` is going to evaluate: nobody can be told while it does."""
        first = self._waiting[0] if self._waiting else None
        if first is None or first is self._named:
            return ()
        self._named = first
        return (first.id,)

    def attendance(self) -> tuple[Attendance, ...]:
        return (self._attendance,)

    def news(self) -> tuple[str, ...]:
        return ()

    def close(self) -> None:
        self._waiting.clear()
        self._end()

    def _end(self) -> None:
        try:
            self._evaluator.close()
        except Exception as error:  # noqa: BLE001 - it may be a user's, and is needed no more
            _log.warning("an evaluator cannot be closed: %s", type(error).__name__)
