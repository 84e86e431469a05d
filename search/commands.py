"""What each command does, from parsed arguments to printed result."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

from rich.console import Console

from evaluators.base import EvaluatorError
from merging.build import BuildError
from merging.checkpoint import CheckpointError
from merging.plan import PlanError
from runs.config import ConfigError, RunConfig
from runs.lock import LockedError
from runs.report import FORMATS, write_report
from runs.store import Store, StoreError
from search import summary
from search.errors import InputError
from search.monitor import monitor
from search.session import (
    Overrides,
    Session,
    check_unchanged,
    make_pool,
    prepare,
)
from spaces.recipe import RecipeError

__all__ = [
    "Overrides",
    "build",
    "demo",
    "export",
    "report",
    "resume",
    "run",
    "status",
    "validate",
]

STUDY = "study.db"
"""Name of the study's file in a run's folder."""

_P = ParamSpec("_P")
_R = TypeVar("_R")


def _friendly(command: Callable[_P, _R]) -> Callable[_P, _R]:
    """Turn the errors that mean bad input into InputError; all others stay what they are."""

    @wraps(command)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return command(*args, **kwargs)
        except (ConfigError, EvaluatorError, CheckpointError, PlanError) as error:
            raise InputError(error.problems) from error
        except (StoreError, LockedError, RecipeError, BuildError) as error:
            raise InputError(str(error).splitlines()) from error

    return call


def _console() -> Console:
    return Console(highlight=False)


@_friendly
def run(config: Path, *, out: Path | None, overrides: Overrides, dry_run: bool) -> None:
    """Start a search; see ``search run --help``."""
    folder = out if out is not None else Path(config.stem)
    study = folder / STUDY
    if study.exists():
        raise InputError(
            [f"{study}: expected no study yet, got one; `search resume {study}` goes on with it"]
        )
    prepared = prepare(config, overrides=overrides, dry_run=dry_run)
    pool = make_pool(prepared.config, dry_run=dry_run)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _opened(Store.create(str(study), prepared.manifest)) as store:
            session = Session(store, prepared.config, pool=pool, monitor=monitor(_console()))
            _drive(session.run, store, folder)
    finally:
        pool.close()


@_friendly
def resume(study: str, *, overrides: Overrides) -> None:
    """Go on with a search; see ``search resume --help``."""
    with _opened(Store.open(study)) as store:
        config = _config(store, overrides)
        store.lock.acquire()
        check_unchanged(store, config)
        pool = make_pool(config, dry_run=store.manifest.dry_run)
        try:
            _keep_budget(store, config)
            session = Session(store, config, pool=pool, monitor=monitor(_console()))
            _drive(session.run, store, _folder(study))
        finally:
            pool.close()


@_friendly
def validate(study: str, *, top: int, overrides: Overrides) -> None:
    """Score on held-out questions; see ``search validate --help``."""
    with _opened(Store.open(study)) as store:
        if not store.manifest.questions.held_out:
            raise InputError([f"{study}: expected held-out questions, got none (held_out: 0)"])
        config = _config(store, overrides)
        store.lock.acquire()
        check_unchanged(store, config)
        pool = make_pool(config, dry_run=store.manifest.dry_run)
        try:
            session = Session(store, config, pool=pool, monitor=monitor(_console()))
            _drive(lambda: session.validate(top), store, _folder(study))
        finally:
            pool.close()
