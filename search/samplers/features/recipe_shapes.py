"""Which recipes are built alike: those differ in numbers alone, and are looked at together."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spaces.recipes.parameter_values import ByFilter, Case, Gradient
from spaces.recipes.recipe import Merge, Model, Recipe, Slice, Source

Array = NDArray[np.float64]

SAID = (0.5, 1.0)
"""Numbers that stand for what a recipe does not say; they tell nothing apart."""

LOOKED_AT = 20
"""Recipes built alike that are looked at for one whose numbers can be told apart."""

_PARTS = {
    kind: attrgetter(*kind.__dataclass_fields__) for kind in (Merge, Slice, Source, ByFilter, Case)
}


@dataclass(frozen=True, kw_only=True, slots=True)
class AlikeRecipes:
    """Recipes that are built alike.

    Attributes:
        rows: Where they stand among all, ``(n,)``.
        numbers: The numbers of each, in the order of its parts, ``(n, numbers)``.
    """

    rows: NDArray[np.intp]
    numbers: Array

    def sketch(self) -> tuple[int, Mapping[float, int]] | None:
        """One whose numbers can stand for those of all, and the column of each.

        Returns:
            Its row among all; ``None`` where the numbers of the first ones cannot be told apart.
        """
        for row, values in zip(self.rows[:LOOKED_AT].tolist(), self.numbers, strict=False):
            columns: dict[float, int] = {}
            firsts = [columns.setdefault(value, at) for at, value in enumerate(values.tolist())]
            fixed = [columns[value] for value in SAID if value in columns]
            same = bool((self.numbers == self.numbers[:, firsts]).all())
            if same and (self.numbers[:, fixed] == values[fixed]).all():
                return row, columns
        return None


def alike(recipes: Sequence[Recipe]) -> list[AlikeRecipes]:
    """Recipes by how they are built."""
    found: dict[Hashable, tuple[list[int], list[list[float]]]] = {}
    for row, recipe in enumerate(recipes):
        numbers: list[float] = []
        rows, tables = found.setdefault(_shape(recipe.root, numbers), ([], []))
        rows.append(row)
        tables.append(numbers)
    return [
        AlikeRecipes(rows=np.array(rows), numbers=np.array(table, dtype=np.float64))
        for rows, table in found.values()
    ]


def _shape(part: Any, numbers: list[float]) -> Hashable:
    """A part of a recipe but for its numbers, which are added to a list."""
    kind = type(part)
    if kind is float:
        numbers.append(part)
        return float
    if kind is Gradient:
        numbers += part.anchors
        return Gradient, len(part.anchors)
    if kind is tuple:
        return tuple([_shape(one, numbers) for one in part])
    if kind in _PARTS:
        return kind, _shape(_PARTS[kind](part), numbers)
    said: Hashable = part.name if kind is Model else part
    return said
