"""What runs in a process of its own: an evaluator, and how its set-up went."""

from __future__ import annotations

import os
import signal
import socket
import sys
from dataclasses import dataclass
from types import FrameType

from evaluators.protocol import (
    MESSAGE,
    Candidate,
    Catalogue,
    Evaluator,
    EvaluatorError,
    EvaluatorFactory,
    Failure,
    LossGradient,
    Score,
)
from evaluators.workers.attempt import attempt
from evaluators.workers.worker_deaths import Vitals
from spaces.text.error_text import plain_line, said

THREADS = "OMP_NUM_THREADS"
"""Number of threads of libraries that follow OpenMP, read when they are loaded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerStart:
    """What a worker says when it is set up, or why it cannot be.

    Attributes:
        name: Host and process, such as ``node-a/4711``.
        catalogue: What can be asked; ``None`` if it could not be set up.
        problems: Why not; one line each.
        notes: What a user should know of its set-up.
        vitals: By which its machine can say later why it died.
    """

    name: str
    catalogue: Catalogue | None
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    vitals: Vitals | None = None


class Worker:
    """An evaluator in a process of its own.

    Args:
        folder: The driver's, where modules of the user's are looked for, after all libraries.
        move: Whether relative paths count from there, as they do for the driver.
        threads: Of libraries that follow OpenMP; ``None`` leaves what the user or Ray has set.
    """

    def __init__(self, folder: str, *, move: bool, threads: int | None = None) -> None:
        self._evaluator: Evaluator | None = None
        if threads is not None:
            os.environ[THREADS] = str(threads)
        if folder not in sys.path:
            sys.path.append(folder)
        if move:
            os.chdir(folder)

    def start(self, make: EvaluatorFactory) -> WorkerStart:
        """Build the evaluator; a set-up that fails is reported, not raised."""
        # Ctrl-C in the terminal reaches every process; it is the driver that decides what to do.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # Ray's own handler raises inside the candidate, whose failure it then would be.
        signal.signal(signal.SIGTERM, _end)
        name = f"{socket.gethostname()}/{os.getpid()}"
        try:
            self._evaluator = make()
            made = self._evaluator
            return WorkerStart(
                name=name, catalogue=made.catalogue(), notes=made.notes, vitals=Vitals.here()
            )
        except EvaluatorError as error:
            return WorkerStart(name=name, catalogue=None, problems=error.problems)
        except BaseException as error:  # noqa: BLE001 - such as a user's code that exits
            text = plain_line(f"{type(error).__name__}: {said(error)}", MESSAGE)
            return WorkerStart(name=name, catalogue=None, problems=(f"cannot be set up: {text}",))

    def evaluate(self, candidate: Candidate) -> Score | LossGradient | Failure:
        """Build one candidate, and score it or differentiate its losses."""
        if self._evaluator is None:
            raise RuntimeError("evaluate: expected a worker that was started, got one that was not")
        return attempt(self._evaluator, candidate)


def _end(number: int, frame: FrameType | None) -> None:
    """End the process by the signal that it got, named where ``deaths`` looks for it."""
    del frame
    os.write(2, f"*** {signal.Signals(number).name} received\n".encode())
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
