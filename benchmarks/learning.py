"""Coefficients learned from search questions, on the families of ``benchmarks.tiny``.

    python -m benchmarks.learning                     # ten families
    python -m benchmarks.learning --seeds 3 --show
    python -m benchmarks.learning --whole equal 2 3   # whole runs, without learning and with it

For each family a weight for every parent, layer and kind of tensor is learned as ``search run``
does it (``search/engine/learning/coefficient_learning.py``), for what 2, 5 and 10 full evaluations
cost, and the result is asked the held-out questions. A differentiated question counts as three, a
build as in ``benchmarks.tiny``. The search without learning is read from the results of
``benchmarks.tiny``.

``--whole`` compares whole runs of the product for the price of 10 full evaluations, which differ in
nothing but ``search.learn``; in the family ``equal`` all parents are the same model, and learning
has little to bring.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median, stdev

from benchmarks.tiny import BUILD, OURS, SEARCHED, World  # first: it sets one thread

# isort: split
from benchmarks.strategies import Quiet
from evaluators.harness.harness_evaluator import HarnessEvaluator
from evaluators.workers.pool import Pool, SerialPool
from merging.checkpoints.checkpoint import Checkpoint
from runs.config.config_sections import LearnSection
from runs.config.run_config import RunConfig, load_config
from runs.ranking.leaderboard import ranked
from runs.records.record import LEARNED
from runs.storage.store import Store
from search.engine.final_check import reserve
from search.engine.learning.adam_descent import per_task
from search.engine.learning.coefficient_learning import Learning
from search.engine.learning.learning_plan import (
    BACKWARD,
    LOOK,
    MOST_ASIDE,
    filters_of,
    starts,
)
from search.engine.learning.learning_progress import spent
from search.engine.preparation.run_preparation import prepare
from search.engine.processes.stop_signals import Stop
from search.engine.session import Session
from search.inputs.given_config import GivenConfig
from search.samplers.estimation.posterior import judged
from search.setup.demo_models.model_family import make_family
from spaces.recipes.recipe import Recipe
from spaces.sampling.seed_recipes import seeds

TASKS = 4
"""Of a family."""

CHECKS = (2, 5, 10)
"""Full evaluations whose price is paid."""

WHOLE = 10
"""Full evaluations that a whole run may cost before its final check."""

EQUAL = "equal"
"""The family whose parents are all the same."""


def steps_paid_for(check: float) -> int:
    """Steps of one recipe for the price of so many full evaluations, builds included."""
    each = BACKWARD * TASKS * per_task(LearnSection().batch, TASKS) + MOST_ASIDE / LOOK + BUILD
    return int(check * (SEARCHED + BUILD) / each)


def start_of(world: World, config: RunConfig) -> Recipe:
    """What learning begins at: a weight for every parent, layer and kind of tensor, all alike."""
    layers = Checkpoint.open(config.locations["base"], name="base").layout.layers
    (start,) = starts(world.space, layers=len(layers), filters=filters_of(layers), most=1).values()
    return start


def learned(
    world: World,
    config: RunConfig,
    *,
    steps: int,
    pool: Pool | None = None,
    start: Recipe | None = None,
) -> tuple[Recipe, float]:
    """What a run learns in so many steps, and the questions that it costs."""
    prepared = prepare(GivenConfig(config=config, written=config), dry_run=False)
    begun = {f"{LEARNED}by layer": start or start_of(world, config)}
    with tempfile.TemporaryDirectory() as home:
        manifest = replace(prepared.manifest, questions=world.questions)
        store = Store.create(str(Path(home) / "study.db"), manifest)
        store.hold()
        (seed,) = Learning(
            store=store,
            space=world.space,
            pool=pool or SerialPool(lambda: world.evaluator),
            monitor=Quiet(),
            stop=Stop(),
            section=LearnSection(),
            steps=steps,
            seed=world.seed,
        ).run(begun)
        questions = spent(store).questions
        store.close()
    return seed.recipe, questions


def measure(folder: Path, seed: int) -> dict[str, list[float]]:
    """Held-out score and questions paid for, at each check."""
    world = World.of(folder, seed=seed, hard=True)
    config = load_config(make_family(folder, seed=seed, hard=True).config)
    found: dict[str, list[float]] = {"held_out": [], "questions": [], "steps": []}
    for check in CHECKS:
        steps = steps_paid_for(check)
        recipe, questions = learned(world, config, steps=steps)
        found["questions"].append(questions + BUILD * steps)
        found["steps"].append(steps)
        found["held_out"].append(world.held_out(recipe))
    world.evaluator.close()
    return found


def whole(world: World, config: RunConfig, *, learn: str, seed: int) -> dict[str, float | str]:
    """What a run ends with that may cost ``WHOLE`` full evaluations and the final check."""
    paid = WHOLE * SEARCHED
    config = config.replaced(
        {
            "search.validate": 1,
            "search.learn": learn,
            "search.seed": seed,
            "search.questions": paid,
        }
    )
    kept_back = reserve(config, world.questions, top=1, seeds=len(seeds(world.space)))
    config = config.replaced({"search.questions": paid + kept_back})
    prepared = prepare(GivenConfig(config=config, written=config), dry_run=False)
    with tempfile.TemporaryDirectory() as home:
        manifest = replace(prepared.manifest, questions=world.questions)
        store = Store.create(str(Path(home) / "study.db"), manifest)
        store.hold()
        pool = SerialPool(lambda: HarnessEvaluator(config.harness_spec()))
        checkpoints = prepared.checkpoints
        Session(store, config, pool=pool, monitor=Quiet(), checkpoints=checkpoints).run()
        best = ranked(judged(store))[0]
        learning = spent(store).questions
        store.close()
    held_out = world.held_out(best.recipe)
    return {"held_out": held_out, "origin": best.origin, "learning": learning}


def compare(folder: Path, name: str, runs: int) -> dict[str, list[dict[str, float | str]]]:
    """Whole runs of a family, without learning and with it; the seed of the search differs."""
    seed = 0 if name == EQUAL else int(name)
    family = make_family(folder / f"hard{seed}", seed=seed, hard=True)
    config = load_config(family.config)
    with tempfile.TemporaryDirectory() as home:
        if name == EQUAL:
            copies = {one: str(Path(home) / one) for one in family.models}
            for copy in copies.values():
                shutil.copytree(next(iter(family.models.values())), copy)
            config = config.replaced({"models": copies})
        world = World.over(config, seed=seed)
        found = {
            learn: [whole(world, config, learn=learn, seed=one) for one in range(runs)]
            for learn in ("off", "auto")
        }
        world.evaluator.close()
    return found


Results = dict[str, dict[str, list[float]]]


def show(results: Results, searched: Results) -> None:
    """The table of docs/performance.md."""
    learned = " | ".join(f"learned after {one}" for one in CHECKS)
    print(f"| family | {learned} | search after 10 | after 40 |")
    print("|---|" + "---|" * (len(CHECKS) + 2))
    rows = []
    for seed, found in sorted(results.items(), key=lambda item: int(item[0])):
        ours = searched.get(seed, {}).get("held_out", [])
        row = [*found["held_out"], *(ours[at] if len(ours) > at else float("nan") for at in (2, 4))]
        rows.append(row)
        print(f"| {seed} | " + " | ".join(f"{value:.3f}" for value in row) + " |")
    middle = [median(column) for column in zip(*rows, strict=True)]
    print("| median | " + " | ".join(f"{value:.3f}" for value in middle) + " |")


def show_whole(args: argparse.Namespace) -> None:
    """Compare whole runs that are not in the results yet, and print the table."""
    path = args.results.with_name("learning_whole.json")
    results = json.loads(path.read_text()) if path.exists() else {}
    for name in () if args.show else args.whole:
        if name not in results:
            results[name] = compare(args.folder, name, args.runs)
            path.write_text(json.dumps(results, indent=1) + "\n")
            print(name, results[name], flush=True)
    print("| family | without learning | with learning | difference |\n|---|---|---|---|")
    for name, found in results.items():
        off, on = ([one["held_out"] for one in found[learn]] for learn in ("off", "auto"))
        more = [b - a for a, b in zip(off, on, strict=True)]
        error = stdev(more) / math.sqrt(len(more)) if len(more) > 1 else math.nan
        print(f"| {name} | {fmean(off):.3f} | {fmean(on):.3f} | {fmean(more):+.4f} ± {error:.4f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="families")
    parser.add_argument("--folder", type=Path, default=Path("benchmarks/families"))
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/learning.json"))
    parser.add_argument("--show", action="store_true", help="only print what is there")
    parser.add_argument("--whole", nargs="+", default=[], metavar="FAMILY", help="whole runs")
    parser.add_argument("--runs", type=int, default=3, help="whole runs of each kind")
    args = parser.parse_args()
    if args.whole:
        show_whole(args)
        return
    results = json.loads(args.results.read_text()) if args.results.exists() else {}
    for seed in range(0 if args.show else args.seeds):
        if str(seed) not in results:
            results[str(seed)] = measure(args.folder / f"hard{seed}", seed)
            args.results.write_text(json.dumps(results, indent=1) + "\n")
            print(seed, results[str(seed)], flush=True)
    tiny = args.results.with_name("tiny_hard.json")
    show(results, json.loads(tiny.read_text()).get(OURS, {}) if tiny.exists() else {})


if __name__ == "__main__":
    main()
