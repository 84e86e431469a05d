"""A project as a user has it: models, tasks, a config."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

CHOICE = """
task: pick
dataset_path: json
dataset_kwargs: {{data_files: {data}}}
test_split: train
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{label}}}}"
metric_list: [{{metric: acc}}]
"""
GENERATION = """
task: write
dataset_path: json
dataset_kwargs: {{data_files: {data}}}
test_split: train
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 3, do_sample: false}}
metric_list: [{{metric: exact_match}}]
"""


@pytest.fixture(scope="session")
def tasks_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two lm-eval tasks of 70 questions each, on local data."""
    folder = tmp_path_factory.mktemp("tasks")
    digits = [f"{a}{b}" for a in range(10) for b in range(7)]
    for name, template, extra in (
        ("pick", CHOICE, lambda n: {"choices": ["a", "b", "c"], "label": n % 3}),
        ("write", GENERATION, lambda n: {"answer": "ab"}),
    ):
        data = folder / f"{name}.json"
        rows = [{"question": f"{d}=", **extra(n)} for n, d in enumerate(digits)]
        data.write_text("\n".join(json.dumps(row) for row in rows))
        (folder / f"{name}.yaml").write_text(template.format(data=data))
    return folder


@pytest.fixture
def project(
    tiny_family: dict[str, Path], tasks_folder: Path, tmp_path: Path
) -> Callable[..., Path]:
    """Writes ``tmp_path/mix.yaml`` for the tiny family; keywords replace its top-level keys."""

    def write(**changes: object) -> Path:
        config = {
            "base": str(tiny_family["base"]),
            "models": {name: str(tiny_family[name]) for name in ("math", "code", "text")},
            "tasks": ["pick", {"name": "write", "metric": "exact_match,none", "weight": 2.0}],
            "include_path": str(tasks_folder),
            "search": {"trials": 8, "seed": 1},
            "workers": {"ray": False},
            "output": {"dtype": "float32"},
        } | changes
        path = tmp_path / "mix.yaml"
        path.write_text(yaml.safe_dump({k: v for k, v in config.items() if v is not None}))
        return path

    return write
