"""What becomes of candidates whose nodes cannot be reached, and who works first, without Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from evaluators.protocol import Candidate, Failure, FailureKind, Score
from evaluators.synthetic_evaluator import SyntheticEvaluator, SyntheticSpec
from evaluators.workers.cluster.ray_cluster import Answer, Node
from evaluators.workers.pool import Result
from evaluators.workers.scheduling import worker_set
from evaluators.workers.scheduling.capacity import Need
from evaluators.workers.scheduling.scheduler import NODE_LOSSES, Scheduler
from evaluators.workers.scheduling.worker_set import WorkerSet
from evaluators.workers.worker import WorkerStart
from spaces.recipes.recipe import Merge, Model, Recipe, Source, parameters

EVALUATOR = SyntheticEvaluator(SyntheticSpec(parents=("a",), tasks=(("one", 1.0),), questions=10))
SOURCE = Source(of=Model("a"), parameters=parameters(weight=1.0))
RECIPE = Recipe(root=Merge(method="linear", sources=(SOURCE,)))
CANDIDATE = Candidate(
    id=7, recipe=RECIPE, questions=tuple(one.id for one in EVALUATOR.catalogue().questions)
)


class Nodes:
    """In the place of a cluster: nodes of one core each, whose workers answer at once.

    Args:
        names: Of the nodes.
        silent: Those whose workers never answer.
        cut: Those of them that cannot be reached.
    """

    elastic = True

    def __init__(self, names: str, *, silent: str = "", cut: str = "") -> None:
        self._nodes = tuple(Node(id=n, name=n, cpus=1.0, gpus=0.0, memory=1e9) for n in names)
        self._silent, self._cut = silent + cut, cut
        self.given = ""
        self.started = ""
        self.looks: dict[str, Callable[[Answer], None]] = {}

    def nodes(self) -> tuple[Node, ...]:
        return self._nodes

    def reaches(self, node: Node) -> bool:
        return node.id not in self._cut

    def start(
        self, node: Node, *, cpus: float, gpus: float, there: Callable[[Answer], None]
    ) -> Node:
        self.started += node.id
        there(Answer())
        return node

    def call(
        self, worker: Node, method: str, argument: Any, listener: Callable[[Answer], None]
    ) -> None:
        if method == "start":
            started = WorkerStart(name=f"{worker.id}/1", catalogue=EVALUATOR.catalogue())
            listener(Answer(value=started))
            return
        self.given += worker.id
        if worker.id not in self._silent:
            listener(Answer(value=EVALUATOR.evaluate(argument)))

    def run_on(self, node: Node, function: object, listener: Callable[[Answer], None]) -> None:
        self.looks[node.id] = listener

    def kill(self, worker: Node) -> None:
        """It has no process."""


Open = Callable[[Nodes], Scheduler]


def make_workers(nodes: Nodes, **options: Any) -> Any:
    """Sets up workers, one on each node."""
    chosen = {"count": None, "inspect": None, "wait": 60.0, **options}
    need = Need(cpus=1.0, gpus=0.0)
    return partial(WorkerSet, nodes, need, make=lambda gpus: lambda: EVALUATOR, **chosen)


@pytest.fixture
def opened() -> Iterator[Open]:
    begun = []

    def open_on(nodes: Nodes) -> Scheduler:
        begun.append(Scheduler(nodes, make_workers(nodes), timeout=0.2, retries=0, straggler=60.0))
        return begun[-1]

    yield open_on
    for one in begun:
        one.close()


def result_of(scheduler: Scheduler) -> Result:
    scheduler.start()
    scheduler.take(CANDIDATE, near="", keep=False)
    found = scheduler.result(60.0)
    assert found is not None
    return found


def test_an_overdue_candidate_on_a_node_that_is_cut_off_is_tried_elsewhere(opened: Open) -> None:
    nodes = Nodes("xy", cut="x")
    result = result_of(opened(nodes))
    assert isinstance(result.outcome, Score)
    assert result.outcome.outcomes == EVALUATOR.evaluate(CANDIDATE).outcomes
    assert (result.worker, nodes.given) == ("y/1", "xy")


def test_it_is_given_up_after_all_tries(opened: Open) -> None:
    nodes = Nodes("uvwxy", cut="uvwxy")
    result = result_of(opened(nodes))
    assert isinstance(result.outcome, Failure)
    assert result.outcome.kind is FailureKind.NODE_GONE
    assert result.outcome.message.startswith("the node went away (4 times), last x,")
    assert nodes.given == "uvwx"
    assert len(nodes.given) == 1 + NODE_LOSSES


def test_an_overdue_candidate_on_a_node_that_answers_has_had_its_time(opened: Open) -> None:
    nodes = Nodes("xy", silent="x")
    result = result_of(opened(nodes))
    assert isinstance(result.outcome, Failure)
    assert result.outcome.kind is FailureKind.TIMEOUT
    assert nodes.given == "x"


def test_the_first_workers_start_once_all_nodes_were_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Or a node that answers late would get none, or what it lacks would be told too late."""
    monkeypatch.setattr(worker_set, "WATCH_SECONDS", 0.0)
    nodes, acts = Nodes("xy"), list[Callable[[], None]]()
    made = make_workers(nodes, count=2, inspect=tuple)(enqueue=acts.append, orphaned=print)
    made.watch()
    nodes.looks["x"](Answer(value=()))
    acts.pop()()
    made.watch()
    assert nodes.started == ""
    nodes.looks["y"](Answer(value=()))
    acts.pop(0)()
    assert nodes.started == "xy"
