"""Learning, searching and fine-tuning on a family of real models of 135 million parameters.

    python -m benchmarks.real_family --gguf FILE --folder benchmarks/families/real
    python -m benchmarks.real --folder benchmarks/families/real
    python -m benchmarks.real --show --plot docs/images/real.svg

Every arm may spend what 2, 5 and 10 evaluations on all search questions cost; a question that is
differentiated counts as three. ``search`` and ``learn`` are whole runs of the product whose config
sets nothing but that budget, and that one recipe is checked at the end; CMA-ES is mergekit-evolve's
way; fine-tuning begins with the plain average. Results are kept as each arm ends, and answers as
they come: a second call goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy is loaded: one core
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch

from benchmarks.asking import Meter
from benchmarks.real_family import KEPT, TRAINED
from benchmarks.remembered import Remembered
from benchmarks.strategies import Problem, evolve
from benchmarks.tuning import ALL, CHECKS, LORA, Bench, Scores, steps_paid
from evaluators.harness.harness_evaluator import HarnessEvaluator
from evaluators.protocol import Candidate, Catalogue, Score
from evaluators.workers.pool import SerialPool
from runs.config.run_config import RunConfig
from runs.ranking.leaderboard import ranked
from runs.records.record import Record, Split
from runs.storage.store import Store
from search.engine.driver import quiet_libraries
from search.engine.final_check import reserve
from search.engine.learning.learning_progress import spent
from search.engine.preparation.run_preparation import PreparedRun, prepare
from search.engine.session import Session
from search.inputs.given_config import GivenConfig
from search.monitoring.study_report import write_outputs
from search.samplers.estimation.posterior import judged
from spaces.recipes.recipe import Merge, Model, Recipe, Source, parameters
from spaces.sampling.seed_recipes import seeds

GRANULARITY = 10
"""Layers that share their values in mergekit-evolve's way: as many depths as our space has."""

HAND_SET = (1.0, 1.5)
"""Weights of all parents in recipes of task arithmetic that are set by hand."""

RATES = {ALL: 1e-4, LORA: 1e-3}

BATCH = 12

CONFIG = """\
base: ./base
models:
  orders: ./orders
  dates: ./dates
  desks: ./desks
tasks:
  - {name: orders, metric: "exact_match,none"}
  - {name: dates, metric: "exact_match,none"}
  - {name: desks, metric: "acc,none"}
include_path: ./tasks
held_out: 0.5455
output: {dtype: float32}
"""
"""What a user would write, but for the budget. Of 110 questions of each task 60 are held out."""


class Quiet:
    """A monitor that prints what is worth a line."""

    def update(self, *_: object) -> None:
        """Nothing to do."""

    def note(self, text: str) -> None:
        print(f"    {text}", flush=True)

    def close(self) -> None:
        """Nothing is open."""


@dataclass(kw_only=True)
class World:
    """The family, a resident model, and what can be asked of it."""

    folder: Path
    answers: Path
    checks: Sequence[int] = CHECKS
    batch: int = BATCH

    @cached_property
    def prepared(self) -> PreparedRun:
        return prepare(GivenConfig(config=self.config, written=self.config), dry_run=False)

    @cached_property
    def config(self) -> RunConfig:
        path = self.folder / "search.yaml"
        path.write_text(CONFIG)
        from runs.config.run_config import load_config

        return load_config(path)

    @cached_property
    def evaluator(self) -> HarnessEvaluator:
        """Knows one more task than the search."""
        known = self.config.to_dict()["tasks"]
        more = {"name": KEPT, "metric": "acc,none"}
        return HarnessEvaluator(self.config.replaced({"tasks": [*known, more]}).harness_spec())

    @cached_property
    def remembered(self) -> Remembered:
        return Remembered(self.evaluator, self.answers)

    @property
    def kept(self) -> tuple[str, ...]:
        """Questions of the skill that nothing trains."""
        return tuple(x.id for x in self.evaluator.catalogue().questions if x.task == KEPT)

    @property
    def full(self) -> int:
        """Questions of one evaluation."""
        return len(self.prepared.manifest.questions.search)

    def exam(self, recipe: Recipe) -> dict[str, Any]:
        """How good a recipe is on held-out questions and on the skill that nothing trains."""
        found: dict[str, Any] = {}
        for names in (self.prepared.manifest.questions.held_out, self.kept):
            score = self.remembered.evaluate(Candidate(id=0, recipe=recipe, questions=names))
            assert isinstance(score, Score), score
            found |= {one.task: one for one in score.tasks}
        built = self.evaluator._built(recipe)
        return summary(found) | {"kept_loss": self.bench.loss(built, self.kept)}

    @cached_property
    def bench(self) -> Bench:
        """The plain average, to be fine-tuned on the search questions."""
        first = seeds(self.prepared.space)
        return Bench(
            evaluator=self.evaluator,
            start=next(one.recipe for one in first if one.name == "plain average"),
            questions=self.prepared.manifest.questions,
            trained=TRAINED,
            batch=self.batch,
            seed=0,
        )


class Searched(Remembered):
    """What a run sees: the tasks of its config."""

    def __init__(self, world: World) -> None:
        super().__init__(world.evaluator, world.answers)
        self._seen = world.prepared.manifest.catalogue

    def catalogue(self) -> Catalogue:
        return self._seen

    def close(self) -> None:
        """The model is used again."""


def summary(scores: Scores) -> dict[str, Any]:
    """Mean of the trained tasks with its standard error, every task, and the kept skill."""
    trained = [scores[name] for name in TRAINED]
    return {
        "held_out": math.fsum(one.value for one in trained) / len(trained),
        "stderr": math.sqrt(math.fsum(one.stderr**2 for one in trained)) / len(trained),
        "tasks": {one.task: one.value for one in trained},
        "kept": scores[KEPT].value,
        "kept_stderr": scores[KEPT].stderr,
    }


def baselines(world: World) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every parent, the base, the plain average and recipes set by hand."""
    space = world.prepared.space
    assert space.base is not None
    for name in (space.base, *space.parents):
        source = Source(of=Model(name), parameters=parameters(weight=1.0))
        root = Merge(method="linear", sources=(source,))
        yield f"{name} alone", world.exam(Recipe(root=root, dtype="float32"))
    for weight in HAND_SET:
        sources = tuple(
            Source(of=Model(name), parameters=parameters(weight=weight)) for name in space.parents
        )
        root = Merge(method="task_arithmetic", sources=sources, base=Model(space.base))
        yield (
            f"task_arithmetic, all weights {weight:g}",
            world.exam(Recipe(root=root, dtype="float32")),
        )
    for seed in seeds(space):
        if len(seed.recipe.models) > 2:
            yield seed.name, world.exam(seed.recipe)


def run(world: World, check: int, *, learn: str) -> dict[str, Any]:
    """A whole run of the product with nothing set but the budget, and `learn`."""
    config = world.config
    top, first, paid = 1, len(seeds(world.prepared.space)), check * world.full
    config = config.replaced(
        {"search.questions": paid, "search.learn": learn, "search.validate": top}
    )
    checked = reserve(config, world.prepared.manifest.questions, top=top, seeds=first)
    config = config.replaced({"search.questions": paid + checked})
    prepared = prepare(GivenConfig(config=config, written=config), dry_run=False)
    folder = world.folder / "runs" / f"{check} learn {learn}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with quiet_libraries():
        store = Store.create(str(folder / "study.db"), prepared.manifest)
        store.hold()
        pool = SerialPool(lambda: Searched(world))
        checkpoints = prepared.checkpoints
        Session(store, config, pool=pool, monitor=Quiet(), checkpoints=checkpoints).run()
        write_outputs(store, config, folder)
        records = judged(store)
        best = ranked(records)[0]
        found: dict[str, Any] = {"origin": best.origin, "recipes": len(records)}
        learning, asked = spent(store).questions, searched(records)
        found |= {"learning": learning, "paid": (learning + asked) / world.full}
        store.close()
    return world.exam(best.recipe) | found


def runs(world: World, learn: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Runs of the product, the longest first."""
    for check in reversed(world.checks):
        yield check, run(world, check, learn=learn)


def searched(records: Sequence[Record]) -> int:
    """Search questions that were asked."""
    return sum(one.evaluations[Split.SEARCH].asked for one in records)


def evolved(world: World, method: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """CMA-ES for one method, at each check."""
    meter = Meter(
        evaluator=world.remembered, build=0, checks=[one * world.full for one in world.checks]
    )
    manifest = world.prepared.manifest
    problem = Problem(
        space=world.prepared.space, questions=manifest.questions, seed=0, granularity=GRANULARITY
    )
    evolve(problem, meter, method=method)
    for check, found in zip(world.checks, meter.found, strict=True):
        yield check, world.exam(found.leader) | {"recipes": found.candidates}


def tuned(world: World, way: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The plain average fine-tuned, at each check."""
    steps = [steps_paid(check, world.full, world.batch) for check in world.checks]
    asked = (*world.prepared.manifest.questions.held_out, *world.kept)
    found = world.bench.tuned(way, RATES[way], steps, asked)
    for check, paid, (scores, built) in zip(world.checks, steps, found, strict=True):
        loss = world.bench.loss(built, world.kept)
        yield check, summary(scores) | {"steps": paid, "kept_loss": loss}


ARMS = {
    "learn": partial(runs, learn="auto"),
    f"fine-tuning, {ALL}": partial(tuned, way=ALL),
    "search": partial(runs, learn="off"),
    f"fine-tuning, {LORA}": partial(tuned, way=LORA),
    "CMA-ES task_arithmetic": partial(evolved, method="task_arithmetic"),
}


def show(results: dict[str, Any]) -> None:
    """The tables of docs/performance.md."""
    print("| what | orders | dates | desks | held out | not trained |\n|---|---|---|---|---|---|")
    for name, one in results.get("baselines", {}).items():
        print(f"| {name} | {_cells(one)} |")
    print(f"\n| arm | full evaluations | {' | '.join(TRAINED)} | held out | not trained |")
    print("|---|---|---|---|---|---|---|")
    for arm in (one for one in results if one != "baselines"):
        for check, one in sorted(results[arm].items(), key=lambda item: int(item[0])):
            print(f"| {arm} | {check} | {_cells(one)} |")


def _cells(one: dict[str, Any]) -> str:
    tasks = " | ".join(f"{one['tasks'][name]:.2f}" for name in TRAINED)
    held_out = f"{one['held_out']:.3f} ± {one['stderr']:.3f}"
    return f"{tasks} | {held_out} | {one['kept']:.2f} ± {one['kept_stderr']:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("benchmarks/families/real"))
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/real.json"))
    parser.add_argument("--checks", nargs="+", type=int, default=CHECKS, help="full evaluations")
    parser.add_argument("--arms", nargs="+", default=["baselines", *ARMS])
    parser.add_argument("--batch", type=int, default=BATCH, help="questions a step of fine-tuning")
    parser.add_argument("--show", action="store_true", help="only print what is there")
    args = parser.parse_args()
    results = json.loads(args.results.read_text()) if args.results.exists() else {}
    world = World(
        folder=args.folder.absolute(),
        answers=args.folder / "answers.jsonl",
        checks=sorted(args.checks),
        batch=args.batch,
    )
    torch.set_num_threads(1)
    for arm in () if args.show else args.arms:
        kind = "" if args.batch == BATCH else f", {args.batch} questions a step"
        known = results.setdefault(f"{arm}{kind}", {})
        if arm != "baselines" and all(str(one) in known for one in world.checks):
            continue
        found = baselines(world) if arm == "baselines" else ARMS[arm](world)
        for name, one in found:
            known[str(name)] = one
            args.results.write_text(json.dumps(results, indent=1) + "\n")
            print(f"{arm}, {name}: {_cells(one)}", flush=True)
    show(results)


if __name__ == "__main__":
    main()
