"""How a SQLite study reaches the disk: chosen by the file system it lies on, checked on start."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.exc import OperationalError

from runs.storage.database.connection import StoreError
from runs.storage.database.filesystems import shared_over_network, type_of

_DURABLE = 2
"""Least value of ``PRAGMA synchronous`` with which a commit waits for the disk."""

CHECKPOINT_SECONDS = 2.0
"""Time between two checkpoints of a file that is written: what it lacks at most without its log."""

HELD_SECONDS = 60.0
"""A reader that keeps checkpoints from being whole for so long is worth a line."""

_log = logging.getLogger(__name__)


def begin_writing(engine: Engine, path: Path, name: str) -> tuple[str, ...]:
    """Choose the journal for a file that this process is about to write, and check the file.

    A write-ahead log needs one flush a commit and lets readers never wait, but it needs memory that
    all who open the file share: on a network file system a rollback journal is used instead.

    Returns:
        Lines for the user, where something is not as it should be.

    Raises:
        StoreError: If the file is damaged.
    """
    kind = type_of(path)
    wanted = "delete" if shared_over_network(kind) else "wal"
    notes = []
    with engine.connect() as connection:
        check_sound(connection, name)
        journal = _switched(connection, wanted)
        synchronous = int(connection.exec_driver_sql("PRAGMA synchronous").scalar() or 0)
    engine.dispose()  # connections set themselves up by the journal
    if wanted == "delete":
        notes.append(
            f"{name} lies on a network file system ({kind}): no write-ahead log is kept there, "
            "and commits take longer; a local disk is better"
        )
    if journal != wanted:
        notes.append(f"{name}: expected journal mode {wanted}, got {journal}; going on with that")
    if synchronous < _DURABLE:
        notes.append(f"{name}: commits do not wait for the disk: a power cut may cost the last")
    return tuple(notes)


def check_sound(connection: sa.Connection, name: str) -> None:
    """Have SQLite look at every page of a file.

    Raises:
        StoreError: If the file is damaged.
    """
    said = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    if said != "ok":
        raise StoreError(f"{name}: expected a sound database, got a damaged one: {said}")


def end_writing(engine: Engine) -> None:
    """Leave one plain file behind, which can be read also where nothing can be written.

    While somebody else has it open the log is left to the last of them, but all is in the file too.
    """
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA busy_timeout=500")
            connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")
            _switched(connection, "delete")
    except sa.exc.SQLAlchemyError:
        pass  # such as a full disk: what is in the log stays there and is found again
    finally:
        engine.dispose()


def _switched(connection: sa.Connection, wanted: str) -> str:
    """The journal mode after asking for one; in use by others it stays what it was."""
    now = str(connection.exec_driver_sql("PRAGMA journal_mode").scalar())
    if now == wanted:
        return now
    try:
        return str(connection.exec_driver_sql(f"PRAGMA journal_mode={wanted}").scalar())
    except OperationalError:
        return now


class LogCheckpoints:
    """Brings what is in a file's write-ahead log into the file itself, every few seconds.

    The file alone is then the whole run up to a moment ago: it is what people copy, also after the
    driver was killed. A thread does it, so that no commit waits; readers do not wait for it either,
    but one that reads on and on keeps what came after its beginning in the log.

    Args:
        engine: Of the file; its commits wait for the disk, and so do checkpoints.
        name: What to call the file.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._name = name
        self._due, self._ended = threading.Event(), threading.Event()
        self._whole = time.monotonic()
        self._make()
        self._thread = threading.Thread(target=self._go_on, name="study checkpoints", daemon=True)
        self._thread.start()

    def note(self) -> None:
        """Something was committed."""
        self._due.set()

    def close(self) -> None:
        """Stop making checkpoints."""
        self._ended.set()
        self._thread.join(timeout=5.0)

    def _go_on(self) -> None:
        said = False
        while not self._ended.wait(CHECKPOINT_SECONDS):
            if not self._due.is_set():
                self._whole = time.monotonic()
                continue
            self._due.clear()
            if not self._make():
                self._due.set()  # what is left is no less due
            behind = time.monotonic() - self._whole
            if behind > HELD_SECONDS and not said:
                said = True
                _log.warning(
                    "%s: a reader has kept its log open for %.0f s: until that "
                    "ends, a copy needs %s-wal too", self._name, behind, self._name,
                )  # fmt: skip

    def _make(self) -> bool:
        """Make a checkpoint; whether the file holds everything now."""
        try:
            with self._engine.connect() as connection:
                row = connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)").one()
        except sa.exc.SQLAlchemyError as error:  # such as a full disk: the driver meets it too
            _log.debug("no checkpoint could be made: %s", type(error).__name__)
            return False
        busy, pages, moved = map(int, row)  # pages are -1 where there is no log
        whole = busy == 0 and pages == moved
        if whole:
            self._whole = time.monotonic()
        return whole
