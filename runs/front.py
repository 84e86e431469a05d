"""The Pareto front: what no other candidate matches in every objective and betters in one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def front(points: Sequence[Sequence[float]]) -> tuple[bool, ...]:
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
    known = np.isfinite(values).all(axis=1)
    on_front = known.copy()
    for at in np.flatnonzero(known):  # one row at a time: a table of all pairs would be large
        others = values[known]
        as_good = (others >= values[at]).all(axis=1)
        on_front[at] = not (as_good & (others > values[at]).any(axis=1)).any()
    return tuple(bool(one) for one in on_front)
