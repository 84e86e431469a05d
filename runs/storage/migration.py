"""Studies of earlier formats, brought to the present one when they are opened.

Every row is read, completed by what later formats have added, and written into new tables, in one
transaction: a crash leaves the old study or the new one. Of a file a copy is kept beside it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from runs.output_files import replacing
from runs.records.manifest import FORMAT
from runs.records.record import State
from runs.storage.database.connection import StoreError
from runs.storage.database.study_lock import StudyLock
from runs.storage.tables import CANDIDATES, EVALUATIONS, FACTS, pack
from spaces.sampling.seed_recipes import seeds
from spaces.search_space.space import Space

Row = dict[str, Any]
Rows = dict[str, list[Row]]
"""Rows of our tables by the table's name."""


def migrated(
    engine: Engine, lock: StudyLock, version: str | None, *, path: Path | None, name: str
) -> None:
    """Bring a study of an earlier format to the present one.

    Args:
        engine: Of its database.
        lock: Its lock: a driver of an earlier version may be at work.
        version: Its format.
        path: Its file, if it is one; a copy is left at ``study.db.format-1`` and the like.
        name: What to call it.

    Raises:
        LockedError: If a driver is writing it.
        StoreError: If the format is not known here, or the study cannot be written.
    """
    steps = _steps(version)
    if not steps:
        raise StoreError(
            f"{name}: expected a study of format {FORMAT}, got format {version}; "
            "open it with the version of merge-search that made it"
        )
    lock.check_free()
    try:
        if path is not None:
            _copy(path, path.with_name(f"{path.name}.format-{version}"))
        with _exclusive(engine) as connection:
            _rewrite(connection, steps)
    except (OSError, sqlite3.Error, sa.exc.SQLAlchemyError) as error:
        raise StoreError(
            f"{name}: format {version}, must be brought to format {FORMAT}: cannot be written "
            f"({type(error).__name__}); copy it to where it can be"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{name}: expected a study of format {version}, got damage: {error}"
        ) from error


def _steps(version: str | None) -> list[Callable[[Rows], None]]:
    """What has to be done, one step for each format; none where the format is not known."""
    known = {str(number) for number in STEPS}
    return [] if version not in known else [STEPS[n] for n in range(int(version), FORMAT)]


def _copy(path: Path, copy: Path) -> None:
    """A whole copy, with what is still in a write-ahead log; an earlier copy is kept."""
    if copy.exists():
        return
    with (
        replacing(copy) as draft,
        closing(sqlite3.connect(path)) as source,
        closing(sqlite3.connect(draft)) as target,
    ):
        source.backup(target)


@contextmanager
def _exclusive(engine: Engine) -> Iterator[sa.Connection]:
    """A transaction around changes of tables too, which Python's SQLite would commit by itself."""
    if engine.dialect.name != "sqlite":
        with engine.begin() as connection:
            yield connection
        return
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("BEGIN EXCLUSIVE")
        try:
            yield connection
        except BaseException:
            connection.exec_driver_sql("ROLLBACK")
            raise
        connection.exec_driver_sql("COMMIT")
    engine.dispose()


def _rewrite(connection: sa.Connection, steps: list[Callable[[Rows], None]]) -> None:
    tables = (FACTS, CANDIDATES, EVALUATIONS)
    rows: Rows = {
        table.name: [
            dict(row)
            for row in connection.execute(
                sa.select(sa.text("*")).select_from(sa.table(table.name))
            ).mappings()
        ]
        for table in tables
    }
    for step in steps:
        step(rows)
    for row in rows[FACTS.name]:
        if row["key"] == "format":
            row["value"] = str(FORMAT)
    for table in reversed(tables):
        table.drop(connection)
    for table in tables:
        table.create(connection)
        if rows[table.name]:
            connection.execute(sa.insert(table), rows[table.name])


def _from_1(rows: Rows) -> None:
    """Format 1 asked every candidate all questions at once, and did not keep the seeds."""
    facts = {row["key"]: row["value"] for row in rows[FACTS.name]}
    positions = {
        split: pack(np.array(json.loads(facts[split]), dtype="<u4"))
        for split in ("search", "held_out")
    }
    first = seeds(Space.from_dict(json.loads(facts["space"])))
    text = json.dumps([seed.to_dict() for seed in first])
    rows[FACTS.name].append({"key": "seeds", "value": text})
    for row in rows[CANDIDATES.name]:
        row["planned"] = positions["search"]
    for row in rows[EVALUATIONS.name]:
        row["part"] = 0
        if row["state"] != State.COMPLETE.value or row["asked"] is None:
            row["asked"] = positions[row["split"]]


STEPS: dict[int, Callable[[Rows], None]] = {1: _from_1}
"""What each format lacks of the next one."""
