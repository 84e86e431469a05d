"""Features of many points of a space at once, without making a recipe of each.

Recipes that are built alike (the same methods, the same tree) differ in numbers alone. So one of
each kind is drawn, a *sketch*, whose numbers are told apart by their value, and the features of all
others are computed from a table of their numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from search.samplers.features.recipe_features import FeatureTable, RecipeFeatures
from search.samplers.proposals import Cube
from spaces.sampling.draw import Fixed, Floats, Value, draw
from spaces.search_space.space import Space

Array = NDArray[np.float64]

GOLDEN = 0.6180339887498949
"""Multiples of it, without their whole part, are all different and spread evenly."""

MOST = 20_000
"""Sketches that are kept; in large spaces there are always new ones."""


@dataclass(slots=True)
class _AskedParameter:
    """A word or whole number that recipes are asked for, and what comes next by the answer."""

    column: int
    answers: dict[int, _AskedParameter | FeatureTable] = field(default_factory=dict)


class _NotingTrial(Fixed):
    """Replays values and notes what was asked, in order."""

    def __init__(self, values: dict[str, Value]) -> None:
        super().__init__(values)
        self.names: list[str] = []

    def suggest_int(self, name: str, low: int, high: int) -> int:
        self.names.append(name)
        return super().suggest_int(name, low, high)

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str:
        self.names.append(name)
        return super().suggest_categorical(name, choices)


class BatchFeatures:
    """The features of points of the unit cube of a space."""

    def __init__(self, space: Space, cube: Cube, features: RecipeFeatures) -> None:
        self._space, self._cube, self._features = space, cube, features
        domains = cube.domains
        self._column = {name: at for at, name in enumerate(domains)}
        numbers = [name for name, domain in domains.items() if isinstance(domain, Floats)]
        self._marks = {
            name: _mark(domains[name], at * GOLDEN % 1.0) for at, name in enumerate(numbers, 1)
        }
        self._columns = {mark: self._column[name] for name, mark in self._marks.items()}
        self._plain = len(self._columns) < len(self._marks)  # marks that are the same: a tiny range
        self._root: _AskedParameter | FeatureTable | None = None
        self._kept = 0

    def matrix(self, points: Array) -> Array:
        """Features of what the space draws at points, ``(n, columns)``."""
        if self._plain:
            return self._features.matrix(self._cube.recipes(points))
        codes, table = self._cube.codes(points), self._cube.numbers(points)
        groups: dict[int, tuple[FeatureTable, list[int]]] = {}
        # A few in a row are often alike.
        others = np.flatnonzero((codes[1:] != codes[:-1]).any(axis=1)) + 1
        for start, end in pairwise([0, *others.tolist(), len(points)] if len(points) else []):
            look = self._find(codes[start].tolist(), points[start])
            groups.setdefault(id(look), (look, []))[1].extend(range(start, end))
        result = np.empty((len(points), self._features.columns))
        for look, rows in groups.values():
            result[rows] = look.rows(table[rows])
        return result

    def _find(self, code: Sequence[int], point: Array) -> FeatureTable:
        at = self._root
        while isinstance(at, _AskedParameter):
            at = at.answers.get(code[at.column])
        return at if at is not None else self._add(code, point)

    def _add(self, code: Sequence[int], point: Array) -> FeatureTable:
        """Draw the sketch that a point belongs to, and remember the way to it."""
        if self._kept >= MOST:
            self._root, self._kept = None, 0
        asked = _NotingTrial({**self._cube.values(point), **self._marks})
        look = self._features.look(draw(self._space, asked, check=False), self._columns)
        self._kept += 1
        columns = [self._column[name] for name in asked.names]
        if not columns:
            self._root = look
            return look
        if self._root is None:
            self._root = _AskedParameter(columns[0])
        at = self._root
        assert isinstance(at, _AskedParameter)
        for column, following in pairwise(columns):
            assert at.column == column
            after = at.answers.setdefault(code[column], _AskedParameter(following))
            assert isinstance(after, _AskedParameter)
            at = after
        at.answers[code[columns[-1]]] = look
        return look


def _mark(domain: object, share: float) -> float:
    """A number of a range that tells a parameter from others, by a share from 0 to 1.

    It lies near the end that is farther from 0, so that weights do not add up to nothing.
    """
    assert isinstance(domain, Floats)
    near, far = sorted((domain.low, domain.high), key=abs)
    return near + (0.9 + 0.09 * share) * (far - near)
