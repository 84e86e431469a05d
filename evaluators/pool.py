"""Where candidates are evaluated: the Pool protocol, and a pool of one in this process."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Protocol

from evaluators.base import Candidate, Catalogue, EvaluatorFactory, Failure, Score


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What came back for one candidate.

    Attributes:
        candidate: As it was submitted.
        outcome: Score or failure.
        worker: Name of the worker, such as ``local`` or ``node-a/1``.
    """

    candidate: Candidate
    outcome: Score | Failure
    worker: str


class Pool(Protocol):
    """Workers that evaluate candidates; results come back in the order they finish."""

    @property
    def size(self) -> int:
        """Number of workers; at least 1."""
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

    def submit(self, candidate: Candidate, *, near: str = "") -> None:
        """Give a candidate to the next free worker; returns at once.

        Args:
            candidate: What to evaluate.
            near: Name of the worker that has its weights: it gets the candidate if it is free now.
        """
        ...

    def next(self, timeout: float | None = None) -> Result | None:
        """The next finished result; ``None`` after ``timeout`` seconds or if nothing is pending."""
        ...

    def close(self) -> None:
        """Stop the workers, dropping what they are at; calling it twice is fine."""
        ...


class SerialPool:
    """One evaluator in this process; work is done inside ``next``, one candidate a call."""

    def __init__(self, make: EvaluatorFactory) -> None:
        self._evaluator = make()
        self._waiting: deque[Candidate] = deque()

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

    def submit(self, candidate: Candidate, *, near: str = "") -> None:
        del near  # there is one
        self._waiting.append(candidate)

    def next(self, timeout: float | None = None) -> Result | None:
        del timeout  # work starts when it is asked for, so there is nothing to wait for
        if not self._waiting:
            return None
        candidate = self._waiting.popleft()
        return Result(
            candidate=candidate, outcome=self._evaluator.evaluate(candidate), worker="local"
        )

    def close(self) -> None:
        self._waiting.clear()
        self._evaluator.close()
