"""A driver to be killed: a whole run on the closed-form evaluator, with witnesses for workers."""

import itertools
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import optuna
import sqlalchemy as sa
from rich.console import Console

from evaluators.protocol import Candidate, Failure, Score
from evaluators.synthetic_evaluator import SyntheticEvaluator, SyntheticSpec
from evaluators.workers.pool import Pool, SerialPool
from runs.config.run_config import RunConfig
from runs.storage.store import Store
from search.engine.preparation.run_preparation import manifest_of
from search.engine.session import Session
from search.engine.trials import racing
from search.engine.trials.seed_book import read_book
from search.inputs.stored_study.study_config import config_of
from search.monitoring.monitor import LogMonitor
from tests.faults.witness import witness

# What Optuna loads late, loaded before drivers are forked.
optuna.create_study(storage="sqlite:///:memory:").ask()

SPEC = SyntheticSpec(
    parents=("a", "b", "c"), tasks=(("one", 1.0), ("two", 1.0)), questions=120, seconds=0.004
)


def make_study(location: str, config: str) -> Store:
    """A new study for that config, on the evaluator above."""
    settings = RunConfig.from_text(config)
    manifest, _ = manifest_of(
        settings,
        SyntheticEvaluator(SPEC).catalogue(),
        settings.space(4),
        book=read_book(settings),
        checkpoints={},
        dry_run=True,
    )
    return Store.create(location, manifest)


def drive(location: str, log: str, workers: int, spec: SyntheticSpec = SPEC) -> None:
    """Resume a study as ``search resume`` does; 0 workers evaluate in this process itself."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, sys.stdout.fileno())
    optuna.logging.set_verbosity(logging.ERROR)
    with Store.open(location) as store:
        store.hold()
        pool = _pool(log, workers, spec)
        try:
            settings = config_of(store)
            Session(store, settings, pool=pool, monitor=LogMonitor(Console())).run()
        finally:
            pool.close()


class Still(SyntheticEvaluator):
    """Never comes back from a candidate of that number or a later one."""

    def __init__(self, spec: SyntheticSpec, still_from: int) -> None:
        super().__init__(spec)
        self._still_from = still_from

    def evaluate(self, candidate: Candidate) -> Score | Failure:
        while candidate.id >= self._still_from:
            time.sleep(1.0)
        return super().evaluate(candidate)


def drive_until(location: str, spec: SyntheticSpec, still_from: int) -> None:
    """Resume a study in this process itself, up to the candidate of that number."""
    with Store.open(location) as store:
        store.lock.acquire()
        settings = RunConfig.from_text(store.manifest.config)
        pool = SerialPool(partial(Still, spec, still_from))
        Session(store, settings, pool=pool, monitor=LogMonitor(Console(quiet=True))).run()


def drive_and_die(
    location: str, spec: SyntheticSpec, commits: int, sizes: Mapping[str, int]
) -> None:
    """Resume a study in this process itself, which gets SIGKILL before its commit of that number.

    Args:
        location: Of the study.
        spec: Of the evaluator.
        commits: How many are begun; signs of life, which come at any time, do not count.
        sizes: Other values of constants of racing.
    """
    begun = itertools.count(1)

    def die(_: sa.Connection) -> None:
        if threading.current_thread() is threading.main_thread() and next(begun) == commits:
            os.kill(os.getpid(), signal.SIGKILL)

    for name, size in sizes.items():
        setattr(racing, name, size)
    sa.event.listen(sa.engine.Engine, "commit", die)
    drive_until(location, spec, sys.maxsize)


def drive_here(location: str, *, trials: int = 12) -> None:
    """Make a study and run it to its end in this process."""
    config = f"""
base: ./nowhere/base
models: {{a: ./nowhere/a, b: ./nowhere/b, c: ./nowhere/c}}
tasks: [one, two]
held_out: 0.3
space: {{methods: [linear, ties, slerp]}}
search: {{trials: {trials}, sampler: random, seed: 1, validate: 2}}
"""
    with make_study(location, config) as store:
        store.hold()
        pool = SerialPool(partial(SyntheticEvaluator, replace(SPEC, seconds=0.0)))
        quiet = LogMonitor(Console(quiet=True))
        Session(store, config_of(store), pool=pool, monitor=quiet).run()


def _pool(log: str, workers: int, spec: SyntheticSpec) -> Pool:
    make = partial(witness, spec, log)
    if not workers:
        return SerialPool(make)
    from ray._private.worker import global_worker

    from evaluators.workers.ray_pool import RayPool

    pool = RayPool(make, workers=workers, gpus=0.0, cpus=0.5)
    dashboard = global_worker.node.address_info["webui_url"] or ""
    assert not dashboard or dashboard.startswith(("127.0.0.1:", "localhost:")), dashboard
    return pool
