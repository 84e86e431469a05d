"""The commands that search: run, resume and validate, up to what brings torch and the like.

What a user may have got wrong is looked at first: a config is read, a study opened. Only then is
``search.driving`` imported, which takes seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runs.config import RunConfig
from search.errors import InputError
from search.given import read
from search.overrides import Overrides
from search.studies import STUDY, study_in

if TYPE_CHECKING:
    from search.callbacks import Callback
    from search.trust import Consent


def run(
    config: Path | RunConfig,
    *,
    out: Path | None,
    overrides: Overrides,
    storage: str | None = None,
    dry_run: bool = False,
    callbacks: Sequence[Callback] = (),
) -> str:
    """Start a search; see ``search run --help``. Where its study is comes back."""
    given = read(config, overrides)
    from runs.creation import check_new

    folder = out if out is not None else Path("run" if given.path is None else given.path.stem)
    study = storage if storage is not None else str(folder / STUDY)
    check_new(study)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: expected a folder or nothing, got a file; use --out")
    from search import driving

    driving.run(given, study, folder=folder, dry_run=dry_run, callbacks=callbacks)
    return study


def resume(
    study: str | Path,
    *,
    overrides: Overrides,
    consent: Consent,
    callbacks: Sequence[Callback] = (),
) -> None:
    """Go on with a search; see ``search resume --help``."""
    from runs.store import Store
    from search import trust
    from search.reading import config_of, is_over, opened, say_over

    with opened(Store.open(study_in(study))) as store:
        config = config_of(store, overrides)
        if overrides.gpu_hours is None and is_over(store, config):  # workers tell whether it can be
            say_over(store, config, overrides)
            return
        trust.check(store, config_of(store, Overrides()), consent)
        store.lock.check_free()
        from search import driving

        driving.resume(store, config, overrides=overrides, callbacks=callbacks)


def validate(study: str | Path, *, top: int, overrides: Overrides, consent: Consent) -> None:
    """Score on held-out questions; see ``search validate --help``."""
    from runs.leaderboard import ranked
    from runs.store import Store
    from search import trust
    from search.reading import config_of, opened

    with opened(Store.open(study_in(study))) as store:
        if not store.manifest.questions.held_out:
            raise InputError(f"{store.name}: expected held-out questions, got none (held_out: 0)")
        if not ranked(store.records()):
            raise InputError(f"{store.name}: expected a scored candidate, got none")
        config = config_of(store, overrides)
        trust.check(store, config_of(store, Overrides()), consent)
        store.lock.check_free()
        from search import driving

        driving.validate(store, config, top=top)
