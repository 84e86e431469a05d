"""What could be gained around learned coefficients, on the families of ``benchmarks.tiny``.

    python -m benchmarks.profiles --families 6 0 1

A weight for every parent, layer and kind of tensor is learned as ``search run`` does it, for the
price of 10 full evaluations. The held-out questions are then asked of what was chosen, of the
average of the last half of the steps, and of recipes around this average: mixed with its plain
profile (each parent's mean weight everywhere; 1 is as learned, above 1 goes beyond), and all of it
stronger or weaker. A recipe chosen by the held-out questions themselves bounds what a search in
these dimensions could bring.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median

from benchmarks.learning import learned, steps_paid_for
from benchmarks.tiny import World
from evaluators.protocol import Candidate
from evaluators.workers.pool import SerialPool
from runs.config.run_config import load_config
from search.setup.demo_models.model_family import make_family
from spaces.recipes.coefficients import Coefficients

PRICE = 10
"""Full evaluations that learning may cost."""

MIXES, STRENGTHS = (0.0, 0.5, 0.75, 1.25), (0.85, 1.15)


class Recording(SerialPool):
    """A pool of one that remembers the coefficients of every step."""

    def __init__(self, world: World) -> None:
        super().__init__(lambda: world.evaluator)
        self.steps: list[tuple[float, ...]] = []

    def submit(self, candidate: Candidate, *, near: str = "", keep: bool = False) -> None:
        self.steps.append(Coefficients(candidate.recipe).values)
        super().submit(candidate, near=near, keep=keep)


def path_of(
    folder: Path, world: World, seed: int
) -> tuple[Coefficients, Sequence[Sequence[float]]]:
    """What was chosen, and the coefficients of all steps."""
    config = load_config(make_family(folder, seed=seed, hard=True).config)
    pool = Recording(world)
    recipe, _ = learned(world, config, steps=steps_paid_for(PRICE), pool=pool)
    return Coefficients(recipe), pool.steps


def measure(folder: Path, seed: int) -> dict[str, float]:
    """Held-out score of every recipe around what was learned."""
    world = World.of(folder, seed=seed, hard=True)
    chosen, steps = path_of(folder, world, seed)
    average = [fmean(column) for column in zip(*steps[len(steps) // 2 :], strict=True)]
    each = len(average) // len(world.space.parents)
    plain = [fmean(average[at // each * each :][:each]) for at in range(len(average))]
    points = {"chosen": chosen.values, "average": average}
    for mix in MIXES:
        mixed = [p + mix * (a - p) for a, p in zip(average, plain, strict=True)]
        points[f"mix {mix:g}"] = mixed
    for strength in STRENGTHS:
        points[f"strength {strength:g}"] = [strength * one for one in average]
    found = {name: world.held_out(chosen.replaced(values)) for name, values in points.items()}
    world.evaluator.close()
    return found


def show(results: dict[str, dict[str, float]]) -> None:
    """The table of docs/performance.md."""
    names = list(next(iter(results.values())))
    print(f"| family | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    for seed, found in results.items():
        print(f"| {seed} | " + " | ".join(f"{found[name]:.3f}" for name in names) + " |")
    middle = [median(found[name] for found in results.values()) for name in names]
    print("| median | " + " | ".join(f"{value:.3f}" for value in middle) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--folder", type=Path, default=Path("benchmarks/families"))
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/profiles.json"))
    args = parser.parse_args()
    results = json.loads(args.results.read_text()) if args.results.exists() else {}
    for seed in args.families:
        if str(seed) not in results:
            results[str(seed)] = measure(args.folder / f"hard{seed}", seed)
            args.results.write_text(json.dumps(results, indent=1) + "\n")
            print(seed, results[str(seed)], flush=True)
    show(results)


if __name__ == "__main__":
    main()
