"""Driving a study with workers: from a config or study that can be used to the printed result."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import optuna

from evaluators.protocol import EvaluatorError, QuestionText
from evaluators.resident_models import config_differences
from evaluators.resident_models.devices.half_precision import slow_note
from evaluators.workers.pool import Pool
from merging.checkpoints.checkpoint import widest_dtype
from runs.config.run_config import RunConfig
from runs.storage.database.connection import StudyWriteError
from runs.storage.database.study_lock import LockLostError
from runs.storage.store import Store
from search.engine.preparation.run_preparation import PreparedRun, check_unchanged, prepare
from search.engine.preparation.task_survey import survey_of
from search.engine.processes.model_changes import read_whole
from search.engine.processes.worker_setup import Setting, make_pool, prepare_statistics
from search.engine.session import Session
from search.engine.trials.trial_attributes import note_trials
from search.inputs.given_config import GivenConfig
from search.inputs.input_error import InputError, RunFailed, RunStopped
from search.inputs.moved_locations import KEYS
from search.inputs.overrides import Overrides
from search.inputs.stored_study.code_trust import remember
from search.inputs.stored_study.config_edits import edits, note_file
from search.inputs.stored_study.study_config import config_of, new_budget
from search.monitoring.callbacks import Callback, Telling
from search.monitoring.console import console, say_written, step, tell
from search.monitoring.loggers import loggers
from search.monitoring.monitor import monitor
from search.monitoring.study_report import write_outputs
from search.monitoring.study_summary import outcome, show_result
from spaces.search_space.space import Space


def run(
    given: GivenConfig, study: str, *, folder: Path, dry_run: bool, callbacks: Sequence[Callback]
) -> None:
    """Check models and tasks, make the study, and search."""
    prepared = prepare(given, dry_run=dry_run, begun=step)
    told = (*callbacks, *loggers(prepared.config.output.loggers))
    manifest, checkpoints = prepared.manifest, prepared.checkpoints
    if not dry_run:
        step("reading the models")
        checkpoints = read_whole(checkpoints, folder, console())
        inputs = {name: one.input_hash for name, one in checkpoints.items()}
        manifest = replace(manifest, inputs=inputs)
    setting = Setting(
        config=prepared.config,
        space=prepared.space,
        checkpoints=checkpoints,
        catalogue=manifest.catalogue,
        folder=folder,
        dry_run=dry_run,
    )
    with quiet_libraries(), workers_of(setting) as pool:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: cannot be made: {error.strerror}") from error
        with Store.create(study, manifest) as store:
            notes = (*_notes(prepared), *store.hold())
            notes = (*notes, *remember(store, config_of(store)))
            store.set_fact("folder", str(folder.resolve()))
            note_file(store, given)
            _keep_questions(store, prepared.config, prepared.texts)
            _drive(store, setting, pool, Session.run, told=told, notes=notes)


def _notes(prepared: PreparedRun) -> tuple[str, ...]:
    """What the user should know of the seeds, and of models whose configs differ."""
    if prepared.manifest.dry_run:
        return prepared.notes
    trust = prepared.config.harness.trust_remote_code
    return (*prepared.notes, *config_differences.differences(prepared.checkpoints, trust=trust))


def resume(
    store: Store, config: RunConfig, *, overrides: Overrides, callbacks: Sequence[Callback]
) -> None:
    """Go on with a study that nobody drives; a new budget in ``overrides`` is kept with it."""
    setting = setting_of(store, config)
    notes = _hold(store, config)
    budget = new_budget(store, overrides)

    def go_on(session: Session) -> bool:
        if budget:  # kept only now that these workers are known to do with it
            store.set_fact("budget", json.dumps(budget))
        return session.run()

    told, missing = _loggers_there(config)
    with quiet_libraries(), workers_of(setting) as pool:
        notes = (*notes, *missing)
        _drive(store, setting, pool, go_on, told=(*callbacks, *told), notes=notes)


def validate(store: Store, config: RunConfig, *, top: int) -> None:
    """Score the best recipes of a study that nobody drives on its held-out questions."""
    setting = setting_of(store, config)
    told, missing = _loggers_there(config)
    notes = (*_hold(store, config), *missing)
    with quiet_libraries(), workers_of(setting) as pool:
        _drive(store, setting, pool, lambda run: run.validate(top), told=told, notes=notes)


def _hold(store: Store, config: RunConfig) -> tuple[str, ...]:
    """Take a study whose inputs were found unchanged, and keep where they are now; its notes."""
    notes = store.hold()
    before, now = config_of(store).to_dict(), config.to_dict()
    if any(before[key] != now[key] for key in KEYS):
        store.set_fact("places", json.dumps({key: now[key] for key in KEYS}))
    if not store.question_texts():  # of an earlier version
        dry_run = store.manifest.dry_run
        _keep_questions(store, config, lambda: survey_of(config, dry_run=dry_run).texts())
    return (*notes, *remember(store, config_of(store)), *edits(store, config))


def _keep_questions(
    store: Store, config: RunConfig, texts: Callable[[], Mapping[str, QuestionText]]
) -> None:
    """Keep what the questions say, where answers are kept."""
    if config.output.answers:
        store.keep_questions(texts())


def _loggers_there(config: RunConfig) -> tuple[tuple[Callback, ...], tuple[str, ...]]:
    """The loggers of a study's config; one missing here is a note, as the config is fixed."""
    try:
        return loggers(config.output.loggers), ()
    except InputError as error:
        return (), error.problems


def setting_of(store: Store, config: RunConfig) -> Setting:
    """What the workers of a study are set up for; checks that its inputs are unchanged."""
    step("reading the models")
    return Setting(
        config=config,
        space=Space.from_dict(store.manifest.space),
        checkpoints=check_unchanged(store, config, console()),
        catalogue=store.manifest.catalogue,
        folder=store.folder,
        dry_run=store.manifest.dry_run,
    )


def _drive(
    store: Store,
    setting: Setting,
    pool: Pool,
    work: Callable[[Session], bool],
    *,
    told: Sequence[Callback] = (),
    notes: tuple[str, ...] = (),
) -> None:
    """Do the work, then write and show what there is, also when it was stopped."""
    config, screen = setting.config, console()
    folder, view = store.folder, Telling(monitor(screen), told)
    written: list[Path] = []
    ended, verdict = False, ""
    try:
        view.start(store, config, folder)
        for note in (*notes, *pool.notes, *_slow(setting, pool)):
            view.note(note)
        step("preparing statistics of the models")
        prepare_statistics(setting, screen)
        step("asking the first questions")
        ended = work(
            Session(store, config, pool=pool, monitor=view, checkpoints=setting.checkpoints)
        )
        view.close()
        written, report = write_outputs(store, config, folder)
        note_trials(store, report.frame, report.tasks)
        verdict = "" if report.verdict is None else report.verdict.sentence
        tell(study=store.name, stopped=not ended, **outcome(report))
        say_written(screen, written)
        show_result(store, report, screen)
    except KeyboardInterrupt:
        raise RunStopped(f"stopped at once; `search resume {store.name}` continues it") from None
    except (StudyWriteError, LockLostError):
        raise  # there is nothing to read from, or another driver's study
    except (EvaluatorError, RunFailed) as error:  # what is recorded stands
        view.close()
        written, _ = write_outputs(store, config, folder)
        say_written(screen, written)
        if isinstance(error, RunFailed):
            raise
        why = "; ".join(error.problems)  # no worker is left
        raise RunFailed(f"{why}; `search resume {store.name}` continues it") from error
    finally:
        view.close()
        view.finish(complete=ended, verdict=verdict, files=written)
    if not ended:
        screen.print(f"Stopped. `search resume {store.name}` continues it.", markup=False)


def _slow(setting: Setting, pool: Pool) -> tuple[str, ...]:
    """What to know of models that this machine asks slowly."""
    if pool.gpus or setting.dry_run or setting.config.evaluator is not None:
        return ()
    note = slow_note(setting.config.output.dtype or widest_dtype(setting.checkpoints.values()))
    return (note,) if note else ()


@contextmanager
def workers_of(setting: Setting) -> Iterator[Pool]:
    """The workers of a run; they end with the block."""
    step("starting Ray and its workers" if setting.config.workers.ray else "starting the worker")
    pool = make_pool(setting)
    try:
        yield pool
    finally:
        pool.close()


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Optuna logs every trial, and parameters drawn outside its model; both are as meant here."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
