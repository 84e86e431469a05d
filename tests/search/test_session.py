"""The search loop on the closed-form evaluator: budget, seeds, repeats, failures, crashes."""

import math
import multiprocessing.process
import os
import random
import signal
import sqlite3
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState
from rich.console import Console

from evaluators.protocol import Candidate, Failure, FailureKind, Score
from evaluators.synthetic_evaluator import SyntheticEvaluator, SyntheticSpec
from evaluators.workers.pool import Pool, Result, SerialPool
from runs.config.run_config import RunConfig
from runs.ranking.leaderboard import failures, fronts, leaderboard, ranked
from runs.ranking.verdict_text import p_words
from runs.records.record import MEASURES, Estimate, Split, State, is_known_good
from runs.report.report_files import write_report
from runs.storage.store import Store
from search.engine.final_check import to_validate
from search.engine.preparation.run_preparation import manifest_of
from search.engine.session import Session
from search.engine.trials import ask_tell as ledger
from search.engine.trials import racing
from search.engine.trials.ask_tell import AskTell
from search.engine.trials.held_out_looks import looks
from search.engine.trials.seed_book import read_book
from search.inputs.input_error import RunFailed
from search.monitoring.run_verdict import judge_run
from search.monitoring.study_report import make_report
from search.monitoring.study_summary import show_status
from search.samplers.estimation.posterior import judged
from search.samplers.sampler_choice import Sampler
from spaces.recipes.parameter_count import ParameterCount
from spaces.sampling.seed_recipes import seeds
from spaces.search_space.space import Space
from tests.command import FORKED
from tests.faults.driver import drive_and_die, drive_until
from tests.monitors import NotingMonitor

CONFIG = """
base: ./base
models: {a: ./a, b: ./b, c: ./c}
tasks: [one, two]
held_out: 0.3
space: {methods: [linear, ties, slerp]}
search: {trials: TRIALS, sampler: SAMPLER, seed: 1}
workers: {ray: false}
"""


def config(trials: int = 20, sampler: str = "tpe") -> RunConfig:
    return RunConfig.from_text(CONFIG.replace("TRIALS", str(trials)).replace("SAMPLER", sampler))


def spec(**changes: object) -> SyntheticSpec:
    settings = {"questions": 20, **changes}
    return SyntheticSpec(parents=("a", "b", "c"), tasks=(("one", 1.0), ("two", 1.0)), **settings)


SIZES = ParameterCount(outside=100, layers=(10, 20, 30, 40))


def make_store(
    folder: Path, settings: RunConfig, space: Space | None = None, *, questions: int = 20
) -> Store:
    manifest, _ = manifest_of(
        settings,
        SyntheticEvaluator(spec(questions=questions)).catalogue(),
        space or settings.space(4),
        book=read_book(settings),
        checkpoints={},
        dry_run=True,
    )
    return Store.create(str(folder / "study.db"), replace(manifest, sizes=SIZES))


def drive(
    store: Store, settings: RunConfig, pool: Pool | None = None, **changes: object
) -> NotingMonitor:
    seen = NotingMonitor()
    store.lock.acquire()
    try:
        pool = pool or SerialPool(partial(SyntheticEvaluator, spec(**changes)))
        Session(store, settings, pool=pool, monitor=seen).run()
    finally:
        store.lock.release()
    return seen


@pytest.mark.parametrize(
    "sampler", ["auto", "surrogate", "tpe", "random", "cmaes", "gp", "nsga2", "qmc"]
)
def test_every_sampler_spends_the_budget_on_distinct_recipes(tmp_path: Path, sampler: str) -> None:
    settings = config(24, sampler)
    store = make_store(tmp_path, settings)
    drive(store, settings)
    records = store.records()
    assert len({record.recipe.key for record in records}) == len(records) == 24
    for record in records:
        assert record.evaluations[Split.SEARCH].state is State.COMPLETE
        assert record.evaluations[Split.SEARCH].attempts == 1
    told = {trial.number: trial.value for trial in store.study.trials}
    for record in records:
        if record.trial is not None:
            assert told[record.trial] == record.evaluations[Split.SEARCH].value
    assert not [t for t in store.study.trials if t.state is TrialState.RUNNING]
    store.close()


def test_seeds_come_first(tmp_path: Path) -> None:
    settings = config(12)
    store = make_store(tmp_path, settings)
    drive(store, settings)
    origins = [record.origin for record in store.records()]
    assert origins[:5] == ["parent a", "parent b", "parent c", "plain average", "base"]
    assert len([origin for origin in origins if origin != "tpe"]) >= 7
    store.close()


def test_seeds_none_leaves_the_baselines(tmp_path: Path) -> None:
    settings = config(9).replaced({"search.seeds": "none"})
    store = make_store(tmp_path, settings)
    drive(store, settings)
    origins = [record.origin for record in store.records()]
    assert origins[4:] == ["base", *["tpe"] * 4]
    store.close()


def test_the_search_finds_better_than_the_seeds(tmp_path: Path) -> None:
    settings = config(60)
    store = make_store(tmp_path, settings)
    drive(store, settings)
    best_seed = max(r.evaluations[Split.SEARCH].value for r in store.records() if r.origin != "tpe")
    best = max(r.evaluations[Split.SEARCH].value for r in store.records())
    assert best > best_seed
    store.close()


def test_held_out_is_asked_of_the_best_and_the_baselines_only(tmp_path: Path) -> None:
    settings = config(20)
    store = make_store(tmp_path, settings)
    drive(store, settings)
    asked = [record for record in store.records() if Split.HELD_OUT in record.evaluations]
    order = ranked(judged(store))
    known_good = [record.id for record in order if is_known_good(record.origin)]
    references = {0, 1, 2, 3, 4, *known_good[:3]}
    best = [record.id for record in order if record.id not in references][:3]
    assert order[0].id in {*references, *best}
    assert {record.id for record in asked} == {*references, *best}
    for record in asked:
        names = {outcome.question for outcome in store.outcomes(record.id, Split.HELD_OUT)}
        assert names == set(store.manifest.questions.held_out)
        searched = {outcome.question for outcome in store.outcomes(record.id, Split.SEARCH)}
        assert searched == set(store.manifest.questions.search)
    assert to_validate(store, top=3) == []
    store.close()


def test_a_run_whose_first_candidates_all_fail_alike_ends(tmp_path: Path) -> None:
    settings = config(200, "random")
    store = make_store(tmp_path, settings)
    with pytest.raises(
        RunFailed, match=r"the first 10 candidates all failed the same way \(task\)"
    ):
        drive(store, settings, fail_rate=1.0, failure=FailureKind.TASK)
    assert len(store.records()) == 10
    store.close()


def test_failures_are_recorded_and_never_scores(tmp_path: Path) -> None:
    settings = config(30, "random")
    store = make_store(tmp_path, settings)
    drive(store, settings, fail_rate=0.5)
    failed = [r for r in store.records() if r.evaluations[Split.SEARCH].state is State.FAILED]
    assert 5 <= len(failed) <= 25
    states = {trial.number: trial.state for trial in store.study.trials}
    for record in failed:
        assert record.evaluations[Split.SEARCH].failure_kind is FailureKind.ERROR
        assert math.isnan(record.evaluations[Split.SEARCH].value)
        assert record.trial is None or states[record.trial] is TrialState.FAIL
    store.close()


def test_status_and_leaderboard_count_failures_by_kind(tmp_path: Path) -> None:
    settings = config(12, "random")
    store = make_store(tmp_path, settings)
    drive(store, settings, fail_rate=0.5, failure=FailureKind.OUT_OF_MEMORY)
    found = failures(store.records())
    assert set(found["kind"]) == {"out_of_memory"}
    assert found["quarantined"].all()
    screen = Console(file=StringIO(), width=120)
    show_status(store, settings, screen)
    text = screen.file.getvalue()
    assert f"{len(found)}: {len(found)} out_of_memory (quarantined)" in text
    store.close()


def test_a_run_without_any_score_says_why(tmp_path: Path) -> None:
    settings = config(6)
    store = make_store(tmp_path, settings)
    with pytest.raises(RunFailed, match="no candidate could be scored; most often: error: recipe"):
        drive(store, settings, fail_rate=1.0)
    store.close()


def test_a_space_with_few_recipes_ends_early(tmp_path: Path) -> None:
    text = CONFIG.replace("TRIALS", "50").replace("SAMPLER", "random")
    text = text.replace("{methods: [linear, ties, slerp]}", "{methods: [linear], weight: [1, 1]}")
    settings = RunConfig.from_text(text)
    store = make_store(tmp_path, settings)
    seen = drive(store, settings)
    assert "the space is exhausted" in " ".join(seen.notes)
    assert len(store.records()) < 50
    values = {r.recipe.key: r.evaluations[Split.SEARCH].value for r in store.records()}
    repeated = [t for t in store.study.trials if "candidate" in t.user_attrs]
    assert repeated
    for trial in repeated:
        assert trial.value in values.values()
    store.close()


def test_hours_end_a_run(tmp_path: Path) -> None:
    settings = config(500, "random").replaced({"search.hours": 2 / 3600})
    store = make_store(tmp_path, settings)
    drive(store, settings, seconds=0.05)
    assert 4 <= len(store.records()) <= 40
    store.close()


def test_a_larger_budget_goes_on(tmp_path: Path) -> None:
    settings = config(10)
    store = make_store(tmp_path, settings)
    drive(store, settings)
    first = store.records()
    drive(store, settings.replaced({"search.trials": 16}))
    assert len(store.records()) == 16
    for before, after in zip(first, store.records(), strict=False):
        assert before.evaluations[Split.SEARCH] == after.evaluations[Split.SEARCH]
    store.close()


@pytest.mark.parametrize(
    "sampler", ["surrogate", "tpe", "cmaes", "gp", "nsga2", "nsga3", "qmc", "random"]
)
def test_a_resumed_run_gives_the_same_trials(tmp_path: Path, sampler: str) -> None:
    keys = []
    for parts in ((24,), (11, 24)):
        folder = tmp_path / str(len(parts))
        folder.mkdir()
        settings = config(24, sampler).replaced({"search.validate": 1})
        store = make_store(folder, settings)
        for trials in parts:
            drive(store, settings.replaced({"search.trials": trials}))
        keys.append([record.recipe.key for record in store.records()])
        store.close()
    assert keys[0] == keys[1]


class Listening(Sampler):
    """A sampler that remembers what it was told."""

    def __init__(self, settings: RunConfig) -> None:
        super().__init__("surrogate", seed=1, space=settings.space(4))
        self.heard: dict[int, Sequence[Estimate]] = {}

    def learn(
        self, estimates: Mapping[int, Sequence[Estimate]], floors: Sequence[float] = ()
    ) -> None:
        self.heard = dict(estimates)
        super().learn(estimates, floors)


def test_the_sampler_hears_how_sure_each_score_is(tmp_path: Path) -> None:
    """As the results come in, and all over again by the books of a resumed run."""
    settings = config(9)
    store = make_store(tmp_path, settings)
    store.hold()
    space, evaluator = settings.space(4), SyntheticEvaluator(spec(fail_rate=0.2))
    live, later = Listening(settings), Listening(settings)
    ledger = AskTell(store, space, sampler=live, seeds=seeds(space))
    for _ in range(9):
        candidate = ledger.next()
        ledger.finish(
            Result(candidate=candidate, outcome=evaluator.evaluate(candidate), worker="w")
        )
    ledger.next()
    AskTell(store, space, sampler=later, seeds=()).next()
    assert live.heard == later.heard
    scored = {
        record.trial: record.evaluations[Split.SEARCH].value
        for record in store.records()
        if record.evaluations[Split.SEARCH].state is State.COMPLETE and record.trial is not None
    }
    assert {number: pytest.approx(e.value) for number, (e,) in live.heard.items()} == scored
    assert all(0 < estimate.stderr < 0.1 for (estimate,) in live.heard.values())
    assert 4 <= len(scored) < 9
    store.close()


GROWING = """
base: ./base
models: {a: ./a, b: ./b, c: ./c}
tasks: [one, two]
held_out: 0.3
space: {methods: [linear, ties, slerp]}
search: {questions: 6240, sampler: surrogate, asking: growing, seed: 1}
workers: {ray: false}
"""


def growing(tmp_path: Path, **changes: object) -> tuple[RunConfig, Store]:
    settings = RunConfig.from_text(GROWING).replaced(
        {f"search.{key}": value for key, value in changes.items()}
    )
    return settings, make_store(tmp_path, settings, questions=300)


def test_a_budget_of_questions_is_kept_with_the_final_check(tmp_path: Path) -> None:
    settings, store = growing(tmp_path)
    drive(store, settings, questions=300)
    records = judged(store)
    asked = sum(e.questions for r in records for e in r.evaluations.values())
    final = sum(r.evaluations[Split.HELD_OUT].questions for r in records
                if Split.HELD_OUT in r.evaluations)  # fmt: skip
    assert 0.75 * 6240 < asked <= 6240
    assert final >= 9 * 180  # three winners and known-good ones, three parents, average, base
    for record in ranked(records)[:3]:
        assert record.evaluations[Split.SEARCH].questions == 420
        assert Split.HELD_OUT in record.evaluations
    others = [r for r in records if r.evaluations[Split.SEARCH].questions < 420]
    assert len(others) > 25
    assert all(len(record.planned) == 60 for record in records)
    store.close()


def test_verdicts_on_the_same_held_out_answers_are_counted(tmp_path: Path) -> None:
    settings = config(12, "random")
    store = make_store(tmp_path, settings, questions=60)
    drive(store, settings, questions=60)
    assert looks(store) == 1
    first = judge_run(store, judged(store))
    assert first is not None
    assert not any("same held-out questions" in note for note in first.notes)
    drive(store, settings, questions=60)  # nothing new: the verdict is the same
    assert looks(store) == 1
    more = settings.replaced({"search.trials": 40})
    drive(store, more, questions=60)
    assert looks(store) == 2
    second = judge_run(store, judged(store))
    assert second is not None
    (note,) = (note for note in second.notes if "same held-out questions" in note)
    assert note.startswith("This is verdict 2 on the same held-out questions")
    parents = second.finalists[0].parents
    assert parents is not None
    assert f"{p_words(min(1.0, 2 * parents.p_value))} against the parents" in note
    store.close()


def test_candidates_behind_are_stopped_and_leaders_asked_on(tmp_path: Path) -> None:
    settings, store = growing(tmp_path, questions=22_000, sampler="random")
    drive(store, settings, questions=300)
    records = judged(store)
    stopped = [r for r in records if r.evaluations[Split.SEARCH].questions < len(r.planned)]
    promoted = [r for r in records if r.evaluations[Split.SEARCH].questions > len(r.planned)]
    scores = {r.id: r.posterior.value for r in records if r.posterior}
    best, usual = max(scores.values()), sorted(scores.values())[len(scores) // 2]
    assert len(stopped) > 5
    assert all(scores[record.id] < best for record in stopped)
    assert sorted(scores[r.id] for r in promoted)[len(promoted) // 2] > usual
    told = {t.number: t.state for t in store.study.trials}
    assert all(told[r.trial] is TrialState.COMPLETE for r in records if r.trial is not None)
    store.close()


def test_held_out_answers_change_nothing_before_the_final_check(tmp_path: Path) -> None:
    """With every held-out answer turned round the search asks the same of the same recipes."""
    runs = []
    for name in ("as_is", "turned"):
        (tmp_path / name).mkdir()
        settings, store = growing(tmp_path / name, questions=7240)
        held_out = store.manifest.questions.held_out if name == "turned" else ()
        evaluator = Turned(spec(questions=300), turned=held_out)
        drive(store, settings, SerialPool(lambda evaluator=evaluator: evaluator))
        runs.append(
            [
                (r.recipe.key, r.planned, r.posterior, r.evaluations[Split.SEARCH].value)
                for r in judged(store)
            ]
        )
        store.close()
    assert len(runs[0]) > 40
    assert runs[0] == runs[1]


class Turned(SyntheticEvaluator):
    """Right for wrong on some questions."""

    def __init__(self, landscape: SyntheticSpec, *, turned: Collection[str]) -> None:
        super().__init__(landscape)
        self._turned = frozenset(turned)

    def evaluate(self, candidate: Candidate) -> Score | Failure:
        found = super().evaluate(candidate)
        assert isinstance(found, Score)
        outcomes = tuple(
            replace(item, value=1.0 - item.value) if item.question in self._turned else item
            for item in found.outcomes
        )
        return replace(found, outcomes=outcomes)


def test_other_weights_under_the_same_recipe_are_a_failure(tmp_path: Path) -> None:
    settings, store = growing(tmp_path)
    store.hold()
    space = settings.space(4)
    ledger = AskTell(
        store, space, sampler=Sampler("random", seed=1), seeds=(), all_at_once=False
    )  # fmt: skip
    evaluator = SyntheticEvaluator(spec(questions=300))
    candidate = ledger.next()
    outcome = evaluator.evaluate(candidate)
    ledger.finish(Result(candidate=candidate, outcome=outcome, worker="w"))
    again = ledger.complete(candidate.id)
    outcome = replace(evaluator.evaluate(again), fingerprint="0" * 32)
    ledger.finish(Result(candidate=again, outcome=outcome, worker="w"))
    (record,) = store.records()
    assert record.evaluations[Split.SEARCH].state is State.FAILED
    assert "other weights" in record.evaluations[Split.SEARCH].failure_message
    assert ledger._candidates.leader() is None
    store.close()


def start(
    store: Store, questions: int = 20, *, still_from: int = 1_000_000
) -> multiprocessing.process.BaseProcess:
    """A driver that evaluates candidates up to one of which it never comes back."""
    asked = spec(questions=questions, seconds=0.02)
    driver = FORKED.Process(target=drive_until, args=(store.name, asked, still_from))
    driver.start()
    return driver


def ended(driver: multiprocessing.process.BaseProcess) -> int | None:
    driver.join()
    return driver.exitcode


@pytest.mark.slow
@pytest.mark.parametrize("after", [3, 9, 21])
def test_nothing_is_lost_or_done_twice_after_sigkill(tmp_path: Path, after: int) -> None:
    settings = config(30, "random")
    store = make_store(tmp_path, settings)
    driver = start(store, still_from=after + 5)
    while len(store.records()) < after:
        assert driver.exitcode is None
        time.sleep(0.01)
    driver.kill()
    driver.join()
    before = {
        r.id: r for r in store.records() if r.evaluations[Split.SEARCH].state is State.COMPLETE
    }
    assert len(before) < 30
    assert ended(start(store)) == 0
    records = store.records()
    assert len({r.recipe.key for r in records}) == len(records) == 30
    for record in records:
        evaluation = record.evaluations[Split.SEARCH]
        assert evaluation.state is State.COMPLETE
        if record.id in before:
            assert evaluation == before[record.id].evaluations[Split.SEARCH]
            assert evaluation.attempts == 1
    assert sum(r.evaluations[Split.SEARCH].attempts for r in records) <= 31
    assert not [t for t in store.study.trials if t.state is TrialState.RUNNING]
    store.close()


@pytest.mark.slow
def test_a_race_goes_on_after_sigkill(tmp_path: Path) -> None:
    """Nothing that was answered is asked again, and blocks, order and budget are the same."""
    (tmp_path / "through").mkdir()
    (tmp_path / "killed").mkdir()
    _, through = growing(tmp_path / "through", questions=11_000, sampler="random")
    assert ended(start(through, 300)) == 0
    _, store = growing(tmp_path / "killed", questions=11_000, sampler="random")
    for after in (20, 70, 90):
        driver = start(store, 300, still_from=after + 5)
        while len(store.records()) < after:
            assert driver.exitcode is None
            time.sleep(0.01)
        driver.kill()
        driver.join()
    assert ended(start(store, 300)) == 0
    for one, other in zip(through.records(), store.records(), strict=True):
        assert (one.recipe.key, one.planned) == (other.recipe.key, other.planned)
        ours, theirs = (record.evaluations[Split.SEARCH] for record in (one, other))
        assert (ours.value, ours.questions) == (theirs.value, theirs.questions)
    answers = [(number, at) for number, asked, _ in store.answers(Split.SEARCH) for at in asked]
    assert len(set(answers)) == len(answers)
    through.close()
    store.close()


@pytest.mark.slow
def test_sigterm_stops_softly(tmp_path: Path) -> None:
    settings = config(500, "random")
    store = make_store(tmp_path, settings)
    driver = start(store)
    while len(store.records()) < 3:
        time.sleep(0.01)
    driver.terminate()
    assert ended(driver) == 0
    for record in store.records():  # the signal may have come before the newest was begun with
        evaluation = record.evaluations[Split.SEARCH]
        assert evaluation.state is State.COMPLETE or evaluation.attempts == 0
    assert store.lock.holder() is None
    store.close()


def test_what_a_soft_stop_left_unbegun_is_handed_out_by_resume(tmp_path: Path) -> None:
    class Interrupted(SerialPool):
        """The signal comes between handing a candidate out and beginning with it."""

        submitted = 0

        def submit(self, candidate: Candidate, *, near: str = "", keep: bool = False) -> None:
            super().submit(candidate, near=near, keep=keep)
            self.submitted += 1
            if self.submitted == 4:
                os.kill(os.getpid(), signal.SIGTERM)

    settings = config(6, "random")
    store = make_store(tmp_path, settings)
    drive(store, settings, Interrupted(partial(SyntheticEvaluator, spec())))
    *done, last = (record.evaluations[Split.SEARCH] for record in store.records())
    assert [(one.state, one.attempts) for one in done] == [(State.COMPLETE, 1)] * 3
    assert (last.state, last.attempts) == (State.RUNNING, 0)
    drive(store, settings)
    found = [record.evaluations[Split.SEARCH] for record in store.records()]
    assert [(one.state, one.attempts) for one in found] == [(State.COMPLETE, 1)] * 6
    store.close()


def test_recovery_of_every_moment_of_a_crash(tmp_path: Path) -> None:
    """Between asking and taking up, between committing and telling, and while it is under way."""
    settings = config(10, "random")
    store = make_store(tmp_path, settings)
    drive(store, settings.replaced({"search.trials": 6, "search.validate": 1}))
    store.lock.acquire()
    asked = store.study.ask()  # died before the recipe became a candidate
    ledger = AskTell(store, settings.space(4), sampler=Sampler("random", seed=9), seeds=())
    committed, running, ready = ledger.next(), ledger.next(), ledger.next()
    store.began([committed.id, running.id])
    outcome = SyntheticEvaluator(spec()).evaluate(committed)
    store.finish(committed.id, Split.SEARCH, outcome, worker="w")  # died before telling
    store.lock.release()
    drive(store, settings)
    records = store.records()
    assert len(records) == 10
    trials = {trial.number: trial for trial in store.study.trials}
    assert asked.number in [record.trial for record in records]
    assert {trial.state for trial in trials.values()} == {TrialState.COMPLETE}
    assert trials[records[committed.id].trial].value == outcome.value
    assert records[committed.id].evaluations[Split.SEARCH].attempts == 1
    assert records[running.id].evaluations[Split.SEARCH].attempts == 2
    assert records[ready.id].evaluations[Split.SEARCH].attempts == 1
    assert records[running.id].evaluations[Split.SEARCH].state is State.COMPLETE
    store.close()


def copies_at_every_moment(store: Store, settings: RunConfig, **changes: object) -> list[Path]:
    """Run a study to its end; what was on disk before each of its transactions, in order."""
    found: list[Path] = []

    def copy(_: sa.Connection) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # signs of life come at any time, and belong to no moment of the run
        path = Path(store.name).with_name(f"moment-{len(found)}.db")
        with closing(sqlite3.connect(store.name)) as here, closing(sqlite3.connect(path)) as there:
            here.backup(there)
            there.execute("DELETE FROM merge_search_lock")  # its holder lives on, in the test
            there.commit()
        found.append(path)

    sa.event.listen(sa.engine.Engine, "commit", copy)
    try:
        drive(store, settings, **changes)
    finally:
        sa.event.remove(sa.engine.Engine, "commit", copy)
    return found


def asked_and_answered(store: Store) -> list[object]:
    return [
        (record.recipe.key, record.planned, split, evaluation.questions, evaluation.value)
        for record in store.records()
        for split, evaluation in record.evaluations.items()
    ]


def asks_on(tmp_path: Path, *, trials: int, races: bool) -> tuple[RunConfig, Store]:
    """A study in which leaders are asked on, and finalists of whom others turn out to be better.

    With ``races`` candidates are stopped as well.
    """
    settings = config(trials, "random").replaced(
        {"search.asking": "growing", "search.validate": 2, "search.seed": 3 if races else 7}
    )
    return settings, make_store(tmp_path, settings, questions=120)


def test_a_final_check_that_dies_asks_what_it_would_have_asked(tmp_path: Path) -> None:
    settings, store = asks_on(tmp_path, trials=14, races=False)
    moments = copies_at_every_moment(store, settings, questions=120)
    expected = asked_and_answered(store)
    store.close()
    for moment in moments[-28::3]:
        resumed = Store.open(str(moment))
        drive(resumed, settings, questions=120)
        assert asked_and_answered(resumed) == expected, moment
        resumed.close()


@pytest.mark.slow
@pytest.mark.parametrize(("trials", "races"), [(14, False), (12, True)])
def test_however_often_a_run_dies_it_asks_what_it_would_have_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trials: int, races: bool
) -> None:
    """Drivers are killed as they commit, each one further on in the run."""
    sizes = {"FIRST": 20, "SHARED": 20} if races else {}  # looks within the blocks of a short run
    for name, size in sizes.items():
        monkeypatch.setattr(racing, name, size)
    for name in ("through", "killed"):
        (tmp_path / name).mkdir()
    settings, through = asks_on(tmp_path / "through", trials=trials, races=races)
    drive(through, settings, questions=120)
    expected = asked_and_answered(through)
    asked = [record.evaluations[Split.SEARCH].questions for record in through.records()]
    assert any(60 < size < 168 for size in asked)  # asked on before the check
    assert any(size < 60 for size in asked) == races
    _, store = asks_on(tmp_path / "killed", trials=trials, races=races)
    moments, ends = random.Random(trials), list[int | None]()
    while not ends or ends[-1]:
        commits = moments.randrange(1, 30)
        driver = FORKED.Process(
            target=drive_and_die, args=(store.name, spec(questions=120), commits, sizes)
        )
        driver.start()
        ends.append(ended(driver))
    assert set(ends) == {0, -signal.SIGKILL}
    assert len(ends) > 8
    assert asked_and_answered(store) == expected
    through.close()
    store.close()


def test_what_failed_counts_in_the_budget_before_and_after_a_crash(tmp_path: Path) -> None:
    """Also a candidate of which a part failed, and another part was answered."""
    settings, store = growing(tmp_path, questions=3300, sampler="random", validate=1)
    spoilt = {"questions": 300, "fail_rate": 0.3}
    moments = copies_at_every_moment(store, settings, **spoilt)
    expected = asked_and_answered(store)
    search = [record.evaluations[Split.SEARCH] for record in store.records()]
    assert sum(evaluation.state is State.FAILED for evaluation in search) >= 5
    store.close()
    for moment in moments[len(moments) // 3 :: len(moments) // 7]:
        resumed = Store.open(str(moment))
        drive(resumed, settings, **spoilt)
        assert asked_and_answered(resumed) == expected, moment
        resumed.close()


def test_a_space_that_was_exhausted_stays_so_after_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither new recipes are looked for again, nor is asked on who leads by then."""
    monkeypatch.setattr(ledger, "MAX_REPEATS", 8)
    space = "{methods: [linear], weight: [1, 1]}"
    text = GROWING.replace("{methods: [linear, ties, slerp]}", space)
    text = text.replace("surrogate", "random").replace("seed: 1", "seed: 5")
    settings = RunConfig.from_text(text)
    store = make_store(tmp_path, settings, questions=300)
    moments = copies_at_every_moment(store, settings, questions=300)
    expected = asked_and_answered(store)
    assert len(store.records()) == 5
    store.close()
    for moment in moments[-30::5]:
        resumed = Store.open(str(moment))
        drive(resumed, settings, questions=300)
        assert asked_and_answered(resumed) == expected, moment
        resumed.close()
    resumed = Store.open(str(moments[-1]))
    drive(resumed, settings.replaced({"search.trials": 50}), questions=300)
    assert len(resumed.records()) > 5  # with another budget it is
    resumed.close()


PARETO = GROWING.replace("sampler: surrogate", "objective: pareto, validate: 1")


def pareto(folder: Path, *, held_out: float = 0.3, **changes: object) -> tuple[RunConfig, Store]:
    settings = RunConfig.from_text(PARETO).replaced(
        {"held_out": held_out} | {f"search.{key}": value for key, value in changes.items()}
    )
    return settings, make_store(folder, settings, questions=300)


def test_a_search_for_a_front_promotes_it_and_checks_the_best_of_each_task(tmp_path: Path) -> None:
    settings, store = pareto(tmp_path, questions=5000)
    drive(store, settings, questions=300)
    records = judged(store)
    front = [record for record in records if record.id in fronts(records)]
    best = [max(front, key=lambda r: r.objectives[task].value) for task in ("one", "two")]
    assert ranked(records)[0] in front
    for record in (*best, ranked(records)[0]):
        assert record.evaluations[Split.HELD_OUT].questions == 180
    assert sum(r.evaluations[Split.SEARCH].questions == 420 for r in records) >= 2
    ended = [r for r in records if r.evaluations[Split.SEARCH].state is State.COMPLETE]
    assert all(r.evaluations[Split.SEARCH].questions >= len(r.planned) for r in ended)  # no racing
    assert any(r.evaluations[Split.SEARCH].questions > len(r.planned) for r in ended)
    assert all(len(trial.values) == 2 for trial in store.study.trials if trial.values)
    store.close()


@pytest.mark.parametrize("sampler", ["auto", "tpe", "nsga2", "nsga3", "random", "qmc", "gp"])
def test_every_sampler_but_cmaes_searches_for_fronts(tmp_path: Path, sampler: str) -> None:
    settings, store = pareto(tmp_path, trials=18, questions=None, sampler=sampler, asking="all")
    drive(store, settings, questions=300)
    for record in store.records():
        assert record.evaluations[Split.SEARCH].state is State.COMPLETE
        if record.trial is not None:
            told = store.study.trials[record.trial].values
            scores = [score.value for score in record.evaluations[Split.SEARCH].tasks]
            assert told == pytest.approx(scores)
    assert len(store.records()) == 18
    store.close()


@pytest.mark.parametrize(("objective", "sampler"), [("sum", "random"), ("pareto", "surrogate")])
def test_measures_are_further_objectives(tmp_path: Path, objective: str, sampler: str) -> None:
    settings = RunConfig.from_text(PARETO).replaced(
        {
            "search.objective": objective,
            "search.sampler": sampler,
            "search.questions": 5000,
            "search.minimize": ["answer_length", "parameters"],
            "space.slices": {"max_slices": 2, "min_layers": 3},
        }
    )
    store = make_store(tmp_path, settings, questions=300)
    drive(store, settings, questions=300)
    records = [record for record in judged(store) if record.objectives]
    names = ("score",) if objective == "sum" else ("one", "two")
    whole = [r for r in records if r.evaluations[Split.SEARCH].questions == 420]
    assert whole
    for record in records:
        assert tuple(record.objectives) == (*names, "answer_length", "parameters")
        size = SIZES.of(record.recipe)
        assert record.measures["parameters"].value == size
        if record.trial is not None:
            told = store.study.trials[record.trial].values
            assert len(told) == len(names) + 2
            assert told[-1] == -size
    for record in whole:  # of all questions it is the plain mean, by what each was answered with
        lengths = [outcome.length for outcome in store.outcomes(record.id, Split.SEARCH)]
        assert record.measures["answer_length"].value == pytest.approx(np.mean(lengths))
    if sampler == "random":
        assert len({SIZES.of(record.recipe) for record in records}) > 2
        smallest = min(records, key=lambda record: SIZES.of(record.recipe))
        assert smallest.measures["parameters"].value < 200  # smaller than the parents
    frame = leaderboard(judged(store), store.manifest.catalogue.tasks)
    assert frame["parameters"].notna().sum() == len(records)
    assert frame["answer_length"].notna().sum() == len(records)
    assert 0 < frame["front"].sum() < len(records)
    written = write_report(make_report(store, settings), tmp_path, ["csv"])
    assert front_of(pd.read_csv(written[0])) == {r.id for r in records if r.id in fronts(records)}
    store.close()


def front_of(table: pd.DataFrame) -> set[int]:
    """The front by the columns of a leaderboard alone, as `docs/search.md` has the rule."""
    names = [str(name) for name in table if str(name).startswith("expected:")]
    names = [name for name in names if table[name].notna().any()]
    if all(name.split(":")[1] in MEASURES for name in names):
        names = ["expected", *names]
    rows = table[table[names].notna().all(axis=1)].sort_values("rank")
    values = rows[names].to_numpy()
    errors = rows[[name.replace("expected", "expected_stderr", 1) for name in names]].to_numpy()
    kept: list[int] = []
    for at, one in enumerate(values):
        better = (values >= one).all(axis=1) & (values > one).any(axis=1)
        lead = one - values[kept] > np.hypot(errors[at], errors[kept])
        if not better.any() and lead.any(axis=1).all():
            kept.append(at)
    return set(rows["candidate"].iloc[kept])


@pytest.mark.parametrize("asking", ["all", "growing"])
def test_a_resumed_search_for_a_front_gives_the_same_trials(tmp_path: Path, asking: str) -> None:
    keys = []
    for parts in ((18,), (13, 18)):
        folder = tmp_path / str(len(parts))
        folder.mkdir()
        # without held-out questions there is no final check in between, which asks the best on
        settings, store = pareto(folder, held_out=0, questions=None, trials=18, asking=asking)
        for trials in parts:
            drive(store, settings.replaced({"search.trials": trials}), questions=300)
        keys.append([record.recipe.key for record in store.records()])
        store.close()
    assert keys[0] == keys[1]
