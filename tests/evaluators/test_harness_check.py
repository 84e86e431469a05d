"""Everything wrong with tasks or models is said at once, before anything runs."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evaluators.harness.harness_evaluator import HarnessEvaluator
from evaluators.harness.lm_eval_adapter import check, name_problems
from evaluators.harness_spec import TaskSpec
from evaluators.protocol import EvaluatorError

MakeSpec = Any


def problems(spec: Any) -> str:
    with pytest.raises(EvaluatorError) as caught:
        check(spec)
    return "\n".join(caught.value.problems)


def test_catalogue(make_spec: MakeSpec) -> None:
    found = check(make_spec(TaskSpec(name="tiny_pick", metric="acc"), "tiny_text"))
    assert [task.metric for task in found.tasks] == ["acc,none", "word_perplexity,none"]
    assert [task.mean for task in found.tasks] == [True, False]
    assert [task.higher_is_better for task in found.tasks] == [True, False]
    ids = [question.id for question in found.questions]
    assert len(ids) == len(set(ids)) == 80
    assert ids[7] == f"{ids[3]}-2"  # the same question twice
    assert [q.position for q in found.questions] == [*range(40), *range(40)]


def test_first_metric_and_filter_by_default(make_spec: MakeSpec) -> None:
    found = check(make_spec("tiny_pick", "tiny_write", "tiny_vote"))
    assert [task.metric for task in found.tasks] == [
        "acc,none", "exact_match,loose", "exact_match,maj",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (TaskSpec(name="tiny_pick", metric="exact"), r"metric: expected one of acc,none, acc_norm"),
        (TaskSpec(name="tiny_write", metric="exact_match"), "expected exact_match,loose or exact_"),
        (TaskSpec(name="tiny_write", metric="exact_match,x"), "metric: expected one of exact_matc"),
        (
            TaskSpec(name="tiny_pick", weight=0.0),
            "weight: expected a number above 0 without a floor",
        ),
        (
            TaskSpec(name="tiny_pick", weight=float("nan")),
            "weight: expected a number of at least 0",
        ),
        (TaskSpec(name="tiny_pick", limit=0), "limit: expected at least 1, got 0"),
        (TaskSpec(name="tiny_pick", num_fewshot=-1), "num_fewshot: expected at least 0, got -1"),
        (TaskSpec(name="tiny_shots", num_fewshot=50), "num_fewshot: expected at most 12 (split"),
        (
            TaskSpec(name="tiny_lost"),
            "expected a group of tasks that there are, got one with tiny_gone",
        ),
        (
            TaskSpec(name="tiny_group", metric="acc"),
            "member tiny_write: metric: expected one of exac",
        ),
    ],
)
def test_one_bad_task(make_spec: MakeSpec, task: TaskSpec, message: str) -> None:
    said = problems(make_spec(task))
    assert said.startswith(f"task {task.name}: ")
    assert message in said


def test_all_problems_at_once(make_spec: MakeSpec) -> None:
    said = problems(
        make_spec(
            TaskSpec(name="tiny_pick", metric="bleu"),
            TaskSpec(name="tiny_write", weight=-1.0, metric="exact_match,strict"),
            "tiny_text",
            "tiny_text",
            batch_size="some",
        )
    )
    assert len(said.splitlines()) == 4
    for part in ("bleu", "got -1.0", "tiny_text: expected each task once", "batch_size: expected"):
        assert part in said


def test_no_tasks(make_spec: MakeSpec) -> None:
    assert problems(make_spec()) == "tasks: expected at least one, got none"


def write(folder: Path, name: str, text: str) -> None:
    (folder / f"{name}.yaml").write_text(f"task: {name}\n{text}")


BASIC = """
dataset_path: json
test_split: test
doc_to_text: q
doc_to_target: a
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dataset_kwargs: {data_files: {test: nowhere.jsonl}}\noutput_type: generate_until\n"
         + BASIC, "data is missing: FileNotFoundError"),
        ("dataset_kwargs: {data_files: {test: data.jsonl}}\noutput_type: sing\n" + BASIC,
         "invalid output_type 'sing'"),
        ("dataset_kwargs: {data_files: {test: data.jsonl}}\noutput_type: generate_until\n"
         "unsafe_code: true\n" + BASIC, "set trust_remote_code"),
        ("dataset_kwargs: {data_files: {test: data.jsonl}}\noutput_type: generate_until\n"
         "doc_to_image: q\n" + BASIC, "expected one of text only"),
        ("dataset_kwargs: {data_files: {test: data.jsonl}}\noutput_type: generate_until\n"
         "num_fewshot: 0\n" + BASIC, "num_fewshot: expected 0 (the task fixes it), got 2"),
        ("output_type: [broken\n", "broken.yaml: cannot be loaded"),
    ],
)  # fmt: skip
def test_broken_task_files(make_spec: MakeSpec, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "data.jsonl").write_text('{"q": "1", "a": "2"}\n')
    write(tmp_path, "broken", text)
    spec = make_spec(TaskSpec(name="broken", num_fewshot=2 if "num_fewshot" in text else None))
    said = problems(_with(spec, include_path=(str(tmp_path),)))
    assert said.startswith("task broken: ")
    assert message in said


def _with(spec: Any, **changes: Any) -> Any:
    from dataclasses import replace

    return replace(spec, **changes)


def test_include_path_that_is_no_folder(make_spec: MakeSpec, tmp_path: Path) -> None:
    said = problems(_with(make_spec("tiny_pick"), include_path=(str(tmp_path / "none"),)))
    assert f"include_path: expected a folder, got '{tmp_path / 'none'}'" in said


@pytest.mark.slow  # lm-eval reads all its task files once to explain a name
def test_names_that_are_none(make_spec: MakeSpec, task_folder: Path) -> None:
    said = problems(make_spec("tiny_pik", "gsm8kk"))
    first, second = said.splitlines()
    assert f"expected a task in {task_folder} or of lm-eval, got 'tiny_pik'" in first
    assert "did you mean tiny_pick" in first
    assert "did you mean gsm8k" in second
    assert name_problems(["ai2_arc", "mmlu", "tiny_group"], [str(task_folder)]) == {}


def test_a_task_that_lm_eval_ships_is_found_without_reading_all(make_spec: MakeSpec) -> None:
    # It is found; only its data cannot be had without a network.
    said = problems(make_spec("arc_easy"))
    assert "arc_easy.yaml: " in said
    assert "unknown" not in said


def test_relative_data_files_count_from_the_task_file(
    make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(check(make_spec("tiny_pick")).questions) == 40
    assert Path.cwd() == tmp_path


def test_nothing_leaks_into_the_process(make_spec: MakeSpec, mix: Any) -> None:
    def state() -> tuple[Any, ...]:
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    from evaluators.protocol import Candidate

    before = state()
    evaluator = HarnessEvaluator(make_spec("tiny_vote", "tiny_shots"))
    asked = tuple(question.id for question in evaluator.catalogue().questions)
    evaluator.evaluate(Candidate(id=0, recipe=mix(math=1.0), questions=asked))
    assert state() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": (("base", "/nowhere/at/all"),)}, "model base: "),
        ({"models": ()}, "models: expected at least one, got none"),
        ({"device": "abacus"}, "device: expected cpu, cuda or auto, got 'abacus'"),
        (
            {"apply_chat_template": True},
            "model base: harness.apply_chat_template: expected false fo",
        ),
        (
            {"apply_chat_template": "fancy"},
            "template: expected true or false, got 'fancy': the tok",
        ),
    ],
)
def test_worker_set_up(make_spec: MakeSpec, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(EvaluatorError) as caught:
        HarnessEvaluator(_with(make_spec("tiny_pick"), **changes))
    assert message in str(caught.value)


def test_model_and_task_problems_together(make_spec: MakeSpec, tmp_path: Path) -> None:
    spec = _with(make_spec(TaskSpec(name="tiny_pick", metric="x")), models=(("m", str(tmp_path)),))
    with pytest.raises(EvaluatorError) as caught:
        HarnessEvaluator(spec)
    assert "model m: " in str(caught.value)
    assert "task tiny_pick: metric" in str(caught.value)


def test_a_model_without_tokenizer(make_spec: MakeSpec, tiny_model: Any) -> None:
    folder = tiny_model()
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(EvaluatorError, match="model lone: tokenizer: "):
        HarnessEvaluator(make_spec("tiny_pick", models={"lone": folder}))


def test_a_prompt_that_cannot_be_made(make_spec: MakeSpec, tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text('{"q": "1", "a": "2"}\n{"q": "", "a": "3"}\n')
    (tmp_path / "code.py").write_text("def text(doc):\n    return 'a' * (1 // len(doc['q']))\n")
    write(
        tmp_path,
        "divides",
        "dataset_path: json\ndataset_kwargs: {data_files: {test: data.jsonl}}\ntest_split: test\n"
        "output_type: generate_until\ndoc_to_text: !function code.text\ndoc_to_target: a\n",
    )
    spec = _with(make_spec("divides"), include_path=(str(tmp_path),))
    with pytest.raises(EvaluatorError, match="model base: cannot be asked on cpu: ZeroDivision"):
        HarnessEvaluator(spec)
