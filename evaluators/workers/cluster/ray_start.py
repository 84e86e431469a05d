"""What may keep a Ray of our own from starting on this machine, in words."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psutil

from evaluators.protocol import MESSAGE, EvaluatorError
from spaces.text.error_text import plain_line

SOCKET_BYTES = 103 if sys.platform == "darwin" else 107
"""Longest name of a socket that the system takes."""

_BELOW = len("/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")
"""Bytes that Ray adds to its folder for the longest name of a socket."""

_log = logging.getLogger(__name__)


def check_folder() -> None:
    """Make sure that Ray's sockets fit below its folder for temporary files.

    Raises:
        EvaluatorError: If the folder's name is too long.
    """
    name = "RAY_TMPDIR" if "RAY_TMPDIR" in os.environ else "TMPDIR"
    folder, most = os.environ.get(name, ""), SOCKET_BYTES - _BELOW
    ours = name == "RAY_TMPDIR" or sys.platform.startswith("linux")
    if ours and len(os.fsencode(folder)) > most:
        raise EvaluatorError(
            [
                f"{name}: expected a path of at most {most} bytes (Ray's sockets lie below it), "
                f"got {len(os.fsencode(folder))}: {folder}; set RAY_TMPDIR to a shorter one, such "
                "as /tmp, or workers.ray: false"
            ]
        )


def patient(start: Callable[[], object]) -> None:
    """Start Ray, a second time if it took too long: the 30 s that it gives itself are its own."""
    own = psutil.Process()
    before = own.children()
    try:
        start()
    except Exception as error:  # Ray's time-out is a bare one
        if "timed out" not in str(error).lower():
            raise
        _log.warning("ray: did not start in time; the machine may be busy: trying once more")
        for left in set(own.children()) - {*before}:
            with suppress(psutil.NoSuchProcess):
                left.kill()
        start()


@contextmanager
def told() -> Iterator[None]:
    """Whatever keeps Ray from starting as one line; it raises its time-out as a bare Exception.

    Raises:
        EvaluatorError: Instead of any other.
    """
    try:
        yield
    except EvaluatorError:
        raise
    except Exception as error:
        words = " ".join(str(error).split()) or type(error).__name__
        raise EvaluatorError(
            [
                f"ray: did not start: {plain_line(words, MESSAGE).rstrip('.')}; the machine may be "
                "too busy or short of memory: try again, or set workers.ray: false"
            ]
        ) from error
