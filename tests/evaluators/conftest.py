"""Small lm-eval tasks of every kind, as a user would write them: YAML beside JSON lines."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from evaluators.harness_spec import HarnessSpec, TaskSpec
from spaces.recipes.recipe import Merge, Model, Recipe, Source, parameters

COMMON = """
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}.jsonl, train: shots.jsonl}}}}
test_split: test
target_delimiter: ""
"""

TASKS = {
    "pick": """
output_type: multiple_choice
doc_to_text: "max:{{q}}>"
doc_to_choice: choices
doc_to_target: answer
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
  - {metric: mcc, aggregation: matthews_corrcoef, higher_is_better: true}
""",
    "shots": """
output_type: multiple_choice
training_split: train
fewshot_split: train
num_fewshot: 2
doc_to_text: "max:{{q}}>"
doc_to_choice: choices
doc_to_target: answer
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
""",
    "first": """
output_type: multiple_choice
fewshot_split: train
fewshot_config: {sampler: first_n}
num_fewshot: 1
doc_to_text: "max:{{q}}>"
doc_to_choice: choices
doc_to_target: answer
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
""",
    "write": """
output_type: generate_until
doc_to_text: "sort:{{q}}>"
doc_to_target: a
generation_kwargs: {until: ["|"], max_gen_toks: 6}
filter_list:
  - {name: loose, filter: [{function: regex, regex_pattern: "(.)"}, {function: take_first}]}
  - {name: strict, filter: [{function: take_first}]}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
""",
    "vote": """
output_type: generate_until
doc_to_text: "sort:{{q}}>"
doc_to_target: a
repeats: 3
generation_kwargs: {until: ["|"], max_gen_toks: 2, do_sample: true, temperature: 0.1}
filter_list:
  - name: maj
    filter:
      - {function: regex, regex_pattern: "(.)"}
      - {function: take_first_k, k: 3}
      - {function: majority_vote}
      - {function: take_first}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
""",
    "text": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{q}}:{{a}}"
metric_list:
  - {metric: word_perplexity}
  - {metric: bits_per_byte}
""",
    "last": """
output_type: loglikelihood
doc_to_text: "sort:{{q}}>"
doc_to_target: a
metric_list:
  - {metric: perplexity, aggregation: perplexity, higher_is_better: false}
  - {metric: acc, aggregation: mean, higher_is_better: true}
""",
}

QUESTIONS = 40


def _rows(seed: int, n: int) -> list[dict[str, object]]:
    draw = random.Random(seed)
    rows = []
    for _ in range(n):
        digits = "".join(draw.choices("0123456789", k=6))
        choices = [*draw.sample("0123456789", k=3), "".join(draw.sample("abc", k=2))]
        rows.append(
            {"q": digits, "a": draw.choice("r1e"), "choices": choices, "answer": draw.randrange(4)}
        )
    return rows


def write_task(folder: Path, name: str, body: str, *, rows: list[dict[str, object]]) -> None:
    """A task file and its data."""
    (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / f"{name}.yaml").write_text(f"task: {name}\n" + COMMON.format(data=name) + body)


@pytest.fixture(scope="session")
def task_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    for number, (name, body) in enumerate(TASKS.items()):
        rows = _rows(number, QUESTIONS)
        rows[7] = rows[3]  # the same question twice
        write_task(folder, f"tiny_{name}", body, rows=rows)
    (folder / "shots.jsonl").write_text("\n".join(map(json.dumps, _rows(99, 12))))
    (folder / "group.yaml").write_text("group: tiny_group\ntask: [tiny_pick, tiny_write]\n")
    (folder / "lost.yaml").write_text("group: tiny_lost\ntask: [tiny_pick, tiny_gone]\n")
    return folder


@pytest.fixture(scope="session")
def chat_family(
    tiny_family: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The family with a chat template."""
    root = tmp_path_factory.mktemp("chat")
    template = (
        "{% for m in messages %}{{ m['role'][0] }}:{{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}a:{% endif %}"
    )
    for name, folder in tiny_family.items():
        shutil.copytree(folder, root / name)
        (root / name / "chat_template.jinja").write_text(template)
    return {name: root / name for name in tiny_family}


MakeSpec = Callable[..., HarnessSpec]


@pytest.fixture(scope="session")
def make_spec(tiny_family: dict[str, Path], task_folder: Path) -> MakeSpec:
    """``make_spec("tiny_pick", TaskSpec(...), models=..., **fields)``."""

    def make(
        *tasks: str | TaskSpec, models: dict[str, Path] | None = None, **fields: object
    ) -> HarnessSpec:
        located = tiny_family if models is None else models
        return HarnessSpec(
            models=tuple((name, str(folder)) for name, folder in located.items()),
            tasks=tuple(TaskSpec(name=t) if isinstance(t, str) else t for t in tasks),
            include_path=(str(task_folder),),
            **{"batch_size": 8, **fields},
        )

    return make


def linear(**weights: float) -> Recipe:
    """A weighted mean of models by name."""
    sources = tuple(
        Source(of=Model(name), parameters=parameters(weight=weight))
        for name, weight in weights.items()
    )
    return Recipe(root=Merge(method="linear", sources=sources))


@pytest.fixture(scope="session")
def mix() -> Callable[..., Recipe]:
    return linear
