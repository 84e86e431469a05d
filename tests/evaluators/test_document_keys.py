"""Which questions are about the same document."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evaluators.custom_evaluator import ModelEvaluator
from evaluators.harness.lm_eval_adapter import check
from evaluators.harness_spec import HarnessSpec, TaskSpec
from evaluators.protocol import EvaluatorError

TASK = """
dataset_path: json
dataset_kwargs: {data_files: {test: DATA.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{q}}"
doc_to_choice: choices
doc_to_target: answer
metric_list: [{metric: acc}]
"""

ROWS = [
    {"q": f"q{n}", "choices": [f"a{n}", f"b{n}"], "answer": n % 2, "p": n // 4} for n in range(40)
]

PROCESS = """
def trimmed(data):
    return data.filter(lambda row: row["answer"] == 1).map(lambda row: {"q": row["q"] + "?"})
def rewritten(data):
    return data.map(lambda row: {"t": row["q"] + "!"}, remove_columns=["p"])
def shuffled(data):
    return data.map(lambda row: {"choices": row["choices"][::-1], "answer": 1 - row["answer"]})
"""


def documents(folder: Path, *tasks: TaskSpec, **data: list[dict[str, Any]]) -> dict[str, list[str]]:
    """The document of every question by task, of tasks named as their data or by ``more``."""
    for name, rows in data.items():
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    catalogue = check(HarnessSpec(models=(), tasks=tasks, include_path=(str(folder),)))
    found: dict[str, list[str]] = {}
    for question in catalogue.questions:
        found.setdefault(question.task, []).append(question.document)
    return found


def write(folder: Path, name: str, data: str, more: str = "") -> TaskSpec:
    text = f"task: {name}\n{TASK.replace('DATA', data)}{more}"
    (folder / f"{name}.yaml").write_text(text)
    (folder / "made.py").write_text(PROCESS)
    return TaskSpec(name=name)


def test_one_document_has_one_name_over_all_tasks(tmp_path: Path) -> None:
    one, other = write(tmp_path, "one", "a"), write(tmp_path, "other", "a", 'description: "D"\n')
    found = documents(tmp_path, one, other, a=[*ROWS, ROWS[3]])
    assert found["one"] == found["other"]
    assert len(set(found["one"])) == len(ROWS)
    assert found["one"][-1] == found["one"][3]


def test_rows_that_differ_in_what_is_not_asked_are_the_same(tmp_path: Path) -> None:
    task = write(tmp_path, "one", "a")
    numbered = [row | {"id": n} for n, row in enumerate([*ROWS, *ROWS])]
    found = documents(tmp_path, task, a=numbered)["one"]
    assert found[: len(ROWS)] == found[len(ROWS) :]
    assert len(set(found)) == len(ROWS)


@pytest.mark.parametrize("process", ["trimmed", "rewritten", "shuffled"])
def test_a_task_that_rewrites_its_rows(tmp_path: Path, process: str) -> None:
    plain = write(tmp_path, "plain", "a")
    made = write(tmp_path, "made", "a", f"process_docs: !function made.{process}\n")
    found = documents(tmp_path, plain, made, a=ROWS)
    kept = [row["answer"] == 1 or process != "trimmed" for row in ROWS]
    assert found["made"] == [name for name, keep in zip(found["plain"], kept, strict=True) if keep]


@pytest.mark.parametrize("group_by", ["p", "passage {{ p }}", "{{p // 1}}"])
def test_groups_that_the_user_names(tmp_path: Path, group_by: str) -> None:
    write(tmp_path, "one", "a")
    write(tmp_path, "plain", "a", 'description: "D"\n')
    tasks = TaskSpec(name="one", group_by=group_by), TaskSpec(name="plain")
    found = documents(tmp_path, *tasks, a=ROWS)
    assert [len({*found["one"][at : at + 4]}) for at in range(0, 40, 4)] == [1] * 10
    assert len(set(found["one"])) == 10
    assert found["plain"] == found["one"]  # through the content


def test_groups_are_shared_by_tasks(tmp_path: Path) -> None:
    translated = [row | {"q": row["q"].upper(), "text": row["p"]} for row in ROWS]
    write(tmp_path, "one", "a")
    write(tmp_path, "other", "b")
    tasks = TaskSpec(name="one", group_by="p"), TaskSpec(name="other", group_by="{{text}}")
    found = documents(tmp_path, *tasks, a=ROWS, b=translated)
    assert found["one"] == found["other"]


def test_documents_without_a_group_stand_alone(tmp_path: Path) -> None:
    write(tmp_path, "one", "a")
    rows = [row | {"p": None if n < 8 else "x"} for n, row in enumerate(ROWS)]
    found = documents(tmp_path, TaskSpec(name="one", group_by="p"), a=rows)["one"]
    assert len(set(found)) == 9


@pytest.mark.parametrize(
    ("group_by", "message"),
    [
        ("passage", r"expected a field of every document \(q, choices, answer, p\) or a template"),
        ("{{passage}}", "got '{{passage}}' .UndefinedError: 'passage' is undefined"),
        ("{{ p", "group_by: TemplateSyntaxError"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError"),
    ],
)
def test_groups_that_are_none(tmp_path: Path, group_by: str, message: str) -> None:
    write(tmp_path, "one", "a")
    with pytest.raises(EvaluatorError, match=f"task one: group_by: .*{message}|{message}"):
        documents(tmp_path, TaskSpec(name="one", group_by=group_by), a=ROWS)


class Own(ModelEvaluator):
    def questions(self) -> dict[str, list[dict[str, Any]]]:
        return {"one": ROWS}

    def answer(self, model: Any, tokenizer: Any, task: str, items: Any) -> list[float]:
        return [0.0 for _ in items]


def test_groups_of_an_evaluator_of_ones_own() -> None:
    spec = HarnessSpec(models=(), tasks=(TaskSpec(name="one", group_by="p"),))
    assert len(set(Own(spec).catalogue().documents().values())) == 10
