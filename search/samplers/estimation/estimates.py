"""Estimates of many candidates or trials, kept as tables.

A driver looks at all of them for every proposal, and an object for each would take longer than what
is computed from them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from runs.records.record import Estimate

Array = NDArray[np.float64]


class Estimates(Mapping[int, tuple[Estimate, ...]]):
    """Estimates of each of a few quantities, by number of the candidate or trial.

    Args:
        numbers: ``(n,)``, all different.
        value: ``(n, quantities)``.
        stderr: ``(n, quantities)``.
    """

    def __init__(self, numbers: NDArray[np.int64], value: Array, stderr: Array) -> None:
        self.numbers, self.value, self.stderr = numbers, value, stderr

    @classmethod
    def of(cls, estimates: Mapping[int, Sequence[Estimate]]) -> Estimates:
        """Any mapping as tables, as many quantities for each; tables as they are."""
        if isinstance(estimates, Estimates):
            return estimates
        if not estimates:
            return cls.none(1)
        pairs = [[(one.value, one.stderr) for one in found] for found in estimates.values()]
        table = np.array(pairs, dtype=np.float64)
        return cls(np.array(list(estimates), dtype=np.int64), table[:, :, 0], table[:, :, 1])

    @classmethod
    def none(cls, quantities: int) -> Estimates:
        """A table without rows."""
        nothing = np.empty((0, quantities))
        return cls(np.empty(0, dtype=np.int64), nothing, nothing)

    def only(self, keep: NDArray[np.bool_ | np.intp]) -> Estimates:
        """The estimates of some rows, by a mask or their numbers."""
        return Estimates(self.numbers[keep], self.value[keep], self.stderr[keep])

    def aligned(self, numbers: NDArray[np.int64]) -> tuple[Array, Array]:
        """Value and standard error of the first quantity of others, NaN for those not known."""
        rows = np.array([self.rows.get(number, -1) for number in numbers.tolist()], dtype=np.int64)
        value, stderr = np.full(len(rows), math.nan), np.full(len(rows), math.nan)
        known = rows >= 0
        value[known], stderr[known] = self.value[rows[known], 0], self.stderr[rows[known], 0]
        return value, stderr

    @cached_property
    def rows(self) -> dict[int, int]:
        """The row of each number."""
        return {number: row for row, number in enumerate(self.numbers.tolist())}

    def estimate(self, number: int, at: int) -> Estimate:
        """The estimate of one quantity."""
        row = self.rows[number]
        return Estimate(value=float(self.value[row, at]), stderr=float(self.stderr[row, at]))

    def __getitem__(self, number: int) -> tuple[Estimate, ...]:
        return tuple(self.estimate(number, at) for at in range(self.value.shape[1]))

    def __iter__(self) -> Iterator[int]:
        return iter(self.numbers.tolist())

    def __len__(self) -> int:
        return len(self.numbers)

    def __contains__(self, number: object) -> bool:
        return number in self.rows
