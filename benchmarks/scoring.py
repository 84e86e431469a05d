"""Where a worker's time goes: in the model's forward, in building, in everything else.

    python -m benchmarks.scoring                     # about 30 million parameters, on a CPU
    python -m benchmarks.scoring --layers 6 --hidden 96 --questions 200
    python -m benchmarks.scoring --device cuda --layers 25 --hidden 768    # 135 million

The demo's architecture, enlarged and untrained, with three parents: what a recipe scores means
nothing here, what it takes is what counts. Recipes are built and asked by the product's evaluator:
questions with four choices, likelihoods of one answer, short written answers, in equal parts, with
worked examples in the prompt. Then ``lm_eval.simple_evaluate`` is asked the same of the same
weights with the same batch size, from a model that is in memory; and the answers are compared.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # --threads sets torch's

import torch
from transformers import LlamaForCausalLM

from evaluators.harness.harness_evaluator import HarnessEvaluator
from evaluators.harness_spec import HarnessSpec, TaskSpec
from evaluators.protocol import Candidate, Score
from evaluators.resident_models.resident_model import choose_device
from merging.building.build import write_model
from merging.checkpoints.checkpoint import Checkpoint
from merging.planning.merge_plan import plan
from search.setup.demo_models.exercises import THREE, exercise
from search.setup.demo_models.family_training import TrainingPlan, make_tokenizer, new_model
from search.setup.demo_models.model_family import save_model
from spaces.recipes.recipe import Merge, Model, Recipe, Source, parameters

CONTEXT = 256
"""Longest text in tokens: there is room for worked examples."""

PARENTS = ("sort", "reverse", "largest")

EXAMPLES = (1, 4)
"""Fewest and most worked examples in a prompt, so that lengths differ as they do elsewhere."""

CHOICES = 4

METHODS = ("linear", "task_arithmetic", "ties", "dare_ties")

TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "choose": ("acc", {"output_type": "multiple_choice", "doc_to_choice": "choices"}),
    "expect": ("acc", {"output_type": "loglikelihood"}),
    "write": (
        "exact_match",
        {
            "output_type": "generate_until",
            "generation_kwargs": {"until": ["\n"], "do_sample": False, "max_gen_toks": 8},
        },
    ),
}
"""Metric and the lines of the task file that differ."""


def make_models(root: Path, *, layers: int, hidden: int) -> dict[str, Path]:
    """A base and parents that differ from it a little; their folders."""
    tokenizer = make_tokenizer()
    tokenizer.model_max_length = CONTEXT
    base = new_model(TrainingPlan(layers=layers, hidden=hidden), seed=0)
    base.config.max_position_embeddings = CONTEXT
    start = {name: value.clone() for name, value in base.state_dict().items()}
    folders = {}
    for number, name in enumerate(("base", *PARENTS)):
        source = torch.Generator().manual_seed(number)
        for key, value in base.state_dict().items():
            noise = torch.randn(value.shape, generator=source) if number else torch.zeros(())
            value.copy_(start[key] + 0.003 * noise)
        folders[name] = root / name
        save_model(base, tokenizer, folders[name])
    return folders


def make_tasks(root: Path, *, questions: int) -> Path:
    """Task files with so many questions each; their folder."""
    root.mkdir()
    for number, (name, (metric, body)) in enumerate(TASKS.items()):
        source, lines = random.Random(number), []
        for _ in range(questions):
            shown = [_worked(source) for _ in range(source.randint(*EXAMPLES))]
            prompt, answer = exercise(((THREE.everything, 1.0),), source)
            wrong = ["".join(source.sample(answer, len(answer))) for _ in range(CHOICES - 1)]
            line = {"question": "".join(shown) + prompt, "answer": answer}
            lines.append(json.dumps(line | {"choices": [answer, *wrong], "gold": 0}))
        data = root / f"{name}.jsonl"
        data.write_text("\n".join(lines) + "\n", encoding="utf-8")
        task = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(data)}},
            "test_split": "test",
            "doc_to_text": "{{question}}",
            "doc_to_target": "gold" if name == "choose" else "answer",
            "target_delimiter": "",
            "metric_list": [{"metric": metric, "aggregation": "mean", "higher_is_better": True}],
        }
        (root / f"{name}.yaml").write_text(json.dumps(task | body), encoding="utf-8")
    return root


def _worked(source: random.Random) -> str:
    prompt, answer = exercise(((THREE.everything, 1.0),), source)
    return f"{prompt}{answer}\n"


def recipes(count: int) -> list[Recipe]:
    """Different merges of all parents, by methods in turn."""
    source, found = random.Random(0), []
    for number in range(count):
        method = METHODS[number % len(METHODS)]
        weights = {name: source.uniform(0.2, 1.0) for name in PARENTS}
        extra = {"density": 0.5} if "ties" in method else {}
        sources = tuple(
            Source(of=Model(name), parameters=parameters(weight=weight, **extra))
            for name, weight in weights.items()
        )
        base = None if method == "linear" else Model("base")
        found.append(Recipe(root=Merge(method=method, base=base, sources=sources)))
    return found


@dataclass
class Stopwatch:
    """Seconds in the forward of all models, and how often."""

    seconds: float = 0.0
    calls: int = 0

    def watch(self) -> None:
        """Time every forward from now on."""
        forward = LlamaForCausalLM.forward

        @functools.wraps(forward)
        def timed(model: Any, *args: Any, **options: Any) -> Any:
            began = _now()
            try:
                return forward(model, *args, **options)
            finally:
                self.seconds += _now() - began
                self.calls += 1

        LlamaForCausalLM.forward = timed  # type: ignore[method-assign]


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What was done with a recipe.

    Attributes:
        questions: How many were asked.
        values: Of the tasks.
        build: Seconds of building.
    """

    questions: int
    values: dict[str, float]
    build: float = 0.0


@dataclass(kw_only=True)
class Spent:
    """What some candidates took, in seconds."""

    name: str
    questions: int = 0
    total: float = 0.0
    build: float = 0.0
    forward: float = 0.0
    calls: int = 0

    def add(self, watch: Stopwatch, work: Callable[[], Work]) -> dict[str, float]:
        """Do some work; the values of the tasks."""
        before, calls, began = watch.seconds, watch.calls, _now()
        done = work()
        self.total += _now() - began
        self.forward += watch.seconds - before
        self.calls += watch.calls - calls
        self.questions += done.questions
        self.build += done.build
        return done.values

    def row(self, reference: Spent) -> str:
        """A line of the table."""
        rest = self.total - self.forward - self.build
        rate = self.questions / self.total
        cells = [self.name, f"{self.total:.2f}", str(self.calls)]
        cells += [f"{part / self.total:.1%}" for part in (self.forward, self.build, rest)]
        faster = rate / (reference.questions / reference.total)
        return f"| {' | '.join([*cells, f'{rate:.0f}', f'{faster:.2f}'])} |"


def compare(args: argparse.Namespace, root: Path) -> None:
    """Score recipes in both ways, turn by turn, and print where the time went."""
    folders = make_models(root, layers=args.layers, hidden=args.hidden)
    tasks = make_tasks(root / "tasks", questions=args.questions)
    spec = HarnessSpec(
        models=tuple((name, str(folder)) for name, folder in folders.items()),
        tasks=tuple(TaskSpec(name=name, metric=metric) for name, (metric, _) in TASKS.items()),
        include_path=(str(tasks),),
        batch_size=args.batch,
        device=args.device,
        threads=args.threads,
    )
    watch, ours, theirs = Stopwatch(), Spent(name="this"), Spent(name="simple_evaluate")
    watch.watch()
    began = time.perf_counter()
    evaluator = HarnessEvaluator(spec)
    setup = time.perf_counter() - began
    asked = tuple(question.id for question in evaluator.catalogue().questions)
    checkpoints = {name: Checkpoint.open(str(at), name=name) for name, at in folders.items()}
    size = sum(math.prod(info.shape) for info in checkpoints["base"].tensors.values())
    drawn = recipes(len(METHODS) + args.recipes)
    first, rest = drawn[: len(METHODS)], drawn[len(METHODS) :]
    for recipe in first:  # a run computes what depends on the parents alone before it begins
        evaluator.evaluate(Candidate(id=0, recipe=recipe, questions=asked[:1]))
    differing: Counter[str] = Counter()
    for number, recipe in enumerate(rest):
        score = ours.add(watch, functools.partial(ask, evaluator, number, recipe, asked))
        written = root / f"merged{number}"
        place = choose_device(args.device)
        write_model(plan(recipe, checkpoints), checkpoints, written, device=place)
        values = theirs.add(watch, Reference(written, spec).ask)
        other = {name for name in values if score[name] != values[name]}
        if other and place.type == "cpu":  # on a GPU the order of sums may depend on the batch
            raise AssertionError((score, values))
        differing.update(other)
    evaluator.close()
    print(
        f"{size / 1e6:.1f} M parameters, {len(asked)} questions, {args.recipes} recipes, batch "
        f"{args.batch}, {args.threads} threads, set-up {setup:.1f} s, torch {torch.__version__}\n"
    )
    print("| | s | forwards | in forward | building | rest | questions/s | times as fast |")
    print("|---|---|---|---|---|---|---|---|")
    print(ours.row(theirs))
    print(theirs.row(theirs))
    if differing:
        print(f"\nvalues that were not the same, by task: {dict(differing)}")


def ask(evaluator: HarnessEvaluator, number: int, recipe: Recipe, asked: tuple[str, ...]) -> Work:
    """One recipe, scored by the product."""
    found = evaluator.evaluate(Candidate(id=number, recipe=recipe, questions=asked))
    assert isinstance(found, Score), found
    values = {task.task: task.value for task in found.tasks}
    return Work(questions=len(found.outcomes), values=values, build=found.build_seconds)


class Reference:
    """lm-eval's own way, on a model in memory."""

    def __init__(self, folder: Path, spec: HarnessSpec) -> None:
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager

        self._tasks = [task.name for task in spec.tasks]
        self._metric = {task.name: f"{task.metric},none" for task in spec.tasks}
        self._manager = TaskManager(include_path=list(spec.include_path), include_defaults=False)
        device = str(choose_device(spec.device))
        self._lm = HFLM(
            pretrained=str(folder), device=device, batch_size=spec.batch_size, dtype="auto"
        )

    def ask(self) -> Work:
        """All questions."""
        from lm_eval import simple_evaluate

        found = simple_evaluate(
            model=self._lm, tasks=self._tasks, task_manager=self._manager, bootstrap_iters=0
        )
        values = {name: found["results"][name][key] for name, key in self._metric.items()}
        questions = sum(number["effective"] for number in found["n-samples"].values())
        return Work(questions=questions, values=values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=13)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--questions", type=int, default=60, help="of each kind")
    parser.add_argument("--recipes", type=int, default=4)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(args, Path(folder))


if __name__ == "__main__":
    main()
