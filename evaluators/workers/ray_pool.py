"""Workers as Ray actors: one evaluator each, on this machine or on a cluster.

A worker or node that dies takes nothing with it but the candidate it was at, which is tried again
elsewhere (``evaluators/workers/scheduling/scheduler.py``); every other thing that goes wrong is a
value in a Result.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from evaluators.protocol import Candidate, Catalogue, EvaluatorError, EvaluatorFactory
from evaluators.workers.cluster.ray_cluster import Cluster
from evaluators.workers.pool import Attendance, Result
from evaluators.workers.scheduling.capacity import Need, check_options, short
from evaluators.workers.scheduling.scheduler import Scheduler
from evaluators.workers.scheduling.worker_set import Inspection, MakeEvaluator, WorkerSet

_CLOSED = "workers: expected a pool that is open, got a closed one"


class RayPool:
    """Evaluators in Ray actors; whichever is free takes the next candidate.

    The constructor waits for the first worker, so that an evaluator that cannot work is known
    before a run starts; the others join when they are ready.

    Args:
        make: Makes the evaluator, inside each worker.
        workers: Number of workers; ``None`` for as many as the machine or cluster takes, nodes
            that join later included.
        gpus: GPUs of one worker, fractions share a GPU; ``None`` for 1 where there are GPUs.
        cpus: CPU cores of one worker, above 0.
        memory: Bytes of main memory that a worker needs, for choosing the number of workers
            without GPUs; 0 leaves memory out of account.
        address: Address of a Ray cluster, ``auto`` for the one of this machine; ``None`` starts
            one here and ends it with the pool.
        timeout: Longest time for one candidate in seconds; ``None`` for no limit.
        retries: How often a candidate whose worker died is tried again.
        wait: Seconds to wait for a node of a cluster when there is room for no worker.
        straggler: Seconds that a candidate is always given before it counts as a straggler.
        runtime_env: Ray's runtime environment of the workers.
        inspect: Looks at every node of a cluster before it gets workers.
        make_for: Makes the factory of workers that have other GPUs than ``gpus``, which happens
            on nodes whose number of GPUs is no multiple of it; ``None`` takes ``make``.

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
        wait: float = 600.0,
        straggler: float = 60.0,
        runtime_env: Mapping[str, Any] | None = None,
        inspect: Inspection | None = None,
        make_for: MakeEvaluator | None = None,
    ) -> None:
        check_options(workers=workers, gpus=gpus, cpus=cpus, timeout=timeout, retries=retries)
        self._kept = ""  # the worker that waits for the caller's word
        self._pending = 0
        self._closed = False
        # Asking for more workers than cores is the user's choice; Ray would leave them waiting.
        cores = None if workers is None else max(1, -int(-workers * cpus // 1))
        self._cluster = Cluster(address, cores=cores, runtime_env=runtime_env)
        try:
            need = self._needed(workers, gpus, cpus, memory)
            make_workers = partial(
                WorkerSet,
                self._cluster,
                need,
                count=workers,
                make=_factories(make, make_for, usual=need.gpus),
                inspect=inspect if self._cluster.elastic else None,
                wait=wait,
            )
            self._scheduler = Scheduler(
                self._cluster, make_workers, timeout=timeout, retries=retries, straggler=straggler
            )
            self._scheduler.start()
        except BaseException:
            self.close()
            raise

    def _needed(self, workers: int | None, gpus: float | None, cpus: float, memory: int) -> Need:
        """What each worker takes; nodes to come are asked for where some are missing."""
        nodes = self._cluster.nodes()
        if gpus is None:
            gpus = 1.0 if any(node.gpus > 0 for node in nodes) else 0.0
        need = Need(cpus=cpus, gpus=gpus, memory=memory)
        missing = short(nodes, need, workers or 1)
        if missing and not (self._cluster.elastic and workers is not None):
            raise EvaluatorError(missing)
        if missing and workers is not None:
            self._cluster.ask_for([need.bundle()] * workers)
        self._gpus = gpus
        return need

    @property
    def size(self) -> int:
        return max(1, len(self._workers.slots))

    @property
    def gpus(self) -> float:
        return self._gpus

    @property
    def pending(self) -> int:
        return self._pending

    @property
    def notes(self) -> tuple[str, ...]:
        return self._workers.notes

    def catalogue(self) -> Catalogue:
        if self._closed or self._workers.catalogue is None:
            raise EvaluatorError([_CLOSED])
        return self._workers.catalogue

    def submit(self, candidate: Candidate, *, near: str = "", keep: bool = False) -> None:
        if self._closed:
            raise EvaluatorError([_CLOSED])
        self._pending += 1
        self._scheduler.take(candidate, near=near, keep=keep)

    def next(self, timeout: float | None = None) -> Result | None:
        """The next finished result; ``None`` after ``timeout`` seconds or when nothing is pending.

        Raises:
            EvaluatorError: If no worker is left and none can be set up.
        """
        if self._kept:
            self._scheduler.release(self._kept)
            self._kept = ""
        if not self._pending:
            return None
        found = self._scheduler.result(timeout)
        if found is not None:
            self._pending -= 1
            self._kept = found.worker
        return found

    def hurry(self, on: bool) -> None:
        self._scheduler.hurried = on

    def withdraw(self) -> tuple[Candidate, ...]:
        if self._closed:
            return ()
        found = self._scheduler.withdraw()
        self._pending -= len(found)
        return found

    def begun(self) -> tuple[int, ...]:
        begun = self._scheduler.begun
        return tuple(begun.popleft() for _ in range(len(begun)))

    def attendance(self) -> tuple[Attendance, ...]:
        return tuple(self._workers.attendance)

    def news(self) -> tuple[str, ...]:
        found = []
        while self._workers.news:
            found.append(self._workers.news.pop(0))
        return tuple(found)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._pending = 0
        if hasattr(self, "_scheduler"):
            self._scheduler.close()
        self._cluster.close()

    @property
    def _workers(self) -> WorkerSet:
        return self._scheduler.workers


def _factories(
    make: EvaluatorFactory, make_for: MakeEvaluator | None, *, usual: float
) -> MakeEvaluator:
    def chosen(gpus: float) -> EvaluatorFactory:
        return make if make_for is None or gpus == usual else make_for(gpus)

    return chosen
