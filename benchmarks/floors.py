"""How soon a search finds good recipes that keep a floor: with the floor in the sampler or not.

    python -m benchmarks.floors --families 12

On the made-up families of ``benchmarks.landscape``: the mean of two tasks is searched for, the
third must stay within two points of the best parent. Both ways rank recipes alike, those first that
are expected to keep the floor; only one tells the sampler of it. Regret is the true score of the
best recipe known that keeps the floor minus that of the recipe ranked first, in points; one that is
more than a point below the floor in truth counts as the best parent that keeps it. Means over
families.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy is loaded

import numpy as np
import optuna
from numpy.typing import NDArray
from scipy.special import ndtr

from benchmarks.landscape import SPACE, Landscape
from evaluators.protocol import least_stderr
from runs.ranking.floors import shortfalls
from runs.records.record import PARENT, Estimate
from search.samplers.estimation.posterior import Posterior
from search.samplers.proposals import Cube
from search.samplers.sampler_choice import Sampler
from spaces.recipes.recipe import Recipe
from spaces.sampling.draw import draw
from spaces.sampling.seed_recipes import seeds

Array = NDArray[np.float64]

CHECKS = (20, 40, 80)
MARGIN = 0.02
"""How far below the best parent the third task may fall."""

TOLERANCE = 0.01
"""How far below the floor a recipe may be in truth to count as one that keeps it."""

WAYS = {"ranking alone": False, "floor in the sampler": True}


class World:
    """A family with a task that is only to be kept.

    Args:
        family: Its number.
    """

    def __init__(self, family: int) -> None:
        self._landscape = Landscape(family)
        self._n = self._landscape.search.hardness.shape[1]
        firsts = [seed for seed in seeds(SPACE) if seed.name.startswith(PARENT)]
        self.parents = [self.truth(seed.recipe) for seed in firsts]
        self.least = max(kept for _, kept in self.parents) - MARGIN

    def truth(self, recipe: Recipe) -> tuple[float, float]:
        """Expected score, and expected value of the task to keep, on questions that nobody asks."""
        world, n = self._landscape, self._n
        skill, _ = world.skill(recipe)
        right = ndtr(world._slope[:, n:] * (skill[:, None] - world._hardness[:, n:]))
        tasks = (world._guess + (1.0 - world._guess) * right).mean(axis=1)
        return float(tasks[:2].mean()), float(tasks[2])

    def estimates(self, recipe: Recipe) -> tuple[Estimate, Estimate]:
        """What all search questions say of the two."""
        right = self._landscape.answers(recipe, self._landscape.search).mean(axis=1)
        doubt = np.maximum(np.sqrt(right * (1 - right) / self._n), least_stderr(self._n))
        score = Estimate(value=float(right[:2].mean()), stderr=float(np.hypot(*doubt[:2]) / 2))
        return score, Estimate(value=float(right[2]), stderr=float(doubt[2]))

    def worth(self, recipe: Recipe) -> float:
        """The true score of a recipe that keeps the floor, of a parent's in place of another."""
        score, kept = self.truth(recipe)
        if kept >= self.least - TOLERANCE:
            return score
        return max(value for value, third in self.parents if third >= self.least)


def search(world: World, *, seed: int, trials: int, told: bool) -> dict[int, Recipe]:
    """The recipe ranked first after so many trials."""
    study = optuna.create_study(direction="maximize")
    sampler = Sampler("auto", seed=seed, space=SPACE)
    firsts = [first for first in seeds(SPACE) if first.params is not None]
    for first in firsts:
        study.enqueue_trial(first.params or {})
    parents = [at for at, first in enumerate(firsts) if first.name.startswith(PARENT)]
    recipes: dict[int, Recipe] = {}
    known: dict[int, tuple[Estimate, Estimate]] = {}
    found: dict[int, Recipe] = {}
    for number in range(trials):
        study.sampler = sampler.for_trial(number)
        trial = study.ask()
        recipes[number] = draw(SPACE, trial, flat=sampler.flat)
        known[number] = world.estimates(recipes[number])
        study.tell(trial, known[number][0].value)
        least = max((known[at][1].value for at in parents if at in known), default=-np.inf)
        if told:
            sampler.learn(known, [least - MARGIN])
        else:
            sampler.learn({at: (score,) for at, (score, _) in known.items()})
        if number + 1 in CHECKS:
            means = Posterior(SPACE).means(recipes, known)
            table = np.array([*means.values()])
            least = max(means[at][1] for at in parents) - MARGIN
            short = shortfalls(table[:, 1:], np.array([least]))
            best = np.lexsort((-table[:, 0], short))[0]
            found[number + 1] = recipes[[*means][best]]
    return found


def optimum(world: World, *, draws: int = 600, steps: int = 150) -> float:
    """The best true score that keeps the floor: random recipes, and climbing from the best."""
    rng, cube = np.random.default_rng(0), Cube(SPACE)
    points = np.vstack([cube.random(rng, 1) for _ in range(draws)])
    values = np.array([world.worth(recipe) for recipe in cube.recipes(points)])
    best = -np.inf
    for at in np.argsort(-values)[:6]:
        point, value, scale = points[at], values[at], 0.15
        for step in range(steps):
            (tried,) = cube.mutations(point, rng, count=1, scale=scale)
            (recipe,) = cube.recipes(tried[None])
            if (new := world.worth(recipe)) > value:
                point, value = tried, new
            elif step % 40 == 39:
                scale *= 0.7
        best = max(best, float(value))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", type=int, default=12)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--trials", type=int, default=CHECKS[-1])
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    regrets: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    for family in range(args.first, args.first + args.families):
        world = World(family)
        worths = {
            way: [
                world.worth(recipe)
                for recipe in search(world, seed=family, trials=args.trials, told=told).values()
            ]
            for way, told in WAYS.items()
        }
        top = max(optimum(world), *(value for values in worths.values() for value in values))
        for way, values in worths.items():
            regrets[way].append([100.0 * (top - value) for value in values])
            print(family, way, np.round(regrets[way][-1], 2), flush=True)
    checks = [str(at) for at in CHECKS if at <= args.trials]
    print(f"| way | {' | '.join(checks)} |")
    print(f"|---|{'---|' * len(checks)}")
    for way, rows in regrets.items():
        print(f"| {way} | {' | '.join(f'{value:.1f}' for value in np.mean(rows, axis=0))} |")


if __name__ == "__main__":
    main()
