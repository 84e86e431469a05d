"""A new study: where none may be yet, Optuna's part of it, and ours."""

from __future__ import annotations

import optuna
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from runs.records.manifest import Manifest
from runs.storage.database.connection import (
    DATABASE_ERRORS,
    StoreError,
    engine_for,
    file_of,
    optuna_storage,
    reason,
    shown,
    url_of,
)
from runs.storage.tables import FACTS, METADATA

STUDY_NAME = "merge-search"
"""Name of the Optuna study inside the database."""


def exists(location: str) -> bool:
    """Whether there is a study, or a file that should be one.

    Raises:
        StoreError: If the database cannot be reached.
    """
    path = file_of(location)
    if path is not None:
        return path.exists()
    engine = engine_for(url_of(location), location)
    try:
        return sa.inspect(engine).has_table(FACTS.name)
    except SQLAlchemyError as error:
        raise StoreError(f"{shown(location)}: cannot be reached: {reason(error)}") from error
    finally:
        engine.dispose()


def check_new(location: str) -> None:
    """Make sure that a study can be made there; nothing is written.

    Raises:
        StoreError: If there is one already, or the database cannot be reached.
    """
    if not exists(location):
        return
    name = shown(location)
    if file_of(location) is not None:
        raise StoreError(
            f"{name}: expected no such file, got one; "
            f"continue it with `search resume {name}`, or name another folder"
        )
    raise StoreError(
        f"{name}: expected a database without a run, got one with a run; "
        f"continue it with `search resume {name}`, or name another database"
    )


def fill(url: str, manifest: Manifest, name: str) -> None:
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
