"""What to expect of every candidate in the light of all others."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from evaluators.protocol import TaskInfo
from runs.ranking.floors import floored, limits, shortfalls
from runs.records.record import MEASURES, PARAMETERS, PARENT, SCORE, Estimate, Record, Split, State
from runs.storage.store import Store
from search.samplers.estimation.comparable_scores import ComparableScores
from search.samplers.estimation.estimates import Estimates
from search.samplers.estimation.objectives import objective_table
from search.samplers.features.recipe_features import RecipeFeatures
from search.samplers.surrogate.gaussian_process import (
    FEWEST,
    MAX_POINTS,
    Data,
    Hyper,
    Surrogate,
    best_first,
    representative,
    variances,
)
from search.samplers.surrogate.hyperparameters import Fits
from search.samplers.trial_history import GrowingTable
from spaces.recipes.parameter_count import ParameterCount
from spaces.recipes.recipe import Recipe
from spaces.search_space.space import Space

Array = NDArray[np.float64]

MOST_POINTS = 1000
"""Candidates that the process of a leaderboard is conditioned on, the best half among them: its
cost grows with the cube of their number. With more, what is expected of the others follows from
these."""


class Posterior:
    """A Gaussian process over the recipes of a space, asked about the recipes that were scored.

    The score of a recipe that is the best of many is likely to be lucky; its posterior mean is held
    back by its neighbours and by how sure each score is.

    Args:
        space: What recipes were drawn from.
        fits: Where fits are kept, one for each objective; ``None`` keeps none.
    """

    def __init__(self, space: Space, *, fits: Sequence[Fits] | None = None) -> None:
        self._features = RecipeFeatures(space)
        self._fits = fits
        self._x = GrowingTable(self._features.columns)
        self._row: dict[int, int] = {}  # by candidate

    def of(
        self, recipes: Mapping[int, Recipe], estimates: Mapping[int, Sequence[Estimate]]
    ) -> dict[int, tuple[Estimate, ...]]:
        """Mean and standard deviation of the true scores of every candidate with estimates.

        Args:
            recipes: Recipes of the space by candidate; a candidate is always the same recipe.
            estimates: Score in each objective by candidate; one without a recipe in ``recipes``
                lies outside the space and is taken as it is.
        """
        table = Estimates.of(estimates)
        taken = dict(table.items())
        inside = table.only(np.array([number in recipes for number in table], dtype=bool))
        if len(inside) < FEWEST:
            return taken
        models = self._models(inside, recipes, most=MOST_POINTS)[1]
        for model in models:
            model.expect(np.empty((0, self._x.table.shape[1])), 0.0)
        x = self._matrix(inside, recipes)
        modelled = [
            [
                Estimate(value=float(value), stderr=float(spread))
                for value, spread in zip(*model.predict(x), strict=True)
            ]
            for model in models
        ]
        return taken | dict(zip(inside, zip(*modelled, strict=True), strict=True))

    def means(
        self, recipes: Mapping[int, Recipe], estimates: Mapping[int, Sequence[Estimate]]
    ) -> dict[int, tuple[float, ...]]:
        """The means of ``of`` alone, of those candidates that may be the best: much faster."""
        table = Estimates.of(estimates)
        within = np.array([number in recipes for number in table], dtype=bool)
        outside, inside = table.only(~within), table.only(within)
        if len(inside) < FEWEST:
            return _means(table, table.value)
        keep, models = self._models(inside, recipes, most=MAX_POINTS)
        columns = np.column_stack([model.means for model in models])
        return _means(outside, outside.value) | _means(inside.only(keep), columns)

    def _models(
        self, inside: Estimates, recipes: Mapping[int, Recipe], *, most: int
    ) -> tuple[NDArray[np.intp], list[Surrogate]]:
        """The rows of those that the models know, and a model for each objective."""
        y, groups = inside.value, self._features.groups
        noise = np.column_stack([variances(column) for column in inside.stderr.T])
        keep = best_first(y, representative(y, most))
        x = self._matrix(inside, recipes)
        fits = self._fits or [Fits(groups) for _ in y.T]
        models = []
        for at, of in enumerate(fits):
            hyper = of.of(Data(x=x, y=y[:, at], noise=noise[:, at]))
            models.append(of.model(Data(x=x[keep], y=y[keep, at], noise=noise[keep, at]), hyper))
        return keep, models

    def _matrix(self, numbers: Iterable[int], recipes: Mapping[int, Recipe]) -> Array:
        wanted = list(numbers)
        added = [number for number in dict.fromkeys(wanted) if number not in self._row]
        for number, row in zip(
            added, self._features.matrix([recipes[number] for number in added]), strict=True
        ):
            self._row[number] = len(self._x)
            self._x.append(row)
        return self._x.table[[self._row[number] for number in wanted]]


def _means(table: Estimates, means: Array) -> dict[int, tuple[float, ...]]:
    return dict(zip(table, map(tuple, means.tolist()), strict=True))


def kept_fits(store: Store, space: Space) -> tuple[Fits, ...]:
    """Fits that a resumed run finds again: it then goes on as one that was not interrupted.

    Returns:
        One for each objective, a single one where the objective is the weighted sum, and one for
        each floor.
    """
    manifest = store.manifest
    count = max(1, len(manifest.objectives)) + len(floored(manifest.catalogue.tasks))
    return tuple(_kept_fits(store, space, f"fit:{at}:") for at in range(count))


def _kept_fits(store: Store, space: Space, prefix: str) -> Fits:
    groups = RecipeFeatures(space).groups
    found = dict(store.numbered(prefix, _hyper))
    # Earlier versions had other hyper-parameters; such a run fits anew.
    usual = Hyper.median(groups).log.shape
    known = {size: hyper for size, hyper in found.items() if hyper.log.shape == usual}

    def keep(size: int, hyper: Hyper) -> None:
        store.set_fact(f"{prefix}{size}", json.dumps(hyper.log.tolist()))

    return Fits(groups, known=known, keep=keep)


def _hyper(size: int, text: str) -> tuple[int, Hyper]:
    log = np.array(json.loads(text), dtype=np.float64)
    if not np.isfinite(log).all():
        raise ValueError(f"fit of {size}: expected finite numbers")
    return size, Hyper(log)


def judged(store: Store, *, apart: bool = True) -> tuple[Record, ...]:
    """The records of a study with estimates and posteriors: what rankings go by.

    Args:
        store: The study.
        apart: Whether also to say what to expect in each objective, which ranks do not go by.
    """
    manifest = store.manifest

    def read() -> tuple[tuple[Record, ...], ComparableScores]:
        records = store.records()
        return records, ComparableScores.of_study(store, records)

    records, answers = store.at_once(read)
    if not store.lock.held:
        store.rest()  # what follows takes a while, in which a driver may end
    names = list(manifest.objectives)
    if not names and len(answers.tasks) > 1:  # one task is the score itself, but for its weight
        names = [task.name for task in answers.tasks]
    names, floors = names if apart else [], floored(answers.tasks)
    ruling = [SCORE, *(task.name for task in floors)]
    looked_at = list(dict.fromkeys([*ruling, *names]))
    scores = _known(records, answers, list(dict.fromkeys([*looked_at, *MEASURES])), manifest.sizes)
    inside = {record.id: record.recipe for record in records if record.trial is not None}
    model = Posterior(Space.from_dict(manifest.space))

    def expect(name: str) -> dict[int, Estimate]:
        """By a process of its own: what is expected of one does not depend on the others."""
        known = {number: (found[name],) for number, found in scores.items() if name in found}
        if name == PARAMETERS:  # a number that is known
            return {number: one for number, (one,) in known.items()}
        return {number: one for number, (one,) in model.of(inside, known).items()}

    by_name = {name: expect(name) for name in looked_at}
    expected = {
        number: {name: found[number] for name, found in by_name.items() if number in found}
        for number in by_name[SCORE]
        if all(number in by_name[name] for name in ruling)
    }
    margins, short = _floors(records, expected, floors)
    return tuple(
        replace(
            record,
            margins=margins[record.id],
            shortfall=short[record.id],
            estimate=scores[record.id][SCORE],
            posterior=expected[record.id][SCORE],
            objectives={name: expected[record.id][name] for name in names}
            if expected[record.id].keys() >= set(names)
            else {},
            measures=_measures(scores[record.id]),
        )
        if record.id in expected
        else record
        for record in records
    )


def _floors(
    records: Sequence[Record],
    expected: Mapping[int, Mapping[str, Estimate]],
    tasks: Sequence[TaskInfo],
) -> tuple[dict[int, dict[str, Estimate]], dict[int, float]]:
    """By how much every candidate is expected to be above each floor, and its shortfall."""
    values = np.array([[found[task.name].value for task in tasks] for found in expected.values()])
    values = values.reshape(len(expected), len(tasks))
    row = dict(zip(expected, values, strict=True))
    parents = [row[one.id] for one in records if one.origin.startswith(PARENT) and one.id in row]
    least = limits(tasks, parents)
    margins = {
        number: {
            task.name: replace(found[task.name], value=found[task.name].value - limit)
            for task, limit in zip(tasks, least.tolist(), strict=True)
            if math.isfinite(limit)
        }
        for number, found in expected.items()
    }
    return margins, dict(zip(expected, shortfalls(values, least).tolist(), strict=True))


def _known(
    records: Sequence[Record],
    answers: ComparableScores,
    names: Sequence[str],
    sizes: ParameterCount | None,
) -> dict[int, dict[str, Estimate]]:
    """What is known of those that did not fail, by name."""
    recipes = {
        record.id: record.recipe
        for record in records
        if record.evaluations[Split.SEARCH].state is not State.FAILED
    }
    table = answers.table()
    table = table.only(np.array([number in recipes for number in table], dtype=bool))
    parameters = {} if sizes is None else {n: float(sizes.of(recipes[n])) for n in table}
    found = objective_table(table, answers, names, parameters=parameters)
    return {
        number: {
            name: one
            for name, one in zip(names, found[number], strict=True)
            if math.isfinite(one.value)
        }
        for number in found
    }


def _measures(scores: Mapping[str, Estimate]) -> dict[str, Estimate]:
    """What is known of the measures, without the minus sign."""
    return {
        name: replace(scores[name], value=-scores[name].value)
        for name in MEASURES
        if name in scores
    }
