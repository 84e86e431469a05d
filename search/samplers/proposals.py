"""Recipes to choose from: random ones, and small changes of good ones.

Everything happens among the values that a space draws, mapped to the unit cube, and ends in
``draw``, so that whatever comes out is a legal recipe of the space.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from spaces.recipes.recipe import Recipe
from spaces.sampling.draw import (
    Choices,
    Domain,
    Fixed,
    Floats,
    Integers,
    Value,
    dials,
    draw,
    parameters,
)
from spaces.search_space.space import Space

Array = NDArray[np.float64]

SWITCH = 0.1
"""Chance that a mutation draws a word (method, order, place in the tree) anew."""

TOGETHER = 0.3
"""Chance that all values of one input move together, whatever depth and filter they are for."""

ALIKE = 8
"""Points in a row that share their words, since recipes built alike are looked at together."""

APART = np.array([0.2, 0.5])
"""Share of values that move on their own; one of these for each mutation."""


class Cube:
    """The unit cube of everything a space draws, used by a recipe or not.

    Attributes:
        domains: What is drawn, by name; one dimension each.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self.domains = parameters(space)
        known = [dials(space)[name] for name in self.domains]
        stems = list(dict.fromkeys((dial.parameter, dial.of) for dial in known))
        self._stem = np.array([stems.index((d.parameter, d.of)) for d in known], dtype=int)
        self._stems = len(stems)
        self._words = np.array([isinstance(d.domain, Choices) for d in known], dtype=bool)
        kinds = list(self.domains.values())
        self._kinds = np.array([_kinds(domain) for domain in kinds], dtype=np.float64)
        floats = [domain if isinstance(domain, Floats) else None for domain in kinds]
        ends = [(math.nan, math.nan) if one is None else (one.low, one.high) for one in floats]
        self._low, self._high = np.array(ends, dtype=np.float64).reshape(-1, 2).T
        self._log = np.array([one is not None and one.log for one in floats], dtype=bool)

    @property
    def size(self) -> int:
        """Number of its dimensions; 0 where the space leaves no choice."""
        return len(self.domains)

    def random(self, rng: np.random.Generator, count: int) -> Array:
        """Uniform points, ``(count, size)``; a few next to each other are of one kind."""
        points = rng.random((count, self.size))
        return np.where(self._kinds > 1, points[_alike(count)], points)

    def point(self, values: Mapping[str, Value], rng: np.random.Generator) -> Array:
        """Where given values lie; what is not given (the recipe has no use for it) is random."""
        place = rng.random(self.size)
        for at, (name, domain) in enumerate(self.domains.items()):
            if name in values:
                place[at] = _to_unit(domain, values[name])
        return place

    def mutations(
        self, point: Array, rng: np.random.Generator, *, count: int, scale: float
    ) -> Array:
        """Points near ``point``, ``(count, size)``.

        Args:
            point: ``(size,)``.
            rng: Where the changes come from.
            count: Number of points.
            scale: Standard deviation of a change of a number, as a share of its range.
        """
        shape = (count, self.size)
        alone = rng.random(shape) < APART[rng.integers(len(APART), size=(count, 1))]
        moves = rng.normal(0.0, scale, shape) * alone
        stems = (count, self._stems)
        joint = rng.normal(0.0, scale, stems) * (rng.random(stems) < TOGETHER)
        moved = np.minimum(np.maximum(point + moves + joint[:, self._stem], 0.0), 1.0)
        again = rng.random(shape) < SWITCH
        words = np.where(again, rng.random(shape), point)[_alike(count)]
        return np.where(self._words, words, moved)

    def values(self, point: Array) -> dict[str, Value]:
        """A value for every name that the space can ask for."""
        return self._rows(point[None])[0]

    def codes(self, points: Array) -> NDArray[np.int64]:
        """Number of the word or whole number at every point, 0 for other dimensions."""
        return np.minimum(points * self._kinds, self._kinds - 1).astype(np.int64)

    def numbers(self, points: Array) -> Array:
        """The numbers at every point but for rounding, NaN for words and whole numbers."""
        result = self._low + points * (self._high - self._low)
        log = self._log
        if log.any():
            ratio = np.log(self._high[log] / self._low[log])
            result[:, log] = self._low[log] * np.exp(points[:, log] * ratio)
        return result

    def _rows(self, points: Array) -> list[dict[str, Value]]:
        """``values`` of several points, one name after the other for all of them."""
        if not self.domains:
            return [{} for _ in points]
        columns = [
            _from_units(domain, column)
            for domain, column in zip(self.domains.values(), points.T, strict=True)
        ]
        return [dict(zip(self.domains, row, strict=True)) for row in zip(*columns, strict=True)]

    def recipes(self, points: Array) -> list[Recipe]:
        """What the space draws at these points."""
        return [draw(self._space, Fixed(row), check=False) for row in self._rows(points)]

    def near(
        self,
        points: Sequence[Array],
        rng: np.random.Generator,
        *,
        scales: Sequence[float],
        each: int,
    ) -> Array:
        """So many mutations of each point at each scale."""
        rows = [
            self.mutations(point, rng, count=each, scale=scale)
            for point in points
            for scale in scales
        ]
        return np.vstack(rows) if rows else np.empty((0, self.size))


def _alike(count: int) -> NDArray[np.intp]:
    """For each of so many points, the one whose words it takes."""
    return np.arange(count) // ALIKE * ALIKE


def _kinds(domain: Domain) -> int:
    """How many values a domain has that recipes differ in by kind; 1 for numbers."""
    if isinstance(domain, Choices):
        return len(domain.words)
    return domain.high - domain.low + 1 if isinstance(domain, Integers) else 1


def _to_unit(domain: Domain, value: Value) -> float:
    """Numbers by their place in the range; whole numbers and words by the middle of their part."""
    if isinstance(domain, Choices):
        return (domain.words.index(str(value)) + 0.5) / len(domain.words)
    if isinstance(domain, Floats) and domain.log:
        return math.log(float(value) / domain.low) / math.log(domain.high / domain.low)
    if isinstance(domain, Floats):
        return (float(value) - domain.low) / (domain.high - domain.low)
    return (int(value) - domain.low + 0.5) / (domain.high - domain.low + 1)


def _from_units(domain: Domain, units: Array) -> list[Value]:
    """The inverse of ``_to_unit``, for many numbers in [0, 1]."""
    if isinstance(domain, Choices):
        last = len(domain.words) - 1
        return [domain.words[min(int(unit), last)] for unit in units * len(domain.words)]
    if isinstance(domain, Integers):
        count = domain.high - domain.low + 1
        return [domain.low + min(int(unit), count - 1) for unit in units * count]
    if domain.log:  # not numpy's power, which may differ in the last digit between machines
        ratio = domain.high / domain.low
        values = domain.low * np.array([math.pow(ratio, unit) for unit in units.tolist()])
    else:
        values = domain.low + units * (domain.high - domain.low)
    clipped: list[Value] = np.clip(values, domain.low, domain.high).tolist()
    return clipped  # it may round past the end of the range
