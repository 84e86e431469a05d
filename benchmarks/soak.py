"""A long search with injected failures: does memory stay flat?

    python -m benchmarks.soak --trials 2000 --workers 2

Tiny models, real builds and real lm-eval questions in Ray workers. A share of the candidates raise,
run out of memory, give NaN or take their worker with them. Memory of the driver and of the workers
(resident set of the largest worker process; new processes count from their tenth candidate) is
noted as candidates come back, and compared with what it was after the first 200.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from unittest import mock

import optuna
import psutil

from evaluators.harness.harness_evaluator import HarnessEvaluator
from evaluators.harness_spec import HarnessSpec
from evaluators.protocol import Candidate, Catalogue, Failure, Score
from evaluators.workers.pool import Result
from evaluators.workers.ray_pool import RayPool
from runs.records.record import Split
from runs.storage.store import Store
from search.engine.preparation.run_preparation import prepare
from search.engine.session import Session
from search.inputs.given_config import read
from search.inputs.overrides import Overrides
from search.monitoring.monitor import PhaseStanding
from search.setup.demo_models.model_family import make_family

CONFIG = """
base: FAMILY/base
models: {sort: FAMILY/sort, reverse: FAMILY/reverse}
tasks: TASKS
include_path: TASKFOLDER
held_out: 0
space: {methods: [linear, ties, dare_ties, slerp], order: all-at-once}
search: {trials: TRIALS, sampler: random, asking: all, seed: 1}
workers: {count: WORKERS, threads: 1, cpus: 0.5, retries: 1}
harness: {batch_size: 32}
"""

SETTLED = 200
"""Candidates after which memory has to stay where it is."""

CALM = 10
"""Candidates after which a new worker has all it needs."""

RATES = {"raise": 0.03, "memory": 0.02, "nan": 0.02, "exit": 0.01}
"""Share of the candidates that fail in each way."""


class Faulty:
    """An evaluator in which candidates fail in every way, by the seed and their number.

    Args:
        spec: Of the real one.
        seed: Chooses who fails.
    """

    def __init__(self, spec: HarnessSpec, seed: int) -> None:
        self._inner, self._seed = HarnessEvaluator(spec), seed

    def catalogue(self) -> Catalogue:
        return self._inner.catalogue()

    @property
    def notes(self) -> tuple[str, ...]:
        return self._inner.notes

    def evaluate(self, candidate: Candidate) -> Score | Failure:
        from evaluators.harness import harness_evaluator

        fault = fault_of(candidate.id, self._seed)
        if fault == "exit":
            os._exit(1)
        if fault is None:
            return self._inner.evaluate(candidate)
        # The fault strikes where it would: between the build and the answers.
        with mock.patch.object(harness_evaluator, "respond", partial(_strike, fault)):
            return self._inner.evaluate(candidate)

    def close(self) -> None:
        self._inner.close()


def fault_of(candidate: int, seed: int) -> str | None:
    """How a candidate fails, if it does."""
    at = random.Random(f"{seed} {candidate}").random()
    for name, rate in RATES.items():
        if at < rate:
            return name
        at -= rate
    return None


def _strike(fault: str, *arguments: object) -> None:
    del arguments
    if fault == "memory":
        raise MemoryError("made up")
    if fault == "nan":
        from evaluators.resident_models.candidate_failures import NonFiniteScoreError

        raise NonFiniteScoreError("made up")
    raise RuntimeError("made up")


@dataclass(kw_only=True)
class Memory:
    """Resident memory in MB as candidates come back.

    Attributes:
        driver: ``(candidates, MB)``.
        worker: ``(candidates, MB of the largest worker process)``.
    """

    driver: list[tuple[int, float]] = field(default_factory=list)
    worker: list[tuple[int, float]] = field(default_factory=list)
    _answered: Counter[str] = field(default_factory=Counter)
    _done: int = 0

    def update(self, standing: PhaseStanding, result: Result | None = None) -> None:
        if result is None:
            return
        self._done = standing.done
        self._answered[result.worker] += 1
        if self._done % 20:
            return
        self.driver.append((self._done, _resident(os.getpid())))
        calm = [name for name, count in self._answered.items() if count >= CALM]
        sizes = [_resident(int(name.rpartition("/")[2])) for name in calm]
        if any(sizes):
            self.worker.append((self._done, max(sizes)))
        if self._done % 200 == 0:
            print(f"{time.strftime('%H:%M:%S')}  {self._done}: driver {self.driver[-1][1]:.0f} MB,"
                  f" largest worker {self.worker[-1][1]:.0f} MB", flush=True)  # fmt: skip

    def note(self, text: str) -> None:
        print(f"  {text}", flush=True)

    def close(self) -> None:
        """Nothing is open."""


def _resident(pid: int) -> float:
    try:
        return float(psutil.Process(pid).memory_info().rss) / 1e6
    except psutil.Error:
        return 0.0


def soak(options: argparse.Namespace, folder: Path) -> None:
    make_family(folder / "family", quick=True)
    config_file = write_config(options, folder)
    prepared = prepare(read(config_file, Overrides()), dry_run=False)
    memory = Memory()
    optuna.logging.set_verbosity(logging.ERROR)
    store = Store.create(str(folder / "study.db"), prepared.manifest)
    store.hold()
    pool = RayPool(
        partial(Faulty, prepared.config.harness_spec(), options.seed),
        workers=options.workers,
        gpus=0.0,
        cpus=0.5,
    )
    started = time.perf_counter()
    try:
        Session(store, prepared.config, pool=pool, monitor=memory).run()
    finally:
        pool.close()
    report(store, memory, seconds=time.perf_counter() - started, options=options)
    store.close()


def write_config(options: argparse.Namespace, folder: Path) -> Path:
    text = (
        CONFIG.replace("TASKFOLDER", str(folder / "family" / "tasks"))
        .replace("FAMILY", str(folder / "family"))
        .replace(
            "TASKS",
            json.dumps([{"name": name, "limit": options.questions} for name in options.tasks]),
        )
        .replace("TRIALS", str(options.trials))
        .replace("WORKERS", str(options.workers))
    )
    path = folder / "soak.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def report(store: Store, memory: Memory, *, seconds: float, options: argparse.Namespace) -> None:
    evaluations = [record.evaluations[Split.SEARCH] for record in store.records()]
    kinds = Counter(
        evaluation.failure_kind.value
        for evaluation in evaluations
        if evaluation.failure_kind is not None
    )
    expected = Counter(
        fault for at in range(len(evaluations)) if (fault := fault_of(at, options.seed))
    )
    print(f"{len(evaluations)} candidates in {seconds:.0f} s; failed: {dict(kinds)}")
    print(f"injected: {dict(expected)}")
    print("| | MB after 200 | MB at the end | change % | highest % |")
    print("|---|---|---|---|---|")
    for name, known in (("driver", memory.driver), ("largest worker", memory.worker)):
        settled = [size for at, size in known if at >= SETTLED]
        first, last = median(settled[:5]), median(settled[-5:])
        print(
            f"| {name} | {first:.0f} | {last:.0f} | {100 * (last / first - 1):+.1f} | "
            f"{100 * (max(settled) / first - 1):+.1f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tasks", nargs="+", default=["demo_sort", "demo_reverse"])
    parser.add_argument("--questions", type=int, default=20, help="of each task")
    parser.add_argument("--folder", help="where the family and the study are made and kept")
    options = parser.parse_args()
    if options.folder:
        Path(options.folder).mkdir(parents=True, exist_ok=True)
        soak(options, Path(options.folder))
    else:
        with tempfile.TemporaryDirectory() as folder:
            soak(options, Path(folder))


if __name__ == "__main__":
    main()
