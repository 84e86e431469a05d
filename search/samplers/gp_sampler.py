"""The sampler that knows recipes: a Gaussian process over what they do to the weights.

Every proposal is a function of the space, the seed, the number of the trial and the trials before
it, so that a resumed run goes on as an uninterrupted one would. What is kept in memory only saves
time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial
from scipy.special import ndtr

from runs.ranking.floors import shortfalls
from runs.ranking.pareto_front import front
from runs.records.record import Estimate
from search.samplers.estimation.estimates import Estimates
from search.samplers.features.batch_features import BatchFeatures
from search.samplers.features.recipe_features import RecipeFeatures
from search.samplers.proposals import Cube
from search.samplers.surrogate.gaussian_process import (
    FEWEST,
    MAX_POINTS,
    Data,
    Outlook,
    Surrogate,
    best_first,
    representative,
)
from search.samplers.surrogate.hyperparameters import Fits
from search.samplers.trial_history import HistoryReader, KnownRecipes, TrialHistory
from spaces.sampling.draw import Choices, Domain, Floats, parameters
from spaces.search_space.space import Space

Array = NDArray[np.float64]

RANDOM_SHARE = 0.1
"""Share of proposals that are drawn at random, in case the model is wrong."""

OPTIMISM = 1.5
"""Standard deviations that an option's mean is raised by: the factor of the upper bound."""

LEADERS = 6
"""Recipes with the best posterior mean whose neighbourhoods are looked at."""

RANDOM_OPTIONS = 150
"""Random points that a proposal is chosen from."""

NEAR_LEADER = 16
"""Changes of every leader at each scale."""

REFINED = 5
"""Options whose neighbourhoods are looked at in the second round."""

NEAR_OPTION = 12
"""Changes of each of them at each scale."""

AT_ONCE = 64
"""Options whose deviations are computed at a time."""

MAX_REPEATS = 3
"""Known recipes in a row after which the next one is random: the space is all but exhausted."""

PESSIMISM = 0.25
"""Quantile of the scores that a failed recipe counts as."""

MOST_FAILED = 128
"""Recipes that failed, the latest, that a proposal takes into account."""

BELOW = 0.1
"""How far the reference point lies below the worst of the front, in units of the front's extent."""

DOUBT = 0.1
"""Variance of a failed recipe's score, as a share of all scores': chance is soon outvoted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Direction:
    """Turns objectives into one number, so that the best under random directions cover a front.

    The least of ``(y - reference) / (extent * slope)`` over the objectives. Over random slopes the
    mean of its power (with as many factors as objectives) is the hypervolume that ``y`` dominates,
    up to a constant (Golovin and Zhang 2020, arXiv:2006.04655, Lemma 5); the power changes no
    order. With one objective it is ``y`` itself, shifted and scaled.

    Attributes:
        reference: ``(objectives,)``, slightly below the worst of the front.
        scale: ``(objectives,)``, the front's extent times a random slope.
    """

    reference: Array
    scale: Array

    @classmethod
    def random(cls, means: Array, rng: np.random.Generator) -> _Direction:
        """A random one for a history with these posterior means, ``(n, objectives)``."""
        best = means[list(front(means))]
        extent = np.ptp(best, axis=0)
        extent = np.where(extent > 0, extent, np.maximum(np.std(means, axis=0), 1e-12))
        slope = np.abs(rng.normal(size=means.shape[1]))
        reference = best.min(axis=0) - BELOW * extent
        return cls(reference=reference, scale=extent * slope / np.linalg.norm(slope))

    def of(self, y: Array) -> Array:
        """``(n, objectives)`` to ``(n,)``."""
        least: Array = ((y - self.reference) / self.scale).min(axis=1)
        return least


@dataclass(frozen=True, kw_only=True, slots=True)
class _Merit:
    """What options are chosen by: their upper bounds, times the chance that they keep the floors.

    The bound is counted from slightly below the best that keeps them (as an improvement is in
    Gardner et al. 2014, "Bayesian optimization with inequality constraints"). Before any recipe
    is known to keep them all, the chance alone counts.

    Attributes:
        direction: Turns objectives into one number, above 0 near the front and beyond.
        floors: ``(floors,)``, what the values after the objectives must not fall below.
        kept: Whether some recipe is expected to keep them all.
    """

    direction: _Direction
    floors: Array
    kept: bool

    @classmethod
    def random(cls, means: Array, floors: Array, rng: np.random.Generator) -> _Merit:
        """In a random direction, for a history with these means, ``(n, objectives + floors)``."""
        values, others = cls._parts(means, floors)
        keeps = (others >= floors).all(axis=1)
        kept = bool(keeps.any())
        return cls(
            direction=_Direction.random(values[keeps] if kept else values, rng),
            floors=floors,
            kept=kept,
        )

    @staticmethod
    def _parts(values: Array, floors: Array) -> tuple[Array, Array]:
        count = values.shape[1] - len(floors)
        return values[:, :count], values[:, count:]

    def order(self, means: Array) -> NDArray[np.intp]:
        """The history's rows from the best: those that keep the floors, then the nearest to it."""
        values, others = self._parts(means, self.floors)
        return np.lexsort((-self.direction.of(values), shortfalls(others, self.floors)))

    def of(self, mean: Array, deviation: Array) -> Array:
        """Of options, ``(n, objectives + floors)`` to ``(n,)``."""
        return self._of(mean, deviation, lambda off, spread: ndtr(off / spread))

    def at_most(self, mean: Array, deviation: Array) -> Array:
        """The largest that they can have with smaller deviations."""
        return self._of(
            mean, deviation, lambda off, spread: np.where(off > 0, 1.0, ndtr(off / spread))
        )

    def _of(
        self, mean: Array, deviation: Array, chance_of: Callable[[Array, Array], Array]
    ) -> Array:
        values, others = self._parts(mean, self.floors)
        spread, spreads = self._parts(deviation, self.floors)
        bound = self.direction.of(values + OPTIMISM * spread)
        chance: Array = chance_of(others - self.floors, spreads).prod(axis=1)
        if not self.kept:
            return chance
        return np.where(bound > 0, bound * chance, bound)


class GaussianProcessSampler(BaseSampler):
    """Proposes the recipe with the best upper confidence bound under a Gaussian process.

    Where tasks have floors there is a process for each of them too, and the chance that a recipe
    keeps them multiplies its bound.

    With several objectives there is a process for each, and a trial seeks the best bound in a
    direction of its own.

    Args:
        space: What recipes are drawn from; trials must be drawn with ``spaces.sampling.draw``.
        seed: Decides all random choices, together with the number of the trial.
        fits: Where fits are kept, one for each objective; ``None`` keeps them here.
    """

    def __init__(
        self,
        space: Space,
        *,
        seed: int,
        fits: Sequence[Fits] | None = None,
    ) -> None:
        self._space = space
        self._seed = seed
        self._estimates = Estimates.of({})
        self._floors = np.zeros(0)
        self._features = RecipeFeatures(space)
        self._cube = Cube(space)
        self._sketches = BatchFeatures(space, self._cube, self._features)
        self._domains = {name: _distribution(d) for name, d in parameters(space).items()}
        self._history = HistoryReader(space, self._features)
        self._fits = list(fits or ())

    def learn(
        self, estimates: Mapping[int, Sequence[Estimate]], floors: Sequence[float] | Array = ()
    ) -> None:
        """What is now known of the scores, instead of what was learned before.

        Args:
            estimates: Every objective's score and standard error by trial number, then those of
                every task with a floor; without floors, a trial that is not in it counts with its
                own values and the median standard errors of the others.
            floors: What these tasks must not fall below; minus infinity where it is not known.
        """
        self._estimates = Estimates.of(estimates)
        self._floors = np.asarray(floors, dtype=np.float64)

    def infer_relative_search_space(
        self,
        study: optuna.Study,  # noqa: ARG002 - Optuna's signature
        trial: FrozenTrial,  # noqa: ARG002
    ) -> dict[str, BaseDistribution]:
        return dict(self._domains)

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],  # noqa: ARG002
    ) -> dict[str, Any]:
        """Values for every name of the space; the trial asks for those that its recipe uses."""
        if not self._cube.size:
            return {}
        rng = self._rng(trial.number)
        if rng.random() < RANDOM_SHARE:
            return self._cube.values(self._cube.random(rng, 1)[0])
        history = self._history.read(study, trial.number, self._estimates, floors=len(self._floors))
        if len(history.y) < FEWEST or history.repeats >= MAX_REPEATS:
            return self._cube.values(self._cube.random(rng, 1)[0])
        return self._cube.values(self._best(history, rng, self._rng(trial.number, "direction")))

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A random value for a name that is not the space's."""
        seed = int(self._rng(trial.number, param_name).integers(2**32))
        chance = RandomSampler(seed=seed)
        return chance.sample_independent(study, trial, param_name, param_distribution)

    def _rng(self, number: int, name: str = "") -> np.random.Generator:
        digest = hashlib.sha256(f"{self._seed}:{number}:{name}".encode()).digest()
        return np.random.default_rng(int.from_bytes(digest[:16], "little"))

    def _best(
        self, history: TrialHistory, rng: np.random.Generator, whither: np.random.Generator
    ) -> Array:
        """The point with the largest merit in a random direction, from two rounds of options."""
        keep, cube = best_first(history.y, representative(history.y, MAX_POINTS)), self._cube
        models = self._models(history, keep)
        means = np.column_stack([model.means for model in models])[: len(keep)]
        merit = _Merit.random(means, self._floors, whither)
        order = merit.order(means)[:LEADERS]
        numbers = history.trials[keep[order]].tolist()
        leaders = [cube.point(history.params[number], rng) for number in numbers]
        first = np.vstack(
            [
                cube.random(rng, RANDOM_OPTIONS),
                cube.near(leaders, rng, scales=(0.03, 0.08, 0.2), each=NEAR_LEADER),
            ]
        )
        options = _Options(first, self._sketches.matrix(first), models, merit)
        best = self._new(options, history.known, count=REFINED)
        if not len(best):
            chosen: Array = first[int(np.argmax(options.merits))]
            return chosen
        near = cube.near(list(first[best]), rng, scales=(0.02, 0.06), each=NEAR_OPTION)
        closer = _Options(near, self._sketches.matrix(near), models, merit)
        found = self._new(closer, history.known, count=1)
        if len(found) and closer.merits[found[0]] > options.merits[best[0]]:
            chosen = near[found[0]]
        else:
            chosen = first[best[0]]
        return chosen

    def _new(self, options: _Options, known: KnownRecipes, *, count: int) -> NDArray[np.intp]:
        """Which options have the largest merits and recipes that are not known, best first."""
        new: dict[int, bool] = {}
        for enough in options.looks():
            found: list[int] = []
            for at in enough:
                if at not in new:
                    new[at] = not known.resembles(options.x[at]) or (
                        self._key(options.points[at]) not in known
                    )
                found += [at] if new[at] else []
                if len(found) == count:
                    return np.array(found, dtype=np.intp)
        return np.array(found, dtype=np.intp)

    def _key(self, point: Array) -> str:
        """The key of the recipe at a point."""
        (recipe,) = self._cube.recipes(point[None])
        return recipe.key

    def _models(self, history: TrialHistory, keep: NDArray[np.intp]) -> list[Surrogate]:
        """A model for each objective and floor, of the trials to keep and what failed."""
        objectives = history.y.shape[1]
        while len(self._fits) < objectives:
            self._fits.append(Fits(self._features.groups))
        return [self._model(history, keep, at) for at in range(objectives)]

    def _model(self, history: TrialHistory, keep: NDArray[np.intp], objective: int) -> Surrogate:
        y, noise = history.y[:, objective], history.noise[:, objective]
        hyper = self._fits[objective].of(Data(x=history.x, y=y, noise=noise))
        scored = Data(x=history.x[keep], y=y[keep], noise=noise[keep])
        usual = float(np.median(noise))
        failed = history.failed[-MOST_FAILED:]
        if len(failed):
            doubt = DOUBT * float(np.var(y))
            scored = Data(
                x=np.vstack([scored.x, failed]),
                y=np.append(scored.y, np.full(len(failed), np.quantile(y, PESSIMISM))),
                noise=np.append(scored.noise, np.full(len(failed), doubt)),
            )
        model = self._fits[objective].model(scored, hyper)
        model.expect(history.pending, usual)
        return model


class _Options:
    """Points that a proposal is chosen from, and their merits.

    The deviations of all of them take longer than all else. So they are computed for those whose
    merit is large even if little is known, until no other can be among the best.

    Args:
        points: ``(n, size of the cube)``.
        x: Their features.
        models: One for each objective, then for each floor.
        merit: What they are chosen by.

    Attributes:
        points: The same.
        x: The same.
        merits: ``(n,)``, minus infinity where they were not computed.
    """

    def __init__(self, points: Array, x: Array, models: Sequence[Surrogate], merit: _Merit) -> None:
        self.points, self.x, self._merit = points, x, merit
        self._outlooks = [Outlook(model, x) for model in models]
        self._means = np.column_stack([outlook.mean for outlook in self._outlooks])
        self.merits: Array = np.full(len(points), -np.inf)

    def looks(self) -> Iterator[list[int]]:
        """Options in the order of their merits, more of them each time and all in the end."""
        glance = np.column_stack([outlook.at_most() for outlook in self._outlooks])
        at_most = self._merit.at_most(self._means, glance)
        order = np.argsort(-at_most, kind="stable")
        for start in range(0, len(order), AT_ONCE):
            rows = order[start : start + AT_ONCE]
            exact = np.column_stack([outlook.deviation(rows) for outlook in self._outlooks])
            self.merits[rows] = self._merit.of(self._means[rows], exact)
            others = at_most[order[start + AT_ONCE :]].max(initial=-np.inf)
            ahead = np.argsort(-self.merits, kind="stable")
            yield ahead[self.merits[ahead] >= others].tolist()


def _distribution(domain: Domain) -> BaseDistribution:
    if isinstance(domain, Choices):
        return CategoricalDistribution(domain.words)
    if isinstance(domain, Floats):
        return FloatDistribution(domain.low, domain.high, log=domain.log)
    return IntDistribution(domain.low, domain.high)
