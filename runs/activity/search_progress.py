"""How a run came to its winner: the best recipe so far against what had been spent by then."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from runs.activity.timeline import Timeline
from runs.ranking.leaderboard import ranked, score_of
from runs.records.record import Record, Role, Split, role_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A candidate at the time it was scored.

    Attributes:
        candidate: Its id.
        role: What it is.
        value: What to expect of it, by all that is known now; its score where that is not known.
        best: ``value`` of the candidate that ranks first among those scored by then.
        evaluations: Candidates scored by then.
        questions: Search questions answered by then.
        hours: Time at work by then, pauses left out.
    """

    candidate: int
    role: Role
    value: float
    best: float
    evaluations: int
    questions: int
    hours: float


def expected(record: Record) -> float:
    """What to expect of a candidate, larger is better; NaN without a score."""
    return score_of(record) if record.posterior is None else record.posterior.value


def progress(records: Sequence[Record], timeline: Timeline) -> tuple[Step, ...]:
    """The scored candidates in the order in which they were done.

    The best so far is picked among those that were there by today's ranking: a curve of the best
    raw scores would climb by luck alone.
    """
    places = {record.id: place for place, record in enumerate(ranked(records))}
    clock, first = timeline.clock(), {span.candidate: span.start for span in timeline.spans}
    asked = sorted(
        (span.end, span.questions) for span in timeline.spans if span.split is Split.SEARCH
    )
    done = []
    for record in records:
        finished = record.evaluations[Split.SEARCH].finished
        if record.id in places:
            # Asked once more just now: what it had said before is what places it.
            at = first.get(record.id, 0.0) if finished is None else finished.timestamp()
            done.append((at, record))
    steps, best, total, count = [], None, 0, 0
    for number, (at, record) in enumerate(sorted(done, key=lambda one: (one[0], one[1].id)), 1):
        while count < len(asked) and asked[count][0] <= at:
            total, count = total + asked[count][1], count + 1
        if best is None or places[record.id] < places[best.id]:
            best = record
        steps.append(
            Step(
                candidate=record.id,
                role=role_of(record.origin),
                value=expected(record),
                best=expected(best),
                evaluations=number,
                questions=total,
                hours=clock.at(at) / 3600,
            )
        )
    return tuple(step for step in steps if math.isfinite(step.value))


def changes(steps: Sequence[Step]) -> tuple[Step, ...]:
    """The first step, those with a new best, and the last one."""
    new = [b for a, b in pairwise(steps) if b.best != a.best]
    return (steps[0], *new, steps[-1]) if steps else ()
