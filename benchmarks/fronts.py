"""How much of the Pareto front samplers cover, by the number of recipes scored.

    python -m benchmarks.fronts --families 6

On the made-up families of ``benchmarks/landscape.py``: four parents, three tasks, every recipe
scored on all questions, the same seeds first for every sampler. Shown is the true hypervolume
above the worst parent in each task, as a share of what all samplers together reached in that
family; the median over families.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy is loaded

import numpy as np
import optuna
from scipy.special import ndtr

from benchmarks.landscape import PARENTS, SPACE, Array, Landscape
from runs.ranking.pareto_front import front
from runs.records.record import Estimate
from search.samplers.sampler_choice import Sampler
from spaces.recipes.recipe import Recipe
from spaces.sampling.draw import draw
from spaces.sampling.seed_recipes import seeds

CHECKS = (20, 40, 80)


def truths(world: Landscape, recipe: Recipe) -> Array:
    """A smooth stand-in for each task's expected score, ``(tasks,)``, 0 to 1."""
    skill: Array = ndtr(world.skill(recipe)[0])
    return skill


def hypervolume(points: Array, reference: Array) -> float:
    """Volume between a reference and the points above it; the last objective is sliced."""
    points = points[(points > reference).all(axis=1)]
    points = points[list(front(points))]
    if not len(points):
        return 0.0
    if points.shape[1] == 1:
        return float(points.max() - reference[0])
    order = points[np.argsort(-points[:, -1])]
    lower = np.append(order[1:, -1], reference[-1])
    return sum(
        float(order[at, -1] - lower[at]) * hypervolume(order[: at + 1, :-1], reference[:-1])
        for at in range(len(order))
        if order[at, -1] > lower[at]
    )


def search(name: str, world: Landscape, *, seed: int, trials: int) -> list[Recipe]:
    """The recipes in the order they were tried."""
    study = optuna.create_study(directions=["maximize"] * 3)
    sampler = Sampler(name, seed=seed, space=SPACE)
    for first in seeds(SPACE):
        if first.params is not None:
            study.enqueue_trial(first.params)
    recipes = []
    estimates: dict[int, tuple[Estimate, ...]] = {}
    for number in range(trials):
        study.sampler = sampler.for_trial(number)
        trial = study.ask()
        recipes.append(draw(SPACE, trial, flat=sampler.flat))
        answers = world.answers(recipes[-1], world.search)
        values = answers.mean(axis=1)
        errors = np.sqrt(values * (1.0 - values) / answers.shape[1])
        pairs = zip(values, errors, strict=True)
        told = tuple(Estimate(value=float(v), stderr=float(e)) for v, e in pairs)
        estimates[trial.number] = told
        sampler.learn(estimates)
        study.tell(trial, [one.value for one in told])
    return recipes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samplers", default="surrogate,nsga2,random")
    parser.add_argument("--families", type=int, default=6)
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    found: dict[str, list[list[float]]] = {}
    for family in range(args.families):
        world = Landscape(family)
        parents = [s.recipe for s in seeds(SPACE) if s.name.startswith("parent ")]
        assert len(parents) == len(PARENTS)
        reference = np.min([truths(world, one) for one in parents], axis=0)
        tried = {
            name: np.array([truths(world, one) for one in recipes])
            for name in args.samplers.split(",")
            if (recipes := search(name, world, seed=family, trials=max(CHECKS)))
        }
        total = hypervolume(np.vstack(list(tried.values())), reference)
        for name, points in tried.items():
            row = [hypervolume(points[:count], reference) / total for count in CHECKS]
            found.setdefault(name, []).append(row)
            print(family, name, np.round(row, 3), flush=True)
    print(f"| sampler | {' | '.join(map(str, CHECKS))} |")
    print(f"|---|{'---|' * len(CHECKS)}")
    for name, rows in found.items():
        print(f"| {name} | {' | '.join(f'{v:.2f}' for v in np.median(rows, axis=0))} |")


if __name__ == "__main__":
    main()
