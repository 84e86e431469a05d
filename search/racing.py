"""When to stop asking: a candidate that is clearly behind the leader is not asked on.

A block of questions is asked in steps. After each, the candidate is compared with the leader on
the questions that both have answered, by a paired test: the chance, if neither were better, that
random signs of the differences would put the leader at least as far ahead. The steps share the
error rate, so that a candidate that is as good as the leader is stopped at any of them with at
most that chance (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Sequence

from evaluators.base import TaskInfo
from runs.resampling import Resampling
from runs.statistics import ALONE, Documents, Outcomes, lead

ERROR = 0.05
"""Chance that a candidate as good as the leader is stopped."""

FIRST = 60
"""Questions before the first look; then twice as many each time."""

LAST = 0.7
"""No look after this share of the block: there is too little left to save."""

SHARED = 30
"""Questions that both must have answered for a comparison."""

_HOW = Resampling(resamples=2_000)


def looks(size: int) -> tuple[int, ...]:
    """After how many of a block's questions the candidate is compared with the leader."""
    found, at = [], FIRST
    while at <= LAST * size:
        found.append(at)
        at *= 2
    return tuple(found)


def next_step(block: Sequence[str], done: int) -> tuple[str, ...]:
    """The questions of a block up to the next look, after those that were asked."""
    end = next((look for look in looks(len(block)) if look > done), len(block))
    return tuple(block[done:end])


def behind(
    leader: Outcomes,
    candidate: Outcomes,
    tasks: Sequence[TaskInfo],
    *,
    size: int,
    documents: Documents = ALONE,
) -> bool:
    """Whether a candidate is clearly behind.

    Args:
        leader: What the leader answered.
        candidate: What the candidate answered.
        tasks: Weights and directions.
        size: Number of questions of the candidate's block, which says how many looks there are.
        documents: What the questions are about.
    """
    shared, p_value = lead(leader, candidate, tasks, documents=documents, how=_HOW)
    return shared >= SHARED and p_value <= ERROR / max(1, len(looks(size)))
