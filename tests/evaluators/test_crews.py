"""Who fits where, who is slow, and what a node lacks: the decisions of a pool, without Ray."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evaluators.fake import FakeEvaluator, FakeSpec
from evaluators.harness import check
from evaluators.inspection import NodeCheck
from evaluators.ray_cluster import Node
from evaluators.rooms import Need, rooms, short
from evaluators.stragglers import Pace
from merging.checkpoint import Checkpoint


def node(**has: float) -> Node:
    return Node(id="a", name="a", **{"cpus": 8.0, "gpus": 0.0, "memory": 8e9, **has})


@pytest.mark.parametrize(
    ("has", "need", "expected"),
    [
        ({}, Need(cpus=1.0, gpus=0.0), [0.0] * 8),
        ({}, Need(cpus=3.0, gpus=0.0), [0.0] * 2),
        ({}, Need(cpus=1.0, gpus=0.0, memory=3_000_000_000), [0.0] * 2),
        ({}, Need(cpus=1.0, gpus=0.0, memory=9_000_000_000), [0.0]),  # one is always tried
        ({"cpus": 0.0}, Need(cpus=1.0, gpus=0.0), []),
        ({"gpus": 4.0}, Need(cpus=1.0, gpus=1.0), [1.0] * 4),
        ({"gpus": 4.0, "cpus": 3.0}, Need(cpus=1.0, gpus=1.0), [1.0] * 3),
        ({"gpus": 2.0}, Need(cpus=1.0, gpus=0.3), [0.3] * 6),
        ({"gpus": 5.0}, Need(cpus=1.0, gpus=2.0), [2.0, 2.0, 1.0]),  # the rest is tried
        ({"gpus": 1.0}, Need(cpus=1.0, gpus=2.0), [1.0]),
        ({}, Need(cpus=1.0, gpus=1.0), []),
    ],
)
def test_rooms(has: dict[str, float], need: Need, expected: list[float]) -> None:
    assert rooms(node(**has), need) == expected


def test_what_is_short() -> None:
    small, large = node(cpus=1.0), node(cpus=8.0, gpus=1.0)
    assert short([small, large], Need(cpus=2.0, gpus=0.0), 4) == []
    (line,) = short([small, large], Need(cpus=2.0, gpus=0.0), 5)
    assert line == ("workers: expected 2 CPU for each of 5, got a machine or cluster with 9 in all")
    both = short([node(cpus=8.0), node(cpus=0.0, gpus=1.0)], Need(cpus=1.0, gpus=1.0), 1)
    assert both == [
        "workers: expected 1 CPU and 1 GPU on one machine for each of 1, got room for 0"
    ]


def test_stragglers_by_time_and_by_questions() -> None:
    pace = Pace(least=10.0)
    assert pace.limit(questions=100) == 10.0
    for seconds in (20.0, 20.0, 20.0, 500.0):
        pace.note(seconds, questions=100)
    assert pace.usual == 20.0
    assert pace.limit(questions=10) == pytest.approx(
        60.0
    )  # building takes its time, however few are asked
    assert pace.limit(questions=100) == pytest.approx(60.0)
    assert pace.limit(questions=1000) == pytest.approx(600.0)


@pytest.fixture
def looked(make_spec: Any, tiny_family: dict[str, Path]) -> NodeCheck:
    spec = make_spec("tiny_pick")
    inputs = {n: Checkpoint.open(str(f), name=n).input_hash for n, f in tiny_family.items()}
    return NodeCheck(spec=spec, inputs=inputs, catalogue=check(spec))


def test_a_node_that_has_everything(looked: NodeCheck) -> None:
    assert pickle.loads(pickle.dumps(looked))() == ()


def test_what_a_node_lacks(looked: NodeCheck, make_spec: Any, tmp_path: Path) -> None:
    name, other = looked.spec.models[0][0], looked.spec.models[1][1]
    moved = replace(looked.spec, models=((name, str(tmp_path / "gone")), *looked.spec.models[1:]))
    (line,) = replace(looked, spec=moved)()
    assert str(tmp_path / "gone") in line
    swapped = replace(looked.spec, models=((name, other), *looked.spec.models[1:]))
    (line,) = replace(looked, spec=swapped)()
    assert f"model {name!r} at {other}: expected the files of the driver's machine" in line
    fewer = replace(looked, catalogue=replace(looked.catalogue, questions=()))
    assert fewer() == ("tasks: expected the questions of the driver's machine, got others",)
    unseen = replace(looked, spec=replace(looked.spec, include_path=(str(tmp_path / "none"),)))
    assert any("include_path: expected a folder" in line for line in unseen())


def test_another_program_on_a_node(looked: NodeCheck) -> None:
    (line,) = replace(looked, code="0" * 16)()
    assert "merge-search: expected the source files of the driver's machine (version 0." in line
    old = replace(looked, versions={**looked.versions, "torch": "1.0"})
    (line,) = old()
    assert line.startswith("torch: expected version 1.0 as on the driver's machine, got 2.")
    assert replace(looked, spec=None)() == ()


def test_a_node_asks_an_evaluator_of_a_users_own(looked: NodeCheck, tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(
        "from evaluators.fake import FakeEvaluator, FakeSpec\n"
        "def make(spec):\n"
        "    return FakeEvaluator(FakeSpec(parents=('math',), tasks=(('one', 1.0),)))\n"
    )
    expected = FakeEvaluator(FakeSpec(parents=("math",), tasks=(("one", 1.0),))).catalogue()
    there = replace(looked, evaluator=f"{own}:make", catalogue=expected)
    assert pickle.loads(pickle.dumps(there))() == ()
    other = replace(there, catalogue=looked.catalogue)
    assert other() == ("tasks: expected the questions of the driver's machine, got others",)
    (line,) = replace(there, evaluator=f"{tmp_path}/gone.py:make")()
    assert "gone.py" in line
