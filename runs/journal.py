"""How a SQLite study reaches the disk: chosen by the file system it lies on, checked on start."""

from __future__ import annotations

import os
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.exc import OperationalError

from runs.database import StoreError
from runs.filesystems import shared_over_network, type_of

_DURABLE = 2
"""Least value of ``PRAGMA synchronous`` with which a commit waits for the disk."""


def begin_writing(engine: Engine, path: Path, name: str) -> tuple[str, ...]:
    """Choose the journal for a file that this process is about to write, and check the file.

    A write-ahead log needs one flush a commit and lets readers never wait, but it needs memory that
    all who open the file share: on a network file system a rollback journal is used instead.

    Args:
        engine: Of the file.
        path: The file.
        name: What to call it.

    Returns:
        Lines for the user, where something is not as it should be.

    Raises:
        StoreError: If the file is damaged.
    """
    kind = type_of(path)
    wanted = "delete" if shared_over_network(kind) else "wal"
    notes = []
    with engine.connect() as connection:
        found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
        if found != "ok":
            raise StoreError(f"{name}: expected a sound database, got a damaged one: {found}")
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


def end_writing(engine: Engine) -> None:
    """Leave one plain file behind, which can be read also where nothing can be written.

    Does nothing while somebody else has it open; the log is then left to the last of them.
    """
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA busy_timeout=500")
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


def flush(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk; where the system cannot, do without."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        return
    finally:
        os.close(handle)
