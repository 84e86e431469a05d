"""How long the driver takes for a candidate, and how busy it keeps its workers.

    python -m benchmarks.loop trials --trials 1000 --sampler random
    python -m benchmarks.loop trials --recorded 10000 --trials 10050 --sampler surrogate
    python -m benchmarks.loop workers --workers 64 --seconds 2
    python -m benchmarks.loop reading --trials 10000

``trials`` runs the loop on an evaluator that answers from a table in no time and times what the
driver does for each candidate: ask, record, tell; with ``--recorded``, of a study that has so many
random recipes already. ``workers`` runs real Ray actors that sleep.
``reading`` makes a large study and times ``search status`` and ``search report`` on it.
"""

from __future__ import annotations

import argparse
import logging
import math
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import TypeVar

import optuna

from evaluators.protocol import Candidate, Outcome, Score, TaskScore
from evaluators.synthetic_evaluator import SyntheticEvaluator, SyntheticSpec
from evaluators.workers.pool import Pool, Result, SerialPool
from runs.activity.worker_register import attended, busy_share
from runs.config.run_config import RunConfig
from runs.storage.store import Store
from search.engine.preparation.run_preparation import manifest_of
from search.engine.session import Session
from search.engine.trials.ask_tell import AskTell
from search.engine.trials.seed_book import read_book
from search.monitoring.monitor import PhaseStanding

T = TypeVar("T")

CONFIG = """
base: ./base
models: {a: ./a, b: ./b, c: ./c}
tasks: [one, two]
held_out: 0
space: {methods: [dare_ties, ties], depth: {knots: 3}, order: all-at-once}
search: {trials: TRIALS, sampler: SAMPLER, asking: ASKING, seed: 1}
"""
"""Three parents with weights at three depths and a density: about 20 parameters a trial."""

QUESTIONS = 100
"""Questions of each of the two tasks."""


class Silent:
    """A monitor that says nothing."""

    def update(self, standing: PhaseStanding, result: Result | None = None) -> None:
        del standing, result

    def note(self, text: str) -> None:
        print(f"  {text}", file=sys.stderr)

    def close(self) -> None:
        """Nothing is open."""


def spec(seconds: float = 0.0) -> SyntheticSpec:
    return SyntheticSpec(
        parents=("a", "b", "c"),
        tasks=(("one", 1.0), ("two", 1.0)),
        questions=QUESTIONS,
        seconds=seconds,
    )


def settings(trials: int, sampler: str, asking: str) -> RunConfig:
    text = CONFIG.replace("TRIALS", str(trials)).replace("SAMPLER", sampler)
    return RunConfig.from_text(text.replace("ASKING", asking))


def make_study(folder: Path, config: RunConfig) -> Store:
    manifest, _ = manifest_of(
        config,
        SyntheticEvaluator(spec()).catalogue(),
        config.space(4),
        book=read_book(config),
        checkpoints={},
        dry_run=True,
    )
    return Store.create(str(folder / "study.db"), manifest)


@dataclass(kw_only=True)
class Stopwatch:
    """Times of the ledger's two steps, and of all that is between two results."""

    clock: Callable[[], float] = time.perf_counter
    ask: list[float] = field(default_factory=list)
    finish: list[float] = field(default_factory=list)

    def watch(self, ledger: AskTell) -> None:
        """Have a ledger's steps timed."""
        for name, times in (("next", self.ask), ("finish", self.finish)):
            setattr(ledger, name, partial(_timed, getattr(ledger, name), times, self.clock))


def _timed(
    step: Callable[..., T], times: list[float], clock: Callable[[], float], *arguments: object
) -> T:
    started = clock()
    try:
        return step(*arguments)
    finally:
        times.append(clock() - started)


class Quick(SyntheticEvaluator):
    """Made-up answers at the price of a few draws: what is timed is the driver."""

    def __init__(self) -> None:
        super().__init__(spec())

    def evaluate(self, candidate: Candidate) -> Score:
        draws = random.Random(candidate.recipe.key)
        level = 0.3 + 0.4 * draws.random()
        outcomes = tuple(
            Outcome(question=name, value=float(draws.random() < level))
            for name in candidate.questions
        )
        by_task: dict[str, list[float]] = {}
        for one in outcomes:
            by_task.setdefault(one.question.partition("/")[0], []).append(one.value)
        tasks = []
        for task, values in by_task.items():
            mean = sum(values) / len(values)
            stderr = math.sqrt(mean * (1 - mean) / max(1, len(values) - 1))
            tasks.append(TaskScore(task=task, value=mean, stderr=stderr, n=len(values)))
        return Score.of(
            self.catalogue().tasks,
            tasks,
            outcomes=outcomes,
            fingerprint=candidate.recipe.key,
            build_seconds=0.5,
            score_seconds=1.5,
        )


def run(store: Store, config: RunConfig, pool: Pool, watch: Stopwatch | None = None) -> float:
    """Drive a study to its end; the seconds it took."""
    optuna.logging.set_verbosity(logging.ERROR)
    store.hold()
    session = Session(store, config, pool=pool, monitor=Silent())
    if watch is not None:
        watch.watch(session._ask_tell)  # a benchmark may look inside
    started = time.perf_counter()
    session.run()
    return time.perf_counter() - started


def trials(options: argparse.Namespace) -> None:
    """Medians of the last tenth, or of what comes after the recorded ones."""
    print(
        "| sampler | asking | trials | ask ms | record and tell ms | in all ms | longest ask ms |"
    )
    print("|---|---|---|---|---|---|---|")
    timed = options.trials - options.recorded if options.recorded else options.trials // 10
    for sampler in options.sampler:
        watch = Stopwatch(clock=time.thread_time if options.cpu_time else time.perf_counter)
        config = settings(options.trials, sampler, options.asking)
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            if options.recorded:
                kept = recorded(options, options.recorded)
                store = Store.open(str(shutil.copy(kept, Path(folder) / "study.db")))
            else:
                store = make_study(Path(folder), config)
            wall = run(store, config, SerialPool(Quick), watch)
            store.close()
        if options.recorded:  # the first one reads all that is recorded
            print(f"first ask: {1e3 * watch.ask.pop(0):.0f} ms", file=sys.stderr)
        asked, finished = (times[-timed:] for times in (watch.ask, watch.finish))
        ask, finish = 1e3 * median(asked), 1e3 * median(finished)
        whole = 1e3 * wall / len(watch.finish)
        print(
            f"| {sampler} | {options.asking} | {options.trials} | {ask:.1f} | {finish:.1f} | "
            f"{ask + finish:.1f} (mean of the run with all else: {whole:.1f}) | "
            f"{1e3 * max(asked):.0f} |",
            flush=True,
        )


def recorded(options: argparse.Namespace, count: int) -> Path:
    """A study of so many random recipes; made anew unless its folder was kept."""
    folder = Path(options.folder or tempfile.mkdtemp()) / f"{options.asking}-{count}"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "study.db").exists():
        config = settings(count, "random", options.asking)
        store = make_study(folder, config)
        print(f"made in {run(store, config, SerialPool(Quick)):.0f} s", file=sys.stderr)
        store.lock.release()
        store.close()
    return folder / "study.db"


def workers(options: argparse.Namespace) -> None:
    from evaluators.workers.ray_pool import RayPool

    count, rounds = options.workers, options.rounds
    config = settings(count * rounds, options.sampler[0], options.asking)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        store = make_study(Path(folder), config)
        started = time.perf_counter()
        make = partial(SyntheticEvaluator, spec(options.seconds))
        pool = RayPool(make, workers=count, gpus=0.0, cpus=0.01)
        try:
            while sum(one.left is None for one in pool.attendance()) < count:
                time.sleep(0.5)
            ready = time.perf_counter() - started
            before = time.thread_time(), time.process_time()
            wall = run(store, config, pool)
            after = time.thread_time(), time.process_time()
            memory = _memory()
        finally:
            pool.close()
        _say_busy(store, wall, ready, memory, options)
        loop, process = (
            1e3 * (end - start) / (count * rounds) for start, end in zip(before, after, strict=True)
        )
        print(f"CPU ms of the driver for a candidate: {loop:.1f}, with its threads {process:.1f}")
        store.close()


def _say_busy(
    store: Store, wall: float, ready: float, memory: float, options: argparse.Namespace
) -> None:
    records = store.records()
    spans = [
        (evaluation.started.timestamp(), evaluation.finished.timestamp())
        for record in records
        for evaluation in record.evaluations.values()
        if evaluation.finished is not None
    ]
    first, last = min(at for at, _ in spans), max(at for _, at in spans)
    # Until the last candidate was handed out: at the end of any budget workers run out of work.
    end = max(at for at, _ in spans)
    busy = sum(max(0.0, min(done, end) - at) for at, done in spans)
    asleep = options.seconds * len(spans)
    print("| workers | candidate s | candidates | busy % | asleep % | set-up s | run s | GB |")
    print("|---|---|---|---|---|---|---|---|")
    print(
        f"| {options.workers} | {options.seconds:g} | {len(spans)} | "
        f"{100 * busy / (options.workers * (end - first)):.1f} | "
        f"{100 * asleep / (options.workers * (last - first)):.1f} | "
        f"{ready:.0f} | {wall:.1f} | {memory:.1f} |"
    )
    print(f"busy by attendance, ends included: {100 * busy_share(attended(store)):.1f} %")


def _memory() -> float:
    """Gigabytes of this process and its children, shared pages counted once."""
    import psutil

    own = psutil.Process()
    total = 0
    for process in (own, *own.children(recursive=True)):
        try:
            total += process.memory_full_info().pss
        except (psutil.Error, AttributeError):
            continue
    return total / 1e9


def reading(options: argparse.Namespace) -> None:
    study = recorded(options, options.trials)
    print("| command | candidates | s |")
    print("|---|---|---|")
    for command in (["status"], ["report", "--out", str(study.parent / "report")]):
        times = []
        for _ in range(options.repeats):
            started = time.perf_counter()
            line = [sys.executable, "-m", "search", command[0], str(study)]
            subprocess.run([*line, *command[1:]], check=True, capture_output=True)
            times.append(time.perf_counter() - started)
        print(f"| search {command[0]} | {options.trials} | {median(times):.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("trials", "workers", "reading"))
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--recorded", type=int, default=0, help="candidates that are there before")
    parser.add_argument("--sampler", nargs="+", default=["random"])
    parser.add_argument("--asking", choices=("all", "growing"), default="all")
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a candidate")
    parser.add_argument("--rounds", type=int, default=30, help="candidates for each worker")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cpu-time", action="store_true", help="of trials, on a busy machine")
    parser.add_argument("--folder", help="where studies are made, and large ones kept")
    options = parser.parse_args()
    {"trials": trials, "workers": workers, "reading": reading}[options.what](options)


if __name__ == "__main__":
    main()
