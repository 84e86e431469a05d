"""The numbers behind the input weights of a recipe, as one vector that can be learned.

Every source of every merge may have a ``weight``: a number, a gradient over depth, or values by
filter. All numbers in these, in the order of the tree, are the recipe's coefficients ``c``. The
weight of one input for one tensor is linear in them: ``w = sum_k a_k c_k``, where the shares ``a``
follow from the filter that matches and from the interpolation over depth.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache

from spaces.recipes.parameter_values import (
    ByFilter,
    Case,
    Gradient,
    Level,
    Parameter,
    Parameters,
    numbers,
    shares,
)
from spaces.recipes.recipe import Merge, Model, Recipe, Slice, Source, merges

WEIGHT = "weight"


class Coefficients:
    """The coefficients of a recipe: the numbers in the weights of its sources.

    Weights that a merge or slice gives all of its inputs at once are not among them.

    Args:
        recipe: Whose.

    Attributes:
        values: ``(n,)`` the numbers, inner merges first, sources in order.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self._starts: dict[tuple[Merge, Source], int] = {}
        values: list[float] = []
        for merge in merges(recipe.root):
            for source in (source for group in merge.groups() for source in group):
                weight = _weight(source)
                if weight is not None and (merge, source) not in self._starts:
                    self._starts[merge, source] = len(values)
                    values += map(float, numbers(weight))
        self.values = tuple(values)

    def shares(
        self, merge: Merge, source: Source, *, tensor: str, position: float
    ) -> tuple[tuple[int, float], ...]:
        """Which coefficients make the weight of one input for one tensor, and their shares.

        Args:
            merge: A merge of the recipe.
            source: One of its sources.
            tensor: Name of the tensor within the source, which filters look at.
            position: Depth within the slice, in [0, 1].

        Returns:
            Index in ``values`` and share of each; nothing where the weight comes from elsewhere.
        """
        start, weight = self._starts.get((merge, source)), _weight(source)
        if start is None or weight is None:
            return ()
        found = shares(weight, tensor=tensor, position=position)
        return tuple((start + index, share) for index, share in found)

    def replaced(self, values: Sequence[float]) -> Recipe:
        """The recipe with other coefficients.

        Args:
            values: ``(n,)`` finite numbers.

        Raises:
            ValueError: If there are not as many.
        """
        if len(values) != len(self.values):
            raise ValueError(f"values: expected {len(self.values)} numbers, got {len(values)}")

        def source(merge: Merge, old: Source) -> Source:
            weight = _weight(old)
            table = old.parameters
            if weight is not None:
                start = self._starts[merge, old]
                count = sum(1 for _ in numbers(weight))
                table = _with_weight(table, _filled(weight, iter(values[start : start + count])))
            return replace(old, of=node(old.of), parameters=table)

        @cache  # a merge that occurs twice stays one
        def made(merge: Merge) -> Merge:
            return replace(
                merge,
                sources=tuple(source(merge, one) for one in merge.sources),
                slices=tuple(
                    Slice(
                        sources=tuple(source(merge, one) for one in part.sources),
                        parameters=part.parameters,
                    )
                    for part in merge.slices
                ),
                base=None if merge.base is None else node(merge.base),
            )

        def node(old: Model | Merge) -> Model | Merge:
            return made(old) if isinstance(old, Merge) else old

        return replace(self.recipe, root=made(self.recipe.root))


def _weight(source: Source) -> Parameter | None:
    return dict(source.parameters).get(WEIGHT)


def _with_weight(table: Parameters, weight: Parameter) -> Parameters:
    return tuple((name, weight if name == WEIGHT else value) for name, value in table)


def _filled(parameter: Parameter, given: Iterator[float]) -> Parameter:
    """The same parameter with other numbers, taken in the order of ``numbers``."""
    if isinstance(parameter, ByFilter):
        return ByFilter(
            tuple(Case(_level(one.value, given), one.filter) for one in parameter.cases)
        )
    return _level(parameter, given)


def _level(level: Level, given: Iterator[float]) -> Level:
    if isinstance(level, Gradient):
        return Gradient(tuple(float(next(given)) for _ in level.anchors))
    return float(next(given))
