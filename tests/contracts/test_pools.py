"""What every pool promises, and what Ray adds to it."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import ray

from evaluators.harness.harness_evaluator import HarnessEvaluator
from evaluators.harness.lm_eval_adapter import check
from evaluators.harness_spec import HarnessSpec, TaskSpec
from evaluators.protocol import (
    DETAIL,
    MESSAGE,
    Candidate,
    EvaluatorError,
    Failure,
    FailureKind,
    Score,
)
from evaluators.synthetic_evaluator import SyntheticEvaluator, SyntheticSpec
from evaluators.workers.pool import Pool, Result, SerialPool
from evaluators.workers.ray_pool import RayPool
from search.engine.processes.stop_signals import on_signals
from spaces.recipes.recipe import Merge, Model, Recipe, Source, parameters

MakePool = Callable[..., Pool]


def recipe(weight: float) -> Recipe:
    sources = (
        Source(of=Model("math"), parameters=parameters(weight=1.0)),
        Source(of=Model("code"), parameters=parameters(weight=weight)),
    )
    return Recipe(root=Merge(method="linear", sources=sources))


def spec(**changes: Any) -> SyntheticSpec:
    fields = {"parents": ("math", "code"), "tasks": (("a", 1.0),), "questions": 10}
    return SyntheticSpec(**{**fields, **changes})


def candidates(pool: Pool, count: int) -> list[Candidate]:
    ids = tuple(question.id for question in pool.catalogue().questions)
    return [Candidate(id=n, recipe=recipe(n / 4), questions=ids) for n in range(count)]


def drain(pool: Pool) -> dict[int, Result]:
    found = {}
    while (result := pool.next(timeout=60)) is not None:
        found[result.candidate.id] = result
    return found


def wait_for(condition: Callable[[], object], seconds: float = 100.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come true"
        time.sleep(0.02)


class PoolContract:
    """Subclasses give ``open_pool(spec, **options)``; what it opens is closed after the test."""

    def test_every_candidate_comes_back_once(self, open_pool: MakePool) -> None:
        pool = open_pool(spec())
        for candidate in candidates(pool, 7):
            pool.submit(candidate)
        assert pool.pending == 7
        alone = SyntheticEvaluator(spec())
        found = drain(pool)
        assert sorted(found) == list(range(7))
        for result in found.values():
            expected = alone.evaluate(result.candidate)
            assert isinstance(result.outcome, Score)
            assert isinstance(expected, Score)
            assert result.outcome.outcomes == expected.outcomes
            assert result.worker
        assert pool.pending == 0

    def test_nothing_pending(self, open_pool: MakePool) -> None:
        pool = open_pool(spec())
        started = time.monotonic()
        assert pool.next() is None
        assert pool.next(timeout=30) is None
        assert time.monotonic() - started < 10
        assert pool.size >= 1

    def test_catalogue(self, open_pool: MakePool) -> None:
        assert open_pool(spec()).catalogue() == SyntheticEvaluator(spec()).catalogue()

    def test_failures_are_values(self, open_pool: MakePool) -> None:
        pool = open_pool(spec(fail_when=_even_key, failure=FailureKind.TASK))
        for candidate in candidates(pool, 8):
            pool.submit(candidate)
        found = drain(pool)
        kinds = {
            number: isinstance(result.outcome, Failure) and result.outcome.kind
            for number, result in found.items()
        }
        assert kinds == {
            number: FailureKind.TASK if _even_key(result.candidate.recipe) else False
            for number, result in found.items()
        }
        assert len(set(kinds.values())) == 2

    def test_an_evaluator_that_cannot_work(self, open_pool: MakePool) -> None:
        with pytest.raises(EvaluatorError, match="questions: expected at least 1, got 0"):
            open_pool(spec(questions=0)).catalogue()

    def test_what_nobody_began_is_withdrawn(self, open_pool: MakePool, tmp_path: Path) -> None:
        gate = tmp_path / "gate"
        pool = open_pool(spec(), kind=partial(Gated, gate=str(gate)))
        for candidate in candidates(pool, 6):
            pool.submit(candidate)
        back = {candidate.id for candidate in pool.withdraw()}
        gate.touch()
        found = drain(pool)
        assert len(back) >= 6 - pool.size
        assert back | set(found) == set(range(6))
        assert not back & set(found)
        assert pool.pending == 0
        assert pool.withdraw() == ()

    def test_who_is_begun_with_is_named_once(self, open_pool: MakePool) -> None:
        pool, named, found = open_pool(spec(seconds=0.3)), list[int](), set[int]()
        for candidate in candidates(pool, 20):
            pool.submit(candidate)
        withdrawn: set[int] | None = None
        while not named:
            named += pool.begun()
            time.sleep(0.02)
        assert 1 <= len(named) <= pool.size  # what waits for a worker was not begun with
        while pool.pending:
            named += pool.begun()
            result = pool.next(timeout=60)
            assert result is not None
            found.add(result.candidate.id)
            if len(found) == 3:
                withdrawn = {candidate.id for candidate in pool.withdraw()}
            named += pool.begun()
            assert found <= set(named)
        assert withdrawn
        assert sorted(named) == sorted(found) == sorted(set(range(20)) - withdrawn)
        assert pool.begun() == ()

    def test_attendance(self, open_pool: MakePool) -> None:
        pool = open_pool(spec(seconds=0.05))
        before = time.time()
        for candidate in candidates(pool, 6):
            pool.submit(candidate)
        found = drain(pool)
        there = pool.attendance()
        assert sum(one.candidates for one in there) == 6
        assert sum(one.busy for one in there) >= 6 * 0.05
        assert {result.worker for result in found.values()} <= {one.worker for one in there}
        for result in found.values():
            assert before <= result.began <= result.ended - 0.05 <= time.time()
        assert all(one.left is None and one.node for one in there)

    def test_close_twice_and_with_work_left(self, open_pool: MakePool) -> None:
        pool = open_pool(spec(seconds=0.2))
        for candidate in candidates(pool, 3):
            pool.submit(candidate)
        pool.close()
        pool.close()
        assert pool.pending == 0
        assert pool.next() is None

    def test_whatever_an_evaluator_does_is_its_candidates_failure(
        self, open_pool: MakePool
    ) -> None:
        pool = open_pool(spec(), kind=Misbehaving)
        with on_signals(lambda _: None):
            for candidate in candidates(pool, len(DEEDS) + 1):
                pool.submit(candidate)
            found = drain(pool)
        for number, (deed, kind, words) in enumerate(DEEDS):
            outcome = found[number].outcome
            if not kind:
                assert isinstance(outcome, Score), (deed, outcome)
                continue
            assert isinstance(outcome, Failure), (deed, outcome)
            assert outcome.kind == kind, (deed, outcome)
            assert words in outcome.message, (deed, outcome)
            assert len(outcome.message) <= MESSAGE
            assert len(outcome.detail) <= DETAIL
            (outcome.message + outcome.detail).encode()  # no halves of characters
        assert isinstance(found[len(DEEDS)].outcome, Score)
        assert pool.size == (1 if isinstance(pool, SerialPool) else 2)


def _even_key(made: Recipe) -> bool:
    # Travels to workers by value; this file is no module that they could import.
    return int(made.key, 16) % 2 == 0


class Gated(SyntheticEvaluator):
    """Comes back from no candidate before a file is there."""

    def __init__(self, wanted: SyntheticSpec, gate: str) -> None:
        super().__init__(wanted)
        self._gate = gate

    def evaluate(self, candidate: Candidate) -> Score | Failure:
        while not Path(self._gate).exists():
            time.sleep(0.02)
        return super().evaluate(candidate)


class Sticking(SyntheticEvaluator):
    """Never comes back from the first candidate that any worker has, or from all without a file."""

    def __init__(self, wanted: SyntheticSpec, first: str) -> None:
        super().__init__(wanted)
        self._first = first

    def evaluate(self, candidate: Candidate) -> Score | Failure:
        if not self._first or not Path(self._first).exists():
            if self._first:
                Path(self._first).touch()
            time.sleep(1000)
        return super().evaluate(candidate)


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError


DEEDS: tuple[tuple[Callable[[Score], Any], str, str], ...] = (
    (lambda _: sys.exit(0), "error", "SystemExit: 0"),
    (lambda _: _raise(KeyboardInterrupt()), "error", "KeyboardInterrupt"),
    (lambda _: _raise(GeneratorExit()), "error", "GeneratorExit"),
    (lambda _: _raise(asyncio.CancelledError()), "error", "CancelledError"),
    (lambda _: _raise(RuntimeError("x" * 10_000_000)), "error", "characters left out"),
    (lambda _: _raise(RuntimeError("half \ud800 \x1b[31m \0")), "error", r"\ud800 \x1b[31m \x00"),
    (lambda _: _raise(Unspeakable()), "error", "its text cannot be made"),
    (lambda _: Failure(kind=FailureKind.TASK, message="y" * 10**7), "task", "left out"),
    (lambda score: (os.fork() and score) or score, "", ""),
    (lambda _: None, "error", "expected a Score or a Failure, got NoneType"),
    (lambda score: replace(score, value=1e308), "non_finite", "value: expected a finite number"),
    (lambda score: replace(score, value=math.nan), "non_finite", "value: expected a finite"),
    (lambda score: replace(score, stderr=-math.inf), "non_finite", "stderr: expected a finite"),
    (lambda score: replace(score, value=10**400), "non_finite", "too large"),
    (lambda score: replace(score, value=1j), "error", "value: expected a number, got complex"),
    (lambda score: replace(score, value="1"), "error", "value: expected a number, got str"),
    (lambda score: replace(score, value=True), "error", "value: expected a number, got bool"),
    (lambda score: replace(score, outcomes=score.outcomes[1:]), "error", "one for each question"),
    (lambda score: _valued(score, 1e200), "non_finite", "expected a finite number"),
    (lambda score: _valued(score, None), "error", "expected a number, got NoneType"),
    (lambda score: _valued(score, math.nan), "", ""),
    (lambda score: _of_task(score, "b"), "error", "expected those of the catalogue (a)"),
    (lambda score: replace(score, fingerprint="f" * 1000), "error", "fingerprint: expected"),
)
"""What an evaluator does with a score, by number of the candidate, and the failure it is if any."""


def _raise(error: BaseException) -> None:
    raise error


def _valued(score: Score, value: Any) -> Score:
    return replace(score, outcomes=tuple(replace(one, value=value) for one in score.outcomes))


def _of_task(score: Score, name: str) -> Score:
    return replace(score, tasks=tuple(replace(one, task=name) for one in score.tasks))


class Misbehaving(SyntheticEvaluator):
    """Does what ``DEEDS`` say."""

    def evaluate(self, candidate: Candidate) -> Score | Failure:
        score = super().evaluate(candidate)
        if candidate.id >= len(DEEDS):
            return score
        assert isinstance(score, Score)
        found: Score | Failure = DEEDS[candidate.id][0](score)
        return found


class TestSerialPool(PoolContract):
    @pytest.fixture
    def open_pool(self) -> Iterator[MakePool]:
        with ExitStack() as stack:

            def make(
                wanted: SyntheticSpec,
                kind: type[SyntheticEvaluator] = SyntheticEvaluator,
                **options: Any,
            ) -> Pool:
                pool = SerialPool(partial(kind, wanted), **options)
                stack.callback(pool.close)
                return pool

            yield make

    @pytest.mark.parametrize("number", range(4))
    def test_a_candidate_that_takes_too_long(self, open_pool: MakePool, number: int) -> None:
        deed = (partial(time.sleep, 60), _spin, Event().wait, _deaf)[number]
        made: list[SyntheticEvaluator] = []

        class Slow(SyntheticEvaluator):
            def __init__(self, wanted: SyntheticSpec) -> None:
                super().__init__(wanted)
                made.append(self)

            def evaluate(self, candidate: Candidate) -> Score | Failure:
                if candidate.id == 0:
                    deed()
                return super().evaluate(candidate)

        pool = open_pool(spec(), kind=Slow, timeout=0.3)
        for candidate in candidates(pool, 2):
            pool.submit(candidate)
        began = time.monotonic()
        late, other = pool.next(), pool.next()
        assert 0.3 <= time.monotonic() - began < 30
        assert late is not None
        assert other is not None
        assert isinstance(late.outcome, Failure)
        assert late.outcome.kind is FailureKind.TIMEOUT
        assert "limit: 0.3 s" in late.outcome.message
        assert isinstance(other.outcome, Score)
        assert len(made) == 2  # the one that was cut short may be half done with anything

    def test_a_user_who_stops_at_once_is_no_failure(self, open_pool: MakePool) -> None:
        class Interrupted(SyntheticEvaluator):
            def evaluate(self, candidate: Candidate) -> Score | Failure:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.1)
                return super().evaluate(candidate)

        pool = open_pool(spec(), kind=Interrupted)
        for candidate in candidates(pool, 2):
            pool.submit(candidate)
        with on_signals(lambda _: None) as stop:
            first = pool.next()
            assert first is not None
            assert isinstance(first.outcome, Score)  # it was under way, and is finished
            assert stop.requested
            with pytest.raises(KeyboardInterrupt):
                pool.next()


def _spin() -> None:
    while True:
        pass


def _deaf() -> None:
    """Does not hear the first call to end."""
    try:
        time.sleep(60)
    except BaseException:  # noqa: BLE001
        time.sleep(60)


@pytest.fixture(scope="module")  # other tests are about a Ray that does not run
def local_ray() -> Iterator[None]:
    """One Ray for all tests here; pools that find one running neither start nor end it.

    It has room for two pools, and for workers of the test before that Ray has not ended yet.
    """
    ray.init(
        address="local", num_cpus=4, include_dashboard=False, log_to_driver=False,
        object_store_memory=80 * 1024 * 1024,
    )  # fmt: skip
    yield
    ray.shutdown()


@pytest.mark.slow
class TestRayPool(PoolContract):
    @pytest.fixture
    def open_pool(self, local_ray: None) -> Iterator[MakePool]:
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        with ExitStack() as stack:

            def make(
                wanted: SyntheticSpec,
                kind: type[SyntheticEvaluator] = SyntheticEvaluator,
                **options: Any,
            ) -> RayPool:
                options = {"workers": 2, "gpus": 0.0, "cpus": 0.5, **options}
                pool = RayPool(partial(kind, wanted), **options)
                stack.callback(pool.close)
                return pool

            yield make
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])

    def test_work_is_shared_and_the_fast_come_first(self, open_pool: MakePool) -> None:
        pool = open_pool(spec(seconds=0.1))
        assert pool.size == 2
        wait_for(lambda: len(pool.attendance()) == 2)
        for candidate in candidates(pool, 12):
            pool.submit(candidate)
        found = drain(pool)
        assert len({result.worker for result in found.values()}) == 2
        assert all("/" in result.worker for result in found.values())

    def test_as_many_workers_as_the_memory_takes(self, open_pool: MakePool) -> None:
        room = ray.cluster_resources()
        for share, expected in ((0.0, 4), (0.4, 2), (9.0, 1)):
            memory = int(room["memory"] * share)
            pool = open_pool(spec(), workers=None, cpus=room["CPU"] / 4, memory=memory)
            assert pool.size == expected
            pool.close()  # or the next one finds no core free

    def test_timeout_of_next(self, open_pool: MakePool) -> None:
        pool = open_pool(spec(seconds=3.0))
        pool.submit(candidates(pool, 1)[0])
        assert pool.next(timeout=0.2) is None
        assert pool.pending == 1
        assert pool.next() is not None

    @pytest.mark.parametrize("retries", [0, 1])
    def test_a_worker_that_dies_every_time(self, open_pool: MakePool, retries: int) -> None:
        pool = open_pool(spec(exit_on=(2,)), retries=retries)
        for candidate in candidates(pool, 6):
            pool.submit(candidate)
        found = drain(pool)
        lost = found.pop(2).outcome
        assert isinstance(lost, Failure)
        assert lost.kind is FailureKind.LOST_WORKER
        assert ("2 times" if retries else "once") in lost.message
        assert sorted(found) == [0, 1, 3, 4, 5]
        assert all(isinstance(result.outcome, Score) for result in found.values())
        assert pool.size == 2

    def test_a_worker_killed_from_outside(self, open_pool: MakePool) -> None:
        pool = open_pool(spec(seconds=1.0), workers=1)
        first, second = candidates(pool, 2)
        pool.submit(first)
        before = pool.next()
        assert before is not None
        pool.submit(second)
        time.sleep(0.3)
        os.kill(int(before.worker.rpartition("/")[2]), signal.SIGKILL)
        after = pool.next(timeout=60)
        assert after is not None
        assert isinstance(after.outcome, Score)  # tried again, elsewhere
        assert after.worker != before.worker

    def test_a_candidate_that_takes_too_long(self, open_pool: MakePool) -> None:
        pool = open_pool(spec(seconds=30.0), timeout=0.5)
        one, other = candidates(pool, 2)
        pool.submit(one)
        result = pool.next(timeout=100)
        assert result is not None
        assert isinstance(result.outcome, Failure)
        assert result.outcome.kind is FailureKind.TIMEOUT
        assert "limit: 0.5 s" in result.outcome.message
        pool.submit(other)  # the place has a new worker
        assert pool.next(timeout=100) is not None

    def test_a_worker_is_kept_for_more_of_the_same(self, open_pool: MakePool) -> None:
        pool = open_pool(spec(seconds=0.2))
        first, second, third, fourth = candidates(pool, 4)
        pool.submit(first, keep=True)
        pool.submit(second)
        pool.submit(third)
        result = pool.next(timeout=60)
        if result is not None and result.candidate.id != first.id:
            result = pool.next(timeout=60)
        assert result is not None
        assert result.candidate.id == first.id
        pool.submit(fourth, near=result.worker)  # before third, though it came later
        rest = drain(pool)
        assert rest[fourth.id].worker == result.worker
        assert rest[fourth.id].began < rest[third.id].ended

    def test_a_straggler_is_overtaken(self, open_pool: MakePool, tmp_path: Path) -> None:
        make = partial(Sticking, spec(seconds=0.05), str(tmp_path / "first"))
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        pool = RayPool(make, workers=2, gpus=0.0, cpus=0.5, straggler=3.0)
        try:
            for candidate in candidates(pool, 5):
                pool.submit(candidate)
            pool.hurry(True)
            found = drain(pool)
            assert all(isinstance(result.outcome, Score) for result in found.values())
            assert sorted(found) == list(range(5))
            assert len({result.worker for result in found.values()}) == 1
        finally:
            pool.close()

    def test_nobody_is_waited_for_twice(self, open_pool: MakePool) -> None:
        make = partial(Sticking, spec(), "")
        pool = RayPool(make, workers=2, gpus=0.0, cpus=0.5, straggler=0.5)
        try:
            pool.submit(candidates(pool, 1)[0])
            pool.hurry(True)
            result = pool.next(timeout=30)
            assert result is not None
            assert isinstance(result.outcome, Failure)
            assert result.outcome.kind is FailureKind.TIMEOUT
            assert "from 2 workers" in result.outcome.message
        finally:
            pool.close()

    def test_more_than_there_is(self, open_pool: MakePool) -> None:
        with pytest.raises(EvaluatorError, match="expected 64 CPU for each of 1, got a machine or"):
            open_pool(spec(), cpus=64, workers=None)
        with pytest.raises(EvaluatorError, match="expected 8 GPU for each of 2"):
            open_pool(spec(), gpus=8.0)

    def test_impossible_options(self) -> None:
        with pytest.raises(EvaluatorError) as caught:
            RayPool(
                partial(SyntheticEvaluator, spec()),
                workers=0,
                gpus=1.5,
                cpus=0,
                timeout=0,
                retries=-1,
            )
        assert len(caught.value.problems) == 5

    def test_closed(self, open_pool: MakePool) -> None:
        pool = open_pool(spec())
        candidate = candidates(pool, 1)[0]
        pool.close()
        for action in (pool.catalogue, partial(pool.submit, candidate)):
            with pytest.raises(EvaluatorError, match="expected a pool that is open"):
                action()


SCRIPT = """
import os, signal, time
from functools import partial
from evaluators.protocol import Candidate, Score
from evaluators.synthetic_evaluator import SyntheticEvaluator, SyntheticSpec
from evaluators.workers.ray_pool import RayPool
from spaces.recipes.recipe import Merge, Model, Recipe, Source, parameters
stopped = []
spec = SyntheticSpec(parents=("math",), tasks=(("a", 1.0),), questions=5, seconds=1.5)
pool = RayPool(partial(SyntheticEvaluator, spec), workers=1, gpus=0.0)
signal.signal(signal.SIGINT, lambda *_: stopped.append(1))
ids = tuple(question.id for question in pool.catalogue().questions)
source = Source(of=Model("math"), parameters=parameters(weight=1.0))
recipe = Recipe(root=Merge(method="linear", sources=(source,)))
pool.submit(Candidate(id=0, recipe=recipe, questions=ids))
time.sleep(0.5)
os.killpg(0, signal.SIGINT)  # as Ctrl-C in a terminal does
result = pool.next(timeout=30)
assert stopped and isinstance(result.outcome, Score), result
pool.close()
import ray
assert not ray.is_initialized()
print("drained")
"""


@pytest.mark.slow
def test_ctrl_c_leaves_the_workers_to_the_driver(tmp_path: Any) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, capture_output=True, text=True,
        timeout=120, start_new_session=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("drained")


FULL = """
import os, signal
from functools import partial
import ray
from evaluators.protocol import Candidate, Score
from evaluators.synthetic_evaluator import SyntheticEvaluator, SyntheticSpec
from evaluators.workers.ray_pool import RayPool
from spaces.recipes.recipe import Merge, Model, Recipe, Source, parameters

class Threads(SyntheticEvaluator):
    @property
    def notes(self):
        return (os.environ["OMP_NUM_THREADS"],)

class Other:
    def there(self):
        return True

spec = SyntheticSpec(parents=("math",), tasks=(("a", 1.0),), questions=5, exit_on=(0,))
pool = RayPool(partial(Threads, spec), workers=1, gpus=0.0, cpus=2.0)
assert pool.notes == ("2",), pool.notes
other = ray.remote(num_cpus=ray.cluster_resources()["CPU"])(Other).remote()
assert ray.get(other.there.remote(), timeout=100)
ids = tuple(question.id for question in pool.catalogue().questions)
source = Source(of=Model("math"), parameters=parameters(weight=1.0))
recipe = Recipe(root=Merge(method="linear", sources=(source,)))
for number in range(2):
    pool.submit(Candidate(id=number, recipe=recipe, questions=ids))
results = {result.candidate.id: result for result in (pool.next(), pool.next())}
assert isinstance(results[1].outcome, Score), results
pool.close()
print("went on")
"""


@pytest.mark.slow
def test_workers_need_no_core_that_ray_holds_back(tmp_path: Any) -> None:
    """In a Ray of the pool's own: here all cores are taken, as if dead workers still had them."""
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", FULL], cwd=tmp_path, capture_output=True, text=True,
        timeout=250, start_new_session=True, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("went on")


@pytest.mark.slow
def test_real_evaluators_in_workers(
    local_ray: None, tiny_family: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"q": str(number), "right": number % 3} for number in range(12)]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "pick.yaml").write_text(
        "task: pick\ndataset_path: json\ndataset_kwargs: {data_files: {test: data.jsonl}}\n"
        'test_split: test\noutput_type: multiple_choice\ndoc_to_text: "max:{{q}}>"\n'
        'doc_to_choice: ["0", "1", "2"]\ndoc_to_target: right\n'
    )
    wanted = HarnessSpec(
        models=tuple((name, str(folder)) for name, folder in tiny_family.items()),
        tasks=(TaskSpec(name="pick", metric="acc"),),
        include_path=(str(tmp_path),),
        threads=1,
    )
    monkeypatch.chdir(tmp_path.parent)  # workers and driver run elsewhere than the data lies
    pool = RayPool(partial(HarnessEvaluator, wanted), workers=1, gpus=0.0)
    try:
        assert pool.catalogue() == check(wanted)
        candidate = candidates(pool, 3)[2]
        pool.submit(candidate)
        result = pool.next(timeout=120)
        here = HarnessEvaluator(wanted).evaluate(candidate)
        assert result is not None
        assert isinstance(result.outcome, Score)
        assert isinstance(here, Score)
        assert result.outcome.fingerprint == here.fingerprint
        assert result.outcome.outcomes == here.outcomes
        broken = replace(wanted, tasks=(TaskSpec(name="pick", metric="bleu"),))
        with pytest.raises(EvaluatorError, match="task pick: metric: expected one of acc,none"):
            RayPool(partial(HarnessEvaluator, broken), workers=1, gpus=0.0)
    finally:
        pool.close()
