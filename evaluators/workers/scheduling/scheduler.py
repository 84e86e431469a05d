"""Giving candidates to workers and hearing of their results, in a thread of its own.

A worker that is done has the next candidate at once, whatever the caller is doing. One whose worker
or node died is tried again elsewhere, one that takes too long is given up, and a straggler is given
to another worker too.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Protocol

from evaluators.protocol import Candidate, Failure, FailureKind, LossGradient, Score
from evaluators.workers import clock
from evaluators.workers.cluster.ray_cluster import Answer, Cluster, Trouble
from evaluators.workers.pool import Result
from evaluators.workers.scheduling.stragglers import RecentTimes
from evaluators.workers.scheduling.worker_set import Enqueue, Orphaned, WorkerSet
from evaluators.workers.scheduling.worker_slots import SubmittedCandidate, WorkerSlot, loss_of
from evaluators.workers.worker_deaths import Death, death_of

NODE_LOSSES = 3
"""How often a candidate is given out again because a node went away under it: not its fault."""

TICK_SECONDS = 1.0
"""Longest time between two looks at the clock."""


class MakeWorkerSet(Protocol):
    """Sets up workers: ``functools.partial`` of ``WorkerSet``, but for what the scheduler has."""

    def __call__(self, *, enqueue: Enqueue, orphaned: Orphaned) -> WorkerSet: ...


class Scheduler:
    """Whoever is free takes the next candidate.

    Public methods may be called in any thread, all others run in the dispatch's own.

    Args:
        cluster: Where the workers are.
        hire: Sets up the crew that has them.
        timeout: Longest time for one candidate in seconds; ``None`` for no limit.
        retries: How often a candidate whose worker died is tried again.
        straggler: Seconds that a candidate is always given before it counts as a straggler.

    Attributes:
        crew: The workers.
        begun: Ids of candidates that a worker was given for the first time; may be taken from.
        hurried: Whether stragglers are overtaken by workers that have nothing else to do.
    """

    def __init__(
        self,
        cluster: Cluster,
        hire: MakeWorkerSet,
        *,
        timeout: float | None,
        retries: int,
        straggler: float,
    ) -> None:
        self._cluster, self._timeout, self._retries = cluster, timeout, retries
        self._pace = RecentTimes(least=straggler)
        self._waiting: deque[SubmittedCandidate] = deque()
        self._events: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._results: SimpleQueue[Result | BaseException] = SimpleQueue()
        self._opened: SimpleQueue[BaseException | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="pool", daemon=True)
        self.begun: deque[int] = deque()
        self.hurried = False
        self.crew = hire(enqueue=self._events.put, orphaned=self._answered)

    def start(self) -> None:
        """Begin, and wait for the first worker.

        Raises:
            EvaluatorError: If none can be set up.
        """
        self._thread.start()
        problem = self._opened.get()
        if problem is not None:
            raise problem

    def take(self, candidate: Candidate, *, near: str, keep: bool) -> None:
        """Take in a candidate; see ``Pool.submit``."""
        job = SubmittedCandidate(candidate=candidate, keep=keep, posts=[])
        self._events.put(partial(self._take_in, job, near))

    def result(self, timeout: float | None) -> Result | None:
        """The next result, or ``None`` after ``timeout`` seconds.

        Raises:
            EvaluatorError: If no worker is left and none can be set up.
        """
        try:
            found = self._results.get(timeout=timeout)
        except Empty:
            return None
        if isinstance(found, BaseException):
            self._results.put(found)  # whoever asks again is told again
            raise found
        return found

    def release(self, worker: str) -> None:
        """Keep a worker no longer for more questions to its last candidate."""
        self._events.put(partial(self._free, worker))

    def withdraw(self) -> tuple[Candidate, ...]:
        """Take back what no worker was given yet."""
        if not self._thread.is_alive():
            return ()
        reply: SimpleQueue[tuple[Candidate, ...]] = SimpleQueue()
        self._events.put(partial(self._give_back, reply))
        try:
            return reply.get(timeout=10 * TICK_SECONDS)
        except Empty:  # the thread came to its end meanwhile; ``result`` says why
            return ()

    def close(self) -> None:
        """End the thread, then all workers."""
        self._events.put(None)
        if self._thread.is_alive():
            self._thread.join()
        self.crew.close()

    def _work(self) -> None:
        opening = True
        try:
            self.crew.watch(now=True)
            while True:
                try:
                    act = self._events.get(timeout=self._patience())
                except Empty:
                    act = _nothing
                if act is None:
                    return
                act()
                self._end_overdue()
                if self.hurried and not self._waiting:
                    self._overtake()
                self.crew.watch()
                if opening and self.crew.catalogue is not None:
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
        left = [p.since + self._timeout - now for p in self.crew.posts if p.job is not None]
        return max(0.0, min([TICK_SECONDS, *left]))

    def _take_in(self, job: SubmittedCandidate, near: str) -> None:
        post = next((p for p in self.crew.posts if near and p.name == near and p.free), None)
        if post is not None:
            self._give(post, job)
        elif near:  # begun with already: the sooner it is done with, the better
            self._waiting.appendleft(job)
        else:
            self._waiting.append(job)

    def _free(self, worker: str) -> None:
        for post in self.crew.posts:
            if post.name == worker:
                post.kept = False

    def _give_back(self, reply: SimpleQueue[tuple[Candidate, ...]]) -> None:
        reply.put(tuple(job.candidate for job in self._waiting))
        self._waiting.clear()

    def _hand_out(self) -> None:
        for post in self.crew.free:
            if not self._waiting:
                return
            self._give(post, self._waiting.popleft())

    def _give(self, post: WorkerSlot, job: SubmittedCandidate) -> None:
        post.job, post.kept = job, False
        post.since, post.began = time.monotonic(), clock.now()
        post.call += 1
        job.posts.append(post)
        if not job.begun:
            job.begun = True
            self.begun.append(job.candidate.id)
        heard = partial(self._hear, post, post.call)
        self._cluster.call(post.actor, "evaluate", job.candidate, heard)

    def _hear(self, post: WorkerSlot, call: int, answer: Answer) -> None:
        # In a thread of Ray's.
        self._events.put(partial(self._answered, post, call, answer))

    def _answered(self, post: WorkerSlot, call: int, answer: Answer) -> None:
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
            self.crew.renew(post)
        else:
            self._lost(job, post, name, answer)

    def _count(self, post: WorkerSlot) -> None:
        if post.attendance is not None:
            post.attendance.busy += clock.now() - post.began
            post.attendance.candidates += 1

    def _finished(
        self,
        job: SubmittedCandidate,
        post: WorkerSlot,
        worker: str,
        outcome: Score | LossGradient | Failure,
    ) -> None:
        if job.done:
            return  # a straggler that was overtaken
        job.done = True
        if isinstance(outcome, Score):
            self._pace.note(time.monotonic() - post.since, questions=len(outcome.outcomes))
            post.kept = job.keep
        self._tell(job, worker, post.began, outcome)

    def _tell(
        self,
        job: SubmittedCandidate,
        worker: str,
        began: float,
        outcome: Score | LossGradient | Failure,
    ) -> None:
        self._results.put(
            Result(
                candidate=job.candidate,
                outcome=outcome,
                worker=worker,
                began=began,
                ended=clock.now(),
            )
        )

    def _lost(self, job: SubmittedCandidate, post: WorkerSlot, worker: str, answer: Answer) -> None:
        node, vitals, began = post.node, post.vitals, post.began
        gone = self.crew.lost(post, answer)
        if job.done or job.posts:
            return  # somebody else has done it, or is at it
        if gone:
            job.nodes += 1
        else:
            job.losses += 1
        if job.nodes <= NODE_LOSSES and job.losses <= self._retries:
            self._waiting.appendleft(job)
            return
        job.done = True

        def tell(death: Death) -> None:
            failure = loss_of(job, answer, node.name if gone else "", death)
            self._tell(job, worker, began, failure)

        if gone or vitals is None or answer.trouble is not Trouble.DIED:
            tell(Death())
            return

        def heard(found: Answer) -> None:
            # In a thread of Ray's.
            self._events.put(partial(tell, Death() if found.trouble else found.value))

        self._cluster.run_on(node, partial(death_of, vitals), heard)

    def _end_overdue(self) -> None:
        if self._timeout is None:
            return
        now, cut = time.monotonic(), set[str]()
        for post in [p for p in self.crew.posts if p.job is not None]:
            spent, node = now - post.since, post.node
            if spent < self._timeout:
                continue
            if node.id not in cut and (not self._cluster.elastic or self._cluster.reaches(node)):
                self._give_up(post, f"no result after {spent:.0f} s (limit: {self._timeout:g} s)")
                continue
            cut.add(node.id)  # its candidates did not have their time: Ray notices a minute later
            answer = Answer(trouble=Trouble.NODE, message=f"node {node.name} cannot be reached")
            self._answered(post, post.call, answer)

    def _give_up(self, post: WorkerSlot, message: str) -> None:
        """Wait no longer for what a worker is at; a new worker takes its place."""
        job, worker = post.job, post.name
        self.crew.renew(post)
        if job is not None and not job.posts:
            failure = Failure(kind=FailureKind.TIMEOUT, message=message)
            self._finished(job, post, worker, failure)

    def _overtake(self) -> None:
        """Give stragglers to free workers too; what takes those as long is given up."""
        now, free = time.monotonic(), self.crew.free
        running = {id(post.job): post.job for post in self.crew.posts if post.job is not None}
        for job in running.values():
            limit = self._pace.limit(questions=len(job.candidate.questions))
            slow = [post for post in job.posts if now - post.since >= limit]
            if len(slow) < len(job.posts):
                continue
            if job.done:  # somebody else has done it: the place is needed for others
                for post in slow:
                    self.crew.renew(post)
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
