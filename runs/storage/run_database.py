"""The database of a run as a whole: made, opened, locked, and what is said when it fails.

What it holds of candidates is in ``runs.storage.store``.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Self

import optuna
import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from runs.records.manifest import FORMAT, Manifest
from runs.storage.database.connection import (
    DATABASE_ERRORS,
    StoreError,
    check_file,
    check_schema,
    engine_for,
    file_of,
    is_spent,
    optuna_storage,
    reason,
    shown,
    url_of,
)
from runs.storage.database.durability import (
    LogCheckpoints,
    begin_writing,
    check_sound,
    end_writing,
)
from runs.storage.database.reconnection import SERVER_SECONDS, patiently
from runs.storage.database.study_copies import identity, lacks_log, made_its_own, missing_log
from runs.storage.study_creation import STUDY_NAME, check_new, fill
from runs.storage.tables import ADDED, FACTS, METADATA
from runs.storage.transactions import Transactions
from runs.storage.trial_book import TrialBook
from spaces.atomic_files import replacing
from spaces.errors import RunFailed, UserError

FILE = "file"
"""The fact that says which file the driver wrote; see ``study_copies.identity``."""


class RunDatabase(Transactions):
    """One run's database: a context manager, made by ``create`` or ``open``.

    Attributes:
        notes: Lines for the user on how it was found.
    """

    def __init__(self, engine: Engine, *, name: str) -> None:
        super().__init__(engine, name=name)
        self._manifest: Manifest | None = None
        self._study: optuna.Study | None = None
        self._storage: optuna.storages.RDBStorage | None = None
        self.notes: tuple[str, ...] = ()

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
            fill(url_of(location), manifest, location)
            return cls.open(location)
        try:
            with replacing(path, new=True) as draft:
                fill(url_of(str(draft)), manifest, location)
        except FileExistsError:
            check_new(location)  # another driver was faster
            raise
        except OSError as error:
            said = error.strerror or error
            raise StoreError(f"{shown(location)}: cannot be written: {said}") from error
        return cls.open(location)

    @classmethod
    def open(cls, location: str) -> Self:
        """Open an existing study; nothing is written by this.

        Raises:
            StoreError: If it is not a study of ours, or of a format that cannot be read.
        """
        path, name = file_of(location), shown(location)
        if path is not None:
            check_file(path, name)
        alone = path is not None and lacks_log(path)
        engine = engine_for(url_of(location), location)
        store = cls(engine, name=location)
        try:
            if path is not None:
                check_schema(engine, name)
            store._check_format()
            left = alone and store.lock.holder() is not None  # by a driver that did not end well
            if left and path is not None and store.fact(FILE) != identity(path):
                store.notes = (missing_log(name),)
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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Close it; what its libraries raised meanwhile is told in one line.

        Raises:
            StoreError: If it could not be read by whatever used it.
            StudyWriteError: If it could not be written any more.
        """
        try:
            if isinstance(error, DATABASE_ERRORS):
                raise self.failure(error) from error
        finally:
            self.close()

    def hold(self) -> tuple[str, ...]:
        """Take the lock and get ready to write.

        Returns:
            Lines for the user on how the study is kept, where that is not as usual.

        Raises:
            LockedError: If another driver may be alive.
            StoreError: If the study is damaged or cannot be written.
            WriteError: If its disk is full.
        """
        notes = self.notes
        try:
            if notes and self._path is not None:
                self.lock.check_free()
                self._engine.dispose()
                notes += made_its_own(self._path, self.name)
            self.lock.acquire()
            self.patience = 0.0 if self._path is not None else SERVER_SECONDS
            if self._path is not None:
                notes += begin_writing(self._engine, self._path, self.name)
                self.set_fact(FILE, identity(self._path))
                self._checkpoints = LogCheckpoints(self._engine, self.name)
            METADATA.create_all(self._engine, tables=ADDED)
        except SQLAlchemyError as error:
            if is_spent(error):
                raise self._write_error(error) from error
            raise StoreError(f"{self.name}: cannot be written: {reason(error)}") from error
        return notes

    def check_sound(self) -> None:
        """Look at the whole file, where the study is one; ``hold`` does so by itself.

        Raises:
            StoreError: If it is damaged.
        """
        if self._path is not None:
            with self._engine.connect() as connection:
                check_sound(connection, self.name)

    def check_there(self) -> None:
        """Make sure that a file is still there: to read one that is gone would make an empty one.

        Raises:
            StoreError: If it is not, or is no database any more.
        """
        if self._path is not None:
            check_file(self._path, self.name)

    def close(self) -> None:
        """Release the lock if held and close all connections; calling it twice is fine."""
        self.patience = 0.0
        if self._checkpoints is not None:
            self._checkpoints.close()
            self._checkpoints = None
        if self.lock.held and self._book is not None:
            with suppress(UserError, RunFailed):  # else it is told on resume
                self._write(lambda _: None)
        wrote = self.lock.release()
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
            self._manifest = self._read(
                lambda connection: Manifest.from_rows(
                    {row.key: row.value for row in connection.execute(sa.select(FACTS))}
                )
            )
        return self._manifest

    @property
    def study(self) -> optuna.Study:
        """The Optuna study; its sampler is set by who asks for trials."""
        if self._study is None:
            self._storage, self._book = patiently(
                self._optunas, seconds=self.patience, name=self.name
            )
            self._study = optuna.load_study(study_name=STUDY_NAME, storage=self._book)
        return self._study

    def _optunas(self) -> tuple[optuna.storages.RDBStorage, TrialBook]:
        storage = optuna_storage(self.url)
        try:
            return storage, TrialBook(storage, STUDY_NAME)
        except BaseException:
            storage.engine.dispose()
            raise

    def _check_format(self) -> None:
        query = sa.select(FACTS.c.value).where(FACTS.c.key == "format")
        with self._engine.connect() as connection:
            version = connection.execute(query).scalar()
        if version != str(FORMAT):
            raise StoreError(
                f"{self.name}: expected a study of format {FORMAT}, got format {version}; "
                "open it with the version of merge-search that made it"
            )
