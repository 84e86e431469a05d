"""What a pool keeps account of: candidates that were submitted, and the places of workers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from evaluators.protocol import Candidate, Failure, FailureKind
from evaluators.workers.cluster.ray_cluster import Answer, Node, Trouble
from evaluators.workers.pool import Attendance
from evaluators.workers.worker_deaths import Death, Vitals, ending_of


@dataclass(kw_only=True, slots=True, eq=False)
class SubmittedCandidate:
    """A candidate, and what became of it.

    Attributes:
        candidate: As it was submitted.
        keep: Whether its worker waits for more questions to it.
        losses: How often its worker died.
        nodes: How often its worker's node went away.
        slots: Who is at it; more than one when a straggler is overtaken.
        begun: Whether any worker was given it.
        done: Whether its result is there.
    """

    candidate: Candidate
    keep: bool = False
    losses: int = 0
    nodes: int = 0
    slots: list[WorkerSlot]
    begun: bool = False
    done: bool = False


@dataclass(kw_only=True, slots=True, eq=False)
class WorkerSlot:
    """A place for a worker.

    Attributes:
        node: Where it is.
        room: Which of the node's rooms it takes.
        gpus: GPUs of its worker.
        actor: Ray's handle of the present worker.
        call: Number of the present call: answers to others come too late.
        attendance: Of the present worker; ``None`` while it sets itself up.
        vitals: Of the last worker that was set up here.
        job: What it evaluates; ``None`` when it is free or sets itself up.
        since: When it began with the job, by the monotonic clock.
        began: The same by the wall clock.
        kept: Whether it is kept free for more questions to its last candidate.
        deaths: How often in a row workers died here before they were set up.
        due: When its worker's process has to be there, and then be set up, by the monotonic clock.
        there: Whether its worker's process is there.
        asked: How often in a row a worker was asked for that did not come in time.
    """

    node: Node
    room: int
    gpus: float
    actor: Any = None
    call: int = 0
    attendance: Attendance | None = None
    vitals: Vitals | None = None
    job: SubmittedCandidate | None = None
    since: float = 0.0
    began: float = 0.0
    kept: bool = False
    deaths: int = 0
    due: float = math.inf
    there: bool = False
    asked: int = 0

    @property
    def name(self) -> str:
        """The worker's name; empty while it sets itself up."""
        return "" if self.attendance is None else self.attendance.worker

    @property
    def free(self) -> bool:
        """Whether it can take a candidate, be it kept for one or not."""
        return self.attendance is not None and self.job is None


def loss_of(job: SubmittedCandidate, answer: Answer, node: str, death: Death) -> Failure:
    """The failure of a candidate that is not tried again.

    Args:
        job: The candidate.
        answer: How its last worker was lost.
        node: Name of the node that went away with it; empty if it is still there.
        death: What the worker's machine knows of its end.
    """
    tries = job.losses + job.nodes
    often = "once" if tries == 1 else f"{tries} times"
    kind, why = FailureKind.LOST_WORKER, death.words or ending_of(answer.detail)
    if node:
        kind, what = FailureKind.NODE_GONE, f"the node went away ({often}), last {node},"
    elif answer.trouble is Trouble.MEMORY:
        kind = FailureKind.OUT_OF_MEMORY
        what = f"the machine ran out of memory, {often}, and Ray's memory monitor ended the worker"
    elif answer.trouble is Trouble.UNFIT:
        what = f"the worker failed, {often}, ({answer.message})"
    else:
        kind = FailureKind.OUT_OF_MEMORY if death.memory else kind
        what = f"the worker died, {often}, ({why or 'no trace, as of SIGKILL or os._exit'})"
    return Failure(
        kind=kind, message=f"{what} while it evaluated this candidate", detail=answer.detail
    )
