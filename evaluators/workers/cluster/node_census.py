"""Asking a cluster which nodes it has, where the answer may never come."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from threading import Condition, Thread
from typing import Generic, TypeVar

PATIENCE = 1.0
"""Seconds in which an answer usually comes; after them the last one is given."""

SILENCE = 30.0
"""Seconds without an answer after which nobody is there any more. Ray ends the whole process after
60, with what it has not recorded."""

Answer = TypeVar("Answer")

_log = logging.getLogger(__name__)


class NodeCensus(Generic[Answer]):
    """Asks in a thread of its own, so that whoever wants to know never waits for long.

    Args:
        ask: What may take for ever, or raise where there is no answer.
    """

    def __init__(self, ask: Callable[[], Answer]) -> None:
        self._ask = ask
        self._latest = ask()
        self._changed = Condition()
        self._wanted = self._answered = 0
        self._since = 0.0
        self._ended = False
        Thread(target=self._work, name="census", daemon=True).start()

    def latest(self) -> Answer:
        """The answer of now, or the last one if there is none within a second.

        Raises:
            TimeoutError: If there was none for half a minute.
        """
        with self._changed:
            if self._wanted == self._answered:
                self._since = time.monotonic()
            self._wanted += 1
            wanted = self._wanted
            self._changed.notify_all()
            there = self._changed.wait_for(lambda: self._answered >= wanted, PATIENCE)
            if not there and time.monotonic() - self._since >= SILENCE:
                raise TimeoutError
            return self._latest

    def close(self) -> None:
        """Ask no more."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ended or self._wanted > self._answered)
                if self._ended:
                    return
                wanted = self._wanted
            try:
                found = self._ask()
            except Exception as error:  # noqa: BLE001 - whatever it says, it is no answer
                _log.debug("no answer from the cluster: %s", error)
                time.sleep(PATIENCE)
                continue
            with self._changed:
                self._latest, self._answered = found, wanted
                self._changed.notify_all()
