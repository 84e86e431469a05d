"""Clusters of answers that are independent of each other, and what is drawn from them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from runs.statistics.intervals import Numbers

_BLOCK = 100_000  # random numbers held at a time: as many as caches hold
_FEW = 16  # distinct values up to which counting them is faster than drawing one by one


@dataclass(frozen=True, kw_only=True)
class Stratum:
    """Clusters of questions of one task, or of several that are about the same documents.

    Attributes:
        value: Its part of the combined mean.
        sums: ``(g,)``, what each cluster adds to that.
        parts: ``(g,)``, what each adds to the deviation of the mean from its expected value; they
            sum up to 0.
        imagined: What else is drawn from, half as likely each as a cluster: empty where any answer
            is more than right or wrong.
        n: Number of questions.
    """

    value: float
    sums: Numbers
    parts: Numbers
    imagined: Numbers = field(default_factory=lambda: np.empty(0))
    n: int

    @property
    def clusters(self) -> int:
        return len(self.parts)

    @property
    def smooth(self) -> bool:
        """Whether answers are right or wrong, so that there is something imagined."""
        return bool(len(self.imagined))

    @property
    def variance(self) -> float:
        """Of the mean, from what was seen; NaN below two clusters."""
        if self.clusters < 2:
            return math.nan
        return self._scale * float(self.parts @ self.parts)

    @property
    def least_variance(self) -> float:
        """The variance of the mean; from what is imagined where no spread was seen."""
        return self.variance or self._scale * self._second_moment

    @property
    def smoothed_variance(self) -> float:
        """Of what is resampled."""
        return self._second_moment * self.clusters / max(1, self.clusters - 1)

    @property
    def _scale(self) -> float:
        return self.clusters / (self.clusters - 1)

    @property
    def _second_moment(self) -> float:
        centred, chances = self.distribution
        return self.clusters * float(chances @ centred**2)

    @cached_property
    def _pool(self) -> Numbers:
        return (
            np.concatenate([self.parts, self.parts, self.imagined]) if self.smooth else self.parts
        )

    @cached_property
    def distribution(self) -> tuple[Numbers, Numbers]:
        """Distinct values less their mean, and their chances: what is resampled."""
        values, counts = np.unique(self._pool, return_counts=True)
        chances = counts / len(self._pool)
        return values - chances @ values, chances

    def resampled(self, rng: np.random.Generator, resamples: int) -> tuple[Numbers, Numbers]:
        """``(resamples,)`` sums of as many values as clusters, and sums of their squares.

        A bootstrap sample is fixed by how often each distinct value is in it, which is multinomial:
        for independent right-or-wrong questions that is three numbers instead of one per question.
        """
        centred, chances = self.distribution
        few = len(centred) <= _FEW
        pool = self._pool - self._pool.mean()
        sums, squares = np.zeros(resamples), np.zeros(resamples)
        for part in _blocks(resamples, len(centred) if few else self.clusters):
            count = part.stop - part.start
            if few:
                drawn = rng.multinomial(self.clusters, chances, size=count)
                sums[part], squares[part] = drawn @ centred, drawn @ centred**2
            else:
                values = pool[rng.integers(len(pool), size=(count, self.clusters))]
                sums[part] = values.sum(axis=1)
                squares[part] = np.einsum("ij,ij->i", values, values)
        return sums, squares

    def flipped(self, rng: np.random.Generator, resamples: int) -> Numbers:
        """``(resamples,)`` means if the signs of the clusters were random.

        Among ``m`` clusters of one size, the number that stays positive is binomial(m, 1/2).
        """
        sizes, counts = np.unique(np.abs(self.sums), return_counts=True)
        few = len(sizes) <= _FEW
        positive = np.zeros(resamples)
        for part in _blocks(resamples, len(sizes) if few else self.clusters):
            rows = part.stop - part.start
            if few:
                positive[part] = rng.binomial(counts, 0.5, size=(rows, len(sizes))) @ sizes
            else:
                eights = rng.integers(256, size=(rows, -(-self.clusters // 8)), dtype=np.uint8)
                bits = np.unpackbits(eights, axis=1, count=self.clusters)
                positive[part] = bits.astype(np.float64) @ np.abs(self.sums)
        return 2 * positive - float(counts @ sizes)


def _blocks(count: int, width: int) -> Iterator[slice]:
    """Slices of so many rows that are held at a time."""
    step = max(1, _BLOCK // max(1, width))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))
