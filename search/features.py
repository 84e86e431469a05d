"""Recipes as numbers: what a recipe does to the weights, in a fixed number of columns per space.

Two recipes that mix the parents alike should lie close together whatever method and order they
use, since what is learned from the one then tells about the other. So the columns hold effects
(how much of each parent comes in, at which depth, into which tensors) and not raw parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from spaces.dials import DRAWN, in_recipes, range_of
from spaces.methods import METHODS, BaseRule
from spaces.ranges import RANGES
from spaces.recipe import (
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
from spaces.space import Space

Array = NDArray[np.float64]

MAX_DEPTHS = 8
"""Most depths at which values that vary over the layers are looked at."""

SMALLEST_TOTAL = 1e-3
"""Sums of weights below this are not divided by."""


TUNING = ("gamma", "epsilon", "select_topk", "nearswap_t", "ram_epsilon", "ram_r", "ram_alpha")
"""Drawn parameters that say how a method works, and nothing about how much comes in."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Columns that belong together and share a length scale.

    Attributes:
        name: ``method``, ``share``, ``scale``, ``density``, ``tuning``, ``tree`` or ``slices``.
        start: First column.
        end: The column after the last.
    """

    name: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Mix:
    """What one node of the merge tree holds; arrays are parents x cells."""

    shares: Array
    density: Array
    leaves: tuple[int, ...]


class Features:
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

    Attributes:
        cells: Number of cells.
        groups: The groups that the space has, in the order of their columns.
        columns: Number of columns.
        tuning: Names of the parameters in the columns of ``tuning``.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._number = {name: at for at, name in enumerate(space.parents)}
        self._method = {name: at for at, name in enumerate(space.methods)}
        self._pairs = list(combinations(range(len(space.parents)), 2)) or [(0, 0)]
        self._positions = _positions(space)
        cases = (*space.filters, None)
        # A filter group is looked at through the first case that takes it, as when merging.
        self._cases = [
            next(at for at, case in enumerate(cases) if case is None or case in name)
            for name in (*space.filters, "")
        ]
        self._anchors: dict[int, NDArray[np.intp] | None] = {}
        self.tuning = [name for name in TUNING if _varies(space, name)]
        self.cells = len(self._cases) * len(self._positions)
        self._leaves = {name: self._leaf(name) for name in space.parents}
        self.groups = self._layout()
        self.columns = self.groups[-1].end

    def _layout(self) -> tuple[Group, ...]:
        space, parents, pairs = self._space, len(self._space.parents), len(self._pairs)
        sizes = {
            "method": pairs * len(space.methods) if len(space.methods) > 1 else 0,
            "share": parents * self.cells,
            "scale": self.cells,
            "density": parents * self.cells
            if any(METHODS[name].parameter("density") is not None for name in space.methods)
            else 0,
            "tuning": len(self.tuning),
            "tree": pairs if space.pairwise else 0,
            "slices": self._stacked_columns(),
        }
        groups, start = [], 0
        for name, size in sizes.items():
            if size:
                groups.append(Group(name=name, start=start, end=start + size))
                start += size
        return tuple(groups)

    def _stacked_columns(self) -> int:
        stacking = self._space.stacking
        if stacking is None:
            return 0
        sources = 0 if stacking.sources == "merged" else len(self._space.parents) + 1
        return 2 * MAX_DEPTHS + 1 + sources * MAX_DEPTHS

    def matrix(self, recipes: Sequence[Recipe]) -> Array:
        """The vectors of several recipes, ``(len(recipes), columns)``."""
        rows = [self.vector(recipe) for recipe in recipes]
        return np.array(rows, dtype=np.float64).reshape(len(rows), self.columns)

    def vector(self, recipe: Recipe) -> Array:
        """The features of a recipe that the space can draw, ``(columns,)``."""
        root = recipe.root
        merged = next((node for node in _runs_of(root) if isinstance(node, Merge)), None)
        pairs, cells = len(self._pairs), self.cells
        method = np.zeros((pairs, len(self._method)))
        together = np.ones(pairs)
        mix = self._stacked(root, method, together)
        parts = {
            "method": method.ravel() / np.sqrt(pairs),
            "share": mix.shares.ravel() / np.sqrt(cells),
            "scale": mix.shares.sum(axis=0) / np.sqrt(cells),
            "density": mix.density.ravel() / np.sqrt(mix.density.size),
            "tuning": self._tuned(merged),
            "tree": together / np.sqrt(pairs),
        }
        if self._space.stacking is not None:
            parts["slices"] = self._slices(root)
        return np.concatenate([parts[group.name] for group in self.groups])

    def _stacked(self, root: Merge, method: Array, together: Array) -> _Mix:
        """What all runs of layers hold together, each by its part of the output."""
        nodes = _runs_of(root)
        mixes = {node: self._mix(node, method, together) for node in dict.fromkeys(nodes)}
        if len(mixes) == 1:
            return mixes[nodes[0]]
        lengths = np.array([part.length for part in root.slices], dtype=np.float64)
        parts = list(zip(lengths / lengths.sum(), (mixes[node] for node in nodes), strict=True))
        return _Mix(
            np.asarray(sum(part * mix.shares for part, mix in parts)),
            np.asarray(sum(part * mix.density for part, mix in parts)),
            tuple(sorted({leaf for mix in mixes.values() for leaf in mix.leaves})),
        )

    def _mix(self, node: Model | Merge, method: Array, together: Array) -> _Mix:
        """Shares below a node; ``method`` and ``together`` are filled in on the way."""
        if isinstance(node, Model):
            return self._leaves.get(node.name) or self._leaf(node.name)
        count = len(self._number)
        inputs = [self._mix(source.of, method, together) for source in node.sources]
        shares, density = np.zeros((count, self.cells)), np.ones((count, self.cells))
        for source, mix, factor in zip(node.sources, inputs, self._factors(node), strict=True):
            shares += factor * mix.shares
            kept = _given(source, node, "density", 1.0)
            over = 1.0 if kept == 1.0 else self._over(kept)
            for leaf in mix.leaves:
                density[leaf] = mix.density[leaf] * over
        leaves = tuple(sorted({leaf for mix in inputs for leaf in mix.leaves}))
        self._note_pairs(node, [mix.leaves for mix in inputs], method, together)
        return _Mix(shares, density, leaves)

    def _leaf(self, name: str) -> _Mix:
        """A parent as it is; a model that is none, such as the base, has no share."""
        count = len(self._number)
        shares = np.zeros((count, self.cells))
        at = self._number.get(name)
        if at is not None:
            shares[at] = 1.0
        return _Mix(shares, np.ones((count, self.cells)), () if at is None else (at,))

    def _note_pairs(
        self, node: Merge, inputs: list[tuple[int, ...]], method: Array, together: Array
    ) -> None:
        side = {leaf: at for at, leaves in enumerate(inputs) for leaf in leaves}
        for at, (one, other) in enumerate(self._pairs):
            # A merge of one input has no pairs; what it does not take in, it leaves out.
            if len(inputs) == 1 or (
                one in side and other in side and (side[one] != side[other] or one == other)
            ):
                method[at, self._method[node.method]] = 1.0
                together[at] = 2.0 / max(len(side), 2)

    def _factors(self, node: Merge) -> list[Array | float]:
        """By how much each input comes in, per cell."""
        shared = dict(node.parameters)
        if METHODS[node.method].base is BaseRule.ENDPOINT:
            # Only slerp's t is a position; the others take entries from either side by themselves.
            t = self._over(shared["t"] if node.method == "slerp" else 0.5)
            return [1.0 - t if source.of == node.base else t for source in node.sources]
        if node.method == "passthrough":
            return [self._over(_given(source, node, "scale", 1.0)) for source in node.sources]
        weights = [self._over(_given(source, node, "weight", 1.0)) for source in node.sources]
        factor = self._over(shared.get("lambda", 1.0))
        spec = METHODS[node.method].parameter("normalize")
        if shared.get("normalize", spec is not None and spec.default):
            total = sum(weights, np.zeros(self.cells))
            factor = factor / np.where(np.abs(total) < SMALLEST_TOTAL, 1.0, total)
        return [factor * weight for weight in weights]

    def _tuned(self, root: Merge | None) -> Array:
        """The parameters of ``TUNING`` that vary, one column each."""
        found: dict[str, list[float]] = {name: [] for name in self.tuning}
        for node in () if root is None else merges(root):
            for name in found.keys() & set(DRAWN[node.method]):
                bounds = range_of(self._space, name)
                ends = np.array([bounds.low, bounds.high])
                values = self._over(dict(node.parameters)[in_recipes(name)])
                if RANGES[name].log:
                    ends, values = np.log(ends), np.log(values)
                found[name].append(float(np.mean((values - ends[0]) / (ends[1] - ends[0]))))
        return np.array([np.mean(values) if values else 0.5 for values in found.values()])

    def _over(self, value: Parameter) -> Array:
        """A parameter in every cell, ``(cells,)``: filter groups, and the depths of each."""
        if isinstance(value, ByFilter):
            return np.concatenate([self._level(value.cases[at].value) for at in self._cases])
        if not isinstance(value, Gradient):
            return np.full(self.cells, float(value))
        return np.concatenate([self._level(value)] * len(self._cases))

    def _level(self, value: Level) -> Array:
        if not isinstance(value, Gradient):
            return np.full(len(self._positions), float(value))
        anchors: Array = np.array(value.anchors, dtype=np.float64)
        meets = self._meets(len(anchors))
        if meets is not None:
            met: Array = anchors[meets]
            return met
        return np.interp(self._positions * (len(anchors) - 1), np.arange(len(anchors)), anchors)

    def _meets(self, anchors: int) -> NDArray[np.intp] | None:
        """Which of so many anchors lies at each depth; ``None`` unless one does at every depth."""
        if anchors not in self._anchors:
            scaled = self._positions * (anchors - 1)
            nearest = scaled.round().astype(np.intp)
            self._anchors[anchors] = nearest if np.array_equal(scaled, nearest) else None
        return self._anchors[anchors]

    def _slices(self, root: Merge) -> Array:
        layers = self._space.layers
        runs = [part.sources[0].layers or (0, 0) for part in root.slices] or [(0, layers)]
        used = np.concatenate([np.arange(start, end) for start, end in runs])
        at = np.linspace(0, len(used) - 1, MAX_DEPTHS).round().astype(int)
        parts = np.bincount(used * MAX_DEPTHS // layers, minlength=MAX_DEPTHS) / layers
        along = used[at] / layers
        columns = [parts * np.sqrt(MAX_DEPTHS), along / np.sqrt(MAX_DEPTHS), [len(used) / layers]]
        if self._space.stacking is not None and self._space.stacking.sources != "merged":
            number: dict[Model | Merge, int] = {
                Model(name): at for name, at in self._number.items()
            }
            taken = [number.get(node, len(number)) for node in _runs_of(root)]
            each = np.repeat(taken, [end - start for start, end in runs])[at]
            columns.append(np.eye(len(number) + 1)[each].ravel() / np.sqrt(MAX_DEPTHS))
        return np.concatenate(columns)


def _runs_of(root: Merge) -> list[Model | Merge]:
    """What each run of layers is taken from; the merge itself where none are stacked."""
    return [part.sources[0].of for part in root.slices] or [root]


def _given(source: Source, node: Merge, name: str, default: float) -> Parameter:
    for table in (source.parameters, node.parameters):
        for known, value in table:
            if known == name:
                return value
    return default


def _varies(space: Space, parameter: str) -> bool:
    """Whether a space draws a parameter, and has more than one value for it."""
    bounds = range_of(space, parameter)
    return bounds.low < bounds.high and any(parameter in DRAWN[name] for name in space.methods)


def _positions(space: Space) -> Array:
    """Depths in [0, 1] that show every value over depth, or an even choice of many."""
    values = space.depth.values
    looked_at = min(values, MAX_DEPTHS)
    if space.depth.groups is None:
        return np.linspace(0.0, 1.0, looked_at) if values > 1 else np.zeros(1)
    middle = ((np.arange(looked_at) + 0.5) * space.layers / looked_at).astype(int)
    return middle / max(space.layers - 1, 1)
