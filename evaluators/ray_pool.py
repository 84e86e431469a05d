"""Workers as Ray actors: one evaluator each, on this machine or on a cluster.

The only module that imports ray. A worker that dies takes nothing with it but the candidate it was
at, which is tried again elsewhere; every other thing that goes wrong is a value in a Result.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from evaluators.base import (
    Candidate,
    Catalogue,
    EvaluatorError,
    EvaluatorFactory,
    Failure,
    FailureKind,
    Score,
)
from evaluators.pool import Result
from evaluators.worker import Started, Worker

OBJECT_STORE_BYTES = 80 * 1024 * 1024
"""Ray's shared memory on this machine; recipes and scores are small, weights never travel."""

START_ATTEMPTS = 3
"""How often in a row a worker may die while it sets itself up before it is given up."""

ENVIRONMENT = {
    "RAY_worker_niceness": "0",  # at Ray's 15, evaluations starve on a busy machine
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported to anyone
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a worker without a share of a GPU sees none
}
"""Settings of a local Ray; what the user has set already is left as it is."""

_log = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True)
class _Job:
    """A candidate, and how often its worker was lost."""

    candidate: Candidate
    losses: int = 0


@dataclass(kw_only=True, slots=True)
class _Slot:
    """A place for a worker; workers come and go, the place stays.

    Attributes:
        actor: Ray's handle of the present worker.
        call: Ray's reference of what the worker is at; ``None`` when it is idle.
        name: Name of the worker; empty while it sets itself up.
        job: What it evaluates; ``None`` when it is idle or sets itself up.
        since: When it began with the job, by the monotonic clock.
        deaths: How often in a row workers died here before they were set up.
    """

    actor: Any
    call: Any
    name: str = ""
    job: _Job | None = None
    since: float = 0.0
    deaths: int = 0


class RayPool:
    """Evaluators in Ray actors; whichever is free takes the next candidate.

    The constructor waits for the first worker, so that an evaluator that cannot work is known
    before a run starts; the others join when they are ready.

    Args:
        make: Makes the evaluator, inside each worker.
        workers: Number of workers; ``None`` for as many as the machine or cluster takes.
        gpus: GPUs of one worker, fractions share a GPU; ``None`` for 1 where there are GPUs.
        cpus: CPU cores of one worker, above 0.
        memory: Bytes of main memory that a worker needs, for choosing the number of workers
            without GPUs; 0 leaves memory out of account.
        address: Address of a Ray cluster, ``auto`` for the one of this machine; ``None`` starts
            one here and ends it with the pool.
        timeout: Longest time for one candidate in seconds; ``None`` for no limit.
        retries: How often a candidate whose worker died is tried again.

    Raises:
        EvaluatorError: If Ray or the workers cannot be set up.
    """

    def __init__(
        self,
        make: EvaluatorFactory,
        *,
        workers: int | None = None,
        gpus: float | None = None,
        cpus: float = 1.0,
        memory: int = 0,
        address: str | None = None,
        timeout: float | None = None,
        retries: int = 1,
    ) -> None:
        _check(workers=workers, gpus=gpus, cpus=cpus, timeout=timeout, retries=retries)
        self._make = make
        self._timeout = timeout
        self._retries = retries
        self._waiting: deque[_Job] = deque()
        self._done: deque[Result] = deque()
        self._slots: list[_Slot] = []
        self._catalogue: Catalogue | None = None
        self._notes: tuple[str, ...] = ()
        self._problems: list[str] = []
        self._closed = False
        self._gpus = 0.0
        self._owns_ray = _connect(address, workers=workers, cpus=cpus)
        try:
            count, share = _fit(workers=workers, gpus=gpus, cpus=cpus, memory=memory)
            self._gpus = share
            self._actor_class = ray.remote(num_cpus=cpus, num_gpus=share, max_restarts=0)(Worker)
            self._slots = [self._new_slot() for _ in range(count)]
            while self._catalogue is None:
                self._advance(None)
        except BaseException:
            self.close()
            raise

    @property
    def size(self) -> int:
        return max(1, len(self._slots))

    @property
    def gpus(self) -> float:
        return self._gpus

    @property
    def pending(self) -> int:
        busy = sum(slot.job is not None for slot in self._slots)
        return len(self._waiting) + busy + len(self._done)

    @property
    def notes(self) -> tuple[str, ...]:
        return self._notes

    def catalogue(self) -> Catalogue:
        if self._catalogue is None:
            raise EvaluatorError(["workers: expected a pool that is open, got a closed one"])
        return self._catalogue

    def submit(self, candidate: Candidate, *, near: str = "") -> None:
        if self._closed:
            raise EvaluatorError(["workers: expected a pool that is open, got a closed one"])
        job = _Job(candidate=candidate)
        slot = next((s for s in self._slots if near and s.name == near and s.call is None), None)
        if slot is not None and not self._waiting:
            self._give(slot, job)
        else:
            self._waiting.append(job)
            self._hand_out()

    def next(self, timeout: float | None = None) -> Result | None:
        """The next finished result; ``None`` after ``timeout`` seconds or when nothing is pending.

        Raises:
            EvaluatorError: If no worker is left and none can be set up.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while not self._done and self.pending:
            left = None if end is None else end - time.monotonic()
            self._advance(None if left is None else max(0.0, left))
            if left is not None and left <= 0:
                break
        return self._done.popleft() if self._done else None

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._waiting.clear()
        self._done.clear()
        for slot in self._slots:
            _kill(slot.actor)
        self._slots = []
        self._catalogue = None
        if self._owns_ray:
            ray.shutdown()

    def _new_slot(self) -> _Slot:
        actor = self._actor_class.remote()
        return _Slot(actor=actor, call=actor.start.remote(self._make))

    def _renew(self, slot: _Slot) -> None:
        """Put a new worker in the place of one that died or was ended."""
        _kill(slot.actor)
        slot.actor = self._actor_class.remote()
        slot.call = slot.actor.start.remote(self._make)
        slot.name, slot.job = "", None

    def _hand_out(self) -> None:
        for slot in self._slots:
            if self._waiting and slot.call is None:
                self._give(slot, self._waiting.popleft())

    def _give(self, slot: _Slot, job: _Job) -> None:
        slot.job, slot.since = job, time.monotonic()
        slot.call = slot.actor.evaluate.remote(job.candidate)

    def _advance(self, timeout: float | None) -> None:
        """Wait until a worker is done or overdue, or ``timeout`` seconds, and act on it."""
        self._hand_out()
        calls = {slot.call: slot for slot in self._slots if slot.call is not None}
        ready, _ = ray.wait(list(calls), num_returns=1, timeout=self._patience(timeout))
        for call in ready:
            slot = calls[call]
            slot.call = None
            if slot.job is None:
                self._started(slot, call)
            else:
                self._finished(slot, slot.job, call)
        self._end_overdue()
        self._hand_out()

    def _patience(self, timeout: float | None) -> float | None:
        """Seconds until the caller or the first overdue candidate wants attention."""
        limits = [] if timeout is None else [timeout]
        if self._timeout is not None:
            now = time.monotonic()
            limits += [
                max(0.0, slot.since + self._timeout - now)
                for slot in self._slots
                if slot.job is not None
            ]
        return min(limits, default=None)

    def _started(self, slot: _Slot, call: Any) -> None:
        try:
            started: Started = ray.get(call)
        except RayTaskError as error:  # make() raised something else, or cannot be imported there
            self._give_up(slot, (f"worker: cannot be set up: {_last_line(error)}",))
        except RayError as error:
            slot.deaths += 1
            if slot.deaths < START_ATTEMPTS:
                _log.warning("a worker died while it was set up; starting another: %s", error)
                self._renew(slot)
                return
            why = f"worker: died {slot.deaths} times while it was set up: {_last_line(error)}"
            self._give_up(slot, (f"{why}; is there enough memory?",))
        else:
            if started.catalogue is None:
                self._give_up(slot, started.problems)
                return
            slot.name, slot.deaths = started.name, 0
            if self._catalogue is None:
                self._catalogue, self._notes = started.catalogue, started.notes

    def _give_up(self, slot: _Slot, problems: tuple[str, ...]) -> None:
        """Do without this worker; without any, the pool cannot go on."""
        _kill(slot.actor)
        self._slots.remove(slot)
        self._problems += [line for line in problems if line not in self._problems]
        if not self._slots:
            raise EvaluatorError(self._problems)
        _log.warning("a worker cannot be set up, going on without it: %s", "; ".join(problems))

    def _finished(self, slot: _Slot, job: _Job, call: Any) -> None:
        name = slot.name
        try:
            outcome: Score | Failure = ray.get(call)
        except RayTaskError as error:  # the evaluator is broken, not just the candidate
            outcome = Failure(
                kind=FailureKind.ERROR, message=_last_line(error), detail=str(error)[:10_000]
            )
            self._renew(slot)
        except RayError as error:
            self._renew(slot)
            job.losses += 1
            if job.losses <= self._retries:
                self._waiting.appendleft(job)
                return
            tries = "once" if job.losses == 1 else f"{job.losses} times"
            outcome = Failure(
                kind=FailureKind.LOST_WORKER,
                message=f"the worker died, {tries}, while it evaluated this candidate",
                detail=str(error)[:10_000],
            )
        slot.job = None
        self._done.append(Result(candidate=job.candidate, outcome=outcome, worker=name))

    def _end_overdue(self) -> None:
        for slot in self._slots:
            job = slot.job
            if self._timeout is None or job is None:
                continue
            spent = time.monotonic() - slot.since
            if spent >= self._timeout:
                message = f"no result after {spent:.0f} s (limit: {self._timeout:g} s)"
                outcome = Failure(kind=FailureKind.TIMEOUT, message=message)
                name = slot.name
                self._renew(slot)
                self._done.append(Result(candidate=job.candidate, outcome=outcome, worker=name))


def _check(
    *,
    workers: int | None,
    gpus: float | None,
    cpus: float,
    timeout: float | None,
    retries: int,
) -> None:
    problems = []
    if workers is not None and workers < 1:
        problems.append(f"workers: expected at least 1, got {workers}")
    if gpus is not None and (gpus < 0 or (gpus > 1 and gpus != int(gpus))):
        problems.append(f"gpus: expected 0, a share below 1 or a whole number, got {gpus}")
    if cpus <= 0:
        problems.append(f"cpus: expected a number above 0, got {cpus}")
    if timeout is not None and timeout <= 0:
        problems.append(f"timeout: expected seconds above 0, got {timeout}")
    if retries < 0:
        problems.append(f"retries: expected at least 0, got {retries}")
    if problems:
        raise EvaluatorError(problems)


def _connect(address: str | None, *, workers: int | None, cpus: float) -> bool:
    """Join the cluster, or start Ray here; whether we have to shut it down."""
    if ray.is_initialized():
        return False
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        # Asking for more workers than cores is the user's choice; Ray would leave them waiting.
        cores = None if workers is None else max(1, -int(-workers * cpus // 1))
        options |= {
            "address": "local",
            "num_cpus": cores,
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
        }
    else:
        options["address"] = address
    try:
        ray.init(**options)
    except (RayError, OSError, ConnectionError, RuntimeError, ValueError) as error:
        where = "on this machine" if address is None else f"at {address}"
        raise EvaluatorError([f"ray: cannot start {where}: {_last_line(error)}"]) from error
    return True


def _fit(*, workers: int | None, gpus: float | None, cpus: float, memory: int) -> tuple[int, float]:
    """Number of workers and the GPU share of each, for what Ray has."""
    has = ray.cluster_resources()
    share = (1.0 if has.get("GPU", 0.0) > 0 else 0.0) if gpus is None else gpus
    room = [("CPU", cpus)] + ([("GPU", share)] if share > 0 else [])
    # A share of 0.3 fits three times into each GPU, not three and a third times into the sum.
    fits = {
        kind: int(has.get(kind, 0.0)) * int(1.0 / need + 1e-9)
        if 0 < need < 1
        else int(has.get(kind, 0.0) / need + 1e-9)
        for kind, need in room
    }
    short = [
        f"workers: expected {need:g} {kind} for each of {workers or 1}, got a machine or cluster "
        f"with {has.get(kind, 0.0):g} in all"
        for kind, need in room
        if fits[kind] < (workers or 1)
    ]
    if short:
        raise EvaluatorError(short)
    if workers is not None:
        return workers, share
    # Every core could take a worker, but not every machine as many models as it has cores. One
    # worker is always tried: what Ray counts as free is a guess.
    loads = int(has.get("memory", 0.0) / memory) if memory and share == 0 else min(fits.values())
    return max(1, min(loads, *fits.values())), share


def _kill(actor: Any) -> None:
    try:
        ray.kill(actor, no_restart=True)
    except (RayError, ValueError) as error:  # already gone, or Ray itself is
        _log.debug("a worker was gone before it was ended: %s", error)


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
