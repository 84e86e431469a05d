"""One driver per study: a row that says who is writing, and how to tell that they are gone."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import (
    Column,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    bindparam,
    delete,
    insert,
    select,
)
from sqlalchemy import update as sql_update
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from spaces.errors import RunFailed, UserError

BEAT_SECONDS = 15.0
"""Time between signs of life, which a thread of the holder gives whatever the driver is at."""

STALE_SECONDS = 300.0
"""A holder on another machine that has been silent for so long is taken for dead ..."""

WATCH_SECONDS = 20.0
"""... if it stays silent while it is watched for so long: clocks of two machines may differ."""

_log = logging.getLogger(__name__)


class LockedError(UserError, RuntimeError):
    """Another driver holds the study."""


class LockLostError(RunFailed, RuntimeError):
    """Another driver took this one for dead; nothing more may be written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """Who holds a study.

    Attributes:
        token: Unique to one acquisition.
        host: Name of the machine.
        pid: Process id there.
        birth: When and where the process started, as ``_birth`` says; empty where unknown. Tells a
            process from a later one that was given the same id, and machines of one name apart.
        beat: Last sign of life, seconds since the epoch by the holder's clock.
    """

    token: str
    host: str
    pid: int
    birth: str
    beat: float

    @property
    def here(self) -> bool:
        """Whether its process id means something to this process."""
        machine = self.birth.partition("@")[2]
        if machine or _machine():
            return machine == _machine()
        return self.host == socket.gethostname()

    @property
    def silence(self) -> float:
        """Seconds since its last sign of life, by this machine's clock."""
        return max(0.0, time.time() - self.beat)

    @property
    def alive(self) -> bool:
        """Whether the holder may still be writing; where that cannot be known, it may."""
        if not self.here:
            return self.silence < STALE_SECONDS
        if self.pid <= 0:
            return False  # no process has such an id
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, OverflowError):
            return False
        except PermissionError:
            pass  # it exists and belongs to somebody else
        now = _birth(self.pid)
        return not (self.birth and now) or self.birth == now

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


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


class StudyLock:
    """Exclusive right to write a study, held by this process between acquire and release.

    While it is held a thread gives signs of life. Who writes calls ``keep`` in the transaction, so
    that a driver that was taken for dead, such as one whose machine slept, cannot write any more.
    """

    def __init__(self, engine: Engine, rows: Table) -> None:
        self._engine = engine
        self._rows = rows
        self._sign = (  # made once: it goes with every transaction
            sql_update(rows).where(rows.c.token == bindparam("own")).values(beat=bindparam("now"))
        )
        self._token: str | None = None
        self._released = threading.Event()
        self._beating: threading.Thread | None = None

    @property
    def held(self) -> bool:
        """Whether this process took the lock and has not released it."""
        return self._token is not None

    def holder(self, connection: Connection | None = None) -> Holder | None:
        """Who holds the study now, dead or alive.

        Raises:
            LockedError: If the row is not as drivers write it.
        """
        if connection is None:
            with self._engine.connect() as connection:
                return self.holder(connection)
        row = connection.execute(select(self._rows)).mappings().first()
        if row is None:
            return None
        texts = {name: str(row[name]) for name in ("token", "host", "birth")}
        try:
            return Holder(**texts, pid=int(row["pid"]), beat=float(row["beat"]))
        except (TypeError, ValueError, OverflowError) as error:
            raise LockedError(f"study: expected a lock as drivers write it, got {error}") from error

    def check_free(self) -> None:
        """Make sure that nobody who may be alive holds it; nothing is written.

        Raises:
            LockedError: With who does.
        """
        holder = self.holder()
        if holder is not None and holder.alive:
            raise LockedError(_in_use(holder))

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
        self._released.clear()
        self._beating = threading.Thread(target=self._beat_on, name="study lock", daemon=True)
        self._beating.start()

    def _take_over(self, values: dict[str, object]) -> None:
        holder = self.holder()
        if holder is not None:
            self._make_sure_it_is_dead(holder)
        # Compare and swap on the dead holder's token: of two who take over, one wins.
        token = "" if holder is None else holder.token
        with self._engine.begin() as connection:
            taken = connection.execute(
                sql_update(self._rows)
                .where(self._rows.c.token == token)
                .values(**values | {"beat": time.time()})
            )
        if taken.rowcount != 1:
            raise LockedError("study: expected no other driver, got one that was faster; try again")

    def _make_sure_it_is_dead(self, holder: Holder) -> None:
        if holder.alive:
            raise LockedError(_in_use(holder))
        if holder.here:
            return
        time.sleep(WATCH_SECONDS)
        now = self.holder()
        if now is not None and (now.token, now.beat) != (holder.token, holder.beat):
            raise LockedError(_in_use(now))

    def beat(self) -> None:
        """Give a sign of life.

        Raises:
            LockLostError: If the lock was taken away, so that this process must stop writing.
        """
        with self._engine.begin() as connection:
            self.keep(connection)

    def keep(self, connection: Connection) -> None:
        """Make sure, in a transaction that writes, that this process may.

        Raises:
            LockLostError: If the lock was taken away, or never taken.
        """
        if self._token is None:
            raise LockLostError(
                "study: expected to hold its lock before writing, got none taken; nothing was "
                "written"
            )
        kept = connection.execute(self._sign, {"own": self._token, "now": time.time()})
        if kept.rowcount != 1:
            raise LockLostError(
                "study: expected to hold the lock, got another driver holding it: this one was "
                f"silent for more than {STALE_SECONDS:.0f} s; nothing more was written by it"
            )

    def _beat_on(self) -> None:
        while not self._released.wait(BEAT_SECONDS):
            try:
                self.beat()
            except LockLostError:
                return  # the driver meets it with its next write
            except SQLAlchemyError as error:  # so it does this, if it lasts
                _log.debug("no sign of life could be given: %s", type(error).__name__)

    def release(self) -> bool:
        """Give the lock back; does nothing when it is not held.

        Where it cannot be written, such as on a full disk, it is left behind: once this process has
        ended it counts for nothing.

        Returns:
            Whether it was still this process's, so that nobody else has written meanwhile.
        """
        if self._token is None:
            return False
        self._released.set()
        if self._beating is not None:
            self._beating.join(timeout=5.0)
        token, self._token, self._beating = self._token, None, None
        try:
            with self._engine.begin() as connection:
                given = connection.execute(delete(self._rows).where(self._rows.c.token == token))
        except SQLAlchemyError as error:
            _log.debug("the lock was left behind: %s", type(error).__name__)
            return True
        return given.rowcount == 1


def _in_use(holder: Holder) -> str:
    text = f"study: expected no other driver, got {holder} writing it"
    if holder.here:
        return f"{text}; wait for it or stop it"
    return (
        f"{text} (sign of life {holder.silence:.0f} s ago); wait for it or stop it; "
        f"it counts as dead after {STALE_SECONDS:.0f} s of silence"
    )


def _birth(pid: int) -> str:
    """``ticks@boot@namespace``: start in clock ticks since the boot of that id; empty if unknown.

    Ids of processes mean the same in one boot of one kernel and one of its process namespaces only;
    containers of one machine have namespaces of their own. From Linux's /proc.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    # The command name may hold spaces and brackets; fields count from after its last bracket.
    fields = stat.rpartition(")")[2].split()
    if fields[0] in "ZX":  # dead, though its parent has not looked yet
        return "dead"
    return f"{fields[19]}@{_machine()}"


def _machine() -> str:
    """Id of this boot of the kernel and of the process namespace; empty where unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = Path("/proc/self/ns/pid").readlink().name
    except OSError:
        return ""
    return f"{boot}@{''.join(filter(str.isdigit, space))}"
