"""How a study is read and written: snapshots, transactions of who holds it, and its facts."""

from __future__ import annotations

import json
import math
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from runs.storage.database.connection import (
    DATABASE_ERRORS,
    StoreError,
    StudyWriteError,
    file_of,
    reason,
    shown,
)
from runs.storage.database.durability import LogCheckpoints
from runs.storage.database.reconnection import patiently
from runs.storage.database.study_lock import Holder, StudyLock
from runs.storage.tables import FACTS, LOCK
from runs.storage.trial_book import TrialBook
from spaces.errors import RunFailed, UserError

DAMAGE = (
    *(zlib.error, ValueError, OverflowError, KeyError, TypeError, IndexError, AttributeError),
    RecursionError,
)
"""What reading a value raises that was not written by us."""

WRITTEN = "written"
"""The fact that says which transaction was the last, in a database whose server may go away."""

T = TypeVar("T")


class Transactions:
    """A study's database, as far as reading and writing go.

    Attributes:
        name: What to call it: its location, without a password.
        lock: The right to write it.
        patience: Seconds for which a server that went away is waited for.
    """

    def __init__(self, engine: Engine, *, name: str) -> None:
        self.name = shown(name)
        self._engine = engine
        self._path = file_of(name)
        self._book: TrialBook | None = None
        self._checkpoints: LogCheckpoints | None = None
        self._snapshot: sa.Connection | None = None
        self.lock = StudyLock(engine, LOCK)
        self.patience = 0.0

    # Facts that change during a run.

    def fact(self, key: str) -> str | None:
        """A value set with ``set_fact``."""
        return self._read(lambda connection: _value(connection, f"now:{key}"))

    def number(self, key: str) -> float:
        """A fact that is a number, finite and not negative; 0 where it was not set.

        Raises:
            StoreError: If it is something else: nobody of ours has written it.
        """
        with self._deciphering():
            value = float(self.fact(key) or 0.0)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{key}: expected a number of at least 0, got {value}")
            return value

    def mapping(self, key: str, **kinds: type) -> dict[str, Any]:
        """A fact that is a JSON object; empty where it was not set.

        Args:
            key: Of the fact.
            kinds: Of values of the object, by name, where they are there.

        Raises:
            StoreError: If it is something else: nobody of ours has written it.
        """
        with self._deciphering():
            value = json.loads(self.fact(key) or "{}")
            if not isinstance(value, dict):
                raise TypeError(f"{key}: expected an object, got {type(value).__name__}")
            for name, kind in kinds.items():
                if name in value and not isinstance(value[name], kind):
                    raise TypeError(f"{key}: expected {name} to be a {kind.__name__}")
            return value

    def facts(self, prefix: str) -> dict[str, str]:
        """All values set under keys that begin like this, by key."""
        query = sa.select(FACTS).where(FACTS.c.key.startswith(f"now:{prefix}", autoescape=True))
        return self._read(
            lambda connection: {
                row.key.removeprefix("now:"): row.value for row in connection.execute(query)
            }
        )

    def numbered(self, prefix: str, read: Callable[[int, str], T]) -> list[T]:
        """All values set under keys that begin like this and end in a number, in its order.

        Args:
            prefix: What the keys begin with.
            read: Makes of the number and the value whatever they stand for.

        Raises:
            StoreError: If it cannot: nobody of ours has written it.
        """
        with self._deciphering():
            found = {
                int(key.removeprefix(prefix)): value for key, value in self.facts(prefix).items()
            }
            return [read(at, found[at]) for at in sorted(found)]

    def set_fact(self, key: str, value: str) -> None:
        """Remember a value of the run, such as the seconds spent so far."""
        self.set_facts({key: value})

    def set_facts(self, values: Mapping[str, str]) -> None:
        """Remember several values of the run in one transaction."""
        if values:
            self._write(lambda connection: _set(connection, values))

    # How it is read and written.

    def at_once(self, work: Callable[[], T]) -> T:
        """Have all that some work reads be of the same moment, whatever a driver writes meanwhile.

        Args:
            work: Only reads; it should be short, and must bear to be done again.
        """

        def attempt() -> T:
            with self._moment():
                return work()

        return patiently(attempt, seconds=self.patience, name=self.name)

    @contextmanager
    def _moment(self) -> Iterator[None]:
        options = {} if self._path is not None else {"isolation_level": "REPEATABLE READ"}
        with (
            self._deciphering(),
            self._engine.connect().execution_options(**options) as connection,
        ):
            if self._path is not None:
                connection.exec_driver_sql("BEGIN")  # which Python's SQLite leaves out
            self._snapshot = connection
            try:
                yield
            finally:
                self._snapshot = None

    def holder(self) -> Holder | None:
        """Who holds the study, dead or alive; see ``StudyLock.holder``."""
        return self._read(self.lock.holder)

    def rest(self) -> None:
        """Close all connections until the study is used again, so that nobody has to wait."""
        self._engine.dispose()

    @contextmanager
    def _connected(self) -> Iterator[sa.Connection]:
        if self._snapshot is not None:
            yield self._snapshot
            return
        with self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _deciphering(self) -> Iterator[None]:
        """What is not as we write it is said to be damaged."""
        try:
            yield
        except (UserError, RunFailed) as error:
            if isinstance(error, StoreError | RunFailed):
                raise
            raise self._damaged(str(error).splitlines()[0]) from error
        except DATABASE_ERRORS as error:
            raise self._damaged(reason(error)) from error
        except DAMAGE as error:
            raise self._damaged(f"{type(error).__name__}: {error}".splitlines()[0]) from error

    def _damaged(self, what: str) -> StoreError:
        if self._path is None:
            return StoreError(f"{self.name}: cannot be read: {what}")
        return StoreError(f"{self.name}: expected what `search run` wrote, got damage: {what}")

    def _read(self, work: Callable[[sa.Connection], T]) -> T:
        """What some work reads; a server that went away is waited for, if anybody does."""

        def attempt() -> T:
            with self._deciphering(), self._connected() as connection:
                return work(connection)

        if self._snapshot is not None:  # which a lost connection ends
            return attempt()
        return patiently(attempt, seconds=self.patience, name=self.name)

    def _write(self, work: Callable[[sa.Connection], T], *, asked: bool = False) -> T:
        """Do some work in a transaction, by whoever holds the study; what raises is not written.

        Where a server went away while it committed, nobody knows whether it did. So each
        transaction leaves a mark, which is looked for before it is done again: it is done once.

        Args:
            work: Writes; what it does with the connection must bear to be done again.
            asked: Whether trials that were asked for are written with it; those that were told
                their result are in any case.
        """
        book, mark = self._book, uuid.uuid4().hex
        done: list[T] = []

        def attempt() -> None:
            with self._engine.begin() as connection:
                self.lock.keep(connection)
                if done and _value(connection, f"now:{WRITTEN}") == mark:
                    return
                if book is not None:
                    book.write(connection, running=asked)
                done[:] = [work(connection)]
                if self._path is None:
                    _set(connection, {WRITTEN: mark})

        try:
            patiently(attempt, seconds=self.patience, name=self.name)
        except SQLAlchemyError as error:
            raise self._write_error(error) from error
        if book is not None:
            book.written()
        if self._checkpoints is not None:
            self._checkpoints.note()
        return done[0]

    def failure(self, error: BaseException) -> StoreError | StudyWriteError:
        """What to tell the user of a database that failed, in one line."""
        return self._write_error(error) if self.lock.held else self._damaged(reason(error))

    def _write_error(self, error: BaseException) -> StudyWriteError:
        return StudyWriteError(
            f"{self.name}: cannot be written: {reason(error)}; what was recorded before is safe: "
            f"fix that, then `search resume {self.name}` continues it"
        )


def _set(connection: sa.Connection, values: Mapping[str, str]) -> None:
    for key, value in values.items():
        row = f"now:{key}"
        changed = connection.execute(sa.update(FACTS).where(FACTS.c.key == row).values(value=value))
        if changed.rowcount == 0:
            connection.execute(sa.insert(FACTS).values(key=row, value=value))


def _value(connection: sa.Connection, key: str) -> str | None:
    value = connection.execute(sa.select(FACTS.c.value).where(FACTS.c.key == key)).scalar()
    return None if value is None else str(value)
