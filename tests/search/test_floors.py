"""Floors in a whole run: sampler, racing, final choice, verdict and resume, on the fake evaluator.

Where ``one`` alone is searched for, the best recipes get about 0.8 of ``two`` right: a floor of 0.9
rules them out, and the best that keep it get about 0.93 of ``one``.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from evaluators.protocol import Candidate, Floor, Outcome, Score, TaskScore
from evaluators.synthetic_evaluator import SyntheticEvaluator, SyntheticSpec
from evaluators.workers.pool import Result, SerialPool
from runs.config.run_config import RunConfig
from runs.ranking.leaderboard import ranked
from runs.records.record import Estimate, Split
from runs.storage.store import Store
from search.engine.final_check import budget_problems
from search.engine.preparation.run_preparation import manifest_of
from search.engine.processes.worker_setup import fake_factory
from search.engine.session import Session
from search.engine.trials.ask_tell import AskTell
from search.engine.trials.question_schedule import QuestionSchedule
from search.engine.trials.seed_book import read_book
from search.monitoring.run_verdict import judge_run
from search.samplers.estimation.posterior import judged
from search.samplers.gp_sampler import _Direction, _Merit
from search.samplers.sampler_choice import Sampler
from spaces.sampling.seed_recipes import seeds
from tests.monitors import NotingMonitor

CONFIG = """
base: ./base
models: {a: ./a, b: ./b, c: ./c}
tasks:
  - one
  - {name: two, weight: 0, floor: FLOOR}
held_out: 0.3
space: {methods: [linear, task_arithmetic, ties]}
search: {trials: 20, sampler: surrogate, seed: 1}
workers: {ray: false}
"""


def settings(floor: str = "0.9", **changes: object) -> RunConfig:
    config = RunConfig.from_text(CONFIG.replace("FLOOR", floor))
    return config.replaced({f"search.{key}": value for key, value in changes.items()})


def spec(config: RunConfig, *, questions: int = 100) -> SyntheticSpec:
    made: SyntheticSpec = fake_factory(config).args[0]  # type: ignore[attr-defined]
    return replace(made, questions=questions)


def make(folder: Path, config: RunConfig, *, questions: int = 100) -> Store:
    manifest, _ = manifest_of(
        config, SyntheticEvaluator(spec(config, questions=questions)).catalogue(), config.space(4),
        book=read_book(config), checkpoints={}, dry_run=True,
    )  # fmt: skip
    folder.mkdir(exist_ok=True)
    return Store.create(str(folder / "study.db"), manifest)


def drive(store: Store, config: RunConfig, *, questions: int = 100) -> None:
    store.hold()
    try:
        pool = SerialPool(partial(SyntheticEvaluator, spec(config, questions=questions)))
        Session(store, config, pool=pool, monitor=NotingMonitor()).run()
    finally:
        store.lock.release()


def searched(store: Store) -> list[tuple[float, float]]:
    """What each recipe got in the two tasks on the search questions."""
    found = []
    for record in store.records():
        values = {one.task: one.value for one in record.evaluations[Split.SEARCH].tasks}
        found.append((values["one"], values["two"]))
    return found


def test_the_sampler_finds_the_best_recipe_that_keeps_the_floor(tmp_path: Path) -> None:
    kept: dict[str, list[float]] = {}
    for floor in ("0.9", "0.0"):
        config = settings(floor, trials=40)
        store = make(tmp_path / floor, config)
        drive(store, config)
        kept[floor] = sorted(one for one, two in searched(store) if two >= 0.9)
        winner = ranked(judged(store))[0]
        values = {one.task: one.value for one in winner.evaluations[Split.SEARCH].tasks}
        if floor == "0.9":
            assert values["two"] >= 0.87  # what is expected of it is not below the floor
            assert winner.shortfall == 0.0
        else:
            assert values["two"] < 0.9  # without the floor another one wins
        store.close()
    assert len(kept["0.9"]) > 2 * len(kept["0.0"])
    assert kept["0.9"][-1] >= 0.9


def test_the_best_parent_moves_the_floor(tmp_path: Path) -> None:
    config = settings("{below_best_parent: 0.02}", trials=12)
    store = make(tmp_path, config)
    drive(store, config)
    records = judged(store)
    parents = [r for r in records if r.origin.startswith("parent ")]
    margins = sorted(r.margins["two"].value for r in parents)
    assert margins[-1] == pytest.approx(0.02)  # the best parent keeps it by what it may lose
    assert margins[0] < 0
    best = max(parents, key=lambda r: r.margins["two"].value)
    assert best.origin == "parent b"
    assert best.shortfall == 0.0
    verdict = judge_run(store, records)
    assert verdict is not None
    (floor,) = verdict.floors
    assert "parent 'b'" in floor.floor
    assert f"floor of 'two' {floor.kept}" in verdict.sentence
    store.close()


@pytest.mark.parametrize("sampler", ["surrogate", "tpe", "gp", "nsga2", "nsga3"])
def test_optuna_knows_of_the_floors(tmp_path: Path, sampler: str) -> None:
    config = settings(trials=16, sampler=sampler)
    store = make(tmp_path, config)
    drive(store, config)
    two = dict(enumerate(searched(store)))
    trials = {trial.number: trial for trial in store.study.trials}
    inside = [record for record in store.records() if record.trial is not None]
    assert len(inside) >= 12
    for record in inside:
        missing = trials[record.trial].constraints["two"]
        assert missing == pytest.approx(0.9 - two[record.id][1])
    store.close()


def test_samplers_that_know_no_floors_leave_them_to_the_ranking(tmp_path: Path) -> None:
    config = settings(trials=16, sampler="cmaes")
    store = make(tmp_path, config)
    drive(store, config)
    assert not any(trial.constraints for trial in store.study.trials)
    order = [record.shortfall for record in ranked(judged(store))]
    assert order == sorted(order)
    assert order[0] < order[-1]
    store.close()


@pytest.mark.parametrize("floor", ["0.9", "{below_best_parent: 0.02}"])
@pytest.mark.parametrize("sampler", ["surrogate", "tpe"])
def test_a_resumed_run_goes_on_with_its_floors(tmp_path: Path, sampler: str, floor: str) -> None:
    keys = []
    for parts in ((20,), (11, 20)):
        config = settings(floor, sampler=sampler, validate=1)
        store = make(tmp_path / str(len(parts)), config)
        for trials in parts:
            drive(store, config.replaced({"search.trials": trials}))
            store = reopened(store)
        keys.append([record.recipe.key for record in store.records()])
        assert store.manifest.catalogue.tasks[1].floor == config.harness_spec().tasks[1].floor
        store.close()
    assert keys[0] == keys[1]


def reopened(store: Store) -> Store:
    name = store.name
    store.close()
    return Store.open(name)


def test_with_pareto_the_front_is_of_those_that_keep_the_floor(tmp_path: Path) -> None:
    text = CONFIG.replace("weight: 0, floor: FLOOR", "floor: 0.9")
    text = text.replace("trials: 20,", "trials: 30, objective: pareto,")
    config = RunConfig.from_text(text)
    store = make(tmp_path, config)
    drive(store, config)
    records = judged(store)
    first = ranked(records)[0]
    assert first.shortfall == 0.0
    assert first.objectives.keys() == {"one", "two"}
    store.close()


def test_a_kept_task_is_no_objective(tmp_path: Path) -> None:
    text = CONFIG.replace("  - one\n", "  - one\n  - three\n").replace("FLOOR", "0.9")
    config = RunConfig.from_text(text.replace("trials: 20,", "trials: 20, objective: pareto,"))
    store = make(tmp_path, config)
    assert store.manifest.objectives == ("one", "three")
    drive(store, config)
    assert {tuple(record.objectives) for record in judged(store)} == {("one", "three")}
    store.close()


class Scripted:
    """Answers shares of each task's questions right, as it is told by candidate."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._position = {q.id: q.position for q in store.manifest.catalogue.questions}

    def __call__(self, candidate: Candidate, *, one: float, two: float) -> Result:
        shares, outcomes = {"one": one, "two": two}, []
        for name in candidate.questions:
            task = name.partition("/")[0]
            luck = (self._position[name] * 0.6180339887) % 1.0
            outcomes.append(Outcome(question=name, value=float(luck < shares[task])))
        tasks = [
            TaskScore(task=task, value=float(np.mean(values)), stderr=0.05, n=len(values))
            for task in shares
            if (values := [o.value for o in outcomes if o.question.startswith(f"{task}/")])
        ]
        scored = Score.of(
            self._store.manifest.catalogue.tasks, tasks, outcomes=tuple(outcomes),
            fingerprint=f"f{candidate.id}", build_seconds=0.0, score_seconds=0.0,
        )  # fmt: skip
        return Result(candidate=candidate, outcome=scored, worker="w")


def raced(
    tmp_path: Path, floor: str, leader: tuple[float, float], other: tuple[float, float]
) -> int:
    """How many of its block's questions a recipe is asked after a leader was asked all of its."""
    config = settings(floor, trials=None, questions=40_000, asking="growing", seeds="none")
    store = make(tmp_path, config, questions=400)
    store.hold()
    answer, space = Scripted(store), config.space(4)
    ledger = AskTell(
        store, space, sampler=Sampler("random", seed=1, space=space), seeds=seeds(space)[:3],
        all_at_once=False,
    )  # fmt: skip
    ledger.asked, ledger.promoted = 200_000, 200_000
    ledger._schedule.resume([], asked=200_000)  # large blocks: there is something to save
    shares = [(0.2, 0.2), (0.2, 0.5), (0.2, 0.2), leader, other]  # three parents first
    asked = []
    for one, two in shares:
        candidate, count = ledger.next(), 0
        while candidate is not None:
            count += len(candidate.questions)
            candidate = ledger.finish(answer(candidate, one=one, two=two))
        asked.append(count)
    planned = [len(record.planned) for record in store.records()]
    if "below" in floor:
        assert asked[:3] == planned[:3]  # parents decide where the floor lies
    store.close()
    assert asked[3] == planned[3]
    return planned[4] - asked[4]


MOVING = "{below_best_parent: 0.02}"


@pytest.mark.parametrize(
    ("floor", "leader", "other", "stopped"),
    [
        ("0.6", (0.6, 0.9), (0.9, 0.9), False),  # ahead
        ("0.6", (0.6, 0.9), (0.2, 0.9), True),  # behind one that keeps the floor
        ("0.6", (0.6, 0.9), (0.9, 0.1), True),  # ahead, but far below the floor
        ("0.6", (0.9, 0.1), (0.2, 0.9), False),  # the best that keeps the floor
        ("0.6", (0.9, 0.1), (0.6, 0.1), False),  # nobody keeps it: who is nearest is not known
        (MOVING, (0.6, 0.9), (0.9, 0.9), False),
        (MOVING, (0.6, 0.9), (0.2, 0.9), True),
        (MOVING, (0.6, 0.9), (0.9, 0.1), True),
        (MOVING, (0.6, 0.9), (0.9, 0.5), False),  # as good as the best parent
    ],
)
def test_racing_stops_only_what_cannot_be_the_best_that_keeps_the_floor(
    tmp_path: Path,
    floor: str,
    leader: tuple[float, float],
    other: tuple[float, float],
    stopped: bool,
) -> None:
    assert (raced(tmp_path, floor, leader, other) > 0) == stopped


def test_blocks_hold_the_task_to_keep(tmp_path: Path) -> None:
    config = settings()
    store = make(tmp_path, config, questions=400)
    questions = store.manifest.questions.search
    block = QuestionSchedule(store.manifest.catalogue, questions, all_at_once=False).block()
    count = sum(name.startswith("two/") for name in block)
    assert count == len(block) - count
    store.close()


def test_the_final_check_keeps_questions_for_parents_that_floors_depend_on(tmp_path: Path) -> None:
    needed = []
    for floor in ("0.9", "{below_best_parent: 0.02}"):
        config = settings(floor, trials=None, questions=1, asking="growing")
        store = make(tmp_path / floor[:3], settings(floor), questions=100)
        (problem,) = budget_problems(config, store.manifest.questions, seeds=0, objectives=())
        needed.append(int(problem.split("of which ")[1].split()[0]))
        store.close()
    assert needed[1] - needed[0] == 140  # one parent, all search questions


def test_growing_runs_ask_the_best_parent_everything(tmp_path: Path) -> None:
    config = settings("{below_best_parent: 0.02}", trials=None, questions=6000, asking="growing")
    store = make(tmp_path, config, questions=200)
    drive(store, config, questions=200)
    records = judged(store)
    parents = [r for r in records if r.origin.startswith("parent ")]
    best = max(parents, key=lambda r: r.margins["two"].value)
    assert best.evaluations[Split.SEARCH].questions == len(store.manifest.questions.search)
    assert ranked(records)[0].shortfall == 0.0
    store.close()


def test_chances_multiply_what_is_above_the_best_that_keeps_the_floor() -> None:
    direction = _Direction(reference=np.array([0.5]), scale=np.array([1.0]))
    merit = _Merit(direction=direction, floors=np.array([0.8]), kept=True)
    mean = np.array([[0.9, 0.8], [0.9, 0.99], [0.4, 0.99]])
    deviation = np.array([[1e-9, 0.1], [1e-9, 0.01], [1e-9, 0.1]])
    assert merit.of(mean, deviation) == pytest.approx([0.2, 0.4, -0.1])
    assert (merit.at_most(mean, deviation) >= merit.of(mean, deviation) - 1e-12).all()
    larger = merit.at_most(mean, 2 * deviation)
    assert (larger >= merit.of(mean, deviation) - 1e-12).all()
    searching = replace(merit, kept=False)  # nobody keeps it yet: the chance alone
    assert searching.of(mean, deviation) == pytest.approx([0.5, 1.0, 0.971], abs=1e-3)


def test_a_history_without_floors_is_judged_as_ever() -> None:
    means = np.array([[0.3], [0.5], [0.4]])
    merit = _Merit.random(means, np.zeros(0), np.random.default_rng(0))
    assert merit.order(means).tolist() == [1, 2, 0]
    options, spread = np.array([[0.2], [0.6]]), np.array([[0.1], [0.1]])
    assert merit.of(options, spread) == pytest.approx(merit.direction.of(options + 1.5 * spread))


def test_the_sampler_takes_floors_without_estimates() -> None:
    config = settings()
    sampler = Sampler("surrogate", seed=1, space=config.space(4))
    sampler.learn({}, [0.9])
    sampler.learn({0: (Estimate(value=1.0, stderr=0.1), Estimate(value=0.5, stderr=0.1))}, [0.9])


def test_floors_are_kept_in_the_study(tmp_path: Path) -> None:
    for floor, found in (
        ("0.9", Floor(value=0.9)),
        ("{below_best_parent: 0.1}", Floor(below_best_parent=0.1)),
    ):
        store = make(tmp_path / str(found.value), settings(floor))
        again = reopened(store)
        assert [task.floor for task in again.manifest.catalogue.tasks] == [None, found]
        again.close()
