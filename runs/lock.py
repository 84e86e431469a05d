"""One driver per study: a row that says who is writing, and how to tell that they are gone."""

from __future__ import annotations

import os
import socket
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Column, Float, Integer, MetaData, String, Table, delete, insert, select
from sqlalchemy import update as sql_update
from sqlalchemy.engine import Engine
from sqlalchemy.exc import IntegrityError

from spaces.problems import UserError

STALE_SECONDS = 300.0
"""A holder on another machine that has been silent for so long is taken for dead."""


class LockedError(UserError, RuntimeError):
    """Another driver holds the study."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """Who holds a study.

    Attributes:
        token: Unique to one acquisition.
        host: Name of the machine.
        pid: Process id there.
        birth: When the process started, in the kernel's own unit; empty where unknown. Tells a
            process from a later one that was given the same id.
        beat: Last sign of life, seconds since the epoch.
    """

    token: str
    host: str
    pid: int
    birth: str
    beat: float

    @property
    def alive(self) -> bool:
        """Whether the holder may still be writing; where that cannot be known, it may."""
        if self.host != socket.gethostname():
            return time.time() - self.beat < STALE_SECONDS
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass  # it exists and belongs to somebody else
        return not self.birth or self.birth == _birth(self.pid)


def table(metadata: MetaData) -> Table:
    """The lock's table: at most one row, with id 1."""
    return Table(
        "merge_search_lock",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("token", String(64), nullable=False),
        Column("host", String(255), nullable=False),
        Column("pid", Integer, nullable=False),
        Column("birth", String(64), nullable=False),
        Column("beat", Float, nullable=False),
    )


class Lock:
    """Exclusive right to write a study, held by this process between acquire and release."""

    def __init__(self, engine: Engine, rows: Table) -> None:
        self._engine = engine
        self._rows = rows
        self._token: str | None = None

    def holder(self) -> Holder | None:
        """Who holds the study now, dead or alive."""
        with self._engine.connect() as connection:
            row = connection.execute(select(self._rows)).mappings().first()
        if row is None:
            return None
        return Holder(**{name: row[name] for name in ("token", "host", "pid", "birth", "beat")})

    def acquire(self) -> None:
        """Take the lock, from a dead holder if need be.

        Raises:
            LockedError: If somebody who may be alive holds it; the message names them.
        """
        values = {
            "token": uuid.uuid4().hex,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "birth": _birth(os.getpid()),
            "beat": time.time(),
        }
        try:
            with self._engine.begin() as connection:
                connection.execute(insert(self._rows).values(id=1, **values))
        except IntegrityError:
            self._take_over(values)
        self._token = str(values["token"])

    def _take_over(self, values: dict[str, object]) -> None:
        holder = self.holder()
        if holder is not None and holder.alive:
            raise LockedError(
                f"study: expected no other driver, got process {holder.pid} on {holder.host} "
                "writing it; wait for it or stop it"
            )
        # Compare and swap on the dead holder's token: of two who take over, one wins.
        token = "" if holder is None else holder.token
        with self._engine.begin() as connection:
            taken = connection.execute(
                sql_update(self._rows).where(self._rows.c.token == token).values(**values)
            )
        if taken.rowcount != 1:
            raise LockedError("study: expected no other driver, got one that was faster; try again")

    def beat(self) -> None:
        """Give a sign of life.

        Raises:
            LockedError: If the lock was taken away, so that this process must stop writing.
        """
        with self._engine.begin() as connection:
            kept = connection.execute(
                sql_update(self._rows)
                .where(self._rows.c.token == (self._token or ""))
                .values(beat=time.time())
            )
        if kept.rowcount != 1:
            raise LockedError("study: expected to hold the lock, got another driver holding it")

    def release(self) -> None:
        """Give the lock back; does nothing when it is not held."""
        if self._token is not None:
            with self._engine.begin() as connection:
                connection.execute(delete(self._rows).where(self._rows.c.token == self._token))
            self._token = None


def _birth(pid: int) -> str:
    """Start time of a process in clock ticks since boot, from Linux's /proc; else empty."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return ""
    # The command name may hold spaces and brackets; fields count from after its last bracket.
    return stat.rpartition(")")[2].split()[19]
