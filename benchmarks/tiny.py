"""Our search against what people use today, on families of tiny models that really answer.

    python -m benchmarks.tiny                              # five families, every strategy
    python -m benchmarks.tiny --kind demo --arms ours "CMA-ES ties"
    python -m benchmarks.tiny --show --plot docs/images/search-tiny.svg

Every family is trained from a seed of its own (``search/setup/demo_models/model_family.py``),
merged and asked by lm-eval. Costs are counted as in ``benchmarks/search.py``: questions, and a
fixed number for every build. At given costs the recipe that a strategy would recommend is noted,
and asked the held-out questions when the strategy is done. Seconds are those of the processor on
one thread, so that other work on the machine does not count. Results are kept in a file, and a
second call goes on from there.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy is loaded: one core
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import optuna
from numpy.typing import NDArray

from benchmarks.asking import Meter
from benchmarks.strategies import Problem, Strategy, evolve, hyperband, product
from evaluators.harness.harness_evaluator import HarnessEvaluator
from evaluators.protocol import Candidate, Score
from runs.config.run_config import RunConfig, load_config
from runs.output_files import write_text
from runs.records.question_split import Questions, divide
from search.setup.demo_models.model_family import make_family
from spaces.recipes.recipe import Recipe
from spaces.sampling.seed_recipes import seeds
from spaces.search_space.space import Space

CHECKS = (2, 5, 10, 20, 40, 70, 100)
"""Full evaluations after which the strategies are compared."""

SEARCHED = 400
"""Search questions, as many of each task; the others are held out."""

BUILD = 30
"""Price of a build, in questions."""

LAYERS = 6
GRANULARITY = 2
"""Layers that share their values in mergekit-evolve's way: as many depths as our space has."""

OURS = "ours"

LAST = {OURS: 40}
"""Full evaluations after which a strategy ends, where that is not the last check."""

ARMS: dict[str, Strategy] = {
    OURS: partial(product, sampler="surrogate", growing=True),
    "CMA-ES ties": partial(evolve, method="ties"),
    "CMA-ES dare_ties": partial(evolve, method="dare_ties"),
    "CMA-ES task_arithmetic": partial(evolve, method="task_arithmetic"),
    "CMA-ES linear": partial(evolve, method="linear"),
    "TPE": partial(product, sampler="tpe", seeded=False),
    "TPE, seeds, Hyperband": hyperband,
    "random": partial(product, sampler="random", seeded=False),
}

Results = dict[str, dict[str, Any]]
"""By arm and seed; ``baselines`` stands beside the arms."""


@dataclass(kw_only=True)
class World:
    """A family, and what can be asked of its merges."""

    evaluator: HarnessEvaluator
    space: Space
    questions: Questions
    seed: int

    @classmethod
    def of(cls, folder: Path, *, seed: int, hard: bool) -> World:
        """The family of a seed, trained now if it is not there."""
        return cls.over(load_config(make_family(folder, seed=seed, hard=hard).config), seed=seed)

    @classmethod
    def over(cls, config: RunConfig, *, seed: int) -> World:
        """What a config's models and tasks are, with the split of a seed."""
        evaluator = HarnessEvaluator(config.harness_spec())
        catalogue = evaluator.catalogue()
        share = 1.0 - SEARCHED / len(catalogue.questions)
        return cls(
            evaluator=evaluator,
            space=config.space(LAYERS),
            questions=divide(catalogue, share, seed=seed),
            seed=seed,
        )

    def held_out(self, recipe: Recipe) -> float:
        """Score on all held-out questions."""
        asked = Candidate(id=0, recipe=recipe, questions=self.questions.held_out)
        found = self.evaluator.evaluate(asked)
        assert isinstance(found, Score), found
        return found.value

    def baselines(self) -> dict[str, float]:
        """Held-out score of every parent, the average and the default recipes."""
        return {seed.name: self.held_out(seed.recipe) for seed in seeds(self.space)}

    def run(self, arm: str, *, last: int) -> dict[str, list[float]]:
        """One strategy: at every check what it had spent, and how good its recipe is."""
        full = len(self.questions.search) + BUILD
        checks = [check * full for check in CHECKS if check <= last]
        meter = Meter(evaluator=self.evaluator, build=BUILD, checks=checks, clock=time.process_time)
        problem = Problem(
            space=self.space, questions=self.questions, seed=self.seed, granularity=GRANULARITY
        )
        ARMS[arm](problem, meter)
        scores = {
            recipe.key: self.held_out(recipe)
            for recipe in {check.leader.key: check.leader for check in meter.found}.values()
        }
        return {
            "held_out": [scores[check.leader.key] for check in meter.found],
            "candidates": [check.candidates for check in meter.found],
            "seconds": [check.seconds for check in meter.found],
            "busy": [check.busy for check in meter.found],
        }


def measure(args: argparse.Namespace, results: Results) -> None:
    """Run what is not in the results yet, family by family."""
    for seed in range(args.seeds):
        known = results.setdefault("baselines", {})
        missing = [arm for arm in args.arms if str(seed) not in results.setdefault(arm, {})]
        if not missing and str(seed) in known:
            continue
        hard = args.kind == "hard"
        world = World.of(args.folder / f"{args.kind}{seed}", seed=seed, hard=hard)
        if str(seed) not in known:
            known[str(seed)] = world.baselines()
        for arm in missing:
            results[arm][str(seed)] = world.run(arm, last=args.last or LAST.get(arm, CHECKS[-1]))
            save(args.results, results)
            print(seed, arm, json.dumps(results[arm][str(seed)]), flush=True)
        world.evaluator.close()


def save(path: Path, results: Results) -> None:
    write_text(path, _text(results))


def _text(results: Results) -> str:
    """JSON with a line for each run."""
    blocks = []
    for arm, runs in results.items():
        lines = [f"  {json.dumps(seed)}: {json.dumps(_short(run))}" for seed, run in runs.items()]
        blocks.append(f" {json.dumps(arm)}: {{\n" + ",\n".join(lines) + "\n }")
    return "{\n" + ",\n".join(blocks) + "\n}\n"


def _short(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _short(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_short(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value


def table(runs: dict[str, Any], key: str) -> NDArray[np.float64]:
    """One number of every run at every check, ``(runs, checks)``."""
    return np.array([run[key] for run in runs.values()], dtype=np.float64)


def show(results: Results) -> None:
    """Held-out scores by what was asked, then what it took to reach the strategies' last ones."""
    print(f"| strategy | {' | '.join(map(str, CHECKS))} | recipes | families |")
    print(f"|---|{'---|' * (len(CHECKS) + 2)}")
    for arm in (arm for arm in ARMS if results.get(arm)):
        held_out = table(results[arm], "held_out")
        cells = [f"{m:.3f} ({a:.3f}-{b:.3f})" for a, m, b in _quartiles(held_out).T]
        cells += [""] * (len(CHECKS) - len(cells))
        recipes = np.median(table(results[arm], "candidates")[:, -1])
        print(f"| {arm} | {' | '.join(cells)} | {recipes:.0f} | {len(held_out)} |")
    print()
    print("| strategy | end | s | outside the evaluator | ours had it after | s | share of s |")
    print("|---|---|---|---|---|---|---|")
    for arm in (arm for arm in ARMS if results.get(arm)):
        print(_reached(results, arm))
    print()
    for seed, known in results["baselines"].items():
        best = max(known, key=lambda name: known[name])
        ours = results.get(OURS, {}).get(seed)
        said = f"{ours['held_out'][-1]:.3f} after {_at(ours)}" if ours else "not run"
        print(f"family {seed}: best of the first recipes {best}: {known[best]:.3f}; ours {said}")


def _reached(results: Results, arm: str) -> str:
    """A row: what a strategy has at its end, and when ours had as much; medians over families."""
    theirs, ours = results[arm], results.get(OURS, {})
    end, seconds = table(theirs, "held_out")[:, -1], table(theirs, "seconds")[:, -1]
    outside = 1.0 - np.median(table(theirs, "busy")[:, -1] / seconds)
    row = f"| {arm} | {np.median(end):.3f} | {np.median(seconds):.0f} | {outside:.0%} |"
    both = [seed for seed in theirs if seed in ours]
    if arm == OURS or not both:
        return f"{row} | | |"
    after, spent, share = [], [], []
    for seed in both:
        goal, reached = theirs[seed]["held_out"][-1], ours[seed]["held_out"]
        at = next((at for at, score in enumerate(reached) if score >= goal), None)
        after.append(np.inf if at is None else CHECKS[at])
        spent.append(np.inf if at is None else ours[seed]["seconds"][at])
        share.append(spent[-1] / theirs[seed]["seconds"][-1])
    cells = (f"{np.median(after):g}", f"{np.median(spent):.0f}", f"{np.median(share):.0%}")
    return f"{row} {' | '.join(cells)} |"


def _at(run: dict[str, Any]) -> int:
    return CHECKS[len(run["held_out"]) - 1]


def _quartiles(values: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.percentile(values, (25, 50, 75), axis=0)
    return found


def plot(results: Results, path: Path) -> None:
    """A picture of held-out scores against full evaluations."""
    from benchmarks.plot import Axes, draw

    curves = {
        arm: (np.array(CHECKS[: len(held_out[0])], dtype=np.float64), held_out)
        for arm in ARMS
        if results.get(arm)
        for held_out in [table(results[arm], "held_out")]
    }
    best = float(np.median([max(known.values()) for known in results["baselines"].values()]))
    axes = Axes(
        x="questions asked and builds, in full evaluations",
        y="held-out score of the recommended recipe",
        title=f"{len(results['baselines'])} families of tiny models",
    )
    draw(path, curves, axes, level=("best default recipe", best))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=("hard", "demo"), default="hard")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--last", type=int, choices=CHECKS, help="full evaluations at the end")
    parser.add_argument("--folder", type=Path, default=Path("tiny_families"))
    parser.add_argument("--results", type=Path, help="default: benchmarks/results/tiny_KIND.json")
    parser.add_argument("--show", action="store_true", help="only show the results")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    args = parser.parse_args()
    if args.results is None:
        args.results = Path(__file__).parent / "results" / f"tiny_{args.kind}.json"
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    results: Results = (
        json.loads(args.results.read_text(encoding="utf-8")) if args.results.is_file() else {}
    )
    if not args.show:
        measure(args, results)
    show(results)
    if args.plot is not None:
        plot(results, args.plot)


if __name__ == "__main__":
    main()
