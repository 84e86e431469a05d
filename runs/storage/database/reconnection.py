"""Waiting for a database server that went away, such as one that is started anew."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from runs.storage.database.connection import DATABASE_ERRORS, StoreError

SERVER_SECONDS = 300.0
"""How long a driver tries again before it gives up a server that does not answer."""

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds between two tries: doubled from the first up to the longest."""

_GOING_OR_COMING = frozenset({"57P01", "57P02", "57P03", "53300"})
"""SQLSTATEs of a server that shuts down, crashed, starts up, or has too many connections; those of
class 08 are lost connections.  https://www.postgresql.org/docs/current/errcodes-appendix.html"""

_log = logging.getLogger(__name__)

T = TypeVar("T")


def patiently(work: Callable[[], T], *, seconds: float, name: str) -> T:
    """Do something with a database, and again while its server is away.

    Args:
        work: What to do; it may be done to its end more than once.
        seconds: How long to try; 0 tries once.
        name: What to call the database.

    Returns:
        What ``work`` does.
    """
    until, pause = None, FIRST_PAUSE
    while True:
        try:
            found = work()
        except (*DATABASE_ERRORS, StoreError) as error:
            now = time.monotonic()
            if seconds <= 0 or not is_gone(error) or (until is not None and now >= until):
                raise
            if until is None:
                until = now + seconds
                _log.warning("%s: the server went away; trying for %.0f s", name, seconds)
            time.sleep(min(pause, max(0.0, until - now)))
            pause = min(2 * pause, LONGEST_PAUSE)
        else:
            if until is not None:
                _log.warning("%s: the server is back", name)
            return found


def is_gone(error: BaseException) -> bool:
    """Whether an error, or what caused it, says that the server is away and may come back."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, DBAPIError):
        cause = cause.__cause__
    if cause is None or isinstance(cause.orig, sqlite3.Error):
        return False
    if cause.connection_invalidated:
        return True
    state = getattr(cause.orig, "sqlstate", None)
    if not isinstance(cause, OperationalError | InterfaceError):
        return False
    return state is None or state.startswith("08") or state in _GOING_OR_COMING
