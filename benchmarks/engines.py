"""Tokens through the forward pass, by engine: a measure that no busy machine disturbs.

    python -m benchmarks.engines choices                # five worked examples, four choices
    python -m benchmarks.engines choices --letters              # choices of one token
    python -m benchmarks.engines choices --sampler default      # other examples for each question

The demo's architecture, untrained: what it scores means nothing, what it reads is what counts,
padding included. The engine's scores are those of lm-eval's on the same weights, or it ends.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from transformers import LlamaForCausalLM

from benchmarks.scoring import make_models
from evaluators.harness.engines.engine_choice import ENGINES
from evaluators.harness.harness_evaluator import HarnessEvaluator
from evaluators.harness_spec import HarnessSpec, TaskSpec
from evaluators.protocol import Candidate, Failure, Score
from spaces.recipes.recipe import Merge, Model, Recipe, Source, parameters

SHOTS, SHOT, QUESTION, CHOICES, CHOICE = 5, 140, 60, 4, 8
"""Worked examples, and the tokens (here characters) of each, of a question and of a choice."""

CONTEXT = 1024


def make_choices(root: Path, *, questions: int, letters: bool, sampler: str) -> Path:
    """A multiple-choice task with worked examples; its folder."""
    root.mkdir()
    source = random.Random(0)

    def row(length: int) -> dict[str, Any]:
        choices = ["".join(source.choices("abcdefgh", k=CHOICE)) for _ in range(CHOICES)]
        choices = list("abcd") if letters else choices
        text = "".join(source.choices("abcdefgh", k=length - 1))
        return {"question": text + ">", "choices": choices, "gold": source.randrange(CHOICES)}

    shot = SHOT - (1 if letters else CHOICE)
    shown = SHOTS if sampler == "first_n" else 10 * SHOTS
    for name, rows in (
        ("test", [row(QUESTION) for _ in range(questions)]),
        ("shots", [row(shot) for _ in range(shown)]),
    ):
        text = "\n".join(map(json.dumps, rows)) + "\n"
        (root / f"{name}.jsonl").write_text(text, encoding="utf-8")
    task = {
        "task": "choose",
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {"test": str(root / "test.jsonl"), "train": str(root / "shots.jsonl")}
        },
        "test_split": "test",
        "fewshot_split": "train",
        "fewshot_config": {"sampler": sampler},
        "num_fewshot": SHOTS,
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "choices",
        "doc_to_target": "gold",
        "target_delimiter": "",
        "fewshot_delimiter": "",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    (root / "choose.yaml").write_text(json.dumps(task), encoding="utf-8")
    return root


class Tokens:
    """Counts what goes through the forward of all models."""

    def __init__(self) -> None:
        self.read = 0
        forward = LlamaForCausalLM.forward

        def counting(model: Any, input_ids: Any = None, **options: Any) -> Any:
            self.read += input_ids.numel()
            return forward(model, input_ids=input_ids, **options)

        LlamaForCausalLM.forward = counting  # type: ignore[method-assign]


def compare(spec: HarnessSpec, engine: str, tokens: Tokens) -> tuple[int, Score, dict[str, float]]:
    """Tokens, score, and the loss of each right answer, of a merge."""
    evaluator = HarnessEvaluator(spec)
    asked = tuple(question.id for question in evaluator.catalogue().questions)
    sources = tuple(
        Source(of=Model(name), parameters=parameters(weight=0.5)) for name in ("sort", "reverse")
    )
    recipe = Recipe(root=Merge(method="linear", sources=sources))
    candidate = Candidate(id=0, recipe=recipe, questions=asked)
    before = tokens.read
    score = evaluator.evaluate(candidate)
    read = tokens.read - before
    losses = evaluator.losses(candidate)
    evaluator.close()
    assert isinstance(score, Score), score
    assert not isinstance(losses, Failure), losses
    print(f"| {engine} | {read:,} | {score.value:.4f} |", flush=True)
    return read, score, dict(losses)


def choices(args: argparse.Namespace, root: Path) -> None:
    """Every engine on the same questions."""
    models = make_models(root, layers=args.layers, hidden=args.hidden)
    tasks = make_choices(
        root / "tasks", questions=args.questions, letters=args.letters, sampler=args.sampler
    )
    tokens, found = Tokens(), {}
    print("| engine | tokens through the forward | accuracy |\n|---|---|---|")
    for engine in ENGINES:
        spec = HarnessSpec(
            models=tuple((name, str(folder)) for name, folder in models.items()),
            tasks=(TaskSpec(name="choose"),),
            include_path=(str(tasks),),
            engine=engine,
            device=args.device,
            max_length=CONTEXT,
            threads=1,
            check_degenerate=False,
        )
        found[engine] = compare(spec, engine, tokens)
    (before, static, losses), (after, shared, others) = (found[name] for name in ENGINES)
    assert static.tasks == shared.tasks, (static.tasks, shared.tasks)
    far = max(abs(losses[name] - others[name]) for name in losses)
    assert far < 1e-4, far
    print(f"\n{after / before:.3f} of lm-eval's tokens; losses differ by at most {far:.1e} nats")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    kinds = parser.add_subparsers(required=True)
    asked = kinds.add_parser("choices", help="multiple choice with worked examples")
    asked.add_argument("--questions", type=int, default=40)
    asked.add_argument("--letters", action="store_true", help="choices of one token")
    asked.add_argument("--sampler", choices=["first_n", "default"], default="first_n")
    asked.set_defaults(work=choices)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        args.work(args, Path(folder))


if __name__ == "__main__":
    main()
