"""Hyper-parameters of a Gaussian process: fitted to a history, and kept until it has grown.

Marginal likelihood and its gradient by Rasmussen and Williams, *Gaussian Processes for Machine
Learning*, 2006, equations 2.30 and 5.9; priors are log-normal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrf, dpotri
from scipy.optimize import minimize

from search.samplers.features.recipe_features import Group
from search.samplers.surrogate.gaussian_process import (
    FEWEST,
    FLOOR,
    Data,
    Hyper,
    Surrogate,
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
    keep = representative(data.y[:, None], MAX_FIT_POINTS)
    chosen = Data(x=data.x[keep], y=data.y[keep], noise=data.noise[keep])
    start = Hyper.median(groups).log
    found = minimize(
        Objective(chosen, groups),
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
    ``keep`` gets every new fit with its number of points, for a resumed run that begins with them.
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
        self._model: Surrogate | None = None

    def model(self, data: Data, hyper: Hyper) -> Surrogate:
        """The process of these points; the last one is kept for whoever asks for the same next."""
        last = self._model
        if last is None or last.hyper is not hyper or not _same(last.data, data):
            self._model = last = Surrogate(data, hyper=hyper, groups=self._groups)
        return last

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


def _same(one: Data, other: Data) -> bool:
    return (
        np.array_equal(one.y, other.y)
        and np.array_equal(one.noise, other.noise)
        and np.array_equal(one.x, other.x)
    )


def milestone(count: int) -> int:
    """The last size, up to ``count``, at which hyper-parameters are fitted: 6, 8, 10, 12, ..."""
    size = FEWEST
    while (larger := math.ceil(size * GROWTH)) <= count:
        size = larger
    return min(size, count)


class Objective:
    """Minus the logarithm of likelihood times prior, up to a constant, with its gradient.

    What is symmetric is kept as its lower half without the diagonal, pair by pair.
    """

    def __init__(self, data: Data, groups: Sequence[Group]) -> None:
        centre, spread = standard(data)
        self._y = (data.y - centre) / spread
        self._known = data.noise / spread**2 + FLOOR
        self._pairs = np.tril_indices(len(data.y), -1)
        self._squares = distances(data.x, data.x, groups)[:, *self._pairs]
        self._median = Hyper.median(groups).log

    def __call__(self, log: Array) -> tuple[float, Array]:
        """Value and gradient ``(groups + 2,)`` by the logarithms of the hyper-parameters."""
        hyper, pairs = Hyper(log), self._pairs
        by_square = 1.0 / hyper.lengths**2
        shape, slope = matern(by_square @ self._squares)
        total = np.empty((len(self._y), len(self._y)))
        total[pairs] = hyper.signal * shape
        np.fill_diagonal(total, hyper.signal + self._known + hyper.noise)
        lower, info = dpotrf(total, lower=True, clean=False)
        if info:
            return 1e10, np.zeros_like(log)
        mean, weights = solve_mean((lower, True), self._y)
        off = (log - self._median) / PRIOR_WIDTH
        value = (
            0.5 * float((self._y - mean) @ weights)
            + float(np.log(np.diag(lower)).sum())
            + 0.5 * float(off @ off)
        )
        inverse, _ = dpotri(lower, lower=True)
        # d/dh of the likelihood is tr((inverse - weights weights') dK/dh) / 2, eq. 5.9. Every pair
        # counts twice.
        rows, columns = pairs
        inner = inverse[pairs] - weights[rows] * weights[columns]
        diagonal = float(np.trace(inverse) - weights @ weights)
        by_length = by_square * (self._squares @ (inner * slope)) * hyper.signal
        by_signal = hyper.signal * (2.0 * float(inner @ shape) + diagonal)
        return value, np.array([*by_length, by_signal, hyper.noise * diagonal]) + off / PRIOR_WIDTH
