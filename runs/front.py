"""The Pareto front: what no other candidate matches in every objective and betters in one."""

from __future__ import annotations

import math
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
    known = [all(map(math.isfinite, row)) for row in values]
    others = values[known]

    def dominated(point: NDArray[np.float64]) -> bool:
        as_good = (others >= point).all(axis=1)
        return bool((as_good & (others > point).any(axis=1)).any())

    # One point at a time: a table of all pairs would be large.
    return tuple(usable and not dominated(row) for row, usable in zip(values, known, strict=True))
