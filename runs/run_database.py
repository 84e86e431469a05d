"""The database of a run as a whole: made, opened, locked, and what is said when it fails.

What it holds of candidates is in ``runs.store``.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import optuna
import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from runs.database import (
    DATABASE_ERRORS,
    StoreError,
    WriteError,
    check_file,
    engine_for,
    file_of,
    is_spent,
    optuna_storage,
    reason,
    shown,
    url_of,
)
from runs.journal import begin_writing, end_writing, flush
from runs.lock import Lock
from runs.manifest import FORMAT, Manifest
from runs.migration import migrated
from runs.tables import FACTS, LOCK, METADATA
from runs.trials import TrialBook
from spaces.problems import RunFailed, UserError

STUDY_NAME = "merge-search"
"""Name of the Optuna study inside the database."""

DAMAGE = (zlib.error, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError)
"""What reading a value raises that was not written by us."""


class RunDatabase:
    """One run's database: open it with ``create`` or ``open``, close it when done.

    Attributes:
        name: What to call it: its location, without a password.
        lock: The right to write it.
    """

    def __init__(self, engine: Engine, *, name: str) -> None:
        self.name = shown(name)
        self._engine = engine
        self._path = file_of(name)
        self._manifest: Manifest | None = None
        self._study: optuna.Study | None = None
        self._storage: optuna.storages.RDBStorage | None = None
        self._book: TrialBook | None = None
        self.lock = Lock(engine, LOCK)

    @classmethod
    def create(cls, location: str, manifest: Manifest) -> Self:
        """Make a new study.

        Args:
            location: Path of a file that does not exist, or a database URL without a study.
            manifest: What is fixed for the run.

        Raises:
            StoreError: If there is a study already, or the place cannot be written.
        """
        check_new(location)
        path = file_of(location)
        if path is None:
            _fill(url_of(location), manifest, location)
            return cls.open(location)
        draft = path.with_name(path.name + ".new")
        draft.unlink(missing_ok=True)  # left by a run that died right here; it never held results
        try:
            _fill(url_of(str(draft)), manifest, location)
            flush(draft)
            draft.replace(path)
        except BaseException:
            for left in (draft, draft.with_name(draft.name + "-journal")):
                left.unlink(missing_ok=True)
            raise
        flush(path.parent)
        return cls.open(location)

    @classmethod
    def open(cls, location: str) -> Self:
        """Open an existing study; nothing is written by this, unless an older format is migrated.

        Raises:
            StoreError: If it is not a study of ours, or of a format that cannot be read.
        """
        path, name = file_of(location), shown(location)
        if path is not None:
            check_file(path, name)
        engine = engine_for(url_of(location), location)
        store = cls(engine, name=location)
        try:
            version = store._fact("format")
            if version != str(FORMAT):
                migrated(engine, store.lock, version, path=path, name=name)
        except (SQLAlchemyError, UnicodeDecodeError) as error:  # SQLite may name what is no text
            engine.dispose()
            if path is None and isinstance(error, OperationalError):
                raise StoreError(f"{name}: cannot be reached: {reason(error)}") from error
            raise StoreError(
                f"{name}: expected a study made by `search run`, got {reason(error)}"
            ) from error
        except BaseException:
            engine.dispose()
            raise
        return store

    def hold(self) -> tuple[str, ...]:
        """Take the lock and get ready to write.

        Returns:
            Lines for the user on how the study is kept, where that is not as usual.

        Raises:
            LockedError: If another driver may be alive.
            StoreError: If the study is damaged or cannot be written.
            WriteError: If its disk is full.
        """
        try:
            self.lock.acquire()
            if self._path is not None:
                return begin_writing(self._engine, self._path, self.name)
        except SQLAlchemyError as error:
            if is_spent(error):
                raise self._write_error(error) from error
            raise StoreError(f"{self.name}: cannot be written: {reason(error)}") from error
        return ()

    def close(self) -> None:
        """Release the lock if held and close all connections; calling it twice is fine."""
        wrote = self.lock.held
        if wrote and self._book is not None:
            with suppress(UserError, RunFailed), self._writing():  # else it is told on resume
                pass
        self.lock.release()
        if self._storage is not None:
            self._storage.engine.dispose()
            self._storage = self._book = self._study = None
        self._engine.dispose()
        if wrote and self._path is not None:
            end_writing(self._engine)

    @property
    def title(self) -> str:
        """Name of the run for people: its folder's, or the database's."""
        if self._path is not None:
            return self._path.resolve().parent.name
        return self._engine.url.database or STUDY_NAME

    @property
    def folder(self) -> Path:
        """Where the run's other files go.

        Beside its file; of a run in a database server the folder that it was started with, or this
        one where that is not there, such as on another machine.
        """
        if self._path is not None:
            return self._path.parent
        known = Path(self.fact("folder") or "")
        return known if known.is_dir() else Path()

    @property
    def url(self) -> str:
        """SQLAlchemy URL of the database, with any password in it."""
        return self._engine.url.render_as_string(hide_password=False)

    @property
    def manifest(self) -> Manifest:
        """What was fixed when the run was created."""
        if self._manifest is None:
            with self._reading() as connection:
                rows = connection.execute(sa.select(FACTS)).all()
                self._manifest = Manifest.from_rows({row.key: row.value for row in rows})
        return self._manifest

    @property
    def study(self) -> optuna.Study:
        """The Optuna study; its sampler is set by who asks for trials."""
        if self._study is None:
            self._storage = optuna_storage(self.url)
            self._book = TrialBook(self._storage, STUDY_NAME)
            self._study = optuna.load_study(study_name=STUDY_NAME, storage=self._book)
        return self._study

    # Facts that change during a run.

    def fact(self, key: str) -> str | None:
        """A value set with ``set_fact``."""
        return self._fact(f"now:{key}")

    def facts(self, prefix: str) -> dict[str, str]:
        """All values set under keys that begin like this, by key."""
        with self._reading() as connection:
            rows = connection.execute(
                sa.select(FACTS).where(FACTS.c.key.startswith(f"now:{prefix}", autoescape=True))
            ).all()
        return {row.key.removeprefix("now:"): row.value for row in rows}

    def set_fact(self, key: str, value: str) -> None:
        """Remember a value of the run, such as the seconds spent so far."""
        self.set_facts({key: value})

    def set_facts(self, values: Mapping[str, str]) -> None:
        """Remember several values of the run in one transaction."""
        if not values:
            return
        with self._writing() as connection:
            for key, value in values.items():
                row = f"now:{key}"
                changed = connection.execute(
                    sa.update(FACTS).where(FACTS.c.key == row).values(value=value)
                )
                if changed.rowcount == 0:
                    connection.execute(sa.insert(FACTS).values(key=row, value=value))

    def _fact(self, key: str) -> str | None:
        with self._engine.connect() as connection:
            found = connection.execute(sa.select(FACTS.c.value).where(FACTS.c.key == key))
            value = found.scalar()
        return None if value is None else str(value)

    # How it is read and written.

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        """A connection to read by; what cannot be read is said to be damaged."""
        try:
            with self._engine.connect() as connection:
                yield connection
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

    @contextmanager
    def _writing(self, *, asked: bool = False) -> Iterator[sa.Connection]:
        """A transaction, by whoever holds the study; what it raises has not been written.

        Args:
            asked: Whether trials that were asked for are written with it; those that were told
                their result are in any case.
        """
        try:
            book = self._book
            if book is not None and book.remembers:  # which Optuna writes, after its trials
                book.flush()
            with self._engine.begin() as connection:
                self.lock.keep(connection)
                if book is not None:
                    book.write(connection, running=asked)
                yield connection
            if book is not None:
                book.written()
        except SQLAlchemyError as error:
            raise self._write_error(error) from error

    def failure(self, error: BaseException) -> StoreError | WriteError:
        """What to tell the user of a database that failed, in one line."""
        return self._write_error(error) if self.lock.held else self._damaged(reason(error))

    def _write_error(self, error: BaseException) -> WriteError:
        return WriteError(
            f"{self.name}: cannot be written: {reason(error)}; what was recorded before is safe: "
            f"mend that, then `search resume {self.name}` goes on"
        )


def check_new(location: str) -> None:
    """Make sure that a study can be made there; nothing is written.

    Raises:
        StoreError: If there is one already, or the database cannot be reached.
    """
    path, name = file_of(location), shown(location)
    if path is not None:
        if path.exists():
            raise StoreError(
                f"{name}: expected no such file, got one; "
                f"continue it with `search resume {name}`, or name another folder"
            )
        return
    engine = engine_for(url_of(location), location)
    try:
        if sa.inspect(engine).has_table(FACTS.name):
            raise StoreError(
                f"{name}: expected a database without a run, got one with a run; "
                f"continue it with `search resume {name}`, or name another database"
            )
    except SQLAlchemyError as error:
        raise StoreError(f"{name}: cannot be reached: {reason(error)}") from error
    finally:
        engine.dispose()


def _fill(url: str, manifest: Manifest, name: str) -> None:
    """Make Optuna's study and, in one transaction after it, our tables: they make it a run."""
    engine = engine_for(url, name)
    try:
        storage = optuna_storage(url)
        directions = [optuna.study.StudyDirection.MAXIMIZE] * max(1, len(manifest.objectives))
        _clear(storage, name)
        optuna.create_study(storage=storage, study_name=STUDY_NAME, directions=directions)
        storage.engine.dispose()
        with engine.begin() as connection:
            METADATA.create_all(connection)
            rows = [{"key": key, "value": text} for key, text in manifest.to_rows().items()]
            connection.execute(sa.insert(FACTS), rows)
    except DATABASE_ERRORS as error:
        raise StoreError(f"{shown(name)}: cannot be written: {reason(error)}") from error
    finally:
        engine.dispose()


def _clear(storage: optuna.storages.RDBStorage, name: str) -> None:
    """Remove the empty Optuna study that a run left which died before our tables were there."""
    try:
        study = optuna.load_study(study_name=STUDY_NAME, storage=storage)
    except KeyError:
        return
    if study.get_trials(deepcopy=False):
        raise StoreError(
            f"{shown(name)}: expected a database without an Optuna study {STUDY_NAME}, got one; "
            "name another database"
        )
    optuna.delete_study(study_name=STUDY_NAME, storage=storage)
