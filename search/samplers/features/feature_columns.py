"""Which columns the features of a space's recipes have."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from spaces.catalogue.method_catalogue import METHODS
from spaces.recipes.recipe import Merge, Model
from spaces.sampling.search_parameters import DRAWN, range_of
from spaces.search_space.bounds import VARIABLE
from spaces.search_space.space import Space

Array = NDArray[np.float64]

MAX_DEPTHS = 8
"""Most depths at which values that vary over the layers are looked at."""

SMALLEST_TOTAL = 1e-3
"""Sums of weights below this are not divided by."""


TUNING = tuple(
    name for name in VARIABLE if name not in ("weight", "density", "t", "lambda", "scale")
)
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
class Mix:
    """What one node of a merge tree holds; arrays are ``(parents, cells, n)`` for n recipes."""

    shares: Array
    density: Array
    leaves: tuple[int, ...]


class FeatureColumns:
    """The columns of a space, and what they are of.

    Attributes:
        space: The same.
        parents: Number of each parent by name.
        methods: Number of each method by name.
        pairs: All pairs of parents.
        cases: For every filter group, the first case that takes it, as when merging.
        depths: Number of depths that are looked at.
        cells: Number of filter groups times depths.
        tuning: The parameters of ``TUNING`` that vary.
        groups: Groups of the columns.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self.parents = {name: at for at, name in enumerate(space.parents)}
        self.methods = {name: at for at, name in enumerate(space.methods)}
        self.pairs = list(combinations(range(len(space.parents)), 2)) or [(0, 0)]
        self._positions = _positions(space)
        self.depths = len(self._positions)
        cases = (*space.filters, None)
        self.cases = [
            next(at for at, case in enumerate(cases) if case is None or case in name)
            for name in (*space.filters, "")
        ]
        self.cells = len(self.cases) * self.depths
        self.tuning = [name for name in TUNING if _varies(space, name)]
        layers = space.layers
        self._layers = np.arange(layers) / (layers - 1) if layers > 1 else np.array([0.0, 1.0])
        self._places: dict[tuple[int, int], tuple[NDArray[np.intp], Array]] = {}
        self._leaves = {name: self._leaf(name) for name in space.parents}
        self.groups = self._grouped()

    @property
    def columns(self) -> int:
        """Number of columns."""
        return self.groups[-1].end

    def _grouped(self) -> tuple[Group, ...]:
        space, parents, pairs = self.space, len(self.parents), len(self.pairs)
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
        stacking = self.space.stacking
        if stacking is None:
            return 0
        sources = 0 if stacking.sources == "merged" else len(self.space.parents) + 1
        return 2 * MAX_DEPTHS + 1 + sources * MAX_DEPTHS

    def leaf(self, name: str) -> Mix:
        """A parent as it is; a model that is none, such as the base, has no share."""
        return self._leaves.get(name) or self._leaf(name)

    def _leaf(self, name: str) -> Mix:
        shares = np.zeros((len(self.parents), self.cells, 1))
        at = self.parents.get(name)
        if at is not None:
            shares[at] = 1.0
        return Mix(shares, np.ones_like(shares), () if at is None else (at,))

    def between(self, anchors: Array) -> Array:
        """Values at every depth, linear between evenly spaced anchors; along the first axis."""
        return self._interpolated(anchors, self._positions)

    def in_layers(self, anchors: Array) -> Array:
        """The same in every layer."""
        return self._interpolated(anchors, self._layers)

    def _interpolated(self, anchors: Array, positions: Array) -> Array:
        count = len(anchors)
        known = (count, id(positions))
        if known not in self._places:
            scaled = positions * (count - 1)
            nearest = scaled.round()
            scaled = np.where(np.isclose(scaled, nearest, rtol=0, atol=1e-12), nearest, scaled)
            below = np.minimum(scaled.astype(np.intp), max(count - 2, 0))
            self._places[known] = below, (scaled - below)[:, None]
        below, part = self._places[known]
        if not part.any():
            return anchors[below]
        above: Array = anchors[np.minimum(below + 1, count - 1)]
        return (1.0 - part) * anchors[below] + part * above

    def slices(self, root: Merge, nodes: list[Model | Merge]) -> Array:
        """The columns of stacked layers."""
        layers = self.space.layers
        runs = [part.sources[0].layers or (0, 0) for part in root.slices] or [(0, layers)]
        used = np.concatenate([np.arange(start, end) for start, end in runs])
        at = np.linspace(0, len(used) - 1, MAX_DEPTHS).round().astype(int)
        parts = np.bincount(used * MAX_DEPTHS // layers, minlength=MAX_DEPTHS) / layers
        along = used[at] / layers
        columns = [parts * np.sqrt(MAX_DEPTHS), along / np.sqrt(MAX_DEPTHS), [len(used) / layers]]
        if self.space.stacking is not None and self.space.stacking.sources != "merged":
            number: dict[Model | Merge, int] = {
                Model(name): at for name, at in self.parents.items()
            }
            taken = [number.get(node, len(number)) for node in nodes]
            each = np.repeat(taken, [end - start for start, end in runs])[at]
            columns.append(np.eye(len(number) + 1)[each].ravel() / np.sqrt(MAX_DEPTHS))
        return np.concatenate(columns)


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
