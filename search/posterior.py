"""What to expect of every candidate in the light of all others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from runs.records import Estimate, Record, Split, State
from runs.store import Store
from search.answers import Answers
from search.features import Features
from search.surrogate import FEWEST, Data, Fits, Hyper, Surrogate, variances
from spaces.recipe import Recipe
from spaces.space import Space

_FIT = "fit:"


class Posterior:
    """A Gaussian process over the recipes of a space, asked about the recipes that were scored.

    The score of a recipe that is the best of many is likely to be lucky; its posterior mean is held
    back by its neighbours and by how sure each score is.

    Args:
        space: What recipes were drawn from.
        fits: Where fits are kept; ``None`` keeps them here.
    """

    def __init__(self, space: Space, *, fits: Fits | None = None) -> None:
        self._features = Features(space)
        self._fits = fits if fits is not None else Fits(self._features.groups)

    def of(
        self, recipes: Mapping[int, Recipe], estimates: Mapping[int, Estimate]
    ) -> dict[int, Estimate]:
        """Mean and standard deviation of the true score of every candidate with an estimate.

        Args:
            recipes: Recipes of the space by candidate.
            estimates: Scores by candidate; one without a recipe in ``recipes`` lies outside the
                space and is taken as it is.
        """
        inside = [number for number in recipes if number in estimates]
        if len(inside) < FEWEST:
            return dict(estimates)
        data = Data(
            x=self._features.matrix([recipes[number] for number in inside]),
            y=np.array([estimates[number].value for number in inside]),
            noise=variances([estimates[number].stderr for number in inside]),
        )
        model = Surrogate(data, hyper=self._fits.of(data), groups=self._features.groups)
        mean, deviation = model.predict(data.x)
        modelled = {
            number: Estimate(value=float(value), stderr=float(spread))
            for number, value, spread in zip(inside, mean, deviation, strict=True)
        }
        return {**estimates, **modelled}


def kept_fits(store: Store, space: Space) -> Fits:
    """Fits that a resumed run finds again: it then goes on as one that was not interrupted."""
    known = {
        int(key.removeprefix(_FIT)): Hyper(np.array(json.loads(text), dtype=np.float64))
        for key, text in store.facts(_FIT).items()
    }

    def keep(size: int, hyper: Hyper) -> None:
        store.set_fact(f"{_FIT}{size}", json.dumps(hyper.log.tolist()))

    return Fits(Features(space).groups, known=known, keep=keep)


def judged(store: Store) -> tuple[Record, ...]:
    """The records of a study with estimates and posteriors: what rankings go by."""
    records = store.records()
    known = Answers.of_study(store).estimates()
    scored = {r.id for r in records if r.evaluations[Split.SEARCH].state is not State.FAILED}
    estimates = {number: known[number] for number in known if number in scored}
    inside = {record.id: record.recipe for record in records if record.trial is not None}
    posterior = Posterior(Space.from_dict(store.manifest.space)).of(inside, estimates)
    return tuple(
        replace(record, estimate=estimates.get(record.id), posterior=posterior.get(record.id))
        for record in records
    )
