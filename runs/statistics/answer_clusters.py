"""From the answers of one or two candidates to clusters that are independent of each other.

Questions about the same document, of one task or of several, are one cluster: they are hard or easy
together. Tasks without a common document are strata of their own, so that resampling keeps their
numbers; tasks that share documents are resampled together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runs.statistics.intervals import Numbers
from runs.statistics.strata import Stratum

_CELLS = np.array((-1.0, 0.0, 0.0, 1.0))
"""Half an observation for each cell of the two-by-two table; the two of agreement are 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """What a task gave, question by question.

    Attributes:
        share: Factor of its mean in the combined one.
        values: ``(n,)`` finite numbers, at least one.
        documents: The document of each question.
        right: Whether the values are differences of right (1) and wrong (0) answers.
    """

    share: float
    values: Numbers
    documents: Sequence[str]
    right: bool

    @property
    def n(self) -> int:
        return len(self.values)


def strata(columns: Sequence[Column]) -> list[Stratum]:
    """Independent strata, whose means sum up to the combined one."""
    return [_stratum(found) for found in _connected(columns)]


def effective(values: Numbers, documents: Sequence[str]) -> float:
    """How many independent answers tell as much about their mean.

    The number of answers over the design effect: the variance of the mean with clusters over that
    without (Kish 1965, "Survey Sampling", section 5.4). Clusters never count for more than their
    questions or for less than one question each; where all values are equal nothing is known about
    their likeness, and each counts for one.

    Args:
        values: ``(n,)``.
        documents: The document of each.
    """
    codes, g = _codes([documents])
    n = len(values)
    if g == n:
        return float(n)
    centred = values - values.mean()
    sums = np.bincount(codes[0], centred, minlength=g)
    alone = float(centred @ centred) * n / max(1, n - 1)
    together = float(sums @ sums) * g / max(1, g - 1)
    if not alone:
        return float(g)
    return float(np.clip(n * alone / together, g, n)) if together else float(n)


def correlation(columns: Sequence[Column]) -> Numbers:
    """``(columns, columns)`` correlations of the columns' means.

    Where a column has no spread, its documents are all that is known: their common share counts.
    """
    codes, g = _codes([column.documents for column in columns])
    sums = np.array(
        [
            np.bincount(at, column.values - column.values.mean(), minlength=g)
            for at, column in zip(codes, columns, strict=True)
        ]
    ).reshape(len(columns), g)
    there = np.array([np.bincount(at, minlength=g) > 0 for at in codes], dtype=np.float64)
    there = there.reshape(len(columns), g)
    spread = np.sqrt((sums**2).sum(axis=1))
    size = np.sqrt(there.sum(axis=1))
    known = np.outer(spread, spread) > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        seen = (sums @ sums.T) / np.outer(spread, spread)
        shared = (there @ there.T) / np.outer(size, size)
    found = np.where(known, seen, shared)
    np.fill_diagonal(found, 1.0)
    return np.asarray(found)


def _codes(documents: Sequence[Sequence[str]]) -> tuple[list[npt.NDArray[np.intp]], int]:
    """The documents of several columns as numbers from 0, and how many there are."""
    known: dict[str, int] = {}
    codes = [
        np.array([known.setdefault(name, len(known)) for name in names], dtype=np.intp)
        for names in documents
    ]
    return codes, len(known)


def _connected(columns: Sequence[Column]) -> list[list[Column]]:
    """Groups of columns that share documents, directly or through others."""
    groups: list[tuple[set[str], list[Column]]] = []
    for column in columns:
        names, members = set(column.documents), [column]
        apart = []
        for group in groups:
            if group[0].isdisjoint(names):
                apart.append(group)
            else:
                names, members = names | group[0], [*group[1], *members]
        groups = [*apart, (names, members)]
    return [members for _, members in groups]


def _stratum(columns: Sequence[Column]) -> Stratum:
    codes, g = _codes([column.documents for column in columns])
    sums, parts, imagined = np.zeros(g), np.zeros(g), []
    for column, at in zip(columns, codes, strict=True):
        mean, factor = column.values.mean(), column.share / column.n
        sums += np.bincount(at, factor * column.values, minlength=g)
        parts += np.bincount(at, factor * (column.values - mean), minlength=g)
        if column.right:
            alike = column.share / effective(column.values, column.documents)
            imagined.append(alike * (_CELLS - mean))
    smooth = len(imagined) == len(columns)
    return Stratum(
        value=math.fsum(column.share * float(column.values.mean()) for column in columns),
        sums=np.sort(sums),
        parts=np.sort(parts),
        imagined=np.concatenate(imagined) if smooth else np.empty(0),
        n=sum(column.n for column in columns),
    )
