"""Recipes as numbers: what a recipe does to the weights, in a fixed number of columns per space.

Two recipes that mix the parents alike should lie close together whatever method and order they
use, since what is learned from the one then tells about the other. So the columns hold effects
(how much of each parent comes in, at which depth, into which tensors) and not raw parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from search.samplers.features.feature_columns import FeatureColumns, Group, Mix
from spaces.catalogue.method_catalogue import METHODS, BaseRule
from spaces.recipes.recipe import (
    ByFilter,
    Gradient,
    Level,
    Merge,
    Model,
    Parameter,
    Recipe,
    Source,
    merges,
)
from spaces.sampling.draw import SMALLEST_SUM
from spaces.sampling.search_parameters import DRAWN, in_recipes, range_of
from spaces.search_space.parameter_ranges import RANGES
from spaces.search_space.space import Space

__all__ = ["RecipeFeatures", "Group", "FeatureTable"]

Array = NDArray[np.float64]

_NOTHING: Array = np.empty((1, 0))
"""A table for recipes that stand for themselves."""


class RecipeFeatures:
    """The columns of a space.

    A *cell* is a filter group at a depth. With P parents, C cells and the pairs of parents:

    ==========  =============================================================================
    ``method``  method of the merge that brings a pair together, one of n, for every pair
    ``share``   effective contribution of each parent in each cell: weights after
                normalisation, times ``lambda`` or ``scale``, multiplied along the tree; ``t``
                of slerp is held by it
    ``scale``   sum of the shares in each cell: how large the result is
    ``density`` density of each parent in each cell, multiplied along the tree; 1 where all is kept
    ``tuning``  what only some methods have (``TUNING``), each from 0 to 1 over its range, in the
                logarithm where it is drawn so; mean over cells and merges, 0.5 where not used
    ``tree``    2 / (number of parents that are together once the pair is), for every pair
    ``slices``  layers of the output by the part of the input they come from, their number, and
                where in the input the output is at a few depths
    ==========  =============================================================================

    Every group is divided by the root of its number of cells or pairs, so that distances, and
    with them the length scales, mean the same in spaces of every size.

    Args:
        space: What recipes are drawn from; only recipes of it have features.
    """

    def __init__(self, space: Space) -> None:
        self._layout = FeatureColumns(space)

    @property
    def groups(self) -> tuple[Group, ...]:
        """Groups of the columns."""
        return self._layout.groups

    @property
    def columns(self) -> int:
        """Number of columns."""
        return self._layout.columns

    @property
    def cells(self) -> int:
        """Number of cells."""
        return self._layout.cells

    @property
    def tuning(self) -> tuple[str, ...]:
        """Names of the parameters in the columns of ``tuning``."""
        return tuple(self._layout.tuning)

    def matrix(self, recipes: Sequence[Recipe]) -> Array:
        """The vectors of several recipes, ``(len(recipes), columns)``."""
        # One by one: products of many at once differ in last digits, and a resumed run, which reads
        # all of a study together, would then not propose what an uninterrupted one does.
        rows = [self.vector(recipe) for recipe in recipes]
        return np.array(rows).reshape(len(recipes), self.columns)

    def vector(self, recipe: Recipe) -> Array:
        """The features of a recipe that the space can draw, ``(columns,)``."""
        row: Array = self.look(recipe).rows(_NOTHING)[0]
        return row

    def look(self, recipe: Recipe, columns: Mapping[float, int] | None = None) -> FeatureTable:
        """What a recipe's features are, or those of all recipes built like it.

        Args:
            recipe: One that the space can draw.
            columns: Which of its numbers stand for others, and where those are to be found.
        """
        return FeatureTable(self._layout, recipe.root, columns or {})


class FeatureTable:
    """The features of recipes that differ in numbers alone: one look at how they are built.

    Args:
        layout: The columns of the space.
        root: How they are built.
        columns: Which numbers in it stand for others, and the column of a table that has those.
    """

    def __init__(self, layout: FeatureColumns, root: Merge, columns: Mapping[float, int]) -> None:
        self._layout, self._root, self._columns = layout, root, columns
        pairs = len(layout.pairs)
        method, together = np.zeros((pairs, len(layout.methods))), np.ones(pairs)
        self._runs = _runs_of(root)
        self._nodes = list(dict.fromkeys(self._runs))
        for node in self._nodes:
            self._note_pairs(node, method, together)
        self._fixed = {
            "method": method.ravel() / np.sqrt(pairs),
            "tree": together / np.sqrt(pairs),
        }
        if layout.space.stacking is not None:
            self._fixed["slices"] = layout.slices(root, self._runs)

    def rows(self, table: Array) -> Array:
        """The features with the numbers of every row of a table, ``(n, columns)``."""
        numbers = _Numbers(self._layout, self._columns, table)
        mix = self._stacked(numbers)
        count, cells = len(table), self._layout.cells
        varying = {
            "share": mix.shares.reshape(-1, mix.shares.shape[-1]) / np.sqrt(cells),
            "scale": mix.shares.sum(axis=0) / np.sqrt(cells),
            "density": mix.density.reshape(-1, mix.density.shape[-1])
            / np.sqrt(len(mix.density) * cells),
        }
        if self._layout.tuning:
            varying["tuning"] = self._tuned(numbers)
        result = np.empty((count, self._layout.columns))
        for group in self._layout.groups:
            fixed = self._fixed.get(group.name)
            part = varying[group.name].T if fixed is None else fixed
            result[:, group.start : group.end] = part
        return result

    def _stacked(self, numbers: _Numbers) -> Mix:
        """What all runs of layers hold together, each by its part of the output."""
        mixes = {node: self._mix(node, numbers) for node in self._nodes}
        if len(mixes) == 1:
            return mixes[self._nodes[0]]
        lengths = np.array([part.length for part in self._root.slices], dtype=np.float64)
        shares = lengths / lengths.sum()
        parts = list(zip(shares, (mixes[node] for node in self._runs), strict=True))
        return Mix(
            np.asarray(sum(part * mix.shares for part, mix in parts)),
            np.asarray(sum(part * mix.density for part, mix in parts)),
            tuple(sorted({leaf for mix in mixes.values() for leaf in mix.leaves})),
        )

    def _mix(self, node: Model | Merge, numbers: _Numbers) -> Mix:
        """Shares and densities below a node."""
        if isinstance(node, Model):
            return self._layout.leaf(node.name)
        inputs = [self._mix(source.of, numbers) for source in node.sources]
        shape = (len(self._layout.parents), self._layout.cells, numbers.count)
        shares, density = np.zeros(shape), np.ones(shape)
        for source, mix, factor in zip(node.sources, inputs, numbers.factors(node), strict=True):
            shares += factor * mix.shares
            kept = _given(source, node, "density", 1.0)
            over = 1.0 if kept == 1.0 else numbers.over(kept)
            for leaf in mix.leaves:
                density[leaf] = mix.density[leaf] * over
        leaves = tuple(sorted({leaf for mix in inputs for leaf in mix.leaves}))
        return Mix(shares, density, leaves)

    def _note_pairs(self, node: Model | Merge, method: Array, together: Array) -> tuple[int, ...]:
        """Which pairs of parents a node brings together, and how; the parents below it."""
        if isinstance(node, Model):
            return self._layout.leaf(node.name).leaves
        inputs = [self._note_pairs(source.of, method, together) for source in node.sources]
        side = {leaf: at for at, leaves in enumerate(inputs) for leaf in leaves}
        for at, (one, other) in enumerate(self._layout.pairs):
            # A merge of one input has no pairs; what it does not take in, it leaves out.
            if len(inputs) == 1 or (
                one in side and other in side and (side[one] != side[other] or one == other)
            ):
                method[at, self._layout.methods[node.method]] = 1.0
                together[at] = 2.0 / max(len(side), 2)
        return tuple(sorted(side))

    def _tuned(self, numbers: _Numbers) -> Array:
        """The parameters of ``TUNING`` that vary, ``(parameters, n)``."""
        space = self._layout.space
        found: dict[str, list[Array]] = {name: [] for name in self._layout.tuning}
        root = next((node for node in self._runs if isinstance(node, Merge)), None)
        for node in () if root is None else merges(root):
            for name in found.keys() & set(DRAWN[node.method]):
                bounds = range_of(space, name)
                ends = np.array([bounds.low, bounds.high])
                values = numbers.over(dict(node.parameters)[in_recipes(name)])
                if RANGES[name].log:
                    ends, values = np.log(ends), np.log(values)
                found[name].append(((values - ends[0]) / (ends[1] - ends[0])).mean(axis=0))
        nothing = np.full(numbers.count, 0.5)
        rows = [np.mean(np.broadcast_arrays(nothing, *v)[1:], axis=0) if v else nothing
                for v in found.values()]  # fmt: skip
        return np.array(rows)


class _Numbers:
    """The numbers of many recipes that are built alike, ``(cells, n)`` each.

    Attributes:
        count: Number of recipes.
    """

    def __init__(self, layout: FeatureColumns, columns: Mapping[float, int], table: Array) -> None:
        self._layout, self._columns, self._table = layout, columns, table
        self.count = len(table)

    def factors(self, node: Merge) -> list[Array]:
        """By how much each input comes in, per cell."""
        shared = dict(node.parameters)
        if METHODS[node.method].base is BaseRule.ENDPOINT:
            # Only slerp's t is a position; the others take entries from either side by themselves.
            t = self.over(shared["t"] if node.method == "slerp" else 0.5)
            return [1.0 - t if source.of == node.base else t for source in node.sources]
        if node.method == "passthrough":
            return [self.over(_given(source, node, "scale", 1.0)) for source in node.sources]
        weights = [self.over(_given(source, node, "weight", 1.0)) for source in node.sources]
        factor = self.over(shared.get("lambda", 1.0))
        spec = METHODS[node.method].parameter("normalize")
        if shared.get("normalize", spec is not None and spec.default):
            factor = factor / self._divisor(node, sum(weights[1:], weights[0]))
        return [factor * weight for weight in weights]

    def _divisor(self, node: Merge, total: Array) -> Array:
        """The sums of weights, 1 where weights are not divided: ``draw`` decides by all layers."""
        clear = 2.0 * SMALLEST_SUM
        unclear = ~((total >= clear).all(axis=0) | (total <= -clear).all(axis=0))
        if not unclear.any():
            return total
        everywhere = sum(
            self._everywhere(_given(source, node, "weight", 1.0)) for source in node.sources
        )
        kept = (np.abs(everywhere) >= SMALLEST_SUM).all(axis=0) | ~unclear
        return np.where(kept & (np.abs(total) >= SMALLEST_SUM), total, 1.0)

    def _everywhere(self, value: Parameter) -> Array:
        """A parameter in every layer, and for every filter, ``(values, n)``."""
        levels = [case.value for case in value.cases] if isinstance(value, ByFilter) else [value]
        rows = [
            self._layout.in_layers(self._numbers(level.anchors))
            if isinstance(level, Gradient)
            else self._numbers((float(level),))
            for level in levels
        ]
        return np.concatenate(rows)

    def over(self, value: Parameter) -> Array:
        """A parameter in every cell: filter groups, and the depths of each."""
        if isinstance(value, ByFilter):
            cases = self._layout.cases
            return np.concatenate([self._level(value.cases[at].value) for at in cases])
        if not isinstance(value, Gradient):
            return self._numbers((float(value),))
        levels = [self._level(value)] * len(self._layout.cases)
        return levels[0] if len(levels) == 1 else np.concatenate(levels)

    def _level(self, value: Level) -> Array:
        depths = self._layout.depths
        if not isinstance(value, Gradient):
            return np.broadcast_to(self._numbers((float(value),)), (depths, self.count))
        return self._layout.between(self._numbers(value.anchors))

    def _numbers(self, anchors: Sequence[float]) -> Array:
        """``(len(anchors), n)``, or ``(len(anchors), 1)`` where none stands for others."""
        at = [self._columns[anchor] for anchor in anchors if anchor in self._columns]
        if not at:
            return np.array(anchors, dtype=np.float64)[:, None]
        numbers: Array = self._table.T[at]
        return numbers


def _runs_of(root: Merge) -> list[Model | Merge]:
    """What each run of layers is taken from; the merge itself where none are stacked."""
    return [part.sources[0].of for part in root.slices] or [root]


def _given(source: Source, node: Merge, name: str, default: float) -> Parameter:
    for table in (source.parameters, node.parameters):
        for known, value in table:
            if known == name:
                return value
    return default
