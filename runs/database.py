"""Databases by path or URL: which file it is, how it is opened, what it says when it cannot be."""

from __future__ import annotations

from pathlib import Path

import optuna
import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from spaces.problems import UserError

_SQLITE = "sqlite:///"
_MAGIC = b"SQLite format 3\0"
# A reader in another terminal may hold the file for a moment: wait, don't fail.
_WAIT = {"timeout": 60}


class StoreError(UserError, RuntimeError):
    """A study that cannot be opened, created or continued; the message is one line for people."""


def file_of(location: str) -> Path | None:
    """The file a bare path or ``sqlite:///`` URL names; ``None`` for other databases."""
    if location.startswith(_SQLITE):
        return Path(location.removeprefix(_SQLITE))
    return None if "://" in location else Path(location)


def url_of(location: str) -> str:
    """The SQLAlchemy URL of a path or URL."""
    path = file_of(location)
    if path is None:
        return location
    return sa.URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)


def check_file(path: Path, name: str) -> None:
    """Make sure that a file can be a SQLite database.

    Raises:
        StoreError: If it is missing, a folder, unreadable or of another kind.
    """
    if not path.exists():
        raise StoreError(f"{name}: expected a study, got no such file")
    if not path.is_file():
        raise StoreError(f"{name}: expected a study file, got a folder; name the study.db in it")
    try:
        with path.open("rb") as file:
            start = file.read(len(_MAGIC))
    except OSError as error:
        raise StoreError(f"{name}: cannot be read: {error.strerror}") from error
    if start != _MAGIC:
        raise StoreError(f"{name}: expected a study made by `search run`, got another kind of file")


def engine_for(url: str, name: str) -> Engine:
    """An engine for the run's own tables; what it commits survives a power cut.

    Raises:
        StoreError: If the URL is none, or its driver is not installed.
    """
    try:
        if not url.startswith("sqlite"):
            return sa.create_engine(url)
        return _tuned(sa.create_engine(url, connect_args=_WAIT), "FULL")
    except (SQLAlchemyError, ModuleNotFoundError) as error:
        raise StoreError(f"{name}: expected a path or a database URL, got {error}") from error


def optuna_storage(url: str) -> optuna.storages.RDBStorage:
    """Optuna's storage in the same database.

    Optuna commits every single parameter. Waiting for the disk each time would cost more than the
    sampling, so on SQLite these commits survive a crash of the process at once, and a power cut
    only from our next commit on, which writes them out with it.
    """
    if not url.startswith("sqlite"):
        return optuna.storages.RDBStorage(url)
    storage = optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": _WAIT})
    _tuned(storage.engine, "NORMAL")
    storage.engine.dispose()  # connections from before the tuning
    return storage


def use_write_ahead_log(url: str) -> None:
    """Make a SQLite file keep a write-ahead log: one flush a commit, and readers never wait."""
    if url.startswith("sqlite"):
        engine = sa.create_engine(url)
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        engine.dispose()


def reason(error: SQLAlchemyError) -> str:
    """The database's own words on one line, without our SQL (which may hold user data)."""
    cause = getattr(error, "orig", None) or error
    return str(cause).splitlines()[0]


def _tuned(engine: Engine, synchronous: str) -> Engine:
    def configure(connection: sa.engine.interfaces.DBAPIConnection, _: object) -> None:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA synchronous={synchronous}")
        cursor.close()

    sa.event.listen(engine, "connect", configure)
    return engine
