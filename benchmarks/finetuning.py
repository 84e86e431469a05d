"""What a user would do instead: fine-tune the plain average on the same questions.

    python -m benchmarks.finetuning --seeds 3         # tiny families, beside benchmarks.learning
    python -m benchmarks.finetuning --show

The plain average is fine-tuned on the questions that coefficients are learned from, in the same
batches and by the same loss (that of right answers, here with the line's end that closes a written
one), for the price of 2, 5 and 10 full evaluations, a question counting as three: all weights, or
LoRA of rank 16 on all linear layers. Beside the held-out score stands that of a skill which no
question asks for: what is forgotten.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from benchmarks.learning import learned, steps_paid_for
from benchmarks.tiny import BUILD, World  # first: it sets one thread
from benchmarks.tuning import ALL, CHECKS, LORA, Bench, Scores, steps_paid

# isort: split
import torch

from evaluators.harness.harness_evaluator import HarnessEvaluator
from evaluators.protocol import Candidate, Score
from runs.config.run_config import RunConfig, load_config
from search.setup.demo_models.demo_tasks import task_name, write_task
from search.setup.demo_models.exercises import examination
from search.setup.demo_models.model_family import QUESTIONS, ModelFamily, make_family
from spaces.recipes.recipe import Recipe
from spaces.sampling.seed_recipes import seeds

KEPT = "copy"
"""A skill that the base of a tiny family has and that nobody trains."""

BATCH = 12
"""Questions of a step of fine-tuning."""

RATES = {ALL: (1e-4, 3e-4), LORA: (1e-3, 3e-3)}
"""Rates of which the better one, by held-out score, is shown: fine-tuning is given that much."""


def examiner(home: Path, family: ModelFamily, seed: int) -> HarnessEvaluator:
    """An evaluator that knows the tasks of a family, and one more."""
    tasks = home / "tasks"
    shutil.copytree(family.tasks, tasks)
    write_task(tasks, KEPT, examination(KEPT, QUESTIONS, seed=seed), chosen=False, seed=seed)
    config = load_config(family.config)
    more = {"name": task_name(KEPT), "metric": "exact_match,none"}
    changes = {"tasks": [*config.to_dict()["tasks"], more], "include_path": str(tasks)}
    return HarnessEvaluator(config.replaced(changes).harness_spec())


def measure(folder: Path, seed: int) -> dict[str, Any]:
    """Held-out score and kept skill of the average, of what is learned, and of what is tuned."""
    family = make_family(folder, seed=seed, hard=True)
    world = World.of(folder, seed=seed, hard=True)
    trained = [one.name for one in world.evaluator.catalogue().tasks]
    average = next(one.recipe for one in seeds(world.space) if one.name == "plain average")
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as home:
        evaluator = examiner(Path(home), family, seed)
        kept = tuple(q.id for q in evaluator.catalogue().questions if q.task == task_name(KEPT))
        asked = (*world.questions.held_out, *kept)

        def exam(recipe: Recipe) -> tuple[float, float]:
            score = evaluator.evaluate(Candidate(id=0, recipe=recipe, questions=asked))
            assert isinstance(score, Score), score
            return _summary({one.task: one for one in score.tasks}, trained)

        found["plain average"] = [exam(average)]
        learned = [learn(world, load_config(family.config), check) for check in CHECKS]
        found["learned coefficients"] = [exam(recipe) for recipe in learned]
        bench = Bench(
            evaluator=evaluator,
            start=average,
            questions=world.questions,
            trained=trained,
            batch=BATCH,
            seed=seed,
        )
        full = len(world.questions.search) + BUILD
        steps = [steps_paid(check, full, bench.batch) for check in CHECKS]
        for way, rates in RATES.items():
            for rate in rates:
                scores = bench.tuned(way, rate, steps, asked)
                found[f"{way}, rate {rate:g}"] = [_summary(one, trained) for one, _ in scores]
        evaluator.close()
    world.evaluator.close()
    return found


def learn(world: World, config: RunConfig, check: int) -> Recipe:
    """Coefficients for the price of some full evaluations, as a run learns them."""
    return learned(world, config, steps=steps_paid_for(check))[0]


def _summary(scores: Scores, trained: Sequence[str]) -> tuple[float, float]:
    """Mean of the trained tasks, and the kept skill."""
    return fmean(scores[name].value for name in trained), scores[task_name(KEPT)].value


def show(results: Mapping[str, Any]) -> None:
    """The table of docs/performance.md: medians over the families."""
    print(f"| what | {' | '.join(f'held out after {one}' for one in CHECKS)} | not trained |")
    print("|---|" + "---|" * (len(CHECKS) + 1))
    for name in next(iter(results.values())):
        runs = [found[name] for found in results.values()]
        scores = [median(run[at][0] for run in runs) for at in range(len(runs[0]))]
        kept = median(run[-1][1] for run in runs)
        cells = [f"{one:.3f}" for one in scores] + [""] * (len(CHECKS) - len(scores))
        print(f"| {name} | {' | '.join(cells)} | {kept:.3f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="families")
    parser.add_argument("--folder", type=Path, default=Path("benchmarks/families"))
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/finetuning.json"))
    parser.add_argument("--show", action="store_true", help="only print what is there")
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = json.loads(args.results.read_text()) if args.results.exists() else {}
    for seed in range(0 if args.show else args.seeds):
        if str(seed) not in results:
            results[str(seed)] = measure(args.folder / f"hard{seed}", seed)
            args.results.write_text(json.dumps(results, indent=1) + "\n")
            print(seed, json.dumps(results[str(seed)]), flush=True)
    show(results)


if __name__ == "__main__":
    main()
