"""Which workers there are, and where: set up on the nodes of a cluster, replaced, given up.

Workers come and go; a post is the place of one. Nodes are looked at before they get posts, and
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
"""Has something called in the thread that owns the crew."""

Orphaned = Callable[[WorkerSlot, int, Answer], None]
"""Hears of a call, by its post and number, whose node went away before Ray finds out."""

_log = logging.getLogger(__name__)


class WorkerSet:
    """The posts of a pool; belongs to one thread.

    Args:
        cluster: Where they are.
        need: What a worker needs.
        count: Number of workers; ``None`` for as many as fit.
        make: Makes the factory for a worker's GPUs.
        inspect: Looks at a node before it gets posts; ``None`` for no look.
        wait: Seconds to wait when no worker is left: for a node that has room, and for a worker to
            be set up.
        enqueue: Has something called in the thread that owns the crew.
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
        self.posts: list[WorkerSlot] = []
        self.attendance: list[Attendance] = []
        self.news: list[str] = []
        self.catalogue: Catalogue | None = None
        self.notes: tuple[str, ...] = ()
        self._nodes: dict[str, Node] = {}  # those that are alive
        # Since when those are gone that Ray's list may still have.
        self._dead: dict[str, float] = {}
        self._fit: set[str] = set()  # those of them that may get posts
        self._looked_at: dict[str, float] = {}  # those under inspection, and until when
        self._closed_rooms: set[tuple[str, int]] = set()
        self._problems: list[str] = []
        self._watched = -WATCH_SECONDS
        self._idle_since: float | None = None  # since when there is no worker that is set up
        self._empty = False  # whether none is being set up either, for want of room

    @property
    def free(self) -> list[WorkerSlot]:
        """Posts that can take any candidate."""
        return [post for post in self.posts if post.free and not post.kept]

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
        for post in [post for post in self.posts if moment >= post.due]:
            if post.there:
                self._hangs(post)
            else:
                self._ask_again(post)

    def fill(self) -> None:
        """Start workers where there is room for them; the first ones once all nodes are known."""
        if self.catalogue is None and self._looked_at:
            return
        while self._count is None or len(self.posts) < self._count:
            load: dict[str, int] = {}
            for post in self.posts:
                load[post.node.id] = load.get(post.node.id, 0) + 1
            found = self._open_rooms()
            if not found:
                return
            node, room, gpus = min(found, key=lambda one: (load.get(one[0].id, 0), -one[2], one[1]))
            post = WorkerSlot(node=node, room=room, gpus=gpus)
            self.posts.append(post)
            self._idle_since = None  # it has its time
            self._start(post)

    def renew(self, post: WorkerSlot) -> None:
        """Put a new worker in the place of one that died or is to end."""
        self._end(post)
        self._idle_since = None
        self._start(post)

    def lost(self, post: WorkerSlot, answer: Answer) -> bool:
        """Act on a call that took its worker with it.

        Returns:
            Whether its node is gone with it.
        """
        if answer.trouble is Trouble.NODE:
            self._dead[post.node.id] = time.monotonic()
        self.watch(now=True)  # drops the post if the node is gone
        gone = answer.trouble is Trouble.NODE or post.node.id not in self._nodes
        if gone:
            self._drop(post)
            self._check_any(time.monotonic())
        elif post in self.posts:
            self.renew(post)
        return gone

    def close(self) -> None:
        """End all workers."""
        for post in self.posts:
            self._end(post)
        self.posts = []

    def _welcome(self, node: Node, known: bool) -> None:
        if known:
            self.news.append(f"node {node.name} joined")
        if self._inspect is None:
            self._fit.add(node.id)
            return
        self._looked_at[node.id] = time.monotonic() + self._wait
        heard = partial(self._hear_inspection, node)
        self._cluster.run_on(node, self._inspect, heard)

    def _hear_inspection(self, node: Node, answer: Answer) -> None:
        self._enqueue(partial(self._inspected, node, answer))

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
        mine = [post for post in self.posts if post.node.id == node.id]
        self.news.append(f"node {node.name} is gone, with {counted(len(mine), 'worker')}")
        for post in mine:
            if post.job is None:
                self._drop(post)
            else:
                answer = Answer(trouble=Trouble.NODE, message=f"node {node.name} is gone")
                self._enqueue(partial(self._orphaned, post, post.call, answer))

    def _drop(self, post: WorkerSlot) -> None:
        self._end(post)
        if post in self.posts:
            self.posts.remove(post)

    def _open_rooms(self) -> list[tuple[Node, int, float]]:
        taken = {(post.node.id, post.room) for post in self.posts} | self._closed_rooms
        return [
            (node, room, gpus)
            for node in self._nodes.values()
            if node.id in self._fit
            for room, gpus in enumerate(rooms(node, self._need, filled=self._count is None))
            if (node.id, room) not in taken
        ]

    def _start(self, post: WorkerSlot) -> None:
        post.call, post.there = post.call + 1, False
        post.due = time.monotonic() + COMING_SECONDS * 2**post.asked
        there = partial(self._hear_there, post, post.call)
        post.actor = self._cluster.start(
            post.node, cpus=self._need.cpus, gpus=post.gpus, there=there
        )
        heard = partial(self._hear_started, post, post.call)
        self._cluster.call(post.actor, "start", self._make(post.gpus), heard)

    def _ask_again(self, post: WorkerSlot) -> None:
        """A worker that does not come may wait for what Ray never gives it, or hang."""
        post.asked += 1
        text = (
            f"no worker came up on node {post.node.name}, and another was asked for "
            f"({post.asked}): Ray may have no room there, or the machine be very busy"
        )
        _log.warning("%s", text)
        self.news.append(text)
        self._end(post)
        self._start(post)

    def _hear_there(self, post: WorkerSlot, call: int, answer: Answer) -> None:
        if answer.trouble is None:  # of trouble the call of ``start`` tells
            self._enqueue(partial(self._there, post, call))

    def _there(self, post: WorkerSlot, call: int) -> None:
        if post.call == call and post.attendance is None:
            post.due, post.asked, post.there = time.monotonic() + self._wait, 0, True

    def _late(self, what: str) -> str:
        return f"{what} within {self._wait:g} s (workers.wait)"

    def _hangs(self, post: WorkerSlot) -> None:
        """A worker whose process is there, but whose set-up has no end."""
        post.deaths += 1
        why = f"worker: {self._late('not set up')}"
        if post.deaths == START_ATTEMPTS:
            self._give_up(post, (why,))
            return
        self.news.append(f"node {post.node.name}: {why}; another was asked for ({post.deaths})")
        self.renew(post)

    def _hear_started(self, post: WorkerSlot, call: int, answer: Answer) -> None:
        self._enqueue(partial(self._started, post, call, answer))

    def _started(self, post: WorkerSlot, call: int, answer: Answer) -> None:
        if post.call != call:
            return
        if answer.trouble in (Trouble.RAISED, Trouble.UNFIT):
            # make() raised something else, or cannot be imported there
            self._give_up(post, (f"worker: cannot be set up: {answer.message}",))
        elif answer.trouble is not None:
            self._died_early(post, answer)
        elif answer.value.catalogue is None:
            self._give_up(post, answer.value.problems)
        else:
            self._is_up(post, answer.value)

    def _died_early(self, post: WorkerSlot, answer: Answer) -> None:
        post.deaths += 1
        if post.deaths < START_ATTEMPTS:
            if not self.lost(post, answer):
                _log.warning("a worker died while it was set up: %s", answer.message)
            return
        why = f"worker: died {post.deaths} times while it was set up: {answer.message}"
        self._give_up(post, (f"{why}; is there enough memory?",))

    def _is_up(self, post: WorkerSlot, started: WorkerStart) -> None:
        post.due, post.deaths, post.vitals = math.inf, 0, started.vitals
        post.attendance = Attendance(
            worker=started.name, node=post.node.name, gpus=post.gpus, joined=clock.now()
        )
        self.attendance.append(post.attendance)
        if self.catalogue is None:
            self.catalogue, self.notes = started.catalogue, started.notes

    def _give_up(self, post: WorkerSlot, problems: Sequence[str]) -> None:
        """Do without this worker; without any, the pool cannot go on."""
        self._closed_rooms.add((post.node.id, post.room))
        if self.catalogue is None and not post.gpus:  # the others there are just like it
            alike = (room for node, room, _ in self._open_rooms() if node.id == post.node.id)
            self._closed_rooms |= {(post.node.id, room) for room in alike}
        self._drop(post)
        where = f"node {post.node.name}: " if self._cluster.elastic else ""
        lines = [f"{where}{line}" for line in problems]
        self._problems += [line for line in lines if line not in self._problems]
        if not self.posts and not self._open_rooms() and not self._looked_at:
            raise EvaluatorError(self._problems)
        _log.warning("a worker cannot be set up, continuing without it: %s", "; ".join(lines))
        self.news.append(f"continuing without a worker that cannot be set up: {'; '.join(lines)}")
        self.fill()

    def _check_any(self, moment: float) -> None:
        """Wait for a worker while none is set up, but not for ever."""
        if self._looked_at or any(post.attendance is not None for post in self.posts):
            self._idle_since, self._empty = None, False
            return
        empty = not self.posts
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
        where = ", ".join(sorted({post.node.name for post in self.posts}))
        return (
            f"workers: none was set up within {self._wait:g} s (workers.wait) on {where}; look "
            "whether Ray works and has room there, or give models that load for longer more time"
        )

    def _end(self, post: WorkerSlot) -> None:
        """End the worker of a post; answers of its calls count no more."""
        post.call += 1
        self._cluster.kill(post.actor)
        if post.attendance is not None:
            post.attendance.left = clock.now()
        if post.job is not None and post in post.job.posts:
            post.job.posts.remove(post)
        post.attendance, post.job, post.kept, post.due = None, None, False, math.inf
