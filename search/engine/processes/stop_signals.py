"""Stopping a run from outside: the first signal drains, the second one ends at once."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from evaluators.workers.attempt import StoppedAtOnce


@dataclass(kw_only=True, slots=True)
class Stop:
    """Whether the run was asked to stop.

    Attributes:
        requested: No new candidate is started any more; those under way are finished.
    """

    requested: bool = False


@contextmanager
def on_signals(announce: Callable[[str], None]) -> Iterator[Stop]:
    """Turn SIGINT and SIGTERM into a request to stop while the block runs.

    The first signal sets ``Stop.requested``; a second one raises StoppedAtOnce. The handlers
    that were there before come back at the end.
    """
    stop = Stop()

    def handle(number: int, frame: FrameType | None) -> None:
        del frame
        if stop.requested:
            raise StoppedAtOnce
        stop.requested = True
        announce(
            f"{signal.Signals(number).name}: finishing the candidates under way; "
            "a second one stops at once"
        )

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
