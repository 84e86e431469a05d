"""How near samplers come to the best recipe, by the number of recipes scored.

    python -m benchmarks.samplers --families 8                   # the made-up families
    python -m benchmarks.samplers --families 8 --plain           # the closed-form evaluator
    python -m benchmarks.samplers --speed                        # time of fits and proposals

Every sampler starts with the same seeds and scores every recipe on all questions. Regret is the
true score of the best recipe known minus that of the recipe with the best score so far, in points;
the median over families is shown. The row "by posterior" takes the recipe that the Gaussian process
thinks best instead.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy is loaded, for honest times

import numpy as np
import optuna

from benchmarks.landscape import SPACE, Landscape
from evaluators.protocol import Candidate, Score
from evaluators.synthetic_evaluator import SyntheticEvaluator, SyntheticSpec
from runs.records.record import Estimate
from search.samplers.estimation.posterior import Posterior
from search.samplers.features.recipe_features import RecipeFeatures
from search.samplers.gp_sampler import GaussianProcessSampler
from search.samplers.proposals import Cube
from search.samplers.sampler_choice import Sampler
from search.samplers.surrogate.gaussian_process import Data
from search.samplers.surrogate.hyperparameters import fit
from spaces.recipes.recipe import Recipe
from spaces.sampling.draw import draw
from spaces.sampling.seed_recipes import seeds
from spaces.search_space.space import Depth, Space

CHECKS = (10, 20, 40, 80)
PLAIN = Space(
    parents=("math", "code", "chat"),
    base="base",
    layers=24,
    methods=("linear", "task_arithmetic", "ties", "dare_ties", "slerp"),
    depth=Depth(knots=2),
)

Scorer = Callable[[Recipe], tuple[float, float]]


class Plain:
    """The evaluator of ``search run --dry-run``: no noise, so the score is the truth."""

    def __init__(self, seed: int) -> None:
        tasks = tuple((name, 1.0) for name in ("one", "two", "three"))
        spec = SyntheticSpec(parents=PLAIN.parents, tasks=tasks, questions=100, seed=seed)
        self._evaluator = SyntheticEvaluator(spec)
        self._ids = tuple(q.id for q in self._evaluator.catalogue().questions)

    def score(self, recipe: Recipe) -> tuple[float, float]:
        found = self._evaluator.evaluate(Candidate(id=0, recipe=recipe, questions=self._ids))
        assert isinstance(found, Score)
        return found.value, found.stderr

    def truth(self, recipe: Recipe) -> float:
        return self.score(recipe)[0]


def search(
    name: str, space: Space, score: Scorer, *, seed: int, trials: int
) -> dict[str, list[Recipe]]:
    """The recipes that are recommended after 10, 20, 40 and 80 trials, by way of choosing."""
    study = optuna.create_study(direction="maximize")
    sampler = Sampler(name, seed=seed, space=space)
    for first in seeds(space):
        if first.params is not None:
            study.enqueue_trial(first.params)
    recipes: list[Recipe] = []
    estimates: dict[int, tuple[Estimate, ...]] = {}
    found: dict[str, list[Recipe]] = {}
    for number in range(trials):
        study.sampler = sampler.for_trial(number)
        trial = study.ask()
        recipes.append(draw(space, trial, flat=sampler.flat))
        value, stderr = score(recipes[-1])
        estimates[trial.number] = (Estimate(value=value, stderr=stderr),)
        sampler.learn(estimates)
        study.tell(trial, value)
        if number + 1 in CHECKS:
            found.setdefault(name, []).append(recipes[study.best_trial.number])
            if isinstance(study.sampler, GaussianProcessSampler):
                means = Posterior(space).means(dict(enumerate(recipes)), estimates)
                best = max(means, key=lambda at: means[at])
                found.setdefault(f"{name}, by posterior", []).append(recipes[best])
    return found


def optimum(space: Space, truth: Callable[[Recipe], float], *, draws: int, steps: int) -> float:
    """Best true score found by many random recipes and climbing from the best of them."""
    rng, cube = np.random.default_rng(0), Cube(space)
    points = np.vstack([cube.random(rng, 1) for _ in range(draws)])  # each of a kind of its own
    values = np.array([truth(recipe) for recipe in cube.recipes(points)])
    best = -np.inf
    for at in np.argsort(-values)[:6]:
        point, value, scale = points[at], values[at], 0.15
        for step in range(steps):
            (tried,) = cube.mutations(point, rng, count=1, scale=scale)
            (recipe,) = cube.recipes(tried[None])
            if (new := truth(recipe)) > value:
                point, value = tried, new
            elif step % 40 == 39:
                scale *= 0.7
        best = max(best, value)
    return float(best)


def compare(names: list[str], families: range, *, plain: bool, trials: int) -> None:
    """Search every family with every sampler; print regrets, then their medians as a table."""
    space = PLAIN if plain else SPACE
    found: dict[str, list[list[float]]] = {}
    for family in families:
        world = Plain(family) if plain else Landscape(family)
        truths: dict[str, list[float]] = {}
        for name in names:
            for way, leaders in search(
                name, space, world.score, seed=family, trials=trials
            ).items():
                truths[way] = [world.truth(recipe) for recipe in leaders]
        top = optimum(space, world.truth, draws=600, steps=150)
        top = max(top, *(max(values) for values in truths.values()))
        for way, values in truths.items():
            found.setdefault(way, []).append([100.0 * (top - value) for value in values])
            print(family, way, np.round(found[way][-1], 2), flush=True)
    checks = [str(at) for at in CHECKS if at <= trials]
    print(f"| sampler | {' | '.join(checks)} |")
    print(f"|---|{'---|' * len(checks)}")
    for way, rows in found.items():
        print(f"| {way} | {' | '.join(f'{value:.1f}' for value in np.median(rows, axis=0))} |")


def speed(trials: int) -> None:
    """Processor time on this machine, one thread: a fit, and a proposal from ask to recipe."""
    rng, cube, features = np.random.default_rng(0), Cube(SPACE), RecipeFeatures(SPACE)
    study = optuna.create_study(direction="maximize")
    drawn = [optuna.trial.FixedTrial(cube.values(point)) for point in cube.random(rng, trials)]
    x = features.matrix([draw(SPACE, trial) for trial in drawn])
    y = x @ rng.normal(size=x.shape[1]) + rng.normal(0.0, 0.1, trials)
    known = zip(drawn, y.tolist(), strict=True)
    study.add_trials(
        [
            optuna.trial.create_trial(
                params=trial.params, distributions=trial.distributions, value=value
            )
            for trial, value in known
        ]
    )
    data, fits = Data(x=x, y=y, noise=np.full(trials, 0.01)), []
    for _ in range(3):
        start = time.process_time()
        fit(data, features.groups)
        fits.append(time.process_time() - start)
    study.sampler = GaussianProcessSampler(SPACE, seed=0)
    proposals = []
    for _ in range(12):
        start = time.process_time()
        trial = study.ask()
        draw(SPACE, trial)
        proposals.append(time.process_time() - start)
        study.tell(trial, float(y.mean()))
    for name, times in (("fit", fits), ("proposal", proposals[2:])):
        print(f"{name} at {trials} trials: median {1000 * np.median(times):.0f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samplers", default="surrogate,tpe,cmaes,random")
    parser.add_argument("--families", type=int, default=8)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--trials", type=int, default=80)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--speed", action="store_true")
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if args.speed:
        for trials in (100, 1_000, 10_000):
            speed(trials)
        return
    names = args.samplers.split(",")
    families = range(args.first, args.first + args.families)
    compare(names, families, plain=args.plain, trials=args.trials)


if __name__ == "__main__":
    main()
