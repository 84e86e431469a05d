"""Metrics as tasks give them: functions of one's own, several values, none for some answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evaluators.harness.harness_evaluator import HarnessEvaluator
from evaluators.harness.lm_eval_adapter import check
from evaluators.harness_spec import HarnessSpec, TaskSpec
from evaluators.protocol import Candidate, EvaluatorError, Score, TaskScore
from runs.records.pooled_evaluations import pooled

WRITTEN = """task: own
dataset_path: json
dataset_kwargs: {data_files: {test: own.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "sort:{{q}}>"
doc_to_target: TARGET
generation_kwargs: {until: ["|"], max_gen_toks: 4}
metric_list: [{metric: METRIC, aggregation: mean, higher_is_better: true}]
"""
CHOICES = """task: own
dataset_path: json
dataset_kwargs: {data_files: {test: own.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "max:{{q}}>"
doc_to_choice: ["1", "2"]
doc_to_target: 0
metric_list: [{metric: METRIC, aggregation: mean, higher_is_better: true}]
"""
FUNCTIONS = """
def many(predictions=None, references=None, **more):
    return {"len@1": float(len(predictions[0])), "len@2": 2.0 * len(predictions[0])}
def mine(items):
    return 1.0
def some(doc, results):
    return {"m": None if doc["q"][0] in "01" else 1.0, "n": 1.0} if doc["q"][0] != "2" else {}
"""

CHANGING = """
def changing(doc, results):
    doc["seen"] = doc.get("seen", 0) + 1
    doc["all"].append("more")
    return {"m": float(doc["seen"] == 1 and len(doc["all"]) == 3)}
"""

Own = Callable[..., HarnessSpec]


@pytest.fixture
def own(make_spec: Callable[..., HarnessSpec], tmp_path: Path) -> Own:
    """Writes a task of one's own: ``own(text, target=..., metric=...)``."""

    def make(
        text: str, *, metric: str, target: str = "a", wanted: str | None = None
    ) -> HarnessSpec:
        rows = [{"q": f"{n:02d}", "a": f"a{n}", "all": [f"a{n}", "b"]} for n in range(40)]
        (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
        (tmp_path / "own.yaml").write_text(text.replace("TARGET", target).replace("METRIC", metric))
        (tmp_path / "functions.py").write_text(FUNCTIONS + CHANGING)
        fields: dict[str, Any] = {"include_path": (str(tmp_path),)}
        spec = make_spec(TaskSpec(name="own", metric=wanted))
        return HarnessSpec(models=spec.models, tasks=spec.tasks, batch_size=8, **fields)

    return make


def test_a_function_that_gives_several_values(own: Own) -> None:
    spec = own(WRITTEN, metric="!function functions.many")
    assert check(spec).tasks[0].metric == "len@1,none"
    spec = own(WRITTEN, metric="!function functions.many", wanted="len@2")
    assert check(spec).tasks[0].metric == "len@2,none"


@pytest.mark.parametrize(
    ("text", "metric", "target", "message"),
    [
        (
            CHOICES,
            "mine",
            "a",
            "expected a metric that lm-eval computes for multiple_choice, got m",
        ),
        (
            WRITTEN,
            "many",
            "all",
            "many gives several values, which lm-eval takes only where doc_to",
        ),
    ],
)
def test_functions_that_lm_eval_does_not_call(
    own: Own, text: str, metric: str, target: str, message: str
) -> None:
    with pytest.raises(EvaluatorError, match=f"^task own: metric_list: .*{message}") as caught:
        check(own(text, metric=f"!function functions.{metric}", target=target))
    assert len(caught.value.problems) == 1


def test_questions_without_a_value_are_counted(own: Own, mix: Any) -> None:
    spec = own(WRITTEN + "process_results: !function functions.some\n", metric="m")
    evaluator = HarnessEvaluator(spec)
    ids = tuple(question.id for question in evaluator.catalogue().questions)
    score = evaluator.evaluate(Candidate(id=0, recipe=mix(math=1.0), questions=ids))
    evaluator.close()
    assert isinstance(score, Score)
    (task,) = score.tasks
    assert (task.n, task.unmarked, task.value) == (10, 30, 1.0)
    assert [item.value == 1.0 for item in score.outcomes] == [False] * 30 + [True] * 10


def test_a_task_that_changes_its_documents_marks_every_recipe_alike(own: Own, mix: Any) -> None:
    spec = own(WRITTEN + "process_results: !function functions.changing\n", metric="m")
    evaluator = HarnessEvaluator(spec)
    ids = tuple(question.id for question in evaluator.catalogue().questions)
    for number in range(3):
        score = evaluator.evaluate(Candidate(id=number, recipe=mix(math=1.0), questions=ids))
        assert isinstance(score, Score)
        assert score.value == 1.0
    evaluator.close()


def test_parts_add_up_what_they_did_not_mark() -> None:
    parts = [TaskScore(task="a", value=1.0, stderr=0.0, n=4, unmarked=u) for u in (1, 2)]
    whole = pooled(parts)
    assert (whole.n, whole.unmarked) == (8, 3)
