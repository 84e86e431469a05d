"""The demo's lm-eval tasks and its config file, as texts and on disk."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import yaml

from runs.output_files import write_text
from search.setup.demo_models.exercises import SKILLS, Curriculum

_CONFIG = """\
# A search over the tiny models beside this file; `search demo` made all of it.
base: ./base
models:
{models}
tasks:
{tasks}
include_path: ./tasks
harness: {{batch_size: 128}}
held_out: 0.3
space:
  methods: [linear, slerp, task_arithmetic, ties, dare_linear, dare_ties]
  weight: [0.0, 1.5]
  density: [0.1, 1.0]
  depth: {{knots: 3}}
  order: any
search: {{trials: 60, seed: {seed}}}
workers: {{count: auto, gpus: 0, cpus: 1, device: cpu}}
output: {{dtype: float32}}
"""


def task_name(skill: str) -> str:
    """lm-eval's name for the task of a skill."""
    return f"demo_{skill}"


def config_text(curriculum: Curriculum, seed: int) -> str:
    """A config that searches the family of this seed; to be put beside it."""
    tasks = [
        f'  - {{name: {task_name(skill)}, metric: "{_metric(skill in curriculum.chosen)},none"}}'
        for skill in curriculum.targets
    ]
    return _CONFIG.format(
        models="\n".join(f"  {skill}: ./{skill}" for skill in curriculum.targets),
        tasks="\n".join(tasks),
        seed=seed,
    )


def write_task(
    folder: Path, skill: str, digits: tuple[str, ...], *, chosen: bool, seed: int
) -> None:
    """Write one task: its questions, and the file that lm-eval reads.

    Args:
        folder: Where to write.
        skill: Name of the skill.
        digits: One string per question.
        chosen: Whether the answer is chosen from the digits, instead of written.
        seed: Decides the order of choices.
    """
    source = random.Random(f"choices {seed} {skill}")
    lines = []
    for given in digits:
        answer = SKILLS[skill].answer(given)
        question: dict[str, Any] = {"question": SKILLS[skill].prompt(given), "answer": answer}
        if chosen:
            # Every digit of the prompt is a choice: one token that must beat five near misses.
            choices = source.sample(given, len(given))
            question |= {"choices": choices, "gold": choices.index(answer)}
        lines.append(json.dumps(question) + "\n")
    write_text(folder / _data(skill), "".join(lines))
    write_text(folder / f"{task_name(skill)}.yaml", _task_text(skill, chosen=chosen))


def _metric(chosen: bool) -> str:
    return "acc" if chosen else "exact_match"


def _data(skill: str) -> str:
    return f"{task_name(skill)}.jsonl"


def _task_text(skill: str, *, chosen: bool) -> str:
    return yaml.safe_dump(
        {
            "task": task_name(skill),
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": _data(skill)}},  # beside the task file
            "test_split": "test",
            "doc_to_text": "{{question}}",
            "target_delimiter": "",
            **(_by_choice() if chosen else _by_generation()),
            "metric_list": [
                {"metric": _metric(chosen), "aggregation": "mean", "higher_is_better": True}
            ],
            "metadata": {"version": 1.0},
        },
        sort_keys=False,
        allow_unicode=True,
    )


def _by_choice() -> dict[str, Any]:
    return {
        "output_type": "multiple_choice",
        "doc_to_choice": "choices",
        "doc_to_target": "gold",
    }


def _by_generation() -> dict[str, Any]:
    return {
        "output_type": "generate_until",
        "doc_to_target": "answer",
        "generation_kwargs": {"until": ["\n"], "do_sample": False, "max_gen_toks": 8},
    }
