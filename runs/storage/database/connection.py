"""Databases by path or URL: which file it is, how it is opened, what it says when it cannot be."""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
import sqlalchemy as sa
from optuna.exceptions import StorageInternalError
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from spaces.errors import RunFailed, UserError
from spaces.text.redaction import hidden

_SQLITE = "sqlite:///"
_MAGIC = b"SQLite format 3\0"
# A reader in another terminal may hold the file for a moment: wait, don't fail.
_WAIT = {"timeout": 60}
# A server that was started anew between two writes is no reason to end a run.
_SERVER = {"pool_pre_ping": True}
# One that is no longer there does not say so: seconds, and milliseconds for what was sent.
_SILENT = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,
}

DATABASE_ERRORS = (SQLAlchemyError, StorageInternalError)
"""What the libraries raise when a database cannot be used: ours and, through Optuna, theirs."""


class StoreError(UserError, RuntimeError):
    """A study that cannot be opened, created or continued; the message is one line for people."""


class StudyWriteError(RunFailed, RuntimeError):
    """A study that could be written and now cannot: a full disk, a lost connection."""


def file_of(location: str) -> Path | None:
    """The file a bare path or ``sqlite:///`` URL names; ``None`` for other databases."""
    if location.startswith(_SQLITE):
        return Path(location.removeprefix(_SQLITE))
    return None if "://" in location else Path(location)


def url_of(location: str) -> str:
    """The SQLAlchemy URL of a path or URL; PostgreSQL is spoken to through psycopg."""
    path = file_of(location)
    if path is not None:
        return sa.URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)
    for short in ("postgresql://", "postgres://"):
        if location.startswith(short):
            return "postgresql+psycopg://" + location.removeprefix(short)
    return location


def shown(location: str) -> str:
    """A location as it may be printed, logged and stored: without a password."""
    return location if file_of(location) is not None else hidden(location)


def check_file(path: Path, name: str) -> None:
    """Make sure that a file can be a whole SQLite database.

    Raises:
        StoreError: If it is missing, a folder, unreadable, of another kind or cut off.
    """
    if not path.exists():
        raise StoreError(f"{name}: expected a study, got no such file")
    if not path.is_file():
        raise StoreError(f"{name}: expected a study file, got a folder; name the study.db in it")
    try:
        with path.open("rb") as file:
            start = file.read(100)
        size = path.stat().st_size
    except OSError as error:
        raise StoreError(f"{name}: cannot be read: {error.strerror}") from error
    if not start.startswith(_MAGIC):
        raise StoreError(f"{name}: expected a study made by `search run`, got another kind of file")
    expected = _expected_size(start)
    if size < expected and not _is_logged(path):
        raise StoreError(
            f"{name}: expected {expected:,} bytes as its first page says, got {size:,}: "
            "the file was cut off; use a whole copy"
        )


def check_schema(engine: Engine, name: str) -> None:
    """Make sure that a SQLite file holds plain tables: what is computed may be of any size.

    Raises:
        StoreError: If there are views, triggers or generated columns.
    """
    with engine.connect() as connection:
        odd = connection.exec_driver_sql(
            "SELECT type, name FROM sqlite_master WHERE type IN ('view', 'trigger') UNION ALL "
            "SELECT 'generated column', m.name || '.' || c.name "
            "FROM sqlite_master m, pragma_table_xinfo(m.name) c "
            "WHERE m.type = 'table' AND c.hidden > 1"
        ).first()
    if odd is not None:
        raise StoreError(f"{name}: expected plain tables, got {odd[0]} {odd[1]}")


def _expected_size(start: bytes) -> int:
    """Bytes that a SQLite file must have by its header; 0 where that does not tell.

    https://sqlite.org/fileformat2.html, section 1.3: the size in pages counts if the number of
    changes at which it was written is the present one.
    """
    if len(start) < 100:
        return 100
    page = int.from_bytes(start[16:18], "big")
    if start[24:28] != start[92:96]:
        return 0
    return int.from_bytes(start[28:32], "big") * (65536 if page == 1 else page)


def log_of(path: Path) -> Path:
    """Where the write-ahead log of a file lies: SQLite follows links."""
    full = path.resolve()
    return full.with_name(full.name + "-wal")


def _is_logged(path: Path) -> bool:
    """Whether there is a write-ahead log: then the file alone is not all, nor up to date."""
    log = log_of(path)
    return log.exists() and log.stat().st_size > 0


def engine_for(url: str, name: str) -> Engine:
    """An engine for the run's own tables; what it commits survives a power cut.

    Raises:
        StoreError: If the URL is none, or its driver is not installed.
    """
    try:
        if url.startswith("sqlite"):
            return _tuned(sa.create_engine(_readable(url), connect_args=_WAIT), ours=True)
        return sa.create_engine(url, **_server(url))
    except ModuleNotFoundError as error:
        package = "merge-search[postgres]" if url.startswith("postgresql+psycopg") else error.name
        raise StoreError(
            f"{shown(name)}: expected the database's driver, got no Python package {error.name}; "
            f"`pip install {package}`"
        ) from error
    except (SQLAlchemyError, ValueError) as error:
        text = hidden(str(error).splitlines()[0])
        raise StoreError(f"{shown(name)}: expected a path or a database URL, got {text}") from error


def _server(url: str) -> dict[str, Any]:
    """How an engine speaks to a database server; what the URL says goes first."""
    known = sa.make_url(url)
    if known.get_driver_name() != "psycopg":
        return dict(_SERVER)
    arguments = {key: value for key, value in _SILENT.items() if key not in known.query}
    return {**_SERVER, "connect_args": arguments}


def _readable(url: str) -> str:
    """The URL that opens a file also where nothing can be written beside it.

    SQLite keeps small files beside a database even to read it; of one that nobody can change it can
    be told to do without.
    """
    path = file_of(url)
    if path is None or not path.exists() or _is_logged(path):
        return url
    if os.access(path.parent, os.W_OK) and os.access(path, os.W_OK):
        return url
    return f"{_SQLITE}file:{quote(str(path.resolve()))}?mode=ro&immutable=1&uri=true"


def optuna_storage(url: str) -> optuna.storages.RDBStorage:
    """Optuna's storage in the same database.

    Optuna commits every single parameter. Waiting for the disk each time would cost more than the
    sampling, so with a write-ahead log these commits survive a crash of the process at once, and a
    power cut only from our next commit on, which writes them out with it.
    """
    if not url.startswith("sqlite"):
        return optuna.storages.RDBStorage(url, engine_kwargs=_server(url))
    storage = optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": _WAIT})
    _tuned(storage.engine, ours=False)
    storage.engine.dispose()  # connections from before the tuning
    return storage


def reason(error: BaseException) -> str:
    """The database's own words on one line, without our SQL (which may hold user data)."""
    cause: BaseException = error
    while (inner := getattr(cause, "orig", None) or cause.__cause__) is not None:
        if cause is error or isinstance(cause, DATABASE_ERRORS):
            cause = inner
        else:
            break
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return hidden(lines[0]) if lines else type(cause).__name__


def is_spent(error: SQLAlchemyError) -> bool:
    """Whether the place was right, but its disk is full or broken: SQLITE_FULL, SQLITE_IOERR."""
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", 0)
    return (code & 0xFF) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


def _tuned(engine: Engine, *, ours: bool) -> Engine:
    """What our commits wait for: EXTRA also has the end of a rollback journal on the disk."""

    def configure(connection: sa.engine.interfaces.DBAPIConnection, _: object) -> None:
        cursor = connection.cursor()
        logged = False
        # No database, or a damaged one, which SQLite may call by a name that is no text: whoever
        # reads from it hears so.
        with suppress(sqlite3.Error, UnicodeDecodeError):
            cursor.execute("PRAGMA journal_mode")
            logged = cursor.fetchone() == ("wal",)
        cursor.execute(f"PRAGMA synchronous={'NORMAL' if logged and not ours else 'EXTRA'}")
        cursor.close()

    sa.event.listen(engine, "connect", configure)
    return engine
