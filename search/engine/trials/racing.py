"""When to stop asking: a candidate that is clearly behind the leader is not asked on.

A block of questions is asked in steps. After each, the candidate is compared with the leader on
the questions that both have answered, by a paired test: the chance, if neither were better, that
the leader would be at least as far ahead.

The leader leads because its answers were good, partly by luck, and partly those to the same
questions. So that chance is corrected for the leader being the best of several: with r rivals that
are just as good, its luck on all its answers is that of the largest of r normal numbers, and on a
share f of them the root of f of that. A difference of z standard errors is then exceeded with the
chance

    mean over u in (0, 1) of P(normal > (sqrt(2) z - sqrt(f) q(u)) / sqrt(2 - f)),

where q(u) is the quantile of the largest of r, as in the comparison of many treatments with one
control (Dunnett 1955). The steps share the error rate (Bonferroni), so that a candidate that is as
good as the leader is stopped at any of them with at most that chance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import scipy  # its parts are loaded when they are used: scipy.special takes a while

from evaluators.protocol import TaskInfo
from runs.statistics.comparisons import ALONE, Documents, Outcomes, lead
from runs.statistics.resampling import Resampling

ERROR = 0.05
"""Chance that a candidate as good as the leader is stopped."""

FIRST = 60
"""Questions before the first look; then twice as many each time."""

LAST = 0.7
"""No look after this share of the block: there is too little left to save."""

SHARED = 30
"""Questions that both must have answered for a comparison."""

MANY = 200
"""Rivals of the leader where nobody has counted them."""

REACH = 3.0
"""Standard errors of the difference up to which a candidate is a rival of the leader."""

_HOW = Resampling(resamples=2_000)
_CLOSER = Resampling(resamples=20_000)
_NARROW = 0.01  # p-values up to which it is worth a closer look
_EVEN = (np.arange(200) + 0.5) / 200


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
    rivals: int = MANY,
    shares: int = 1,
) -> bool:
    """Whether a candidate is clearly behind.

    Args:
        leader: What the leader answered.
        candidate: What the candidate answered.
        tasks: Weights and directions.
        size: Number of questions of the candidate's block, which says how many looks there are.
        documents: What the questions are about.
        rivals: Candidates that the leader was the best of and that may be as good, itself included.
        shares: Comparisons that share the error rate with this one.
    """
    shared, p_value = lead(leader, candidate, tasks, documents=documents, how=_HOW)
    if shared < SHARED:
        return False
    if p_value <= _NARROW:
        _, p_value = lead(leader, candidate, tasks, documents=documents, how=_CLOSER)
    share = shared / max(shared, sum(len(leader.get(task.name, ())) for task in tasks))
    error = ERROR / max(1, len(looks(size))) / shares
    return chosen_p_value(p_value, rivals=rivals, share=share) <= error


def chosen_p_value(p_value: float, *, rivals: int, share: float) -> float:
    """A p-value against the leader, corrected for its having been chosen as the best.

    Args:
        p_value: As if the leader had been named beforehand, in (0, 1).
        rivals: Candidates that it was the best of, at least 1.
        share: Part of the leader's answers that the comparison is made from, in (0, 1].
    """
    z = -scipy.special.ndtri(p_value)
    luck = scipy.special.ndtri(_EVEN ** (1 / rivals))
    excess = (math.sqrt(2) * z - math.sqrt(share) * luck) / math.sqrt(2 - share)
    return float(scipy.special.ndtr(-excess).mean())
