"""A Gaussian process over grouped features, with a known noise variance for every point.

Rasmussen and Williams, *Gaussian Processes for Machine Learning*, 2006: the posterior by
equations 2.25 and 2.26, the Matern kernel by 4.17. The constant mean is estimated by generalised
least squares, as in universal kriging. Plain numpy in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular

from search.samplers.features.recipe_features import Group

Array = NDArray[np.float64]

LENGTHS = {
    "method": 0.9,
    "share": 0.5,
    "scale": 0.6,
    "density": 0.5,
    "tuning": 0.8,
    "tree": 0.5,
    "slices": 0.5,
}
"""Median of the prior of each group's length scale, in units of its features."""

SIGNAL = 1.0
"""Median of the prior of the signal's standard deviation; values are standardised before."""

NOISE = 0.07
"""Median of the prior of the learned noise's standard deviation, on top of the known one."""

MAX_POINTS = 512
"""Points that the posterior is computed from; its cost grows with their cube."""

FEWEST = 6
"""Points that must be there before the model is trusted."""

GLANCE = 256
"""Points that a first look at deviations takes into account."""

CACHED = 16_384
"""Covariances that are computed at a time: larger tables take longer to move than to compute."""

FLOOR = 1e-9
"""Smallest variance, in units of the standardised values."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """What is known.

    Attributes:
        x: ``(n, columns)`` features.
        y: ``(n,)`` values.
        noise: ``(n,)`` known variances of the values, 0 or more.
    """

    x: Array
    y: Array
    noise: Array


@dataclass(frozen=True, slots=True)
class Hyper:
    """Logarithms of the hyper-parameters: a length scale per group, signal and noise.

    Attributes:
        log: ``(groups + 2,)``.
    """

    log: Array

    @classmethod
    def median(cls, groups: Sequence[Group]) -> Hyper:
        """The hyper-parameters in the middle of their priors."""
        return cls(np.log([*(LENGTHS[group.name] for group in groups), SIGNAL, NOISE]))

    @property
    def lengths(self) -> Array:
        """Length scales, one per group."""
        return np.exp(self.log[:-2])

    @property
    def signal(self) -> float:
        """Variance of the process."""
        return float(np.exp(2.0 * self.log[-2]))

    @property
    def noise(self) -> float:
        """Learned variance, added to the known ones."""
        return float(np.exp(2.0 * self.log[-1]))


def distances(one: Array, other: Array, groups: Sequence[Group]) -> Array:
    """Squared distances by group, ``(groups, len(one), len(other))``."""
    result = np.empty((len(groups), len(one), len(other)))
    for at, group in enumerate(groups):
        a, b = one[:, group.start : group.end], other[:, group.start : group.end]
        squares = np.sum(a * a, axis=1)[:, None] + np.sum(b * b, axis=1)[None]
        np.maximum(squares - 2.0 * (a @ b.T), 0.0, out=result[at])
    return result


def matern(squares: Array) -> tuple[Array, Array]:
    """Matern 5/2 correlation and minus twice its derivative by the squared distance.

    Args:
        squares: Squared distances in units of the length scales, any shape.
    """
    root = np.sqrt(5.0 * squares)
    decay = np.exp(-root)
    slope = (1.0 + root) * decay
    return slope + (5.0 / 3.0) * squares * decay, (5.0 / 3.0) * slope


def _scaled(x: Array, hyper: Hyper, groups: Sequence[Group]) -> Array:
    """Points in units of the length scales over the root of 5."""
    factors = np.empty(x.shape[1])
    for group, length in zip(groups, hyper.lengths, strict=True):
        factors[group.start : group.end] = math.sqrt(5.0) / length
    return x * factors


def kernel(one: Array, other: Array, hyper: Hyper, groups: Sequence[Group]) -> Array:
    """Covariances of the process, ``(len(one), len(other))``."""
    a, b = _left(_scaled(one, hyper, groups)), _right(_scaled(other, hyper, groups))
    result = np.empty((len(a), b.shape[1]))
    rows = max(1, CACHED // max(1, b.shape[1]))
    for start in range(0, len(a), rows):
        _matern_rows(a[start : start + rows], b, hyper, result[start : start + rows])
    return result


def covariance(x: Array, hyper: Hyper, groups: Sequence[Group]) -> Array:
    """Covariances of points with each other, ``(n, n)``; above the diagonal they are left out."""
    scaled = _scaled(x, hyper, groups)
    a, b = _left(scaled), _right(scaled)
    result = np.empty((len(x), len(x)))
    rows = max(1, CACHED // max(1, len(x)))
    for start in range(0, len(x), rows):
        end = min(start + rows, len(x))
        _matern_rows(a[start:end], b[:, :end], hyper, result[start:end, :end])
    return result


def _left(x: Array) -> Array:
    """Rows whose products with ``_right`` are squared distances."""
    return np.column_stack([-2.0 * x, np.einsum("ij,ij->i", x, x), np.ones(len(x))])


def _right(x: Array) -> Array:
    """Columns for the rows of ``_left``."""
    return np.vstack([x.T, np.ones(len(x)), np.einsum("ij,ij->i", x, x)])


def _matern_rows(a: Array, b: Array, hyper: Hyper, out: Array) -> None:
    """Covariances of a few points with others, so few that tables stay in the cache.

    With r the root of 5 times the distance, (1 + r + r^2 / 3) exp(log signal - r), in as few passes
    over the table as it takes: they cost more than the products.
    """
    squares = a @ b
    np.maximum(squares, 0.0, out=squares)
    root = np.sqrt(squares)
    squares *= 1.0 / 3.0
    squares += root
    squares += 1.0
    np.subtract(2.0 * hyper.log[-2], root, out=root)
    np.exp(root, out=root)
    np.multiply(squares, root, out=out)


class Surrogate:
    """The posterior of a Gaussian process; values are in their own unit.

    Args:
        data: At least one point.
        hyper: Hyper-parameters, for values with mean 0 and standard deviation 1.
        groups: Groups of the columns.

    Attributes:
        means: ``(n,)`` posterior means at the points.
    """

    def __init__(self, data: Data, *, hyper: Hyper, groups: Sequence[Group]) -> None:
        self.data = data
        self.hyper = hyper
        self.groups = tuple(groups)
        self.centre, self.spread = standard(data)
        y = (data.y - self.centre) / self.spread
        noise = data.noise / self.spread**2 + hyper.noise + FLOOR
        total = covariance(data.x, hyper, groups)
        total[np.diag_indices_from(total)] += noise
        # In place; what is lower in numpy's order is upper in LAPACK's.
        self._upper: Array = cholesky(total.T, lower=False, overwrite_a=True, check_finite=False)
        self._mean, self._weights = solve_mean((self._upper, False), y)
        # Covariances times weights: what is left of the values once the noise is taken away.
        self.means: Array = self.centre + self.spread * (y - noise * self._weights)
        self._pending = np.empty((0, data.x.shape[1]))
        self._pending_noise = math.nan
        self._beside = np.empty((len(data.y), 0))
        self._corner = np.empty((0, 0))

    @cached_property
    def _blocks(self) -> tuple[Array, Array, Array]:
        """The factor's upper left, upper right and lower right, parted after ``GLANCE`` points."""
        upper, at = self._upper, GLANCE
        return (
            np.asfortranarray(upper[:at, :at]),
            np.asfortranarray(upper[:at, at:]),
            np.asfortranarray(upper[at:, at:]),
        )

    def predict(self, x: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of the process, without noise, at ``(m, columns)``."""
        outlook = Outlook(self, x)
        return outlook.mean, outlook.deviation(np.arange(len(x)))

    def _deviation(self, explained: Array) -> Array:
        """Standard deviations, in the values' unit, where so much of the variance is explained."""
        variance = np.maximum(self.hyper.signal - explained, FLOOR)
        return self.spread * np.asarray(np.sqrt(variance))

    def _half(self, across: Array) -> Array:
        """The Cholesky factor's inverse times covariances ``(m, n)``, which are overwritten."""
        return solve_triangular(
            self._upper, across.T, trans="T", lower=False, overwrite_b=True, check_finite=False
        )

    def expect(self, x: Array, noise: float) -> None:
        """Count on points under way, as if each came back with its mean.

        That leaves the mean as it is everywhere and narrows the uncertainty around them (kriging
        believer, Ginsbourger et al. 2010). Rows are appended to the Cholesky factor; those of the
        points that were counted on before, and still come first, are kept.

        Args:
            x: ``(m, columns)``, all that are under way.
            noise: The variance that their values will have.
        """
        noise = noise / self.spread**2 + self.hyper.noise + FLOOR
        old = self._pending
        count = len(old) if self._pending_noise == noise and len(old) <= len(x) else 0
        if not np.array_equal(old[:count], x[:count]):
            count = 0
        self._pending, self._pending_noise = x, noise
        beside, corner = self._beside[:, :count], self._corner[:count, :count]
        if len(x) > count:
            new = x[count:]
            across = self._half(kernel(new, self.data.x, self.hyper, self.groups))
            below = kernel(x[:count], new, self.hyper, self.groups) - beside.T @ across
            below = solve_triangular(corner, below, lower=True, check_finite=False)
            own = kernel(new, new, self.hyper, self.groups) - across.T @ across - below.T @ below
            own[np.diag_indices_from(own)] += noise
            right = np.vstack([np.zeros((count, len(new))), cholesky(own, lower=True)])
            beside = np.hstack([beside, across])
            corner = np.hstack([np.vstack([corner, below.T]), right])
        self._beside, self._corner = beside, corner


class Outlook:
    """What a model expects at points; deviations, which cost most, of those that are asked for.

    Attributes:
        mean: ``(m,)`` of the process.
    """

    def __init__(self, model: Surrogate, x: Array) -> None:
        self._model, self._x = model, x
        self._across = kernel(x, model.data.x, model.hyper, model.groups)
        self.mean: Array = model.centre + model.spread * (
            model._mean + self._across @ model._weights
        )

    def at_most(self) -> Array:
        """``(m,)`` standard deviations if only the first ``GLANCE`` points were known."""
        half = self._glance
        return self._model._deviation(np.einsum("ij,ij->j", half, half))

    @cached_property
    def _glance(self) -> Array:
        """The first rows of the factor's inverse times covariances, ``(GLANCE, m)``."""
        first, _, _ = self._model._blocks
        across = self._across[:, :GLANCE].T
        return solve_triangular(first, across, trans="T", lower=False, check_finite=False)

    def deviation(self, rows: NDArray[np.intp]) -> Array:
        """``(len(rows),)`` standard deviations of the process, without noise."""
        model, half = self._model, self._glance[:, rows]
        _, between, last = model._blocks
        if last.size:  # goes on from the glance, which is the beginning of the same solution
            rest = self._across[rows, GLANCE:].T - between.T @ half
            rest = solve_triangular(
                last, rest, trans="T", lower=False, overwrite_b=True, check_finite=False
            )
            half = np.vstack([half, rest])
        explained = np.einsum("ij,ij->j", half, half)
        if len(model._pending):
            rest = kernel(self._x[rows], model._pending, model.hyper, model.groups).T
            rest -= model._beside.T @ half
            half = solve_triangular(model._corner, rest, lower=True, check_finite=False)
            explained += np.einsum("ij,ij->j", half, half)
        return model._deviation(explained)


def variances(stderrs: Sequence[float]) -> Array:
    """Squares of standard errors; one that is not known counts as the median of the others."""
    squares = np.array(stderrs, dtype=np.float64) ** 2
    known = squares[np.isfinite(squares)]
    return np.where(np.isfinite(squares), squares, np.median(known) if len(known) else 0.0)


def standard(data: Data) -> tuple[float, float]:
    """Centre and spread of the values; the spread is never 0."""
    spread = float(np.std(data.y))
    return float(np.mean(data.y)), spread if spread > 1e-12 else 1.0


def solve_mean(factor: tuple[Array, bool], y: Array) -> tuple[float, Array]:
    """The constant mean by generalised least squares, and the inverse times what is left.

    Args:
        factor: The Cholesky factor, and whether it is the lower one.
        y: ``(n,)``.
    """
    ones, values = (cho_solve(factor, part, check_finite=False) for part in (np.ones(len(y)), y))
    mean = float(values.sum() / ones.sum())
    return mean, values - mean * ones


def representative(values: Array, most: int) -> NDArray[np.intp]:
    """The points that say most about the best, ascending: the best half, and others evenly.

    Args:
        values: ``(n, objectives)``, larger is better.
        most: How many at most.
    """
    count = len(values)
    if count <= most:
        return np.arange(count)
    places = np.argsort(np.argsort(-values, axis=0, kind="stable"), axis=0, kind="stable")
    order = np.argsort(places.min(axis=1), kind="stable")
    half = most // 2
    others = np.sort(order[half:])
    even = others[np.linspace(0, len(others) - 1, most - half).astype(int)]
    return np.sort(np.concatenate([order[:half], even]))


def best_first(values: Array, keep: NDArray[np.intp]) -> NDArray[np.intp]:
    """The kept points, those first that are the best in any objective.

    They say most about options, many of which are near them. Who asks for the same points in
    another order would need another factor.

    Args:
        values: ``(n, objectives)``, larger is better.
        keep: Which of them.
    """
    order: NDArray[np.intp] = keep[np.argsort(-values[keep].max(axis=1), kind="stable")]
    return order
