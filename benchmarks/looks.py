"""The loss of right answers as a cheaper look at a recipe, on families of ``benchmarks.tiny``.

    python -m benchmarks.looks --families 0 1 2

What a search of the product draws for the price of 7 full evaluations is asked all search questions
twice: for its score, and for the loss of right answers. How well either tells the best recipes
apart from a few questions is the rank correlation with the held-out score, and the held-out score
of the recipe that looks best. Then searches among these recipes are played through, without looks
and with them: the mean is shifted by a multiple of the loss, which the likelihood chooses, and the
most promising recipes are looked at before one of them is asked. Builds are paid for.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.tiny import BUILD, GRANULARITY, LAYERS, SEARCHED, World  # first: it sets one thread

# isort: split
import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from benchmarks.asking import Meter
from benchmarks.strategies import Problem, product
from evaluators.protocol import Candidate, Catalogue, Failure, Score
from runs.config.run_config import load_config
from search.samplers.features.recipe_features import RecipeFeatures
from search.samplers.surrogate.gaussian_process import Data, Surrogate
from search.samplers.surrogate.hyperparameters import Objective, fit
from spaces.recipes.recipe import Recipe

Array = NDArray[np.float64]

DRAWN = 7
"""Full evaluations whose price the search may spend that draws the recipes."""

COUNTS = (12, 40, 100, 400)
"""Questions of a look."""

ASKED = 100
"""Questions that a recipe is asked for its score in a search played through."""

SEEDS = 14
"""Recipes that such a search begins with: those that a run begins with."""

PLAYED = (3, 5, 10)
"""Full evaluations after which its recommendations are compared."""

OPTIMISM = 1.5
"""Standard deviations in the upper bound that it chooses by."""


class Noting:
    """An evaluator that remembers which recipes it was given."""

    def __init__(self, world: World) -> None:
        self._evaluator = world.evaluator
        self.recipes: dict[str, Recipe] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        return ()

    def catalogue(self) -> Catalogue:
        return self._evaluator.catalogue()

    def evaluate(self, candidate: Candidate) -> Score | Failure:
        self.recipes.setdefault(candidate.recipe.key, candidate.recipe)
        return self._evaluator.evaluate(candidate)

    def close(self) -> None:
        """The world closes it."""


def record(folder: Path, seed: int) -> list[dict[str, Any]]:
    """What a search draws: values and losses of all search questions, and the held-out score."""
    world = World.of(folder, seed=seed, hard=True)
    noting = Noting(world)
    meter = Meter(evaluator=noting, build=BUILD, checks=[DRAWN * (SEARCHED + BUILD)])
    problem = Problem(
        space=world.space, questions=world.questions, seed=seed, granularity=GRANULARITY
    )
    product(problem, meter, sampler="surrogate", growing=True)
    rows = []
    for recipe in noting.recipes.values():
        candidate = Candidate(id=0, recipe=recipe, questions=world.questions.search)
        score, losses = world.evaluator.evaluate(candidate), world.evaluator.losses(candidate)
        if isinstance(score, Score) and not isinstance(losses, Failure):
            rows.append(
                {
                    "recipe": recipe.to_dict(),
                    "right": {one.question: one.value for one in score.outcomes},
                    "loss": dict(losses),
                    "held": world.held_out(recipe),
                }
            )
    world.evaluator.close()
    return rows


@dataclass(kw_only=True)
class Drawn:
    """Recipes that a search drew.

    Attributes:
        features: Makes the columns.
        x: ``(n, columns)`` features.
        right: ``(n, questions)`` 1 for a right answer.
        loss: ``(n, questions)`` of the right answers.
        tasks: Task of each question.
        held: ``(n,)`` held-out scores.
    """

    features: RecipeFeatures
    x: Array
    right: Array
    loss: Array
    tasks: NDArray[np.str_]
    held: Array

    @classmethod
    def of(cls, folder: Path, rows: Sequence[dict[str, Any]]) -> Drawn:
        features = RecipeFeatures(load_config(folder / "search.yaml").space(LAYERS))
        names = sorted(rows[0]["right"])
        return cls(
            features=features,
            x=features.matrix([Recipe.from_dict(row["recipe"]) for row in rows]),
            right=np.array([[row["right"][name] for name in names] for row in rows]),
            loss=np.array([[row["loss"][name] for name in names] for row in rows]),
            tasks=np.array([name.split("/")[0] for name in names]),
            held=np.array([row["held"] for row in rows]),
        )

    def some(self, count: int, rng: np.random.Generator) -> NDArray[np.intp]:
        """As many random questions of each task."""
        tasks = np.unique(self.tasks)
        each = [rng.permutation(np.flatnonzero(self.tasks == one)) for one in tasks]
        return np.concatenate([one[: count // len(tasks)] for one in each])


def told(drawn: Drawn, count: int, *, by_loss: bool, repeats: int = 60) -> tuple[float, float]:
    """Rank correlation with held-out scores in the best third, and the score of the chosen one."""
    rng, best = np.random.default_rng(0), np.argsort(-drawn.held)[: len(drawn.held) // 3]
    ranks, chosen = [], []
    for _ in range(repeats):
        some = drawn.some(count, rng)
        values = -drawn.loss[:, some].mean(1) if by_loss else drawn.right[:, some].mean(1)
        ranks.append(spearmanr(values[best], drawn.held[best])[0])
        chosen.append(drawn.held[int(np.argmax(values))])
    return float(np.nanmean(ranks)), float(np.mean(chosen))


def shifted(data: Data, looks: Array, drawn: Drawn) -> tuple[float, Surrogate]:
    """The process on what the looks leave, and their factor with the largest density."""
    groups, best = drawn.features.groups, (np.inf, 0.0, data)
    for factor in np.linspace(0.0, 1.5, 7) * (data.y.std() or 1.0) if looks.any() else (0.0,):
        rest = Data(x=data.x, y=data.y - factor * looks, noise=data.noise)
        density, _ = Objective(rest, groups)(fit(rest, groups).log)
        density += len(rest.y) * np.log(rest.y.std() or 1.0)
        best = min(best, (density, float(factor), rest), key=lambda one: one[0])
    return best[1], Surrogate(best[2], hyper=fit(best[2], groups), groups=groups)


def played(drawn: Drawn, repeat: int, *, look: int, options: int) -> list[float]:
    """Held-out score of the recommendation after each check of one search.

    Args:
        drawn: What there is to ask.
        repeat: Seed of the questions.
        look: Questions of a look; 0 for a search without.
        options: Recipes that are looked at before one of them is asked.
    """
    rng, count = np.random.default_rng(repeat), len(drawn.held)
    y = drawn.right[:, drawn.some(ASKED, rng)].mean(1)
    noise = np.maximum(y * (1 - y), 0.02) / ASKED
    looks = np.zeros(count)
    if look:
        looks = -np.log(drawn.loss[:, drawn.some(look, rng)].mean(1))
        looks = (looks - looks[:SEEDS].mean()) / looks[:SEEDS].std()
    asked, seen = list(range(min(SEEDS, count))), set(range(SEEDS))
    cost = len(asked) * (BUILD + ASKED + look)
    found: list[float] = []
    while True:
        data = Data(x=drawn.x[asked], y=y[asked], noise=noise[asked])
        factor, model = shifted(data, looks[asked], drawn)
        leader = asked[int(np.argmax(model.means + factor * looks[asked]))]
        due = sum(cost >= check * (SEARCHED + BUILD) for check in PLAYED)
        left = [one for one in range(count) if one not in asked]
        found += [float(drawn.held[leader])] * ((due if left else len(PLAYED)) - len(found))
        if len(found) == len(PLAYED):
            return found
        mean, deviation = model.predict(drawn.x[left])
        bound = dict(zip(left, mean + OPTIMISM * deviation, strict=True))
        ranked = sorted(left, key=lambda one: -bound[one] - factor * looks[one] * (one in seen))
        if look:
            new = [one for one in ranked if one not in seen][:options]
            seen |= set(new)
            cost += len(new) * (BUILD + look)
            ranked = sorted(
                (one for one in left if one in seen),
                key=lambda one: -bound[one] - factor * looks[one],
            )
        asked.append(ranked[0])
        cost += BUILD + ASKED


def show(family: str, drawn: Drawn, repeats: int) -> None:
    """Two tables of a family."""
    print(f"\nfamily {family}: {len(drawn.held)} recipes, the best has {drawn.held.max():.3f}\n")
    print("| questions | rank, score | rank, loss | chosen by score | by loss |")
    print("|---|---|---|---|---|")
    for count in COUNTS:
        (rank, best), (other, lowest) = (told(drawn, count, by_loss=one) for one in (False, True))
        print(f"| {count} | {rank:.2f} | {other:.2f} | {best:.3f} | {lowest:.3f} |")
    print(f"\n| looks | {' | '.join(map(str, PLAYED))} |\n|---|{'---|' * len(PLAYED)}")
    for look, options in ((0, 0), (12, 3), (40, 3)):
        runs = np.array([played(drawn, at, look=look, options=options) for at in range(repeats)])
        cells = " | ".join(f"{value:.3f}" for value in runs.mean(0))
        print(f"| {options} of {look} questions | {cells} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", nargs="+", default=[str(one) for one in range(10)])
    parser.add_argument("--folder", type=Path, default=Path("benchmarks/families"))
    parser.add_argument("--records", type=Path, default=Path("benchmarks/results/looks"))
    parser.add_argument("--repeats", type=int, default=10, help="searches played through")
    args = parser.parse_args()
    args.records.mkdir(parents=True, exist_ok=True)
    for seed in args.families:
        folder, file = args.folder / f"hard{seed}", args.records / f"{seed}.json"
        if not file.exists():
            file.write_text(json.dumps(record(folder, int(seed))))
        show(seed, Drawn.of(folder, json.loads(file.read_text())), args.repeats)


if __name__ == "__main__":
    main()
