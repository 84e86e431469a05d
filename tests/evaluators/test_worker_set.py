"""Who fits where, who is slow, and what a node lacks: the decisions of a pool, without Ray."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Container
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from evaluators.harness.lm_eval_adapter import check
from evaluators.protocol import EvaluatorError
from evaluators.synthetic_evaluator import SyntheticEvaluator, SyntheticSpec
from evaluators.workers.cluster.node_check import NodeCheck
from evaluators.workers.cluster.ray_cluster import Answer, Listener, Node
from evaluators.workers.scheduling import worker_set
from evaluators.workers.scheduling.capacity import Need, rooms, short
from evaluators.workers.scheduling.stragglers import RecentTimes
from evaluators.workers.scheduling.worker_set import WorkerSet
from evaluators.workers.worker import WorkerStart
from merging.checkpoints.checkpoint import Checkpoint


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
    pace = RecentTimes(least=10.0)
    assert pace.limit(questions=100) == 10.0
    for seconds in (20.0, 20.0, 20.0, 500.0):
        pace.note(seconds, questions=100)
    assert pace.usual == 20.0
    assert pace.limit(questions=10) == pytest.approx(
        60.0
    )  # building takes its time, however few are asked
    assert pace.limit(questions=100) == pytest.approx(60.0)
    assert pace.limit(questions=1000) == pytest.approx(600.0)


class Asked:
    """A machine whose first workers never come up, as where Ray waits for what it never gets.

    With ``problems`` those that come up cannot be set up; the set-up of those in ``hanging`` has
    no end, nor has a look at a node.
    """

    elastic = False

    def __init__(
        self, silent: int, problems: tuple[str, ...] = (), hanging: Container[int] = ()
    ) -> None:
        self.silent, self.problems, self.ended = silent, problems, list[int]()
        self.hanging = hanging
        self.workers = 0
        self.answers: list[Callable[[], None]] = []

    def nodes(self) -> tuple[Node, ...]:
        return (node(),)

    def start(self, at: Node, *, cpus: float, gpus: float, there: Listener) -> int:
        self.workers += 1
        if self.workers > self.silent:
            there(Answer())
        return self.workers

    def call(self, worker: int, method: str, argument: Any, listener: Listener) -> None:
        if worker > self.silent and worker not in self.hanging:
            made = SyntheticEvaluator(
                SyntheticSpec(parents=("math",), tasks=(("a", 1.0),), questions=2)
            )
            catalogue = None if self.problems else made.catalogue()
            started = WorkerStart(name=f"w{worker}", catalogue=catalogue, problems=self.problems)
            self.answers.append(partial(listener, Answer(value=started)))

    def run_on(self, at: Node, function: Callable[[], Any], listener: Listener) -> None:
        del at, function, listener

    def kill(self, worker: int) -> None:
        self.ended.append(worker)

    def answer(self) -> None:
        while self.answers:
            self.answers.pop(0)()


def hired(cluster: Any, *, wait: float, count: int = 1, inspect: Any = None) -> WorkerSet:
    return WorkerSet(
        cluster, Need(cpus=1.0, gpus=0.0), count=count, make=lambda _: lambda: None,  # type: ignore[arg-type, return-value]
        inspect=inspect, wait=wait, enqueue=lambda act: act(), orphaned=lambda *_: None,
    )  # fmt: skip


def test_a_worker_that_does_not_come_up_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a while, then after twice as long; the clock of ``wait`` goes on meanwhile."""
    now = 0.0
    monkeypatch.setattr(worker_set.time, "monotonic", lambda: now)
    machine = Asked(silent=2)
    found = hired(machine, wait=600.0)
    asked = []
    while found.catalogue is None:
        found.watch(now=True)
        machine.answer()
        if machine.workers > len(asked):
            asked.append(now)
        now += 1.0
    assert asked == [0.0, worker_set.COMING_SECONDS, 3 * worker_set.COMING_SECONDS]
    assert machine.ended == [1, 2]
    assert [line.partition(",")[0] for line in found.news] == ["no worker came up on node a"] * 2
    assert [slot.name for slot in found.slots] == ["w3"]
    now += 10 * worker_set.COMING_SECONDS
    found.watch(now=True)
    assert machine.workers == 3  # it is there, and takes its time


@pytest.mark.parametrize(
    ("machine", "inspect", "workers", "line"),
    [
        (Asked(silent=100), None, 3, "workers: none was set up within 200 s (workers.wait) on a;"),
        (
            Asked(silent=0, hanging=range(100)),
            None,
            1,
            "workers: none was set up within 200 s (workers.wait) on a;",
        ),
        (
            Asked(silent=0),
            tuple,
            0,
            "node a: merge-search cannot be run there: no answer within 200 s (workers.wait)",
        ),
    ],
)
def test_what_never_comes_up_ends_in_a_line(
    machine: Asked, inspect: Any, workers: int, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(worker_set.time, "monotonic", lambda: now)
    found = hired(machine, wait=200.0, inspect=inspect)
    while now < 200.0:
        found.watch(now=True)
        now += 1.0
    with pytest.raises(EvaluatorError) as caught:
        found.watch(now=True)
    assert caught.value.problems[0].startswith(line)
    assert machine.workers == workers


def test_a_set_up_that_hangs_beside_others_is_begun_again_and_then_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(worker_set.time, "monotonic", lambda: now)
    machine = Asked(silent=0, hanging=range(2, 100))
    found = hired(machine, wait=200.0, count=2)
    begun = []
    while now < 1000.0:
        found.watch(now=True)
        machine.answer()
        if machine.workers > len(begun) + 1:
            begun.append(now)
        now += 1.0
    why = "worker: not set up within 200 s (workers.wait)"
    assert begun[:3] == [0.0, 200.0, 400.0]
    assert machine.ended[:3] == [2, 3, 4]
    assert found.news[:3] == [
        f"node a: {why}; another was asked for (1)",
        f"node a: {why}; another was asked for (2)",
        f"continuing without a worker that cannot be set up: {why}",
    ]
    assert [slot.name for slot in found.slots if slot.attendance is not None] == ["w1"]


def test_what_cannot_be_set_up_is_not_tried_in_every_room_of_a_machine() -> None:
    machine = Asked(silent=0, problems=("task a: unknown",))
    found = hired(machine, wait=600.0)
    found.watch(now=True)
    with pytest.raises(EvaluatorError, match="task a: unknown"):
        machine.answer()
    assert machine.workers == 1


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
        "from evaluators.synthetic_evaluator import SyntheticEvaluator, SyntheticSpec\n"
        "def make(spec):\n"
        "    return SyntheticEvaluator(SyntheticSpec(parents=('math',), tasks=(('one', 1.0),)))\n"
    )
    expected = SyntheticEvaluator(
        SyntheticSpec(parents=("math",), tasks=(("one", 1.0),))
    ).catalogue()
    there = replace(looked, evaluator=f"{own}:make", catalogue=expected)
    assert pickle.loads(pickle.dumps(there))() == ()
    other = replace(there, catalogue=looked.catalogue)
    assert other() == ("tasks: expected the questions of the driver's machine, got others",)
    (line,) = replace(there, evaluator=f"{tmp_path}/gone.py:make")()
    assert "gone.py" in line
