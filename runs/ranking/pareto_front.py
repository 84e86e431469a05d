"""The Pareto front: what no other candidate matches in every objective and betters in one.

Where values are known up to an error, hair-thin differences would put most candidates on it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def front(points: Sequence[Sequence[float]] | NDArray[np.float64]) -> tuple[bool, ...]:
    """Which points are dominated by no other.

    A point dominates another if it is at least as good in every objective and better in one. Equal
    points do not dominate each other. A point with a value that is not finite is on no front and
    dominates nothing.

    Args:
        points: Values by objective, larger is better; as many for every point.

    Returns:
        For each point whether it is on the front.
    """
    if not len(points):
        return ()
    values = np.array(points, dtype=np.float64)
    known = np.asarray(np.isfinite(values).all(axis=1))
    if values.shape[1] == 1:
        largest = values[known].max(initial=-np.inf)
        return tuple((values[:, 0] == largest).tolist())
    # What dominates a point comes before it in this order, and so does the one on the front that
    # dominates that: each has to be compared with the front so far only.
    order = np.lexsort(values[:, ::-1].T)[::-1]
    best, found = np.empty_like(values), 0
    on_front = np.zeros(len(values), dtype=bool)
    for at in order[known[order]]:
        point, others = values[at], best[:found]
        as_good = (others >= point).all(axis=1)
        if as_good.any() and (others[as_good] > point).any():
            continue
        on_front[at], best[found] = True, point
        found += 1
    return tuple(on_front.tolist())


def clear_front(
    points: Sequence[Sequence[float]], errors: Sequence[Sequence[float]]
) -> tuple[bool, ...]:
    """Which points are on the front where values are known up to an error only.

    Of the points that no other dominates, one is left out if another that is kept comes before it
    and it is better than that in no objective by more than the standard error of the difference.
    Without errors it is the same front, equal points once.

    Args:
        points: Values by objective, larger is better; those preferred among equals first.
        errors: Standard errors of the values, taken for independent; one that is NaN counts as 0.

    Returns:
        For each point whether it is on the front.
    """
    best = front(points)
    values = np.array(points, dtype=np.float64)
    doubts = np.nan_to_num(np.array(errors, dtype=np.float64))
    kept: list[int] = []
    for at in np.flatnonzero(best).tolist():
        lead = values[at] - values[kept]
        if (lead > np.hypot(doubts[at], doubts[kept])).any(axis=1).all():
            kept.append(at)
    return tuple(at in kept for at in range(len(best)))
