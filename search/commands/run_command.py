"""The commands that search: run, resume and validate, up to what brings torch and the like.

What a user may have got wrong is looked at first: a config is read, a study opened. Only then is
``search.engine.driver`` imported, which takes seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evaluators.harness_spec import QUANTISED
from runs.config.run_config import RunConfig
from runs.config.yaml_document import shown
from search.inputs.given_config import read
from search.inputs.input_error import InputError
from search.inputs.overrides import Overrides
from search.inputs.stored_study.study_path import STUDY, study_in
from search.monitoring.console import step

if TYPE_CHECKING:
    from search.inputs.stored_study.code_trust import Consent
    from search.monitoring.callbacks import Callback


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
    from runs.storage.study_creation import check_new

    folder = out if out is not None else Path("run" if given.path is None else given.path.stem)
    study = storage if storage is not None else str(folder / STUDY)
    check_new(study)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: expected a folder or nothing, got a file; use --out")
    if (folder / "__init__.py").exists():  # such as our own, in a clone
        raise InputError(f"{folder}: expected a folder of a run, got a Python package; use --out")
    step("loading the libraries")
    from search.engine import driver

    driver.run(given, study, folder=folder, dry_run=dry_run, callbacks=callbacks)
    return study


def resume(
    study: str | Path,
    *,
    overrides: Overrides,
    consent: Consent,
    callbacks: Sequence[Callback] = (),
) -> None:
    """Go on with a search; see ``search resume --help``."""
    from runs.storage.store import Store
    from search.commands.study_commands import is_over, say_over
    from search.inputs.stored_study import code_trust
    from search.inputs.stored_study.study_config import config_of

    with Store.open(study_in(study)) as store:
        config = config_of(store, overrides)
        if overrides.gpu_hours is None and is_over(store, config):  # workers tell whether it can be
            say_over(store, config, overrides)
            return
        code_trust.check(store, config_of(store), consent)
        store.lock.check_free()
        step("loading the libraries")
        from search.engine import driver

        driver.resume(store, config, overrides=overrides, callbacks=callbacks)


def validate(
    study: str | Path,
    *,
    top: int,
    overrides: Overrides,
    consent: Consent,
    max_gen_toks: int | None = None,
    quantize: str | None = None,
) -> None:
    """Score on held-out questions; see ``search validate --help``."""
    from runs.ranking.leaderboard import ranked
    from runs.storage.store import Store
    from search.inputs.stored_study import code_trust
    from search.inputs.stored_study.study_config import config_of

    if quantize not in (None, *QUANTISED):
        known = ", ".join(QUANTISED)
        raise InputError(f"--quantize: expected one of {known}, got {shown(quantize)}")
    with Store.open(study_in(study)) as store:
        if not store.manifest.questions.held_out:
            raise InputError(f"{store.name}: expected held-out questions, got none (held_out: 0)")
        if not ranked(store.records()):
            raise InputError(f"{store.name}: expected a scored candidate, got none")
        config = config_of(store, overrides)
        code_trust.check(store, config_of(store), consent)
        store.lock.check_free()
        step("loading the libraries")
        if max_gen_toks is not None or quantize is not None:
            from search.commands.comparison.recheck_command import SetUp, recheck

            set_up = SetUp(max_gen_toks=max_gen_toks, quantize=quantize)
            recheck(store, config, top=top, set_up=set_up)
            return
        from search.engine import driver

        driver.validate(store, config, top=top)
