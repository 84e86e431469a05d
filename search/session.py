"""One run from its first check to its end: what the commands run, resume and validate share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from platform import python_version

from evaluators.base import Catalogue, EvaluatorError, EvaluatorFactory
from evaluators.fake import FakeEvaluator, FakeSpec
from evaluators.pool import Pool, SerialPool
from merging.checkpoint import widest_dtype
from runs.config import ConfigError, RunConfig, load_config, open_inputs
from runs.leaderboard import ranked
from runs.manifest import Manifest
from runs.records import Record, Split, State, is_baseline
from runs.split import divide
from runs.store import Store
from search.errors import InputError, RunFailed
from search.ledger import Ledger
from search.loop import Budget, Loop
from search.monitor import Monitor
from search.overrides import Overrides
from search.samplers import Sampler
from search.stop import on_signals
from spaces.seeds import seeds
from spaces.space import Space, SpaceError

WORKER_BYTES = 1_500_000_000
"""Memory of a worker besides its model: libraries, prompts, activations of a small batch."""

PACKAGES = ("merge-search", "torch", "transformers", "lm_eval", "optuna", "ray")
"""Packages whose versions a study remembers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """A run that passed every check and has written nothing yet.

    Attributes:
        config: As the user gave it, with the command line's values.
        space: The bounds of the search.
        manifest: What study.db will hold.
    """

    config: RunConfig
    space: Space
    manifest: Manifest


def prepare(path: Path, *, overrides: Overrides, dry_run: bool) -> Prepared:
    """Check a config, its models (headers only) and its tasks.

    Raises:
        InputError: With everything that is wrong with any of them.
    """
    try:
        config = load_config(path).replaced(overrides.values())
    except ConfigError as error:
        raise InputError(error.problems) from error
    problems: list[str] = []
    try:
        checkpoints = open_inputs(config)
    except ConfigError as error:
        problems += error.problems
    try:
        catalogue = _catalogue(config, dry_run=dry_run)
    except EvaluatorError as error:
        problems += error.problems
    if problems:
        raise InputError(problems)
    layers = next(iter(checkpoints.values())).layers
    try:
        space = config.space(layers.count if layers is not None else 1)
    except SpaceError as error:
        raise InputError([f"{path}: space: {problem}" for problem in error.problems]) from error
    held_out = config.held_out
    questions = divide(catalogue, held_out, seed=config.search.seed)
    if not questions.search:
        raise InputError([f"{path}: held_out: expected to leave questions to search on, got none"])
    manifest = Manifest(
        config=config.to_yaml(),
        space=space.to_dict(),
        inputs={name: checkpoint.input_hash for name, checkpoint in checkpoints.items()},
        inputs_dtype=widest_dtype(checkpoints.values()),
        catalogue=catalogue,
        questions=questions,
        versions=versions(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        dry_run=dry_run,
    )
    return Prepared(config=config, space=space, manifest=manifest)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result."""
    return {"python": python_version()} | {name: metadata.version(name) for name in PACKAGES}


def _catalogue(config: RunConfig, *, dry_run: bool) -> Catalogue:
    if dry_run:
        return _factory(config, dry_run=True)().catalogue()
    from evaluators.harness import check

    return check(config.harness_spec())


def _factory(config: RunConfig, *, dry_run: bool) -> EvaluatorFactory:
    if dry_run:
        tasks = tuple((task.name, task.weight) for task in config.tasks)
        return partial(FakeEvaluator, FakeSpec(parents=tuple(config.models), tasks=tasks))
    from evaluators.harness import HarnessEvaluator

    return partial(HarnessEvaluator, config.harness_spec())


def make_pool(config: RunConfig, *, dry_run: bool) -> Pool:
    """The workers that a config asks for.

    Raises:
        InputError: If they cannot be set up.
    """
    factory = _factory(config, dry_run=dry_run)
    workers = config.workers
    try:
        if not workers.ray:
            return SerialPool(factory)
        from evaluators.ray_pool import RayPool

        return RayPool(
            factory,
            workers=None if workers.count == "auto" else int(workers.count),
            gpus=None if workers.gpus == "auto" else float(workers.gpus),
            cpus=workers.cpus,
            memory=0 if dry_run else worker_memory(config),
            address=workers.ray_address,
            timeout=workers.timeout,
            retries=workers.retries,
        )
    except EvaluatorError as error:
        raise InputError(error.problems) from error


def worker_memory(config: RunConfig) -> int:
    """Bytes of main memory that a worker on CPU takes: its model, and what every worker has.

    Parents are mapped from disk and shared by the workers of a machine; they are not counted.
    """
    element = {None: None, "float32": 4}.get(config.output.dtype, 2)
    models = (checkpoint.tensors.values() for checkpoint in open_inputs(config).values())
    return WORKER_BYTES + max(
        sum(info.numel * element if element else info.end - info.start for info in tensors)
        for tensors in models
    )


def check_unchanged(store: Store, config: RunConfig) -> None:
    """Make sure that models and tasks are still those that the study was made with.

    Raises:
        InputError: With every model or task that is gone or changed.
    """
    manifest = store.manifest
    problems: list[str] = []
    try:
        for name, checkpoint in open_inputs(config).items():
            if checkpoint.input_hash != manifest.inputs.get(name):
                problems.append(
                    f"{store.name}: model {name!r} at {config.locations[name]}: expected the files "
                    "that the study was made with, got others; put them back or start a new run"
                )
    except ConfigError as error:
        problems += error.problems
    try:
        if _catalogue(config, dry_run=manifest.dry_run) != manifest.catalogue:
            problems.append(
                f"{store.name}: tasks: expected the questions that the study was made with, got "
                "others; put the task files back or start a new run"
            )
    except EvaluatorError as error:
        problems += error.problems
    if problems:
        raise InputError(problems)


class Session:
    """Drives one study with a pool of workers; holds the study's lock while it is open."""

    def __init__(self, store: Store, config: RunConfig, *, pool: Pool, monitor: Monitor) -> None:
        self._store = store
        self._config = config
        self._pool = pool
        self._monitor = monitor
        space = Space.from_dict(store.manifest.space)
        found = seeds(space)
        if config.search.seeds == "none":
            found = tuple(seed for seed in found if is_baseline(seed.name))
        sampler = Sampler(
            config.search.sampler,
            seed=config.search.seed,
            trials_so_far=len(store.study.get_trials(deepcopy=False)),
            space=space,
        )
        self._ledger = Ledger(store, space, sampler=sampler, seeds=found)

    def run(self) -> bool:
        """Search until the budget is spent, then ask the held-out questions.

        Returns:
            Whether it came to the end; ``False`` when it was stopped before.

        Raises:
            RunFailed: If not one candidate could be scored.
        """
        budget = Budget(trials=self._config.search.trials, hours=self._config.search.hours)
        with on_signals(self._monitor.note) as stop:
            loop = Loop(
                self._store, self._ledger, pool=self._pool, monitor=self._monitor, stop=stop
            )
            loop.search(budget)
            if not stop.requested:
                loop.validate(to_validate(self._store, top=self._config.search.validate_top))
            stopped = stop.requested
        if not stopped:
            _check_any(self._store)
        return not stopped

    def validate(self, top: int) -> bool:
        """Ask the held-out questions of the best recipes and the baselines.

        Returns:
            Whether it came to the end.
        """
        with on_signals(self._monitor.note) as stop:
            loop = Loop(
                self._store, self._ledger, pool=self._pool, monitor=self._monitor, stop=stop
            )
            loop.validate(to_validate(self._store, top=top))
            return not stop.requested


def to_validate(store: Store, *, top: int) -> list[int]:
    """Candidates that the held-out questions are still to be asked of, best first."""
    if not store.manifest.questions.held_out or top == 0:
        return []
    order = ranked(store.records())
    chosen = [*order[:top], *(record for record in order[top:] if record.is_baseline)]
    return [record.id for record in chosen if not _finished(record, Split.HELD_OUT)]


def _finished(record: Record, split: Split) -> bool:
    evaluation = record.evaluations.get(split)
    return evaluation is not None and evaluation.state is not State.RUNNING


def _check_any(store: Store) -> None:
    records = store.records()
    if ranked(records):
        return
    messages: Mapping[str, int] = {}
    for record in records:
        evaluation = record.evaluations[Split.SEARCH]
        text = f"{evaluation.failure_kind}: {evaluation.failure_message}"
        messages = {**messages, text: messages.get(text, 0) + 1}
    most = max(messages, key=lambda text: messages[text], default="no candidate was evaluated")
    raise RunFailed(f"{store.name}: no candidate could be scored; most often: {most}")
