"""Workers as Ray actors: one evaluator each, on this machine or on a cluster.

A thread of the pool's own gives candidates out, so that a worker that is done has the next one at
once, whatever the caller is doing. A worker or node that dies takes nothing with it but the
candidate it was at, which is tried again elsewhere; every other thing that goes wrong is a value
in a Result.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from evaluators.base import (
    Candidate,
    Catalogue,
    EvaluatorError,
    EvaluatorFactory,
    Failure,
    FailureKind,
    Score,
)
from evaluators.crew import Crew, Inspection, Job, MakeEvaluator, Post
from evaluators.pool import Attendance, Result
from evaluators.ray_cluster import Answer, Cluster, Trouble
from evaluators.rooms import Need, check_options, short
from evaluators.stragglers import Pace

NODE_LOSSES = 3
"""How often a candidate is given out again because a node went away under it: not its fault."""

TICK_SECONDS = 1.0
"""Longest time between two looks at the clock."""

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
        self._timeout, self._retries = timeout, retries
        self._pace = Pace(least=straggler)
        self._hurried = False
        self._waiting: deque[Job] = deque()
        self._events: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._begun: deque[int] = deque()  # which threads may append to and take from
        self._results: SimpleQueue[Result | BaseException] = SimpleQueue()
        self._opened: SimpleQueue[BaseException | None] = SimpleQueue()
        self._kept = ""  # the worker that waits for the caller's word
        self._pending = 0
        self._closed = False
        # Asking for more workers than cores is the user's choice; Ray would leave them waiting.
        cores = None if workers is None else max(1, -int(-workers * cpus // 1))
        self._cluster = Cluster(address, cores=cores, runtime_env=runtime_env)
        self._thread = Thread(target=self._work, name="pool", daemon=True)
        try:
            need = self._needed(workers, gpus, cpus, memory)
            self._crew = Crew(
                self._cluster,
                need,
                count=workers,
                make=_factories(make, make_for, usual=need.gpus),
                inspect=inspect if self._cluster.elastic else None,
                wait=wait,
                enqueue=self._events.put,
                orphaned=self._answered,
            )
            self._thread.start()
            problem = self._opened.get()
            if problem is not None:
                raise problem
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
        return max(1, len(self._crew.posts))

    @property
    def gpus(self) -> float:
        return self._gpus

    @property
    def pending(self) -> int:
        return self._pending

    @property
    def notes(self) -> tuple[str, ...]:
        return self._crew.notes

    def catalogue(self) -> Catalogue:
        if self._closed or self._crew.catalogue is None:
            raise EvaluatorError([_CLOSED])
        return self._crew.catalogue

    def submit(self, candidate: Candidate, *, near: str = "", keep: bool = False) -> None:
        if self._closed:
            raise EvaluatorError([_CLOSED])
        self._pending += 1
        job = Job(candidate=candidate, keep=keep, posts=[])
        self._events.put(partial(self._take_in, job, near))

    def next(self, timeout: float | None = None) -> Result | None:
        """The next finished result; ``None`` after ``timeout`` seconds or when nothing is pending.

        Raises:
            EvaluatorError: If no worker is left and none can be set up.
        """
        self._release()
        if not self._pending:
            return None
        try:
            found = self._results.get(timeout=timeout)
        except Empty:
            return None
        if isinstance(found, BaseException):
            self._results.put(found)  # whoever asks again is told again
            raise found
        self._pending -= 1
        self._kept = found.worker
        return found

    def hurry(self, on: bool) -> None:
        self._hurried = on

    def withdraw(self) -> tuple[Candidate, ...]:
        if self._closed or not self._thread.is_alive():
            return ()
        reply: SimpleQueue[tuple[Candidate, ...]] = SimpleQueue()
        self._events.put(partial(self._give_back, reply))
        try:
            found = reply.get(timeout=10 * TICK_SECONDS)
        except Empty:  # the thread came to its end meanwhile; ``next`` says why
            return ()
        self._pending -= len(found)
        return found

    def begun(self) -> tuple[int, ...]:
        return tuple(self._begun.popleft() for _ in range(len(self._begun)))

    def attendance(self) -> tuple[Attendance, ...]:
        return tuple(self._crew.attendance)

    def news(self) -> tuple[str, ...]:
        found = []
        while self._crew.news:
            found.append(self._crew.news.pop(0))
        return tuple(found)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._pending = 0
        self._events.put(None)
        if self._thread.is_alive():
            self._thread.join()
        if hasattr(self, "_crew"):
            self._crew.close()
        self._cluster.close()

    def _release(self) -> None:
        if self._kept:
            self._events.put(partial(self._free, self._kept))
            self._kept = ""

    # All below runs in the pool's thread.

    def _work(self) -> None:
        opening = True
        try:
            self._crew.watch(now=True)
            while True:
                try:
                    act = self._events.get(timeout=self._patience())
                except Empty:
                    act = _nothing
                if act is None:
                    return
                act()
                self._end_overdue()
                if self._hurried and not self._waiting:
                    self._overtake()
                self._crew.watch()
                if opening and self._crew.catalogue is not None:
                    opening = False
                    self._opened.put(None)
                self._hand_out()
        except BaseException as error:  # noqa: BLE001 - the caller's thread has to hear of it
            self._opened.put(error)
            self._results.put(error)

    def _patience(self) -> float:
        """Seconds until the clock has to be looked at."""
        if self._timeout is None:
            return TICK_SECONDS
        now = time.monotonic()
        left = [p.since + self._timeout - now for p in self._crew.posts if p.job is not None]
        return max(0.0, min([TICK_SECONDS, *left]))

    def _take_in(self, job: Job, near: str) -> None:
        post = next((p for p in self._crew.posts if near and p.name == near and p.free), None)
        if post is not None:
            self._give(post, job)
        elif near:  # begun with already: the sooner it is done with, the better
            self._waiting.appendleft(job)
        else:
            self._waiting.append(job)

    def _free(self, worker: str) -> None:
        for post in self._crew.posts:
            if post.name == worker:
                post.kept = False

    def _give_back(self, reply: SimpleQueue[tuple[Candidate, ...]]) -> None:
        reply.put(tuple(job.candidate for job in self._waiting))
        self._waiting.clear()

    def _hand_out(self) -> None:
        for post in self._crew.free:
            if not self._waiting:
                return
            self._give(post, self._waiting.popleft())

    def _give(self, post: Post, job: Job) -> None:
        post.job, post.kept = job, False
        post.since, post.began = time.monotonic(), time.time()
        post.call += 1
        job.posts.append(post)
        if not job.begun:
            job.begun = True
            self._begun.append(job.candidate.id)
        heard = partial(self._hear, post, post.call)
        self._cluster.call(post.actor, "evaluate", job.candidate, heard)

    def _hear(self, post: Post, call: int, answer: Answer) -> None:
        # In a thread of Ray's.
        self._events.put(partial(self._answered, post, call, answer))

    def _answered(self, post: Post, call: int, answer: Answer) -> None:
        job = post.job
        if post.call != call or job is None:
            return  # it was given up before
        name, post.job = post.name, None
        job.posts.remove(post)
        if answer.trouble is None:
            self._count(post)
            self._finished(job, post, name, answer.value)
        elif answer.trouble is Trouble.RAISED:  # the evaluator is broken, not just the candidate
            failure = Failure(kind=FailureKind.ERROR, message=answer.message, detail=answer.detail)
            self._finished(job, post, name, failure)
            self._crew.renew(post)
        else:
            self._lost(job, post, name, answer)

    def _count(self, post: Post) -> None:
        if post.attendance is not None:
            post.attendance.busy += time.time() - post.began
            post.attendance.candidates += 1

    def _finished(self, job: Job, post: Post, worker: str, outcome: Score | Failure) -> None:
        if job.done:
            return  # a straggler that was overtaken
        job.done = True
        if isinstance(outcome, Score):
            self._pace.note(time.monotonic() - post.since, questions=len(outcome.outcomes))
            post.kept = job.keep
        self._results.put(
            Result(
                candidate=job.candidate,
                outcome=outcome,
                worker=worker,
                began=post.began,
                ended=time.time(),
            )
        )

    def _lost(self, job: Job, post: Post, worker: str, answer: Answer) -> None:
        node = post.node.name
        gone = self._crew.lost(post, answer)
        if job.done or job.posts:
            return  # somebody else has done it, or is at it
        if gone:
            job.nodes += 1
        else:
            job.losses += 1
        if job.nodes <= NODE_LOSSES and job.losses <= self._retries:
            self._waiting.appendleft(job)
            return
        self._finished(job, post, worker, _loss(job, answer, node if gone else ""))

    def _end_overdue(self) -> None:
        if self._timeout is None:
            return
        now = time.monotonic()
        for post in [p for p in self._crew.posts if p.job is not None]:
            spent = now - post.since
            if spent >= self._timeout:
                self._give_up(post, f"no result after {spent:.0f} s (limit: {self._timeout:g} s)")

    def _give_up(self, post: Post, message: str) -> None:
        """Wait no longer for what a worker is at; a new worker takes its place."""
        job, worker = post.job, post.name
        self._crew.renew(post)
        if job is not None and not job.posts:
            failure = Failure(kind=FailureKind.TIMEOUT, message=message)
            self._finished(job, post, worker, failure)

    def _overtake(self) -> None:
        """Give stragglers to free workers too; what takes those as long is given up."""
        now, free = time.monotonic(), self._crew.free
        running = {id(post.job): post.job for post in self._crew.posts if post.job is not None}
        for job in running.values():
            limit = self._pace.limit(questions=len(job.candidate.questions))
            slow = [post for post in job.posts if now - post.since >= limit]
            if len(slow) < len(job.posts):
                continue
            if job.done:  # somebody else has done it: the place is needed for others
                for post in slow:
                    self._crew.renew(post)
            elif len(slow) > 1:
                message = (
                    f"no result after {limit:.0f} s from {len(slow)} workers, where others took "
                    f"{self._pace.usual:.1f} s and the budget was spent"
                )
                for post in slow:
                    self._give_up(post, message)
            elif free:
                self._give(free.pop(), job)


def _nothing() -> None:
    """What is to be done when it is only time to look at the clock."""


def _factories(
    make: EvaluatorFactory, make_for: MakeEvaluator | None, *, usual: float
) -> MakeEvaluator:
    def chosen(gpus: float) -> EvaluatorFactory:
        return make if make_for is None or gpus == usual else make_for(gpus)

    return chosen


def _loss(job: Job, answer: Answer, node: str) -> Failure:
    """The failure of a candidate that is not tried again."""
    tries = job.losses + job.nodes
    often = "once" if tries == 1 else f"{tries} times"
    if node:
        kind, what = FailureKind.NODE_GONE, f"the node went away ({often}), last {node},"
    elif answer.trouble is Trouble.MEMORY:
        kind, what = FailureKind.OUT_OF_MEMORY, f"the machine ran out of memory, {often},"
    elif answer.trouble is Trouble.UNFIT:
        kind, what = FailureKind.LOST_WORKER, f"the worker failed, {often}, ({answer.message})"
    else:
        kind, what = FailureKind.LOST_WORKER, f"the worker died, {often},"
    return Failure(
        kind=kind, message=f"{what} while it evaluated this candidate", detail=answer.detail
    )
