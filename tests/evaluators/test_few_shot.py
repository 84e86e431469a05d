"""Worked examples: no document that is asked is shown solved, by any task."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from evaluators.harness.answers.prompts import requests_of
from evaluators.harness.answers.requests import AskedTask
from evaluators.harness.lm_eval_adapter import catalogue_of, load_tasks
from evaluators.harness_spec import HarnessSpec, TaskSpec
from evaluators.protocol import EvaluatorError

WRITTEN = """
dataset_path: json
dataset_kwargs: {{data_files: {{{files}}}}}
output_type: generate_until
doc_to_text: "{{{{q}}}}="
doc_to_target: "{{{{a}}}}"
target_delimiter: ""
fewshot_delimiter: "\\n"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 3}}
metric_list: [{{metric: exact_match}}]
"""

Load = Callable[..., tuple[AskedTask, ...]]


def rows(first: int, count: int) -> list[dict[str, str]]:
    return [{"q": f"q{i:03d}", "a": f"{7 * i % 100:02d}"} for i in range(first, first + count)]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Writes tasks and loads them: ``load(name="extra YAML", data={"file": rows})``."""

    def write(
        data: dict[str, list[dict[str, Any]]],
        specs: dict[str, TaskSpec] | None = None,
        **tasks: str,
    ) -> tuple[AskedTask, ...]:
        for name, items in data.items():
            (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, items)))
        files = ", ".join(f"{name}: {name}.jsonl" for name in data)
        for name, more in tasks.items():
            text = f"task: {name}\n" + WRITTEN.format(files=files) + more
            (tmp_path / f"{name}.yaml").write_text(text)
        wanted = tuple((specs or {}).get(name, TaskSpec(name=name)) for name in tasks)
        return load_tasks(HarnessSpec(models=(), tasks=wanted, include_path=(str(tmp_path),)))

    return write


def prompts(tasks: tuple[AskedTask, ...], **fields: Any) -> dict[str, str]:
    """The prompt of every question by its id; no chat template, so no model is needed."""
    spec = HarnessSpec(models=(), tasks=(), **fields)
    made = requests_of(tasks, cast(Any, None), spec)
    return {name: requests[0].args[0] for name, requests in made.items()}


def shown(tasks: tuple[AskedTask, ...], **fields: Any) -> dict[str, list[str]]:
    """The questions shown solved, by the id of the question asked."""
    return {
        name: [line.split("=")[0] for line in prompt.split("\n")[:-1]]
        for name, prompt in prompts(tasks, **fields).items()
    }


def asked(tasks: tuple[AskedTask, ...]) -> set[str]:
    return {task.documents[q.position]["q"] for task in tasks for q in task.asked()}


@pytest.mark.parametrize(
    ("more", "aside"),
    [
        ("test_split: test\nnum_fewshot: 8", 8),
        ("test_split: test\nnum_fewshot: 8\nfewshot_split: test", 9),
        ("test_split: test\nnum_fewshot: 8\nfewshot_config: {sampler: first_n, split: test}", 8),
        ("test_split: test\nnum_fewshot: 8\nfewshot_config: {sampler: first_n}", 8),
        ("validation_split: test\nnum_fewshot: 8", 9),
    ],
)
def test_of_one_split_a_few_documents_are_set_aside(load: Load, more: str, aside: int) -> None:
    tasks = load({"test": rows(0, 70)}, only=more)
    (task,) = tasks
    assert len(task.aside) == aside == catalogue_of(tasks).tasks[0].aside
    assert len(catalogue_of(tasks).questions) == 70 - aside
    for examples in shown(tasks).values():
        assert len(set(examples)) == 8
        assert not asked(tasks) & set(examples)
    assert f"{aside} of 70 questions are not asked" in task.notes[0]
    if "first_n" in more:
        assert task.aside == frozenset(range(8))


def test_what_is_set_aside_depends_on_content_alone(load: Load, tmp_path: Path) -> None:
    more = "test_split: test\nnum_fewshot: 2"
    one = asked(load({"test": rows(0, 70)}, only=more))
    again = asked(load({"test": rows(0, 70)[::-1]}, other=more))
    assert one == again


def test_a_split_of_their_own_is_left_to_lm_eval(load: Load) -> None:
    own = "test_split: test\nfewshot_split: train\nnum_fewshot: 3"
    (task,) = tasks = load({"test": rows(0, 30), "train": rows(100, 20)}, own=own)
    sampler = task.task.sampler
    assert not task.aside
    assert task.notes == ()
    assert [document["q"] for document in sampler.df] == [r["q"] for r in rows(100, 20)]
    assert all(int(q[1:]) >= 100 for examples in shown(tasks).values() for q in examples)


def test_another_split_with_the_same_documents(load: Load) -> None:
    data = {"test": rows(0, 30), "train": rows(20, 30)}  # ten of them are asked
    (task,) = tasks = load(data, own="test_split: test\nfewshot_split: train\nnum_fewshot: 3")
    assert not task.aside
    assert len(task.task.sampler.df) == 20
    assert "20 of the 30 documents of split 'train'" in task.notes[0]
    assert not asked(tasks) & {q for examples in shown(tasks).values() for q in examples}


def test_another_split_that_is_the_same_throughout(load: Load) -> None:
    """Their rows are numbered otherwise, which makes them no other questions."""
    data = {
        name: [row | {"id": first + n} for n, row in enumerate(rows(0, 30))]
        for name, first in (("test", 0), ("train", 500))
    }
    (task,) = tasks = load(data, own="test_split: test\nfewshot_split: train\nnum_fewshot: 3")
    assert len(task.aside) == 3
    assert not asked(tasks) & {q for examples in shown(tasks).values() for q in examples}


def test_the_first_ones_stay_the_first_ones(load: Load) -> None:
    """A task with canonical examples keeps its prompts: a question that they show is not asked."""
    more = "test_split: test\nfewshot_config: {sampler: first_n, split: train}\nnum_fewshot: 3"
    (task,) = tasks = load({"test": rows(1, 30), "train": rows(0, 5)}, own=more)
    assert len(task.aside) == 2
    assert {tuple(e) for e in shown(tasks).values()} == {("q000", "q001", "q002")}


def test_what_one_task_asks_no_other_shows(load: Load) -> None:
    data = {"test": rows(0, 30), "train": rows(100, 30)}
    tasks = load(
        data,
        drawn="test_split: test\nfewshot_split: train\nnum_fewshot: 3",
        on_train="test_split: train",
    )
    assert [len(task.aside) for task in tasks] == [0, 3]
    assert not asked(tasks) & {q for examples in shown(tasks).values() for q in examples}


def test_examples_written_in_the_task_file(load: Load) -> None:
    more = """test_split: test
num_fewshot: 2
fewshot_config: {sampler: first_n, samples: [{q: q003, a: "21"}, {q: one, a: "1"}]}
"""
    (task,) = tasks = load({"test": rows(0, 30)}, own=more)
    assert task.aside == {3}
    assert {tuple(e) for e in shown(tasks).values()} == {("q003", "one")}


def test_documents_beyond_the_limit_are_shown_first(load: Load) -> None:
    specs = {"own": TaskSpec(name="own", limit=40)}
    (task,) = tasks = load({"test": rows(0, 70)}, specs, own="test_split: test\nnum_fewshot: 8")
    assert not task.aside
    assert not asked(tasks) & {q for examples in shown(tasks).values() for q in examples}


def test_passages_are_set_aside_whole(load: Load) -> None:
    data = {"test": [row | {"p": n // 5} for n, row in enumerate(rows(0, 70))]}
    specs = {"own": TaskSpec(name="own", group_by="p")}
    (task,) = tasks = load(data, specs, own="test_split: test\nnum_fewshot: 2")
    assert len(task.aside) == 5
    passages = {int(q[1:]) // 5 for q in asked(tasks)}
    assert not passages & {int(q[1:]) // 5 for e in shown(tasks).values() for q in e}


def test_seeds_draw_other_orders(load: Load) -> None:
    tasks = load({"test": rows(0, 70)}, own="test_split: test\nnum_fewshot: 3")
    one, other = shown(tasks, seed=0), shown(tasks, seed=1)
    assert one != other
    assert shown(tasks, seed=0) == one


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("test_split: test\nnum_fewshot: 30", "expected at most 29 .split 'test' has 30"),
        ("test_split: test\nfewshot_split: test\nnum_fewshot: 29", "expected at most 28"),
        (
            "test_split: test\nfewshot_split: train\nnum_fewshot: 6",
            "at most 5 .split 'train' has 5",
        ),
        (
            "test_split: test\nnum_fewshot: 3\n"
            "fewshot_config: {sampler: first_n, samples: [{q: x, a: y}]}",
            "at most 1 .the list in its fewshot_config has 1",
        ),
    ],
)
def test_more_examples_than_documents(load: Load, more: str, message: str) -> None:
    data = {"test": rows(0, 30), "train": rows(100, 5)}
    with pytest.raises(EvaluatorError, match=f"task own: num_fewshot: .*{message}"):
        load(data, own=more)


def test_a_sampler_with_documents_of_its_own(load: Load, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from lm_eval.api.samplers import ContextSampler\n"
        "class Fixed(ContextSampler):\n"
        "    def sample(self, n, eval_doc=None, df=None, **more):\n"
        "        return [{'q': f'q{i:03d}', 'a': f'{7 * i % 100:02d}'} for i in range(n)]\n"
    )
    more = "test_split: test\nnum_fewshot: 2\nfewshot_config: {sampler: !function own.Fixed}"
    with pytest.raises(EvaluatorError, match="fewshot_config: expected a sampler that draws from"):
        prompts(load({"test": rows(0, 30)}, own=more))


def test_a_task_that_changes_its_documents_gets_copies(load: Load, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "def text(doc):\n"
        "    doc['q'] += '+'\n"
        "    return doc['q'] + '='\n"
        "def marks(doc, results):\n"
        "    doc['seen'] = doc.get('seen', 0) + 1\n"
        "    return {'exact_match': float(doc['seen'] == 1)}\n"
        "def listed(data):\n"
        "    return ListOf(data)\n"
        "class ListOf(list):\n"
        "    @property\n"
        "    def features(self):\n"
        "        return {'q': None, 'a': None}\n"
    )
    more = (
        "test_split: test\nfewshot_split: train\nnum_fewshot: 2\n"
        "process_docs: !function own.listed\n"
        "doc_to_text: !function own.text\nprocess_results: !function own.marks\n"
    )
    data = {"test": rows(0, 30), "train": rows(100, 5)}
    (task,) = tasks = load(data, own=more)
    first = prompts(tasks)
    assert prompts(tasks) == first
    assert all("++" not in prompt for prompt in first.values())
    assert [task.task.process_results(task.document(0), [""]) for _ in range(2)] == [
        {"exact_match": 1.0}
    ] * 2
