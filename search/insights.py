"""Which parts of the recipes matter, by the model that the search itself goes by.

For each part (the method, each parent's weights, its densities ...) its values are exchanged
between recipes, everything else left as it is, and the model is asked what it now expects. Half the
mean square of the change, over the variance of what it expects, is the total index of Sobol by the
estimator of Jansen (1999): the share of the variance that would be left if only this part were not
known.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runs.insights import Dials, Importance, Insights
from runs.records import Record
from search.features import Features, Group
from search.fitting import Fits
from search.surrogate import FEWEST, Data, Surrogate, variances
from spaces.dials import DRAWN
from spaces.recipe import Recipe, merges
from spaces.space import Space

Array = NDArray[np.float64]

MOST_POINTS = 300
"""Recipes that the model is made from: the result is for eyes, and more would hardly change it."""

MOST_DIALS = 2500
"""Recipes whose mixes are given, evenly chosen of more."""

ROUNDS = 4
"""How often the values of a part are exchanged."""

LEAST_POINTS = 20
"""With fewer scored recipes than this nothing is said."""

FOLDS = 5

_WORDS = {"method": "method", "tree": "merge order", "slices": "layers"}


def insights(records: Sequence[Record], space: Space) -> Insights:
    """What the scores say about the parts of the recipes.

    Args:
        records: With estimates.
        space: What their recipes were drawn from.
    """
    known = [r for r in records if r.trial is not None and r.estimate is not None]
    if not known:
        return Insights()
    even = np.linspace(0, len(known) - 1, min(len(known), MOST_DIALS)).astype(int)
    known = [known[at] for at in even]
    features = Features(space)
    x = features.matrix([record.recipe for record in known])
    blocks = _Blocks(features=features, space=space, groups={g.name: g for g in features.groups})
    dials = dict(zip((r.id for r in known), blocks.dials(x, known), strict=True))
    if len(known) < max(LEAST_POINTS, FEWEST):
        return Insights(dials=dials)
    keep = np.linspace(0, len(known) - 1, min(len(known), MOST_POINTS)).astype(int)
    chosen = [record.estimate for at in keep if (record := known[at]).estimate is not None]
    data = Data(
        x=x[keep],
        y=np.array([estimate.value for estimate in chosen]),
        noise=variances([estimate.stderr for estimate in chosen]),
    )
    fits = Fits(features.groups)
    model = Surrogate(data, hyper=fits.of(data), groups=features.groups)
    found = [Importance(name=name, share=_total(model, moved)) for name, moved in blocks.moves()]
    return Insights(
        importance=tuple(sorted(found, key=lambda item: -item.share)),
        explained=_explained(data, model),
        dials=dials,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Move:
    """Takes the values of one part from other recipes."""

    columns: NDArray[np.intp]
    shares: Group | None = None
    scale: Group | None = None
    cells: int = 0

    def __call__(self, x: Array, others: Array) -> Array:
        moved = x.copy()
        moved[:, self.columns] = others[:, self.columns]
        if self.shares is not None and self.scale is not None:
            # The size of the result follows from the shares: it is not moved by itself.
            by_parent = moved[:, self.shares.start : self.shares.end]
            sums = by_parent.reshape(len(x), -1, self.cells).sum(axis=1)
            moved[:, self.scale.start : self.scale.end] = sums
        return moved


@dataclass(frozen=True, kw_only=True, slots=True)
class _Blocks:
    """The columns of a space's features by what they say to people."""

    features: Features
    space: Space
    groups: Mapping[str, Group]

    def dials(self, x: Array, records: Sequence[Record]) -> Iterator[Dials]:
        """Mean weights and densities of recipes with these features."""
        weights, densities = (self._means(x, name) for name in ("share", "density"))
        for at, record in enumerate(records):
            parents = self.space.parents
            given = densities is not None and _has_density(record.recipe)
            yield Dials(
                weights={} if weights is None else dict(zip(parents, weights[at], strict=True)),
                densities=dict(zip(parents, densities[at], strict=True))
                if given and densities is not None
                else {},
            )

    def _means(self, x: Array, name: str) -> list[list[float]] | None:
        """``(recipes, parents)`` means over cells, in the unit of the recipe's own parameter."""
        group = self.groups.get(name)
        if group is None:
            return None
        values = x[:, group.start : group.end].reshape(len(x), len(self.space.parents), -1)
        # Columns are divided by the root of their number (see Features).
        size = values.shape[2] if name == "share" else values.shape[1] * values.shape[2]
        means: list[list[float]] = (values.mean(axis=2) * math.sqrt(size)).tolist()
        return means

    def moves(self) -> Iterator[tuple[str, _Move]]:
        """Every part in words, with what exchanges it."""
        for name, group in self.groups.items():
            columns = np.arange(group.start, group.end)
            if name in ("share", "density"):
                for parent, own in zip(
                    self.space.parents, np.split(columns, len(self.space.parents)), strict=True
                ):
                    yield self._of_parent(name, parent, own)
            elif name == "tuning":
                for parameter, column in zip(self.features.tuning, columns, strict=True):
                    yield parameter, _Move(columns=np.array([column]))
            elif name in _WORDS:
                yield _WORDS[name], _Move(columns=columns)

    def _of_parent(self, name: str, parent: str, own: NDArray[np.intp]) -> tuple[str, _Move]:
        if name == "density":
            return f"density of {parent}", _Move(columns=own)
        move = _Move(
            columns=own,
            shares=self.groups["share"],
            scale=self.groups.get("scale"),
            cells=self.features.cells,
        )
        return f"weight of {parent}", move


def _has_density(recipe: Recipe) -> bool:
    return any("density" in DRAWN[node.method] for node in merges(recipe.root))


def _total(model: Surrogate, move: _Move) -> float:
    """Total index of one part over the recipes that the model was made from."""
    x = model.data.x
    expected, _ = model.predict(x)
    variance = float(np.var(expected))
    if variance <= 0:
        return 0.0
    random = np.random.default_rng(0)
    squares = []
    for _ in range(ROUNDS):
        changed, _ = model.predict(move(x, x[random.permutation(len(x))]))
        squares.append(float(np.mean((changed - expected) ** 2)))
    return float(np.mean(squares)) / (2.0 * variance)


def _explained(data: Data, model: Surrogate) -> float:
    """Share of the variance that is predicted for points that were left out, by fifths."""
    variance = float(np.var(data.y))
    if variance <= 0:
        return math.nan
    errors = np.empty(len(data.y))
    fold = np.random.default_rng(0).permutation(len(data.y)) % FOLDS
    for number in range(FOLDS):
        out = fold == number
        part = Data(x=data.x[~out], y=data.y[~out], noise=data.noise[~out])
        seen = Surrogate(part, hyper=model.hyper, groups=model.groups)
        errors[out] = seen.predict(data.x[out])[0] - data.y[out]
    return 1.0 - float(np.mean(errors**2)) / variance
