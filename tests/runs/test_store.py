"""study.db: what goes in comes out, and what is not a study is refused."""

import math
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from evaluators.base import (
    Catalogue,
    Failure,
    FailureKind,
    Outcome,
    Question,
    Score,
    TaskInfo,
    TaskScore,
)
from runs.lock import LockedError
from runs.manifest import FORMAT, Manifest
from runs.records import Split, State
from runs.split import divide
from runs.store import Store, StoreError
from spaces.recipe import Merge, Model, Recipe, Source, parameters


def recipe(weight: float) -> Recipe:
    sources = (
        Source(of=Model("a"), parameters=parameters(weight=1.0)),
        Source(of=Model("b"), parameters=parameters(weight=weight)),
    )
    return Recipe(root=Merge(method="linear", sources=sources))


def manifest() -> Manifest:
    catalogue = Catalogue(
        tasks=(TaskInfo(name="t", metric="acc,none", higher_is_better=True, weight=2.0),),
        questions=tuple(Question(id=f"t/{n}", task="t", position=n) for n in range(10)),
    )
    return Manifest(
        config="base: x\n",
        space={"parents": ["a", "b"]},
        inputs={"a": "1" * 16},
        inputs_dtype="bfloat16",
        catalogue=catalogue,
        questions=divide(catalogue, 0.3, seed=0),
        versions={"torch": "2"},
        created="2026-01-01T00:00:00+00:00",
    )


def score(names: tuple[str, ...]) -> Score:
    return Score(
        value=0.1 + 0.2,
        stderr=0.05,
        tasks=(TaskScore(task="t", value=0.1 + 0.2, stderr=math.nan, n=len(names)),),
        outcomes=tuple(Outcome(question=name, value=1 / 3) for name in names),
        fingerprint="f" * 32,
        build_seconds=0.5,
        score_seconds=1.5,
    )


@pytest.fixture
def store(tmp_path: Path):
    made = Store.create(str(tmp_path / "study.db"), manifest())
    yield made
    made.close()


def test_the_manifest_comes_back(store: Store) -> None:
    assert Store.open(store.name).manifest == manifest()


def test_a_score_comes_back_exactly(store: Store) -> None:
    number = store.add(recipe(0.25), origin="parent a", trial=7)
    names = store.manifest.questions.search
    store.finish(number, Split.SEARCH, score(names), worker="node/1")
    (record,) = Store.open(store.name).records()
    evaluation = record.evaluations[Split.SEARCH]
    assert (record.recipe, record.origin, record.trial) == (recipe(0.25), "parent a", 7)
    assert evaluation.state is State.COMPLETE
    assert evaluation.value == 0.1 + 0.2
    assert evaluation.tasks[0].value == 0.1 + 0.2
    assert math.isnan(evaluation.tasks[0].stderr)
    assert store.outcomes(number, Split.SEARCH) == score(names).outcomes
    assert store.outcomes(number, Split.HELD_OUT) == ()


def test_a_failure_comes_back(store: Store) -> None:
    number = store.add(recipe(0.5), origin="tpe", trial=None)
    failure = Failure(kind=FailureKind.TIMEOUT, message="took too long", detail="trace")
    store.finish(number, Split.SEARCH, failure, worker="w")
    evaluation = store.records()[0].evaluations[Split.SEARCH]
    assert evaluation.state is State.FAILED
    assert evaluation.failure_kind is FailureKind.TIMEOUT
    assert evaluation.failure_message == "took too long"
    assert math.isnan(evaluation.value)


def test_ids_count_up_and_recipes_are_distinct(store: Store) -> None:
    assert [store.add(recipe(w), origin="tpe", trial=None) for w in (0.1, 0.2, 0.3)] == [0, 1, 2]
    with pytest.raises(StoreError, match="UNIQUE"):
        store.add(recipe(0.1), origin="tpe", trial=None)
    assert len(store.records()) == 3


def test_attempts_are_counted(store: Store) -> None:
    number = store.add(recipe(0.1), origin="tpe", trial=None)
    store.begin(number, Split.SEARCH)
    store.begin(number, Split.HELD_OUT)
    evaluations = store.records()[0].evaluations
    assert evaluations[Split.SEARCH].attempts == 2
    assert evaluations[Split.HELD_OUT].attempts == 1
    assert evaluations[Split.HELD_OUT].questions == 3


def test_facts_can_change(store: Store) -> None:
    assert store.fact("seconds") is None
    store.set_fact("seconds", "1")
    store.set_fact("seconds", "2")
    assert Store.open(store.name).fact("seconds") == "2"


def test_create_keeps_what_is_there(store: Store) -> None:
    with pytest.raises(StoreError, match="search resume"):
        Store.create(store.name, manifest())
    assert Store.open(store.name).manifest == manifest()


def test_an_interrupted_create_is_not_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "study.db.new").write_bytes(b"half")
    Store.create(str(tmp_path / "study.db"), manifest()).close()
    assert [path.name for path in tmp_path.iterdir()] == ["study.db"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "another kind of file"),
        (b"not a database at all", "another kind of file"),
        (b"SQLite format 3\0" + b"\1" * 100, "expected a study made by `search run`"),
    ],
)
def test_what_is_not_a_study_is_refused(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "x.db"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StoreError, match=message):
        Store.open(str(path))
    assert (path.read_bytes() if path.exists() else None) == content


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("create table t (x)")
    with pytest.raises(StoreError, match="expected a study made by `search run`"):
        Store.open(str(path))


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"name the study\.db in it"):
        Store.open(str(tmp_path))


def test_another_format_is_refused(store: Store) -> None:
    with sqlite3.connect(store.name) as connection:
        connection.execute("update merge_search_run set value = '99' where key = 'format'")
    with pytest.raises(StoreError, match=f"expected a study of format {FORMAT}, got format 99"):
        Store.open(store.name)


def test_a_second_driver_is_refused(store: Store) -> None:
    store.lock.acquire()
    with pytest.raises(LockedError, match=f"process {os.getpid()}"):
        Store.open(store.name).lock.acquire()
    store.lock.beat()
    store.lock.release()
    other = Store.open(store.name)
    other.lock.acquire()
    with pytest.raises(LockedError, match="another driver"):
        store.lock.beat()
    other.close()


def test_the_lock_of_a_killed_driver_is_taken_over(store: Store) -> None:
    code = (
        "import os, sys; from runs.store import Store\n"
        "Store.open(sys.argv[1]).lock.acquire(); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, store.name], check=False)
    assert killed.returncode == -9
    assert store.lock.holder() is not None
    store.lock.acquire()
    assert store.lock.holder().pid == os.getpid()


def test_a_silent_holder_elsewhere_counts_as_dead_after_a_while(store: Store) -> None:
    store.lock.acquire()
    with sqlite3.connect(store.name) as connection:
        connection.execute("update merge_search_lock set host = 'elsewhere'")
    other = Store.open(store.name)
    with pytest.raises(LockedError, match="elsewhere"):
        other.lock.acquire()
    with sqlite3.connect(store.name) as connection:
        connection.execute("update merge_search_lock set beat = beat - 1000")
    other.lock.acquire()
    other.close()


def test_optuna_opens_the_same_file(store: Store) -> None:
    trial = store.study.ask()
    trial.suggest_float("weight.a", 0, 1)
    store.study.tell(trial, 0.5)
    assert Store.open(store.name).study.best_value == 0.5


def test_outcomes_are_small(store: Store) -> None:
    number = store.add(recipe(0.1), origin="tpe", trial=None)
    names = store.manifest.questions.search
    store.finish(number, Split.SEARCH, score(names), worker="w")
    with sqlite3.connect(store.name) as connection:
        (size,) = connection.execute(
            "select length(asked) + length(outcomes) from merge_search_evaluation"
        ).fetchone()
    assert size < 16 * len(names)
    assert np.isfinite(size)
