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

    Public methods may be called in any thread, all others run in the scheduler's own.

    Args:
        cluster: Where the workers are.
        make_workers: Sets up the workers.
        timeout: Longest time for one candidate in seconds; ``None`` for no limit.
        retries: How often a candidate whose worker died is tried again.
        straggler: Seconds that a candidate is always given before it counts as a straggler.

    Attributes:
        workers: Who works, and where.
        begun: Ids of candidates that a worker was given for the first time; may be taken from.
        hurried: Whether stragglers are overtaken by workers that have nothing else to do.
    """

    def __init__(
        self,
        cluster: Cluster,
        make_workers: MakeWorkerSet,
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
        self.workers = make_workers(enqueue=self._events.put, orphaned=self._answered)

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
        job = SubmittedCandidate(candidate=candidate, keep=keep, slots=[])
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
        self.workers.close()

    def _work(self) -> None:
        opening = True
        try:
            self.workers.watch(now=True)
            while True:
                try:
                    act = self._events.get(timeout=self._patience())
                except Empty:
                    pass  # it is only time to look at the clock
                else:
                    if act is None:
                        return
                    act()
                self._end_overdue()
                if self.hurried and not self._waiting:
                    self._overtake()
                self.workers.watch()
                if opening and self.workers.catalogue is not None:
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
        busy = [slot for slot in self.workers.slots if slot.job is not None]
        left = [slot.since + self._timeout - now for slot in busy]
        return max(0.0, min([TICK_SECONDS, *left]))

    def _take_in(self, job: SubmittedCandidate, near: str) -> None:
        at = (slot for slot in self.workers.slots if near and slot.name == near and slot.free)
        slot = next(at, None)
        if slot is not None:
            self._give(slot, job)
        elif near:  # begun with already: the sooner it is done with, the better
            self._waiting.appendleft(job)
        else:
            self._waiting.append(job)

    def _free(self, worker: str) -> None:
        for slot in self.workers.slots:
            if slot.name == worker:
                slot.kept = False

    def _give_back(self, reply: SimpleQueue[tuple[Candidate, ...]]) -> None:
        reply.put(tuple(job.candidate for job in self._waiting))
        self._waiting.clear()

    def _hand_out(self) -> None:
        for slot in self.workers.free:
            if not self._waiting:
                return
            self._give(slot, self._waiting.popleft())

    def _give(self, slot: WorkerSlot, job: SubmittedCandidate) -> None:
        slot.job, slot.kept = job, False
        slot.since, slot.began = time.monotonic(), clock.now()
        slot.call += 1
        job.slots.append(slot)
        if not job.begun:
            job.begun = True
            self.begun.append(job.candidate.id)
        answered = partial(self._answered, slot, slot.call)

        def heard(answer: Answer) -> None:
            # In a thread of Ray's.
            self._events.put(partial(answered, answer))

        self._cluster.call(slot.actor, "evaluate", job.candidate, heard)

    def _answered(self, slot: WorkerSlot, call: int, answer: Answer) -> None:
        job = slot.job
        if slot.call != call or job is None:
            return  # it was given up before
        name, slot.job = slot.name, None
        job.slots.remove(slot)
        if answer.trouble is None:
            if slot.attendance is not None:
                slot.attendance.busy += clock.now() - slot.began
                slot.attendance.candidates += 1
            self._finished(job, slot, name, answer.value)
        elif answer.trouble is Trouble.RAISED:  # the evaluator is broken, not just the candidate
            failure = Failure(kind=FailureKind.ERROR, message=answer.message, detail=answer.detail)
            self._finished(job, slot, name, failure)
            self.workers.renew(slot)
        else:
            self._lost(job, slot, name, answer)

    def _finished(
        self,
        job: SubmittedCandidate,
        slot: WorkerSlot,
        worker: str,
        outcome: Score | LossGradient | Failure,
    ) -> None:
        if job.done:
            return  # a straggler that was overtaken
        job.done = True
        if isinstance(outcome, Score):
            self._pace.note(time.monotonic() - slot.since, questions=len(outcome.outcomes))
            slot.kept = job.keep
        self._tell(job, worker, slot.began, outcome)

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

    def _lost(self, job: SubmittedCandidate, slot: WorkerSlot, worker: str, answer: Answer) -> None:
        node, vitals, began = slot.node, slot.vitals, slot.began
        gone = self.workers.lost(slot, answer)
        if job.done or job.slots:
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
        for slot in [slot for slot in self.workers.slots if slot.job is not None]:
            spent, node = now - slot.since, slot.node
            if spent < self._timeout:
                continue
            if node.id not in cut and (not self._cluster.elastic or self._cluster.reaches(node)):
                self._give_up(slot, f"no result after {spent:.0f} s (limit: {self._timeout:g} s)")
                continue
            cut.add(node.id)  # its candidates did not have their time: Ray notices a minute later
            answer = Answer(trouble=Trouble.NODE, message=f"node {node.name} cannot be reached")
            self._answered(slot, slot.call, answer)

    def _give_up(self, slot: WorkerSlot, message: str) -> None:
        """Wait no longer for what a worker is at; a new worker takes its place."""
        job, worker = slot.job, slot.name
        self.workers.renew(slot)
        if job is not None and not job.slots:
            failure = Failure(kind=FailureKind.TIMEOUT, message=message)
            self._finished(job, slot, worker, failure)

    def _overtake(self) -> None:
        """Give stragglers to free workers too; what takes those as long is given up."""
        now, free = time.monotonic(), self.workers.free
        running = {id(slot.job): slot.job for slot in self.workers.slots if slot.job is not None}
        for job in running.values():
            limit = self._pace.limit(questions=len(job.candidate.questions))
            slow = [slot for slot in job.slots if now - slot.since >= limit]
            if len(slow) < len(job.slots):
                continue
            if job.done:  # somebody else has done it: the place is needed for others
                for slot in slow:
                    self.workers.renew(slot)
            elif len(slow) > 1:
                message = (
                    f"no result after {limit:.0f} s from {len(slow)} workers, where others took "
                    f"{self._pace.usual:.1f} s and the budget was spent"
                )
                for slot in slow:
                    self._give_up(slot, message)
            elif free:
                self._give(free.pop(), job)
