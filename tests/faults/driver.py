"""A driver to be killed: a whole run on the closed-form evaluator, with witnesses for workers."""

import logging
import os
import sys
from dataclasses import replace
from functools import partial

import optuna
from rich.console import Console

from evaluators.synthetic_evaluator import SyntheticEvaluator, SyntheticSpec
from evaluators.workers.pool import Pool, SerialPool
from runs.config.run_config import RunConfig
from runs.storage.store import Store
from search.engine.session import Session, manifest_of
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


def drive(location: str, log: str, workers: int) -> None:
    """Resume a study as ``search resume`` does; 0 workers evaluate in this process itself."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, sys.stdout.fileno())
    optuna.logging.set_verbosity(logging.ERROR)
    with Store.open(location) as store:
        store.hold()
        pool = _pool(log, workers)
        try:
            settings = config_of(store)
            Session(store, settings, pool=pool, monitor=LogMonitor(Console())).run()
        finally:
            pool.close()


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


def _pool(log: str, workers: int) -> Pool:
    make = partial(witness, SPEC, log)
    if not workers:
        return SerialPool(make)
    from ray._private.worker import global_worker

    from evaluators.workers.ray_pool import RayPool

    pool = RayPool(make, workers=workers, gpus=0.0, cpus=0.5)
    dashboard = global_worker.node.address_info["webui_url"] or ""
    assert not dashboard or dashboard.startswith(("127.0.0.1:", "localhost:")), dashboard
    return pool
