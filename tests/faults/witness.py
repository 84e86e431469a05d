"""What runs in workers that are to be killed: light, so that the next one is there soon."""

import json
import os
import time
from pathlib import Path
from typing import Any

from evaluators.protocol import Candidate, Catalogue, Evaluator, Failure, Score
from evaluators.synthetic_evaluator import SyntheticEvaluator, SyntheticSpec


class Witness:
    """An evaluator that writes down what it is asked and what it answers.

    Args:
        inner: What evaluates.
        log: File to append to; shared by all workers, since a line is written at once.
    """

    def __init__(self, inner: Evaluator, log: Path) -> None:
        self._inner = inner
        self._log = log

    def catalogue(self) -> Catalogue:
        return self._inner.catalogue()

    @property
    def notes(self) -> tuple[str, ...]:
        return self._inner.notes

    def close(self) -> None:
        self._inner.close()

    def evaluate(self, candidate: Candidate) -> Score | Failure:
        self._note("begin", candidate)
        outcome = self._inner.evaluate(candidate)
        answers = (
            {item.question: item.value for item in outcome.outcomes}
            if isinstance(outcome, Score)
            else {}
        )
        kind = "" if isinstance(outcome, Score) else outcome.kind.value
        self._note("end", candidate, answers=answers, failure=kind)
        return outcome

    def _note(self, event: str, candidate: Candidate, **more: Any) -> None:
        line = {
            "event": event,
            "time": time.time(),
            "pid": os.getpid(),
            "candidate": candidate.id,
            "key": candidate.recipe.key,
            "questions": list(candidate.questions),
            **more,
        }
        handle = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, (json.dumps(line) + "\n").encode())
        finally:
            os.close(handle)


def witness(spec: SyntheticSpec, log: str) -> Witness:
    """What a worker makes for itself."""
    return Witness(SyntheticEvaluator(spec), Path(log))


class Slow:
    """An evaluator that takes its time until a file is there.

    Args:
        inner: What evaluates.
        gate: The file.
        seconds: What it takes for a candidate before.
    """

    def __init__(self, inner: Evaluator, gate: Path, seconds: float) -> None:
        self._inner, self._gate, self._seconds = inner, gate, seconds

    def catalogue(self) -> Catalogue:
        return self._inner.catalogue()

    @property
    def notes(self) -> tuple[str, ...]:
        return ()

    def evaluate(self, candidate: Candidate) -> Score | Failure:
        end = time.monotonic() + self._seconds
        while time.monotonic() < end and not self._gate.exists():
            time.sleep(0.02)
        return self._inner.evaluate(candidate)

    def close(self) -> None:
        """Nothing to give back."""


def slow_witness(spec: SyntheticSpec, log: str, gate: str, seconds: float) -> Witness:
    """What a worker makes for itself where there has to be time for something to happen."""
    return Witness(Slow(SyntheticEvaluator(spec), Path(gate), seconds), Path(log))


def looked_at(note: str) -> tuple[str, ...]:
    """What a node lacks: nothing, but it notes that it was asked."""
    with Path(note).open("a") as file:
        file.write(f"{os.getpid()}\n")
    return ()


def lacking() -> tuple[str, ...]:
    """What a node lacks: a model."""
    return ("model 'a' at /nowhere: expected a folder, got none",)
