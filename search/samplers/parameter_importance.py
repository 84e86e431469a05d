"""Which parts of the recipes matter, by the model that the search itself goes by.

Recipes are drawn from the whole space, as it draws them at random, and the model is asked what it
expects of each; then again with the values of one part (the method, each parent's weights, its
densities ...) drawn anew. Half the mean square of the change, over the variance of what it expects,
is the total index of Sobol by the estimator of Jansen (1999): the share of the variance that is
left while everything but this part is known. The parts are drawn independently, which the index
needs and the recipes that a search tried are not: those come after each other and crowd around the
best. So the indices sum up to 1 at least, and to more where parts act together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runs.records.record import Record
from runs.report.insights import Importance, Insights, ParentShares
from search.samplers.features.batch_features import BatchFeatures
from search.samplers.features.recipe_features import Group, RecipeFeatures
from search.samplers.proposals import Cube
from search.samplers.surrogate.gaussian_process import FEWEST, Data, Surrogate, variances
from search.samplers.surrogate.hyperparameters import Fits
from spaces.recipes.recipe import merges
from spaces.sampling.search_parameters import DRAWN, dials
from spaces.search_space.space import Space

Array = NDArray[np.float64]

MOST_POINTS = 300
"""Recipes that the model is made from: the result is for eyes, and more would hardly change it."""

MOST_DIALS = 2500
"""Recipes whose mixes are given, evenly chosen of more."""

DRAWN_RECIPES = 2048
"""Recipes drawn from the space: shares are then within about two points."""

LEAST_POINTS = 20
"""With fewer scored recipes than this nothing is said."""

FOLDS = 5

_WORDS = {
    "order": "merge order",
    "tree": "merge order",
    "slices": "layers",
    "start": "layers",
    "shift": "layers",
    "end": "layers",
    "source": "layers",
    "della_density": "density",
}
"""What dials are part of, where that has another name."""


def insights(records: Sequence[Record], space: Space) -> Insights:
    """What the scores say about the parts of the recipes."""
    known = [r for r in records if r.trial is not None and r.estimate is not None]
    if not known:
        return Insights()
    even = np.linspace(0, len(known) - 1, min(len(known), MOST_DIALS)).astype(int)
    known = [known[at] for at in even]
    features = RecipeFeatures(space)
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
    return Insights(
        importance=tuple(sorted(_importance(model, space, features), key=lambda it: -it.share)),
        explained=_explained(data, model),
        dials=dials,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Blocks:
    """The columns of a space's features by what they say to people."""

    features: RecipeFeatures
    space: Space
    groups: Mapping[str, Group]

    def dials(self, x: Array, records: Sequence[Record]) -> Iterator[ParentShares]:
        """Mean weights and densities of recipes with these features."""
        weights, densities = (self._means(x, name) for name in ("share", "density"))
        for at, record in enumerate(records):
            parents = self.space.parents
            methods = (node.method for node in merges(record.recipe.root))
            given = densities is not None and any("density" in DRAWN[name] for name in methods)
            yield ParentShares(
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


def _importance(model: Surrogate, space: Space, features: RecipeFeatures) -> Iterator[Importance]:
    """Total index of every part of the recipes that the space draws."""
    cube, random = Cube(space), np.random.default_rng(0)
    if not cube.size:
        return
    sketches = BatchFeatures(space, cube, features)

    def expected(points: Array) -> Array:
        return model.predict(sketches.matrix(points))[0]

    points, others = (cube.random(random, DRAWN_RECIPES) for _ in range(2))
    before = expected(points)
    variance = float(np.var(np.concatenate([before, expected(others)])))
    for part, columns in _parts(space, tuple(cube.domains)).items():
        moved = points.copy()
        moved[:, columns] = others[:, columns]
        change = float(np.mean((expected(moved) - before) ** 2))
        yield Importance(name=part, share=change / (2.0 * variance) if variance > 0 else 0.0)


def _parts(space: Space, names: Sequence[str]) -> dict[str, list[int]]:
    """The dimensions of a cube by what they say to people."""
    known, found = dials(space), dict[str, list[int]]()
    for at, name in enumerate(names):
        dial = known[name]
        part = _WORDS.get(dial.parameter, dial.parameter)
        if part in ("weight", "density"):
            part += f" of {dial.of if dial.of in space.parents else 'intermediate merges'}"
        found.setdefault(part, []).append(at)
    return found


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
