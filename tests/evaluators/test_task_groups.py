"""Groups and tags: their members are asked, and weigh what they do in lm-eval."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from evaluators.harness.harness_evaluator import HarnessEvaluator
from evaluators.harness.lm_eval_adapter import check, load_tasks
from evaluators.harness_spec import HarnessSpec, TaskSpec
from evaluators.protocol import Candidate, EvaluatorError, Score
from runs.records.question_split import divide

TASK = """task: {name}
tag: [all_of_them]
dataset_path: json
dataset_kwargs: {{data_files: {{test: {name}.jsonl}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "max:{{{{q}}}}>"
doc_to_choice: choices
doc_to_target: answer
metric_list: [{{metric: acc_norm}}, {{metric: acc}}]
"""
SIZES = {"small": 20, "middle": 30, "large": 70}
GROUPS = {
    "by_size": "task: [small, inner]\naggregate_metric_list: [{metric: acc, weight_by_size: true}]",
    "alike": "task: [small, inner]\naggregate_metric_list: [{metric: acc, weight_by_size: false}]",
    "default": "task: [small, inner]\naggregate_metric_list: [{metric: acc}]",
    "inner": "task: [middle, large]",
    "defining": "task: [small, {group: further, task: [{task: middle, num_fewshot: 0}]}]",
    "empty": "task: []",
}

Make = Callable[..., HarnessSpec]


@pytest.fixture
def grouped(make_spec: Any, tmp_path: Path) -> Make:
    """Three tasks of unlike size, and groups of them."""
    for at, (name, size) in enumerate(SIZES.items()):
        rows = [
            {"q": f"{100 * at + n:04d}", "choices": list("0123"), "answer": n % 3}
            for n in range(size)
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        (tmp_path / f"{name}.yaml").write_text(TASK.format(name=name))
    for name, text in GROUPS.items():
        (tmp_path / f"group_{name}.yaml").write_text(f"group: {name}\n{text}\n")

    def make(*tasks: str | TaskSpec, **fields: Any) -> HarnessSpec:
        spec = make_spec(*tasks)
        folder = {"include_path": (str(tmp_path),)}
        return HarnessSpec(models=spec.models, tasks=spec.tasks, batch_size=8, **folder, **fields)

    return make


@pytest.mark.parametrize(
    ("name", "shares"),
    [
        ("by_size", {"small": 20 / 120, "middle": 30 / 120, "large": 70 / 120}),
        ("default", {"small": 20 / 120, "middle": 30 / 120, "large": 70 / 120}),
        ("alike", {"small": 1 / 3, "middle": 1 / 3, "large": 1 / 3}),
        ("inner", {"middle": 1 / 2, "large": 1 / 2}),
        ("defining", {"small": 1 / 2, "middle": 1 / 2}),
        ("all_of_them", {"large": 1 / 3, "middle": 1 / 3, "small": 1 / 3}),
    ],
)
def test_members_share_the_weight(grouped: Make, name: str, shares: dict[str, float]) -> None:
    tasks = check(grouped(TaskSpec(name=name, weight=3.0))).tasks
    assert {task.name: task.weight for task in tasks} == pytest.approx(
        {task: 3 * share for task, share in shares.items()}
    )
    assert {task.asked_as for task in tasks} == {name}
    first = "acc_norm,none" if name in ("inner", "defining", "all_of_them") else "acc,none"
    assert {task.metric for task in tasks} == {first}


@pytest.mark.parametrize("name", ["by_size", "alike"])
def test_the_value_is_lm_evals(
    grouped: Make, mix: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    spec = grouped(name)
    evaluator = HarnessEvaluator(spec)
    ids = tuple(question.id for question in evaluator.catalogue().questions)
    score = evaluator.evaluate(Candidate(id=0, recipe=mix(math=1.0), questions=ids))
    evaluator.close()
    assert isinstance(score, Score)
    monkeypatch.chdir(spec.include_path[0])
    found = simple_evaluate(
        model=HFLM(pretrained=dict(spec.models)["math"], device="cpu", batch_size=8),
        tasks=[name],
        task_manager=TaskManager(include_path=list(spec.include_path), include_defaults=False),
        bootstrap_iters=0,
    )["results"][name]
    assert score.value == pytest.approx(found["acc,none"], abs=1e-12)


def test_settings_of_a_group_are_those_of_its_members(grouped: Make) -> None:
    wanted = TaskSpec(name="by_size", metric="acc_norm", limit=25, num_fewshot=1)
    asked = load_tasks(grouped(wanted))
    assert [len(task.documents) for task in asked] == [20, 25, 25]
    assert {task.info.metric for task in asked} == {"acc_norm,none"}
    assert {task.pool.shots for task in asked if task.pool is not None} == {1}


def test_a_group_is_held_out_as_a_whole(grouped: Make) -> None:
    catalogue = check(grouped("small", "inner"))
    split = divide(catalogue, ("inner",), seed=0)
    assert {name.split("/")[0] for name in split.search} == {"small"}
    assert {name.split("/")[0] for name in split.held_out} == {"middle", "large"}


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (("small", "by_size"), "task small: expected each task once, got it 2 times"),
        (("empty",), "task empty: name: expected a task or a group of some, got an empty group"),
        ((TaskSpec(name="inner", metric="f2"),), "task inner: member middle: metric: expected one"),
    ],
)
def test_groups_that_cannot_be_asked(grouped: Make, tasks: Any, message: str) -> None:
    with pytest.raises(EvaluatorError, match=message):
        check(grouped(*tasks))
