"""Workers and nodes are killed while a driver goes on; afterwards nothing is missing or double.

Real Ray, real processes: the driver is a process of its own, workers are killed by their process
ids, nodes by their raylets. What the workers wrote down is compared with the study.
"""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster
from rich.console import Console

from evaluators.protocol import Candidate, EvaluatorError, EvaluatorFactory, Failure, FailureKind
from evaluators.synthetic_evaluator import SyntheticEvaluator
from evaluators.workers.ray_pool import RayPool
from evaluators.workers.scheduling import scheduler
from runs.activity.worker_register import attended
from runs.records.record import Split
from runs.storage.store import Store
from search.engine.session import Session
from search.inputs.stored_study.study_config import config_of
from search.monitoring.monitor import LogMonitor
from spaces.recipes.recipe import Merge, Model, Recipe, Source, parameters
from tests.command import FORKED
from tests.faults.checker import Seen, check, lines
from tests.faults.driver import SPEC, make_study
from tests.faults.test_driver_kills import say
from tests.faults.witness import lacking, looked_at, slow_witness, witness

CONFIG = """
base: ./base
models: {a: ./a, b: ./b, c: ./c}
tasks: [one, two]
held_out: 0.3
space: {methods: [linear, ties, slerp]}
search: {trials: TRIALS, sampler: random, asking: ASKING, seed: 1, validate: 2}
"""

NODE = {"num_cpus": 1, "object_store_memory": 80 * 1024 * 1024}

SOON = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 3000,
    "health_check_failure_threshold": 3,
}
"""How soon a lost node is noticed; Ray's own values take longer than a test should."""


pytestmark = pytest.mark.timeout(900)
"""Clusters and drivers take minutes to start on a busy machine."""


def work(location: str, make: EvaluatorFactory, options: dict[str, Any]) -> None:
    """Resume a study as ``search resume`` does, with such workers."""
    with Store.open(location) as store:
        store.hold()
        pool = RayPool(
            make,
            gpus=0.0,
            retries=1000,  # no candidate is given up, however often its worker is killed
            **options,
        )
        try:
            settings = config_of(store)
            Session(store, settings, pool=pool, monitor=LogMonitor(Console())).run()
        finally:
            pool.close()


def at_work(log: Path) -> set[int]:
    """Processes that have begun with a candidate and not ended it."""
    busy: dict[int, bool] = {}
    for line in lines(log):
        busy[line["pid"]] = line["event"] == "begin"
    return {pid for pid, is_busy in busy.items() if is_busy}


def wait_for(condition: Callable[[], object], driver: Any, *, seconds: float = 400.0) -> bool:
    """Whether it came true before the driver came to its end."""
    end = time.monotonic() + seconds
    while not condition():
        if driver.exitcode is not None:
            return False
        assert time.monotonic() < end, "the run stands still"
        time.sleep(0.02)
    return True


def seen_in(location: str) -> Seen:
    store = Store.open(location)
    try:
        return Seen.of(store)
    finally:
        store.close()


def finish(driver: Any) -> None:
    driver.join()
    assert driver.exitcode == 0


@pytest.mark.slow
@pytest.mark.parametrize(("asking", "kills"), [("all", 12), ("growing", 8)])
def test_workers_are_killed(
    tmp_path: Path, asking: str, kills: int, capsys: pytest.CaptureFixture[str]
) -> None:
    location, log = str(tmp_path / "study.db"), tmp_path / "log"
    config = CONFIG.replace("TRIALS", "70").replace("ASKING", asking)
    make_study(location, config).close()
    options = {"workers": 2, "cpus": 0.5}
    make = partial(witness, replace(SPEC, seconds=0.15), str(log))
    driver = FORKED.Process(target=work, args=(location, make, options))
    driver.start()
    moments, dead, earlier = random.Random(asking), set[int](), []
    while len(dead) < kills:
        if not wait_for(lambda: at_work(log) - dead, driver):
            break
        time.sleep(moments.uniform(0.0, 0.2))
        candidates = sorted(at_work(log) - dead)
        if candidates:
            pid = moments.choice(candidates)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            dead.add(pid)
            earlier.append(seen_in(location))
    finish(driver)
    assert len(dead) == kills
    store = Store.open(location)
    found = check(store, log, trials=70, kills=kills, earlier=earlier)
    failed = [r.id for r in store.records() if r.evaluations[Split.SEARCH].failure_kind]
    store.close()
    assert not failed
    say(capsys, f"{kills} workers killed: {found.asked_again} asked again, {found.lost} twice")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head that only leads; nodes are added by the test."""
    made = Cluster(
        initialize_head=True,
        head_node_args={
            **NODE,
            "num_cpus": 0,
            "include_dashboard": False,
            "_system_config": SOON,
        },
    )
    yield made
    made.shutdown()


def raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def test_a_line_that_is_being_written_is_not_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert list(lines(log)) == []
    log.write_text('{"pid": 1}\n{"pid": ', encoding="utf-8")
    assert list(lines(log)) == [{"pid": 1}]
    log.write_text('{"pid": 1}\n{"pid": 2}\n', encoding="utf-8")
    assert list(lines(log)) == [{"pid": 1}, {"pid": 2}]


@pytest.mark.slow
def test_nodes_join_are_killed_and_cut_off(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One joins in the middle and is used; then nodes go in turns, and others come."""
    location, log = str(tmp_path / "study.db"), tmp_path / "log"
    make_study(location, CONFIG.replace("TRIALS", "150").replace("ASKING", "all")).close()
    nodes = [cluster.add_node(**NODE)]
    nodes_seen = tmp_path / "nodes"
    look = partial(looked_at, str(nodes_seen))
    options = {"address": cluster.address, "cpus": 1.0, "wait": 400.0, "inspect": look}
    gate = tmp_path / "gate"
    make = partial(slow_witness, replace(SPEC, seconds=0.0), str(log), str(gate), 2.0)
    driver = FORKED.Process(target=work, args=(location, make, options))
    driver.start()
    assert wait_for(lambda: len(at_work(log)) == 1, driver)
    began = {line["pid"] for line in lines(log)}
    nodes.append(cluster.add_node(**NODE))
    assert wait_for(lambda: {line["pid"] for line in lines(log)} - began, driver)
    moments, kills, earlier = random.Random("nodes"), 0, []
    for kind in (signal.SIGKILL, signal.SIGSTOP, signal.SIGKILL, signal.SIGKILL, signal.SIGKILL):
        if not wait_for(lambda: at_work(log), driver):
            break
        time.sleep(moments.uniform(0.0, 0.6))
        node = nodes.pop(0)
        known = {line["pid"] for line in lines(log)}
        os.kill(raylet(node), kind)
        kills += 1
        earlier.append(seen_in(location))
        nodes.append(cluster.add_node(**NODE))
        wait_for(lambda: {line["pid"] for line in lines(log)} - known, driver)  # noqa: B023
        if kind == signal.SIGSTOP:  # it comes back to hear that it was given up
            os.kill(raylet(node), signal.SIGCONT)
        cluster.remove_node(node, allow_graceful=False)
    gate.touch()
    finish(driver)
    assert kills == 5
    store = Store.open(location)
    found = check(store, log, trials=150, kills=kills, in_flight=2, earlier=earlier)
    assert len({one.node for one in attended(store)}) >= 5
    assert len(nodes_seen.read_text().splitlines()) >= 5  # each was looked at, the head was not
    assert not [r.id for r in store.records() if r.evaluations[Split.SEARCH].failure_kind]
    store.close()
    say(capsys, f"{kills} nodes lost: {found.asked_again} asked again, {found.lost} twice")


@pytest.mark.slow
def test_a_candidate_whose_nodes_go_away_is_given_up(cluster: Cluster) -> None:
    """In the end: with every node it was on; it says which was the last."""
    node = cluster.add_node(**NODE)
    child = FORKED.Process(target=loses_its_node, args=(cluster.address, raylet(node)))
    child.start()
    finish(child)


def loses_its_node(address: str, process: int) -> None:
    scheduler.NODE_LOSSES = 0  # the first counts
    make = partial(SyntheticEvaluator, replace(SPEC, seconds=1000.0))
    pool = RayPool(make, gpus=0.0, address=address, retries=5)
    questions = tuple(question.id for question in pool.catalogue().questions)
    sources = (Source(of=Model("a"), parameters=parameters(weight=1.0)),)
    recipe = Recipe(root=Merge(method="linear", sources=sources))
    pool.submit(Candidate(id=7, recipe=recipe, questions=questions))
    while pool.begun() != (7,):
        time.sleep(0.05)
    time.sleep(0.5)
    os.kill(process, signal.SIGKILL)
    result = pool.next(timeout=400.0)
    pool.close()
    assert result is not None
    assert isinstance(result.outcome, Failure)
    assert result.outcome.kind is FailureKind.NODE_GONE
    assert "the node went away (once), last " in result.outcome.message


@pytest.mark.slow
def test_a_node_that_lacks_something_is_named(cluster: Cluster) -> None:
    """Before the first candidate, in a process of its own: this one may have another Ray."""
    cluster.add_node(**NODE)
    child = FORKED.Process(target=refused, args=(cluster.address,))
    child.start()
    finish(child)


def refused(address: str) -> None:
    with pytest.raises(EvaluatorError, match=r"node \S+ \(\w{8}\): model 'a' at /nowhere"):
        RayPool(partial(witness, SPEC, os.devnull), gpus=0.0, address=address, inspect=lacking)
