"""Our search against what people use today, by the number of questions asked.

    python -m benchmarks.search                                  # made-up families, 20 of them
    python -m benchmarks.search --arms "CMA-ES dare_ties" TPE --families 4
    python -m benchmarks.search --show --results benchmarks/results/search.json --plot search.svg

Every strategy pays for the questions it asks plus a fixed number for every build. Costs are counted
in full evaluations: all search questions and one build. Regret is the true score of the best recipe
known minus that of the recipe a strategy would recommend, in points. Results are kept in a file as
they come, and a second call goes on where the first one ended.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy is loaded: one core

import numpy as np
import optuna

from benchmarks.asking import LandscapeEvaluator, Meter
from benchmarks.landscape import SPACE, TASKS, Landscape
from benchmarks.samplers import optimum
from benchmarks.strategies import Problem, Strategy, evolve, hyperband, product
from runs.output_files import write_text
from runs.records.question_split import divide

CHECKS = (5, 10, 20, 40, 80, 100)
"""Full evaluations after which the strategies are compared."""

QUESTIONS = 900
BUILD = 30
"""Price of a build, in questions."""

OURS = "ours"

ARMS: dict[str, Strategy] = {
    "CMA-ES dare_ties": partial(evolve, method="dare_ties"),
    "CMA-ES ties": partial(evolve, method="ties"),
    "CMA-ES linear": partial(evolve, method="linear"),
    "CMA-ES task_arithmetic": partial(evolve, method="task_arithmetic"),
    "random": partial(product, sampler="random", seeded=False),
    "TPE": partial(product, sampler="tpe", seeded=False),
    "TPE, seeds": partial(product, sampler="tpe"),
    "TPE, seeds, Hyperband": hyperband,
    "surrogate, all questions": partial(product, sampler="surrogate"),
    OURS: partial(product, sampler="surrogate", growing=True),
}


def run(arm: str, family: int, *, last: int) -> dict[str, Any]:
    """One strategy on one made-up family; true scores of what it would recommend."""
    world = Landscape(family, questions=QUESTIONS // TASKS)
    evaluator = LandscapeEvaluator(world, world.search)
    full = QUESTIONS + BUILD
    checks = [check * full for check in CHECKS if check <= last]
    meter = Meter(evaluator=evaluator, build=BUILD, checks=checks)
    questions = divide(evaluator.catalogue(), 0.0, seed=family)
    problem = Problem(space=SPACE, questions=questions, seed=family, granularity=8)
    start = time.perf_counter()
    ARMS[arm](problem, meter)
    return {
        "truth": [round(world.truth(check.leader), 5) for check in meter.found],
        "candidates": [check.candidates for check in meter.found],
        "seconds": round(time.perf_counter() - start, 1),
    }


def top(family: int) -> float:
    """True score of the best recipe found by looking at the truth."""
    world = Landscape(family, questions=QUESTIONS // TASKS)
    return optimum(SPACE, world.truth, draws=600, steps=150)


Results = dict[str, dict[str, Any]]


def load(path: Path) -> Results:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def save(path: Path, results: Results) -> None:
    """A line for each run, so that results can be kept and compared."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arms = [
        f"{json.dumps(name)}: {{\n"
        + ",\n".join(f" {json.dumps(f)}: {json.dumps(known)}" for f, known in found.items())
        + "\n}"
        for name, found in results.items()
    ]
    write_text(path, "{\n" + ",\n".join(arms) + "\n}\n")


def regrets(results: Results, arm: str, families: list[str]) -> np.ndarray:
    """``(families, checks)`` in points, against the best recipe that anything found."""
    rows = []
    for family in families:
        found = [
            truth
            for name, by_family in results.items()
            if name != "top" and family in by_family
            for truth in by_family[family]["truth"]
        ]
        best = max(results["top"][family], *found)
        rows.append([100 * (best - truth) for truth in results[arm][family]["truth"]])
    return np.array(rows)


def show(results: Results) -> None:
    """Median regrets, with quartiles."""
    print(f"| strategy | {' | '.join(map(str, CHECKS))} | recipes | families |")
    print(f"|---|{'---|' * (len(CHECKS) + 2)}")
    for arm in ARMS:
        families = [family for family in results.get(arm, {}) if family in results["top"]]
        if not families:
            continue
        table = regrets(results, arm, families)
        cells = [
            f"{m:.1f} ({a:.1f}-{b:.1f})" for a, m, b in np.percentile(table, (25, 50, 75), 0).T
        ]
        cells += [""] * (len(CHECKS) - len(cells))
        recipes = np.median([results[arm][family]["candidates"][-1] for family in families])
        print(f"| {arm} | {' | '.join(cells)} | {recipes:.0f} | {len(families)} |")


def plot(results: Results, path: Path) -> None:
    """A picture of regrets against full evaluations, ours first."""
    from benchmarks.plot import Axes, draw

    curves = {}
    for arm in sorted(ARMS, key=lambda name: name != OURS):
        families = [family for family in results.get(arm, {}) if family in results["top"]]
        if families:
            table = regrets(results, arm, families)
            curves[arm] = np.array(CHECKS[: table.shape[1]], dtype=np.float64), table
    axes = Axes(
        x="questions asked and builds, in full evaluations",
        y="regret of the recommended recipe, points",
        title=f"{len(results['top'])} made-up families: median, band from quartile to quartile",
    )
    draw(path, curves, axes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--families", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--last", type=int, default=CHECKS[-1])
    parser.add_argument("--results", type=Path, default=Path("search_results.json"))
    parser.add_argument("--show", action="store_true", help="run nothing")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    results = load(args.results)
    for family in () if args.show else range(args.first, args.first + args.families):
        known = results.setdefault("top", {})
        if str(family) not in known:
            known[str(family)] = top(family)
        for arm in args.arms:
            if str(family) not in results.setdefault(arm, {}):
                results[arm][str(family)] = run(arm, family, last=args.last)
                save(args.results, results)
                print(
                    family,
                    arm,
                    regrets(results, arm, [str(family)]).round(1).tolist()[0],
                    f"{results[arm][str(family)]['seconds']:.0f} s",
                    flush=True,
                )
    show(results)
    if args.plot is not None:
        plot(results, args.plot)


if __name__ == "__main__":
    main()
