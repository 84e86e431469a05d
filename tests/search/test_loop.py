"""The loop takes what is ready before it asks, and writes little more than once for each."""

from __future__ import annotations

import gc
import sys
from functools import partial
from itertools import groupby
from pathlib import Path

import optuna
import sqlalchemy as sa
from optuna.trial import TrialState
from threadpoolctl import threadpool_info, threadpool_limits

from evaluators.protocol import Candidate
from evaluators.synthetic_evaluator import SyntheticEvaluator, SyntheticSpec
from evaluators.workers.pool import Result, SerialPool
from runs.config.run_config import RunConfig
from runs.storage.store import Store
from runs.storage.study_creation import STUDY_NAME
from search.engine.preparation.run_preparation import manifest_of
from search.engine.session import Session
from search.engine.trials.seed_book import read_book
from tests.monitors import NotingMonitor

CONFIG = """
base: ./base
models: {a: ./a, b: ./b}
tasks: [one]
held_out: 0
space: {methods: [task_arithmetic, ties]}
search: {trials: 40, sampler: random, seed: 1, seeds: none}
workers: {ray: false}
"""
SPEC = SyntheticSpec(parents=("a", "b"), tasks=(("one", 1.0),), questions=20)


class Crowd(SerialPool):
    """Four workers that are done at once; notes who was handed out, and what was taken."""

    def __init__(self) -> None:
        super().__init__(partial(SyntheticEvaluator, SPEC))
        self.events: list[str] = []
        self._begun: list[int] = []

    @property
    def size(self) -> int:
        return 4

    def submit(self, candidate: Candidate, *, near: str = "", keep: bool = False) -> None:
        super().submit(candidate, near=near, keep=keep)
        self._begun.append(candidate.id)
        self.events.append("ask")

    def begun(self) -> tuple[int, ...]:
        found, self._begun = tuple(self._begun), []
        return found

    def next(self, timeout: float | None = None) -> Result | None:
        result = super().next(timeout)
        self.events.append("take" if result is not None else "none")
        return result


def blas_threads() -> set[int]:
    return {one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}


class Frozen(Crowd):
    """Notes what the collector leaves alone, how long turns are, and how many threads compute."""

    left_alone, turn, threads = 0, 0.0, set[int]()

    def next(self, timeout: float | None = None) -> Result | None:
        self.left_alone, self.turn = gc.get_freeze_count(), sys.getswitchinterval()
        self.threads = blas_threads()
        return super().next(timeout)


def drive(folder: Path, pool: SerialPool) -> Store:
    settings = RunConfig.from_text(CONFIG)
    manifest, _ = manifest_of(
        settings, SyntheticEvaluator(SPEC).catalogue(), settings.space(4),
        book=read_book(settings), checkpoints={}, dry_run=True,
    )  # fmt: skip
    store = Store.create(str(folder / "study.db"), manifest)
    store.hold()
    Session(store, settings, pool=pool, monitor=NotingMonitor()).run()
    return store


def test_what_is_ready_is_taken_before_more_is_asked(tmp_path: Path) -> None:
    pool = Crowd()
    drive(tmp_path, pool).close()
    taken = [len([*run]) for event, run in groupby(pool.events) if event == "take"]
    assert taken == [4] * 10


def test_a_candidate_takes_two_transactions(tmp_path: Path) -> None:
    commits: list[sa.Connection] = []

    def note(connection: sa.Connection) -> None:
        commits.append(connection)

    sa.event.listen(sa.engine.Engine, "commit", note)
    try:
        store = drive(tmp_path, Crowd())
    finally:
        sa.event.remove(sa.engine.Engine, "commit", note)
    store.close()
    assert 80 <= len(commits) <= 110  # 40 candidates; making and opening a study takes some 20


def test_the_interpreter_is_set_up_for_a_run_and_put_back(tmp_path: Path) -> None:
    pool, usual = Frozen(), sys.getswitchinterval()
    with threadpool_limits(limits=2, user_api="blas"):
        drive(tmp_path, pool).close()
        assert (pool.threads, blas_threads()) == ({1}, {2})
    assert pool.left_alone > 100_000
    assert pool.turn < usual
    assert (gc.get_freeze_count(), sys.getswitchinterval()) == (0, usual)


def test_optuna_reads_all_results_when_the_driver_has_ended(tmp_path: Path) -> None:
    store = drive(tmp_path, Crowd())
    told = {trial.number: trial.value for trial in store.study.trials}
    store.close()
    kept = optuna.load_study(study_name=STUDY_NAME, storage=f"sqlite:///{tmp_path}/study.db")
    assert {trial.state for trial in kept.trials} == {TrialState.COMPLETE}
    assert {trial.number: trial.value for trial in kept.trials} == told


def test_what_was_told_last_is_written_on_closing(tmp_path: Path) -> None:
    store = drive(tmp_path, Crowd())
    store.study.tell(store.study.ask(), 0.5)
    store.close()
    kept = optuna.load_study(study_name=STUDY_NAME, storage=f"sqlite:///{tmp_path}/study.db")
    assert kept.trials[-1].value == 0.5
