"""What engines read, and what they write in a second of processor time.

Tokens through the forward pass are a measure that no busy machine disturbs:

    python -m benchmarks.engines choices                # five worked examples, four choices
    python -m benchmarks.engines choices --letters              # choices of one token
    python -m benchmarks.engines choices --sampler default      # other examples for each question
    python -m benchmarks.engines answers                # written ones, from 1 to 256 tokens
    python -m benchmarks.engines answers --dtype bfloat16
    python -m benchmarks.engines --hidden 256 serving           # a second's tokens, also by vLLM

The demo's architecture, untrained: what it scores means nothing, what it reads is what counts,
padding included. The engine's scores are those of lm-eval's on the same weights, or it ends; in
16 bits it says how many answers differ.
"""

from __future__ import annotations

import argparse
import copy
import json
import operator
import os
import random
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from transformers import LlamaForCausalLM

from benchmarks.scoring import make_models
from evaluators.harness.engines.engine_choice import (
    CONTINUOUS,
    ENGINES,
    STATIC,
    VLLM,
    vllm_versions,
)
from evaluators.harness.harness_evaluator import HarnessEvaluator
from evaluators.harness.lm_eval_adapter import LanguageModel
from evaluators.harness_spec import HarnessSpec, TaskSpec
from evaluators.protocol import Candidate, Failure, Score
from spaces.recipes.recipe import Merge, Model, Recipe, Source, parameters

SHOTS, SHOT, QUESTION, CHOICES, CHOICE = 5, 140, 60, 4, 8
"""Worked examples, and the tokens (here characters) of each, of a question and of a choice."""

LONGEST, EXAMPLE = 256, 150
"""Tokens of the longest answer, and of a worked example before a question to be answered."""

CONTEXT, BATCH = 1024, 32


def _files(root: Path, **splits: list[dict[str, Any]]) -> dict[str, Any]:
    """Write questions and worked examples; the lines of a task file that say where."""
    for name, rows in splits.items():
        text = "\n".join(map(json.dumps, rows)) + "\n"
        (root / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {name: str(root / f"{name}.jsonl") for name in splits}},
        "test_split": "test",
        "fewshot_split": "shots",
    }


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
    asked = [row(QUESTION) for _ in range(questions)]
    task = {
        **_files(root, test=asked, shots=[row(shot) for _ in range(shown)]),
        "task": "choose",
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
        self.read = self.passes = 0
        forward = LlamaForCausalLM.forward

        def counting(model: Any, input_ids: Any = None, **options: Any) -> Any:
            self.read += input_ids.numel()
            self.passes += 1
            return forward(model, input_ids=input_ids, **options)

        LlamaForCausalLM.forward = counting  # type: ignore[method-assign]


class Texts:
    """Keeps the answers that were written last."""

    def __init__(self) -> None:
        self.last: list[str] = []
        write = LanguageModel.generate_until

        keep = self

        def keeping(self: Any, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
            keep.last = write(self, requests, disable_tqdm)
            return keep.last

        LanguageModel.generate_until = keeping  # type: ignore[method-assign]


def make_answers(root: Path, *, questions: int) -> Path:
    """A task of questions of 10 to 40 tokens behind a worked example; its folder."""
    root.mkdir()
    source = random.Random(0)

    def row(length: int) -> dict[str, Any]:
        return {"question": "".join(source.choices("abcdefgh", k=length)) + ">", "answer": "a"}

    shown = [row(EXAMPLE - 4)]
    asked = [row(source.randint(10, 40) - 1) for _ in range(questions)]
    task = {
        **_files(root, test=asked, shots=shown),
        "task": "answer",
        "fewshot_config": {"sampler": "first_n"},
        "num_fewshot": 1,
        "output_type": "generate_until",
        "generation_kwargs": {"until": ["z"], "max_gen_toks": LONGEST, "do_sample": False},
        "doc_to_text": "{{question}}",
        "doc_to_target": "answer",
        "target_delimiter": "",
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
    (root / "answer.yaml").write_text(json.dumps(task), encoding="utf-8")
    return root


def liven(folders: Mapping[str, Path], *, dtype: str) -> None:
    """Give models weights so large that what they write next is as good as drawn."""
    shared = torch.Generator().manual_seed(0)
    model = LlamaForCausalLM.from_pretrained(folders["base"])
    drawn = {
        name: torch.randn(value.shape, generator=shared)
        for name, value in model.state_dict().items()
        if value.dim() > 1
    }
    for number, folder in enumerate(folders.values()):
        own = torch.Generator().manual_seed(number + 1)
        for name, value in drawn.items():
            noise = torch.randn(value.shape, generator=own)
            model.state_dict()[name].copy_(0.3 * value + 0.03 * noise)
        copy.deepcopy(model).to(getattr(torch, dtype)).save_pretrained(folder)


def _mix(weight: float) -> Recipe:
    sources = tuple(
        Source(of=Model(name), parameters=parameters(weight=share))
        for name, share in (("sort", weight), ("reverse", 1 - weight))
    )
    return Recipe(root=Merge(method="linear", sources=sources))


def compare(spec: HarnessSpec, tokens: Tokens) -> tuple[int, Score, dict[str, float]]:
    """Tokens, score, and the loss of each right answer, of a merge."""
    evaluator = HarnessEvaluator(spec)
    asked = tuple(question.id for question in evaluator.catalogue().questions)
    candidate = Candidate(id=0, recipe=_mix(0.5), questions=asked)
    before, passes = tokens.read, tokens.passes
    score = evaluator.evaluate(candidate)
    read, passes = tokens.read - before, tokens.passes - passes
    losses = evaluator.losses(candidate)
    evaluator.close()
    assert isinstance(score, Score), score
    assert not isinstance(losses, Failure), losses
    how = f"{spec.engine}, batch of {spec.batch_size}"
    print(f"| {how} | {read:,} | {passes:,} | {score.value:.4f} |", flush=True)
    return read, score, dict(losses)


def spec_of(
    args: argparse.Namespace,
    models: Mapping[str, Path],
    tasks: Path,
    figures: str = "tokens through the forward | passes",
) -> HarnessSpec:
    print(f"| engine | {figures} | score |\n|---|---|---|---|")
    return HarnessSpec(
        models=tuple((name, str(folder)) for name, folder in models.items()),
        tasks=(TaskSpec(name=next(tasks.glob("*.yaml")).stem),),
        include_path=(str(tasks),),
        device=args.device,
        batch_size=BATCH,
        max_length=CONTEXT,
        threads=1,
        check_degenerate=False,
    )


def choices(args: argparse.Namespace, root: Path) -> None:
    """Every engine on the same questions with choices."""
    models = make_models(root, layers=args.layers, hidden=args.hidden)
    tasks = make_choices(
        root / "tasks", questions=args.questions, letters=args.letters, sampler=args.sampler
    )
    spec, tokens = spec_of(args, models, tasks), Tokens()
    (before, static, losses), (after, shared, others) = (
        compare(replace(spec, engine=engine), tokens) for engine in ENGINES
    )
    assert static.tasks == shared.tasks, (static.tasks, shared.tasks)
    far = max(abs(losses[name] - others[name]) for name in losses)
    assert far < 1e-4, far
    print(f"\n{after / before:.3f} of lm-eval's tokens; losses differ by at most {far:.1e} nats")


def answers(args: argparse.Namespace, root: Path) -> None:
    """Every engine on the same questions that are answered in writing."""
    models = make_models(root, layers=args.layers, hidden=args.hidden)
    liven(models, dtype=args.dtype)
    spec = spec_of(args, models, make_answers(root / "tasks", questions=args.questions))
    tokens, texts, read, written = Tokens(), Texts(), [], []
    for engine, batch in ((STATIC, BATCH), (CONTINUOUS, BATCH), (STATIC, BATCH // 2)):
        read.append(compare(replace(spec, engine=engine, batch_size=batch), tokens)[0])
        written.append(texts.last)
    first, *others = written
    lengths = [min(len(text) + 1, LONGEST) for text in first]
    differ, halved = (sum(map(operator.ne, first, other)) for other in others)
    print(
        f"\nanswers of {min(lengths)} to {max(lengths)} tokens, {statistics.mean(lengths):.1f} on"
    )
    print(
        f"average; {read[1] / read[0]:.3f} of lm-eval's tokens; {differ} of {len(lengths)} differ,"
    )
    print(f"as {halved} do between lm-eval's batches of {BATCH} and {BATCH // 2}")
    assert args.dtype != "float32" or not differ, differ


def serving(args: argparse.Namespace, root: Path) -> None:
    """Every engine that is installed on the same questions, against the processor's clock."""
    models = make_models(root, layers=args.layers, hidden=args.hidden)
    liven(models, dtype=args.dtype)
    tasks = make_answers(root / "tasks", questions=args.questions)
    spec = spec_of(args, models, tasks, "tokens a second of processor time | build, seconds")
    texts, written = Texts(), []
    for engine in (*ENGINES, *([VLLM] if vllm_versions() else [])):
        evaluator = HarnessEvaluator(replace(spec, engine=engine))
        asked = tuple(question.id for question in evaluator.catalogue().questions)
        for weight in (0.4, 0.5):  # the first warms up
            begun = time.process_time()
            candidate = Candidate(id=0, recipe=_mix(weight), questions=asked)
            score = evaluator.evaluate(candidate)
            spent = time.process_time() - begun
        assert isinstance(score, Score), score
        evaluator.close()
        written.append(texts.last)
        count = sum(min(len(text) + 1, LONGEST) for text in texts.last)
        speed, build = count / spent, score.build_seconds
        print(f"| {engine} | {speed:,.0f} | {build:.2f} | {score.value:.4f} |", flush=True)
    for engine, texts_of in zip((*ENGINES, VLLM)[1:], written[1:], strict=False):
        differ = sum(map(operator.ne, written[0], texts_of))
        print(f"{differ} of {len(texts_of)} answers of {engine} are not those of {STATIC}")


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
    asked = kinds.add_parser("answers", help="written answers of uneven length")
    asked.add_argument("--questions", type=int, default=256)
    asked.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    asked.set_defaults(work=answers)
    asked = kinds.add_parser("serving", help="written tokens in a second, also by vLLM")
    asked.add_argument("--questions", type=int, default=256)
    asked.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    asked.set_defaults(work=serving)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        args.work(args, Path(folder))


if __name__ == "__main__":
    main()
