"""What all candidates answered of one task, and what each is estimated to get on all of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.protocol import TaskInfo, least_stderr
from runs.records.record import Estimate

Array = NDArray[np.float64]

IMAGINED = 2.0
"""Answers at the task's mean that are added to those to each question."""

LEAST_RESIDUAL = 0.2
"""The pooled variance is not below this share of that of all answers: few answers agree by luck."""


@dataclass(kw_only=True)
class TaskAnswers:
    """The answers to the questions of one task; ``comparable_scores`` has the formula.

    Attributes:
        info: The task.
        column: Of each question by its id.
        documents: Number of each question's document, from 0; as many as columns.
        values: ``(candidates, questions)``, 0 where not answered; larger is better.
        asked: ``(candidates, questions)``, 1 where answered.
        whole: Values of metrics that exist for the task as a whole only, by candidate.
        right: Whether all values are 0 or 1, which are their own squares.
    """

    info: TaskInfo
    column: dict[str, int]
    documents: NDArray[np.int64]
    values: Array = field(init=False)
    asked: Array = field(init=False)
    whole: dict[int, Estimate] = field(default_factory=dict)
    right: bool = True

    def __post_init__(self) -> None:
        self.values = np.zeros((0, len(self.column)))
        self.asked = np.zeros((0, len(self.column)))

    def grow(self, rows: int) -> None:
        """Room for as many candidates."""
        if rows > len(self.values):
            more = np.zeros((max(rows, 2 * len(self.values), 64), len(self.column)))
            for name in ("values", "asked"):
                kept = getattr(self, name)
                new = more.copy()
                new[: len(kept)] = kept
                setattr(self, name, new)

    def put(self, row: int, columns: NDArray[Any], values: Array) -> None:
        """Answers of one candidate, in the metric's own direction; those not finite are none."""
        known = np.isfinite(values)
        if not known.any():
            return
        oriented = values[known] * self.info.sign
        self.values[row, columns[known]] = oriented
        self.right = self.right and bool(((oriented == 0.0) | (oriented == 1.0)).all())
        self.asked[row, columns[known]] = 1.0

    def estimates(self, counting: NDArray[np.bool_]) -> tuple[Array, Array]:
        """Estimate and variance for each candidate that counts; NaN for those without answers.

        Args:
            counting: ``(rows,)``, which of the first candidates count. The others change nothing,
                not even how sums are rounded: who looks while they answer finds the same.

        Sums over questions are products of the tables with vectors over questions, so that no
        table of differences is made. A question that a candidate answered has ``e`` = 1 / (answers
        of others + 2), one that it did not has ``f``; its difficulty is (sum of the others' answers
        + 2 u) times that, with the task's mean ``u`` over the others.
        """
        values, asked = self.values[: len(counting)], self.asked[: len(counting)]
        if not counting.all():
            values, asked = values[counting], asked[counting]
        one = np.ones(len(values))
        given, total = one @ asked, one @ values
        counts, right = asked @ np.ones(len(given)), values @ np.ones(len(given))
        u = IMAGINED * (total.sum() - right) / np.maximum(given.sum() - counts, 1.0)
        e, f = 1.0 / (given + IMAGINED - 1.0), 1.0 / (given + IMAGINED)
        own = 1.0 + e  # what is left of an answer after the difficulty, which is without it
        by_asked = asked @ np.column_stack([e, e * total, e**2, e**2 * total, (e * total) ** 2,
                                            f, f * total])  # fmt: skip
        by_value = values @ np.column_stack([e, own**2, own * e, own * e * total])
        ones, sums, twos, mixed, squares, absent, absent_sums = by_asked.T
        difficulty = sums - by_value[:, 0] + u * ones  # of the questions asked, summed
        elsewhere = (f * total).sum() - absent_sums + u * (f.sum() - absent)
        left = right - difficulty
        squared = by_value[:, 1] if self.right else (values**2) @ own**2
        square = squared - 2.0 * (by_value[:, 3] + u * by_value[:, 2])
        square += squares + 2.0 * u * mixed + u**2 * twos
        with np.errstate(divide="ignore", invalid="ignore"):
            level = left / counts
            estimate = level + (difficulty + elsewhere) / len(self.column)
            # The candidate's own level, which it shows in all its answers, is no noise.
            noise = np.nansum(square - counts * level**2)
            freedom = max(1.0, counts.sum() - np.count_nonzero(counts))
            variance = max(
                noise / freedom, LEAST_RESIDUAL * self._spread(values, given.sum(), total.sum())
            )
            found = np.where(counts > 0, variance / counts, math.nan)
        return estimate, np.maximum(found, self._least(asked, counts)) if self.right else found

    def _least(self, asked: Array, counts: Array) -> Array:
        """Variances below which no mean of right or wrong answers is known, by its documents."""
        order = np.argsort(self.documents, kind="stable")
        first = np.flatnonzero(np.diff(self.documents[order], prepend=-1))
        if len(first) < len(order):
            counts = np.maximum.reduceat(asked[:, order], first, axis=1).sum(axis=1)
        known, at = np.unique(counts, return_inverse=True)
        return np.array([least_stderr(n) ** 2 for n in known.tolist()])[at]

    def _spread(self, values: Array, count: float, total: float) -> float:
        """Variance of all answers, which are so many and sum up to that."""
        if not count:
            return math.nan
        squares = total if self.right else float((values**2).sum())
        return squares / count - (total / count) ** 2
