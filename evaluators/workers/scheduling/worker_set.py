"""Which workers there are, and where: set up on the nodes of a cluster, replaced, given up.

Workers come and go; a slot is the place of one. Nodes are looked at before they get slots, and
again and again for those that joined or left.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from functools import partial

from evaluators.protocol import Catalogue, EvaluatorError, EvaluatorFactory
from evaluators.workers import clock
from evaluators.workers.cluster.ray_cluster import Answer, Cluster, Node, Trouble
from evaluators.workers.pool import Attendance
from evaluators.workers.scheduling.capacity import Need, rooms, short
from evaluators.workers.scheduling.worker_slots import WorkerSlot
from evaluators.workers.worker import WorkerStart
from spaces.text.error_text import counted

START_ATTEMPTS = 3
"""How often in a row a worker may die while it sets itself up before it is given up."""

COMING_SECONDS = 60.0
"""Time in which a worker's process has to be there, or it is asked for again; then twice as long,
and so on: on a busy machine it may just be slow."""

WATCH_SECONDS = 5.0
"""Time between two looks at the nodes of a cluster."""

DEAD_SECONDS = 120.0
"""How long a node that went away may still stand in Ray's list; then it has come back."""

Inspection = Callable[[], tuple[str, ...]]
"""What a node lacks, one line each; runs there, so it is picklable."""

MakeEvaluator = Callable[[float], EvaluatorFactory]
"""The factory for a worker with so many GPUs."""

Enqueue = Callable[[Callable[[], None]], None]
"""Has something called in the thread that owns the workers."""

Orphaned = Callable[[WorkerSlot, int, Answer], None]
"""Hears of a call, by its slot and number, whose node went away before Ray finds out."""

_log = logging.getLogger(__name__)


class WorkerSet:
    """The slots of a pool; belongs to one thread.

    Args:
        cluster: Where they are.
        need: What a worker needs.
        count: Number of workers; ``None`` for as many as fit.
        make: Makes the factory for a worker's GPUs.
        inspect: Looks at a node before it gets slots; ``None`` for no look.
        wait: Seconds to wait when no worker is left: for a node that has room, and for a worker to
            be set up.
        enqueue: Has something called in the thread that owns the workers.
        orphaned: Hears of a call whose node went away, before Ray finds out.
    """

    def __init__(
        self,
        cluster: Cluster,
        need: Need,
        *,
        count: int | None,
        make: MakeEvaluator,
        inspect: Inspection | None,
        wait: float,
        enqueue: Enqueue,
        orphaned: Orphaned,
    ) -> None:
        self._cluster, self._need, self._count = cluster, need, count
        self._make, self._inspect, self._wait = make, inspect, wait
        self._enqueue, self._orphaned = enqueue, orphaned
        self.slots: list[WorkerSlot] = []
        self.attendance: list[Attendance] = []
        self.news: list[str] = []
        self.catalogue: Catalogue | None = None
        self.notes: tuple[str, ...] = ()
        self._nodes: dict[str, Node] = {}  # those that are alive
        # Since when those are gone that Ray's list may still have.
        self._dead: dict[str, float] = {}
        self._fit: set[str] = set()  # those of them that may get slots
        self._looked_at: dict[str, float] = {}  # those under inspection, and until when
        self._closed_rooms: set[tuple[str, int]] = set()
        self._problems: list[str] = []
        self._watched = -WATCH_SECONDS
        self._idle_since: float | None = None  # since when there is no worker that is set up
        self._empty = False  # whether none is being set up either, for want of room

    @property
    def free(self) -> list[WorkerSlot]:
        """Posts that can take any candidate."""
        return [slot for slot in self.slots if slot.free and not slot.kept]

    def watch(self, *, now: bool = False) -> None:
        """Look at the nodes every some seconds, and at once if asked to.

        Raises:
            EvaluatorError: If there was no worker for too long, or Ray itself is gone.
        """
        moment = time.monotonic()
        if not now and moment - self._watched < WATCH_SECONDS:
            return
        self._watched = moment
        self._dead = {k: t for k, t in self._dead.items() if moment - t < DEAD_SECONDS}
        alive = {node.id: node for node in self._cluster.nodes() if node.id not in self._dead}
        joined = [node for node in alive.values() if node.id not in self._nodes]
        left = [node for node in self._nodes.values() if node.id not in alive]
        known, self._nodes = bool(self._nodes), alive
        for node in left:
            self._gone(node)
        for node in joined:
            if rooms(node, self._need):
                self._welcome(node, known)
        for node in [alive[name] for name, due in self._looked_at.items() if moment >= due]:
            self._inspected(node, Answer(trouble=Trouble.DIED, message=self._late("no answer")))
        self.fill()
        self._check_any(moment)
        for slot in [slot for slot in self.slots if moment >= slot.due]:
            if slot.there:
                self._hangs(slot)
            else:
                self._ask_again(slot)

    def fill(self) -> None:
        """Start workers where there is room for them; the first ones once all nodes are known."""
        if self.catalogue is None and self._looked_at:
            return
        while self._count is None or len(self.slots) < self._count:
            load: dict[str, int] = {}
            for slot in self.slots:
                load[slot.node.id] = load.get(slot.node.id, 0) + 1
            found = self._open_rooms()
            if not found:
                return
            node, room, gpus = min(found, key=lambda one: (load.get(one[0].id, 0), -one[2], one[1]))
            slot = WorkerSlot(node=node, room=room, gpus=gpus)
            self.slots.append(slot)
            self._idle_since = None  # it has its time
            self._start(slot)

    def renew(self, slot: WorkerSlot) -> None:
        """Put a new worker in the place of one that died or is to end."""
        self._end(slot)
        self._idle_since = None
        self._start(slot)

    def lost(self, slot: WorkerSlot, answer: Answer) -> bool:
        """Act on a call that took its worker with it.

        Returns:
            Whether its node is gone with it.
        """
        if answer.trouble is Trouble.NODE:
            self._dead[slot.node.id] = time.monotonic()
        self.watch(now=True)  # drops the slot if the node is gone
        gone = answer.trouble is Trouble.NODE or slot.node.id not in self._nodes
        if gone:
            self._drop(slot)
            self._check_any(time.monotonic())
        elif slot in self.slots:
            self.renew(slot)
        return gone

    def close(self) -> None:
        """End all workers."""
        for slot in self.slots:
            self._end(slot)
        self.slots = []

    def _welcome(self, node: Node, known: bool) -> None:
        if known:
            self.news.append(f"node {node.name} joined")
        if self._inspect is None:
            self._fit.add(node.id)
            return
        self._looked_at[node.id] = time.monotonic() + self._wait
        self._cluster.run_on(node, self._inspect, self._passed_on(partial(self._inspected, node)))

    def _passed_on(self, act: Callable[[Answer], None]) -> Callable[[Answer], None]:
        """Hears an answer in a thread of Ray's, to be acted on in the one that owns the workers."""
        return lambda answer: self._enqueue(partial(act, answer))

    def _inspected(self, node: Node, answer: Answer) -> None:
        if self._looked_at.pop(node.id, None) is None:  # gone, or it came too late
            return
        if answer.trouble is None:
            lacks: tuple[str, ...] = answer.value
        else:
            lacks = (f"merge-search cannot be run there: {answer.message}",)
        if not lacks:
            self._fit.add(node.id)
        elif self.catalogue is None:
            self._problems += [f"node {node.name}: {line}" for line in lacks]
        else:
            self.news.append(f"node {node.name} is not used: {'; '.join(lacks)}")
        if self.catalogue is None and not self._looked_at and self._problems:
            raise EvaluatorError(self._problems)
        self.fill()

    def _gone(self, node: Node) -> None:
        self._fit.discard(node.id)
        self._looked_at.pop(node.id, None)
        mine = [slot for slot in self.slots if slot.node.id == node.id]
        self.news.append(f"node {node.name} is gone, with {counted(len(mine), 'worker')}")
        for slot in mine:
            if slot.job is None:
                self._drop(slot)
            else:
                answer = Answer(trouble=Trouble.NODE, message=f"node {node.name} is gone")
                self._enqueue(partial(self._orphaned, slot, slot.call, answer))

    def _drop(self, slot: WorkerSlot) -> None:
        self._end(slot)
        if slot in self.slots:
            self.slots.remove(slot)

    def _open_rooms(self) -> list[tuple[Node, int, float]]:
        taken = {(slot.node.id, slot.room) for slot in self.slots} | self._closed_rooms
        return [
            (node, room, gpus)
            for node in self._nodes.values()
            if node.id in self._fit
            for room, gpus in enumerate(rooms(node, self._need, filled=self._count is None))
            if (node.id, room) not in taken
        ]

    def _start(self, slot: WorkerSlot) -> None:
        slot.call, slot.there = slot.call + 1, False
        slot.due = time.monotonic() + COMING_SECONDS * 2**slot.asked
        there = self._passed_on(partial(self._there, slot, slot.call))
        slot.actor = self._cluster.start(
            slot.node, cpus=self._need.cpus, gpus=slot.gpus, there=there
        )
        heard = self._passed_on(partial(self._started, slot, slot.call))
        self._cluster.call(slot.actor, "start", self._make(slot.gpus), heard)

    def _ask_again(self, slot: WorkerSlot) -> None:
        """A worker that does not come may wait for what Ray never gives it, or hang."""
        slot.asked += 1
        text = (
            f"no worker came up on node {slot.node.name}, and another was asked for "
            f"({slot.asked}): Ray may have no room there, or the machine be very busy"
        )
        _log.warning("%s", text)
        self.news.append(text)
        self._end(slot)
        self._start(slot)

    def _there(self, slot: WorkerSlot, call: int, answer: Answer) -> None:
        tells = answer.trouble is None  # of trouble the call of ``start`` tells
        if tells and slot.call == call and slot.attendance is None:
            slot.due, slot.asked, slot.there = time.monotonic() + self._wait, 0, True

    def _late(self, what: str) -> str:
        return f"{what} within {self._wait:g} s (workers.wait)"

    def _hangs(self, slot: WorkerSlot) -> None:
        """A worker whose process is there, but whose set-up has no end."""
        slot.deaths += 1
        why = f"worker: {self._late('not set up')}"
        if slot.deaths == START_ATTEMPTS:
            self._give_up(slot, (why,))
            return
        self.news.append(f"node {slot.node.name}: {why}; another was asked for ({slot.deaths})")
        self.renew(slot)

    def _started(self, slot: WorkerSlot, call: int, answer: Answer) -> None:
        if slot.call != call:
            return
        if answer.trouble in (Trouble.RAISED, Trouble.UNFIT):
            # make() raised something else, or cannot be imported there
            self._give_up(slot, (f"worker: cannot be set up: {answer.message}",))
        elif answer.trouble is not None:
            self._died_early(slot, answer)
        elif answer.value.catalogue is None:
            self._give_up(slot, answer.value.problems)
        else:
            self._is_up(slot, answer.value)

    def _died_early(self, slot: WorkerSlot, answer: Answer) -> None:
        slot.deaths += 1
        if slot.deaths < START_ATTEMPTS:
            if not self.lost(slot, answer):
                _log.warning("a worker died while it was set up: %s", answer.message)
            return
        why = f"worker: died {slot.deaths} times while it was set up: {answer.message}"
        self._give_up(slot, (f"{why}; is there enough memory?",))

    def _is_up(self, slot: WorkerSlot, started: WorkerStart) -> None:
        slot.due, slot.deaths, slot.vitals = math.inf, 0, started.vitals
        slot.attendance = Attendance(
            worker=started.name, node=slot.node.name, gpus=slot.gpus, joined=clock.now()
        )
        self.attendance.append(slot.attendance)
        if self.catalogue is None:
            self.catalogue, self.notes = started.catalogue, started.notes

    def _give_up(self, slot: WorkerSlot, problems: Sequence[str]) -> None:
        """Do without this worker; without any, the pool cannot go on."""
        self._closed_rooms.add((slot.node.id, slot.room))
        if self.catalogue is None and not slot.gpus:  # the others there are just like it
            alike = (room for node, room, _ in self._open_rooms() if node.id == slot.node.id)
            self._closed_rooms |= {(slot.node.id, room) for room in alike}
        self._drop(slot)
        where = f"node {slot.node.name}: " if self._cluster.elastic else ""
        lines = [f"{where}{line}" for line in problems]
        self._problems += [line for line in lines if line not in self._problems]
        if not self.slots and not self._open_rooms() and not self._looked_at:
            raise EvaluatorError(self._problems)
        _log.warning("a worker cannot be set up, continuing without it: %s", "; ".join(lines))
        self.news.append(f"continuing without a worker that cannot be set up: {'; '.join(lines)}")
        self.fill()

    def _check_any(self, moment: float) -> None:
        """Wait for a worker while none is set up, but not for ever."""
        if self._looked_at or any(slot.attendance is not None for slot in self.slots):
            self._idle_since, self._empty = None, False
            return
        empty = not self.slots
        if empty and (
            not self._cluster.elastic or (self.catalogue is None and self._count is None)
        ):
            raise EvaluatorError(self._problems or short(self._nodes.values(), self._need, 1))
        if empty and not self._empty:
            self.news.append(f"no node has room for a worker; waiting up to {self._wait:g} s")
        self._empty = empty
        if self._idle_since is None:
            self._idle_since = moment
        elif moment - self._idle_since >= self._wait:
            raise EvaluatorError([self._nobody(), *self._problems])

    def _nobody(self) -> str:
        if self._empty:
            return (
                f"workers: no node had room for a worker for {self._wait:g} s (workers.wait); "
                "start nodes"
            )
        where = ", ".join(sorted({slot.node.name for slot in self.slots}))
        return (
            f"workers: none was set up within {self._wait:g} s (workers.wait) on {where}; look "
            "whether Ray works and has room there, or give models that load for longer more time"
        )

    def _end(self, slot: WorkerSlot) -> None:
        """End the worker of a slot; answers of its calls count no more."""
        slot.call += 1
        self._cluster.kill(slot.actor)
        if slot.attendance is not None:
            slot.attendance.left = clock.now()
        if slot.job is not None and slot in slot.job.slots:
            slot.job.slots.remove(slot)
        slot.attendance, slot.job, slot.kept, slot.due = None, None, False, math.inf
