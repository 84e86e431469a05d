"""Commands that only read a study: no model, no worker, nothing heavier than tables."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runs.database import DATABASE_ERRORS
from runs.leaderboard import ranked
from runs.records import Record
from runs.report import FORMATS, write_report
from runs.store import Store
from search.errors import InputError
from search.overrides import Overrides
from search.posterior import judged
from search.screen import console, say_written
from search.studies import study_in
from search.study_config import config_of as config_of
from search.study_config import kept_budget as kept_budget
from search.summary import make_report, show_status, write_recipe_of
from search.watching import await_study, watch


@contextmanager
def opened(store: Store) -> Iterator[Store]:
    """A store that is closed, and its lock released, when the block ends.

    Raises:
        StoreError: If it could not be read by whatever used it.
        WriteError: If it could not be written any more.
    """
    try:
        yield store
    except DATABASE_ERRORS as error:
        raise store.failure(error) from error
    finally:
        store.close()


def status(study: str, *, watched: bool = False, interval: float = 5.0) -> None:
    """Show where a run stands; see ``search status --help``."""
    screen = console()
    if watched:
        try:
            study = await_study(study, screen, interval=interval)
        except KeyboardInterrupt:
            return
    with opened(Store.open(study_in(study))) as store:
        if watched:
            watch(store, screen, interval=interval)
        _say_how_found(store)
        show_status(store, config_of(store, Overrides()), screen)


def _say_how_found(store: Store) -> None:
    for note in store.notes:
        console().print(note, markup=False, soft_wrap=True)


def report(study: str, *, out: Path | None, formats: tuple[str, ...]) -> None:
    """Write the leaderboard report; see ``search report --help``."""
    names = formats or tuple(FORMATS)
    with opened(Store.open(study_in(study))) as store, _without_collector():
        _say_how_found(store)
        content = make_report(store, config_of(store, Overrides()))
        folder = out if out is not None else store.folder
        say_written(console(), write_report(content, folder, names))


@contextmanager
def _without_collector() -> Iterator[None]:
    """Let circles of garbage be: to look for some among so many records takes a sixth of a report.

    There are hardly any, and the command ends soon.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def export(study: str, *, rank: int, out: Path | None) -> None:
    """Write a found recipe as YAML; see ``search export --help``."""
    say_written(console(), [write_ranked(study, rank=rank, out=out)])


def write_ranked(study: str, *, rank: int, out: Path | None) -> Path:
    """Write the recipe at a place of the leaderboard; the file comes back."""
    with opened(Store.open(study_in(study))) as store:
        _say_how_found(store)
        record = at_rank(store, rank)
        name = "best.yaml" if rank == 1 else f"rank-{rank}.yaml"
        path = out if out is not None else store.folder / name
        write_recipe_of(record, store.manifest, config_of(store, Overrides()), path=path)
        return path


def at_rank(store: Store, rank: int) -> Record:
    """The candidate at a place of the leaderboard, from 1.

    Raises:
        InputError: If there is none.
    """
    order = ranked(judged(store))
    if not 1 <= rank <= len(order):
        raise InputError(f"rank: expected 1 to {len(order)} (scored candidates), got {rank}")
    return order[rank - 1]
