"""Hyper-parameters of a Gaussian process: fitted to a history, and kept until it has grown.

Marginal likelihood and its gradient by Rasmussen and Williams, *Gaussian Processes for Machine
Learning*, 2006, equations 2.30 and 5.9; priors are log-normal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_solve, cholesky
from scipy.optimize import minimize

from search.features import Group
from search.surrogate import (
    FEWEST,
    FLOOR,
    Data,
    Hyper,
    distances,
    matern,
    representative,
    solve_mean,
    standard,
)

Array = NDArray[np.float64]

PRIOR_WIDTH = 0.8
"""Standard deviation of the logarithm of every hyper-parameter under its prior."""

REACH = 3.0
"""How far the logarithm of a hyper-parameter may move from its median."""

MAX_FIT_POINTS = 256
"""Points that hyper-parameters are fitted to; more would make the fit slow and change little."""

GROWTH = 1.2
"""Hyper-parameters are fitted anew when the history has grown by this factor."""


def fit(data: Data, groups: Sequence[Group]) -> Hyper:
    """The hyper-parameters with the largest posterior density (MAP), by L-BFGS-B.

    Always from the medians of the priors, so that the result depends on nothing but the data.
    """
    chosen = _for_fitting(data)
    start = Hyper.median(groups).log
    objective = Objective(chosen, groups)
    found = minimize(
        objective,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(low - REACH, low + REACH) for low in start],
        options={"maxiter": 25, "maxfun": 40, "ftol": 1e-5},
    )
    return Hyper(np.asarray(found.x, dtype=np.float64))


class Fits:
    """Fits that are made anew only when the history has grown enough.

    Scores are estimated anew with every answer, but the hyper-parameters hardly change with them.

    Args:
        groups: Columns of the features.
        known: Fits made before, by number of points.
        keep: Called with every new one, to remember it for a resumed run.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        *,
        known: Mapping[int, Hyper] | None = None,
        keep: Callable[[int, Hyper], None] | None = None,
    ) -> None:
        self._groups = groups
        self._known = dict(known or {})
        self._keep = keep

    def due(self, count: int) -> bool:
        """Whether a fit would be made for so many points."""
        return count >= FEWEST and milestone(count) not in self._known

    def of(self, data: Data) -> Hyper:
        """Fitted to the first points, up to the last size at which they are fitted anew."""
        size = milestone(len(data.y))
        if size not in self._known:
            first = Data(x=data.x[:size], y=data.y[:size], noise=data.noise[:size])
            self._known[size] = fit(first, self._groups)
            if self._keep is not None:
                self._keep(size, self._known[size])
        return self._known[size]


def milestone(count: int) -> int:
    """The last size, up to ``count``, at which hyper-parameters are fitted: 6, 8, 10, 12, ..."""
    size = FEWEST
    while (larger := math.ceil(size * GROWTH)) <= count:
        size = larger
    return min(size, count)


class Objective:
    """Minus the logarithm of likelihood times prior, up to a constant, with its gradient."""

    def __init__(self, data: Data, groups: Sequence[Group]) -> None:
        centre, spread = standard(data)
        self._y = (data.y - centre) / spread
        self._known = data.noise / spread**2 + FLOOR
        self._squares = distances(data.x, data.x, groups)
        self._median = Hyper.median(groups).log

    def __call__(self, log: Array) -> tuple[float, Array]:
        """Value and gradient ``(groups + 2,)`` by the logarithms of the hyper-parameters."""
        hyper = Hyper(log)
        scaled = self._squares / (hyper.lengths**2)[:, None, None]
        shape, slope = matern(scaled.sum(axis=0))
        covariance = hyper.signal * shape
        total = covariance.copy()
        total[np.diag_indices_from(total)] += self._known + hyper.noise
        try:
            lower: Array = cholesky(total, lower=True, check_finite=False)
        except LinAlgError:
            return 1e10, np.zeros_like(log)
        mean, weights = solve_mean((lower, True), self._y)
        off = (log - self._median) / PRIOR_WIDTH
        value = (
            0.5 * float((self._y - mean) @ weights)
            + float(np.log(np.diag(lower)).sum())
            + 0.5 * float(off @ off)
        )
        inverse = cho_solve((lower, True), np.eye(len(total)), check_finite=False)
        # d/dh of the likelihood is tr((inverse - weights weights') dK/dh) / 2, eq. 5.9.
        inner = 0.5 * (inverse - np.outer(weights, weights))
        by_length = np.einsum("ij,gij->g", inner * slope * hyper.signal, scaled)
        by_signal = 2.0 * float(np.sum(inner * covariance))
        by_noise = 2.0 * hyper.noise * float(np.trace(inner))
        return value, np.array([*by_length, by_signal, by_noise]) + off / PRIOR_WIDTH


def _for_fitting(data: Data) -> Data:
    """All points, or the best half and an even choice of the others."""
    keep = representative(data.y[:, None], MAX_FIT_POINTS)
    return Data(x=data.x[keep], y=data.y[keep], noise=data.noise[keep])
