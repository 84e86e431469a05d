"""One attempt at a candidate: nothing that it does or gives back reaches further than its result.

An evaluator runs strangers' code: a user's own class, tasks, models. What that raises, be it meant
to end the process, is a Failure, and so is what it gives that is no score.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import Any

from evaluators.protocol import (
    FINGERPRINT,
    LARGEST,
    Candidate,
    Evaluator,
    EvaluatorError,
    Failure,
    FailureKind,
    LossGradient,
    Score,
    evaluated,
)
from spaces.text.error_text import fitted

AGAIN_SECONDS = 1.0
"""Time after which an attempt that did not end at its limit is told so again."""

_SIGNAL = signal.SIGRTMIN + 5 if hasattr(signal, "SIGRTMIN") else signal.SIGUSR2
"""Wakes a main thread that waits for something; tasks use SIGALRM themselves."""


class StoppedAtOnce(KeyboardInterrupt):
    """A user who wants the run to end now, and not at the end of what is under way."""


class _Overdue(BaseException):
    """Raised in an attempt that takes too long; no ``Exception``, which tasks like to catch."""


def attempt(
    evaluator: Evaluator, candidate: Candidate, *, timeout: float | None = None
) -> Score | LossGradient | Failure:
    """Evaluate a candidate; whatever goes wrong with it comes back as a Failure.

    Args:
        evaluator: Anybody's.
        candidate: What to evaluate.
        timeout: Longest time in seconds, which holds in the main thread alone and for all that
            comes back to Python now and then; ``None`` for no limit. What is overdue may have left
            the evaluator half done: it should not be used again.

    Raises:
        EvaluatorError: If the evaluator can do no more work, such as without its GPU.
        KeyboardInterrupt: If the user wants to stop, not the evaluator.
    """
    process, began = os.getpid(), time.monotonic()
    try:
        with _limited(timeout):
            return _checked(evaluated(evaluator, candidate), evaluator, candidate)
    except EvaluatorError:
        raise
    except _Overdue:
        spent = time.monotonic() - began
        text = f"no result after {spent:.0f} s (limit: {timeout:g} s)"
        return Failure(kind=FailureKind.TIMEOUT, message=text)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and _from_user(error):
            raise
        from evaluators.resident_models.candidate_failures import failure_from  # brings torch

        return failure_from(error, other=FailureKind.ERROR)
    finally:
        if os.getpid() != process:  # a copy of the process that the evaluator made and let go on
            os._exit(1)


def _from_user(error: KeyboardInterrupt) -> bool:
    """Whether Ctrl-C raised it; where no driver says so, Python's own handler may have."""
    handler = signal.getsignal(signal.SIGINT)
    return isinstance(error, StoppedAtOnce) or handler is signal.default_int_handler


@contextmanager
def _limited(seconds: float | None) -> Iterator[None]:
    """Raise in the block once it has taken so long, and again until it ends.

    A signal does it, so that sleeping and waiting end too. Its handler stays: a signal that comes
    too late then does nothing.
    """
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    main, done = threading.get_ident(), threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        del number, frame
        if not done.is_set():
            raise _Overdue

    def watch() -> None:
        wait = seconds
        while not done.wait(wait):
            signal.pthread_kill(main, _SIGNAL)
            wait = AGAIN_SECONDS

    signal.signal(_SIGNAL, handle)
    watcher = threading.Thread(target=watch, name="time limit", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _checked(
    outcome: Any, evaluator: Evaluator, candidate: Candidate
) -> Score | LossGradient | Failure:
    """What an evaluator gave, if it can be kept and reckoned with.

    Raises:
        TypeError: If it is no result, or a number in it is none.
        ValueError: If it is not about what was asked.
        OverflowError: If a number is not finite, or too large.
    """
    if isinstance(outcome, Failure):
        return outcome
    if isinstance(outcome, LossGradient) and candidate.weights is not None:
        return outcome
    if not isinstance(outcome, Score):
        raise TypeError(f"evaluate: expected a Score or a Failure, got {type(outcome).__name__}")
    answered = [one.question for one in outcome.outcomes]
    if len(answered) != len(candidate.questions) or {*answered} != {*candidate.questions}:
        raise ValueError("outcomes: expected one for each question asked, got others")
    known = {task.name for task in evaluator.catalogue().tasks}
    if not {score.task for score in outcome.tasks} <= known:
        raise ValueError(f"tasks: expected those of the catalogue ({', '.join(known)}), got others")
    if not isinstance(outcome.fingerprint, str) or len(outcome.fingerprint) > FINGERPRINT:
        raise ValueError(f"fingerprint: expected a text of at most {FINGERPRINT} characters")
    _check_number("value", outcome.value)
    _check_number("stderr", outcome.stderr, nan=True)
    for score in outcome.tasks:
        _check_number(f"task {score.task}", score.value)
        _check_number(f"task {score.task}: stderr", score.stderr, nan=True)
        _check_number(f"task {score.task}: n", score.n)
    for one in outcome.outcomes:
        _check_number(one.question, one.value, nan=True)
        if one.length is not None:
            _check_number(f"{one.question}: length", one.length, nan=True)
    _check_number("build_seconds", outcome.build_seconds, nan=True)
    _check_number("score_seconds", outcome.score_seconds, nan=True)
    if all(type(one.text) is str and len(one.text) <= candidate.texts for one in outcome.outcomes):
        return outcome
    bounded = (
        replace(one, text=fitted(str(one.text), candidate.texts)) for one in outcome.outcomes
    )
    return replace(outcome, outcomes=tuple(bounded))


def _check_number(name: str, value: Any, *, nan: bool = False) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    if not (abs(value) <= LARGEST or (nan and value != value)):
        raise OverflowError(
            f"{name}: expected a finite number of at most {LARGEST:g}, got {float(value)}"
        )
