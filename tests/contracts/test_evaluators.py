"""What every evaluator promises."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from evaluators.custom_evaluator import ModelEvaluator, OwnFactory
from evaluators.harness.engines.engine_choice import ENGINES
from evaluators.harness.harness_evaluator import HarnessEvaluator
from evaluators.harness.lm_eval_adapter import check
from evaluators.harness_spec import HarnessSpec, TaskSpec
from evaluators.protocol import (
    Candidate,
    Evaluator,
    EvaluatorError,
    Failure,
    FailureKind,
    Score,
    combine,
)
from evaluators.synthetic_evaluator import SyntheticEvaluator, SyntheticSpec
from merging.building.build import build_into
from spaces.recipes.recipe import Merge, Model, Recipe, Source, parameters


def recipe(**weights: float) -> Recipe:
    sources = tuple(
        Source(of=Model(name), parameters=parameters(weight=weight))
        for name, weight in weights.items()
    )
    return Recipe(root=Merge(method="linear", sources=sources))


class EvaluatorContract:
    """Subclasses give the ``evaluator`` fixture; its models are ``math`` and ``code``."""

    @pytest.fixture(scope="class")
    def ids(self, evaluator: Evaluator) -> tuple[str, ...]:
        return tuple(question.id for question in evaluator.catalogue().questions)

    def ask(self, evaluator: Evaluator, made: Recipe, ids: tuple[str, ...]) -> Score:
        result = evaluator.evaluate(Candidate(id=0, recipe=made, questions=ids))
        assert isinstance(result, Score), result
        return result

    def test_catalogue_is_complete_and_stays(self, evaluator: Evaluator) -> None:
        catalogue = evaluator.catalogue()
        assert catalogue == evaluator.catalogue()
        ids = [question.id for question in catalogue.questions]
        assert len(ids) == len(set(ids)) > 1
        tasks = [task.name for task in catalogue.tasks]
        assert list(dict.fromkeys(question.task for question in catalogue.questions)) == tasks
        for question in catalogue.questions:
            assert question.id.startswith(f"{question.task}/")

    def test_score_is_whole(self, evaluator: Evaluator, ids: tuple[str, ...]) -> None:
        score = self.ask(evaluator, recipe(math=1.0, code=1.0), ids)
        catalogue = evaluator.catalogue()
        assert sorted(outcome.question for outcome in score.outcomes) == sorted(ids)
        assert [task.task for task in score.tasks] == [task.name for task in catalogue.tasks]
        assert (score.value, score.stderr) == combine(score.tasks, catalogue.tasks)
        assert math.isfinite(score.value)
        assert score.fingerprint
        assert score.build_seconds >= 0
        assert score.score_seconds >= 0
        task_of = {question.id: question.task for question in catalogue.questions}
        for task, info in zip(score.tasks, catalogue.tasks, strict=True):
            values = [o.value for o in score.outcomes if task_of[o.question] == task.task]
            assert task.n == len(values)
            if info.mean:
                assert task.value == pytest.approx(sum(values) / len(values))

    def test_same_recipe_same_score(self, evaluator: Evaluator, ids: tuple[str, ...]) -> None:
        first = self.ask(evaluator, recipe(math=0.3, code=0.9), ids)
        other = self.ask(evaluator, recipe(math=1.0), ids)
        again = self.ask(evaluator, recipe(math=0.3, code=0.9), ids[::-1])
        assert (first.value, first.fingerprint) == (again.value, again.fingerprint)
        assert set(first.outcomes) == set(again.outcomes)
        assert other.fingerprint != first.fingerprint

    def test_subset(self, evaluator: Evaluator, ids: tuple[str, ...]) -> None:
        whole = self.ask(evaluator, recipe(code=1.0), ids)
        part = self.ask(evaluator, recipe(code=1.0), ids[1::3])
        assert {outcome.question for outcome in part.outcomes} == set(ids[1::3])
        assert set(part.outcomes) <= set(whole.outcomes)
        one = self.ask(evaluator, recipe(code=1.0), ids[:1])
        assert [task.n for task in one.tasks] == [1]
        assert math.isnan(one.tasks[0].stderr)

    def test_what_goes_wrong_is_a_value(self, evaluator: Evaluator, ids: tuple[str, ...]) -> None:
        for asked in ((), ("nothing/0",)):
            result = evaluator.evaluate(Candidate(id=0, recipe=recipe(math=1.0), questions=asked))
            assert isinstance(result, Failure)
            assert result.kind is FailureKind.ERROR
            assert result.message
        self.ask(evaluator, recipe(math=1.0), ids)


class TestFake(EvaluatorContract):
    @pytest.fixture(scope="class")
    def evaluator(self) -> Iterator[Evaluator]:
        made = SyntheticEvaluator(
            SyntheticSpec(
                parents=("math", "code"),
                tasks=(("a", 1.0), ("b", 3.0)),
                questions=20,
                lower_is_better=("b",),
            )
        )
        yield made
        made.close()
        made.close()


@pytest.mark.parametrize("engine", ENGINES, scope="class")
class TestHarness(EvaluatorContract):
    @pytest.fixture(scope="class")
    def spec(self, tiny_family: dict[str, Path], tmp_path_factory: Any, engine: str) -> HarnessSpec:
        folder = tmp_path_factory.mktemp("contract")
        rows = [{"q": str(n * 37), "right": n % 3} for n in range(20)]
        (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
        common = (
            "dataset_path: json\ndataset_kwargs: {data_files: {test: data.jsonl}}\n"
            'test_split: test\ndoc_to_text: "max:{{q}}>"\n'
        )
        (folder / "pick.yaml").write_text(
            f"task: pick\n{common}output_type: multiple_choice\n"
            'doc_to_choice: ["0", "1", "2"]\ndoc_to_target: right\n'
            "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
        )
        (folder / "text.yaml").write_text(
            f'task: text\n{common}output_type: loglikelihood_rolling\ndoc_to_target: "{{{{q}}}}"\n'
            "metric_list: [{metric: bits_per_byte, aggregation: bits_per_byte, "
            "higher_is_better: false}]\n"
        )
        (folder / "write.yaml").write_text(
            f"task: write\n{common}output_type: generate_until\ndoc_to_target: right\n"
            'generation_kwargs: {until: ["|", "1"], max_gen_toks: 9}\n'
            "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n"
        )
        return HarnessSpec(
            models=tuple((name, str(tiny_family[name])) for name in ("base", "math", "code")),
            tasks=(
                TaskSpec(name="pick"),
                TaskSpec(name="text", weight=0.1),
                TaskSpec(name="write"),
            ),
            include_path=(str(folder),),
            engine=engine,
        )

    @pytest.fixture(scope="class")
    def evaluator(self, spec: HarnessSpec) -> Iterator[Evaluator]:
        made = HarnessEvaluator(spec)
        yield made
        made.close()
        made.close()

    def test_driver_and_worker_agree(self, evaluator: Evaluator, spec: HarnessSpec) -> None:
        assert check(spec) == evaluator.catalogue()
        assert check(replace(spec, batch_size=3)) == evaluator.catalogue()


class Letters(ModelEvaluator):
    """How likely a model finds a letter; two tasks, one of them about being unlikely."""

    def questions(self) -> dict[str, list[str]]:
        return {"pick": [f"{n}=" for n in range(12)], "text": [f"{n}>" for n in range(9)]}

    def answer(self, model: Any, tokenizer: Any, task: str, questions: Any) -> list[float]:
        if questions == ["fail"]:
            raise RuntimeError("no")
        target = tokenizer("a" if task == "pick" else "b", add_special_tokens=False)["input_ids"][0]
        found = []
        for text in questions:
            ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
            logits = model(input_ids=ids).logits[0, -1]
            found.append(float(logits.log_softmax(-1)[target]))
        return found


class TestOwn(EvaluatorContract):
    @pytest.fixture(scope="class")
    def spec(self, tiny_family: dict[str, Path]) -> HarnessSpec:
        return HarnessSpec(
            models=tuple((name, str(tiny_family[name])) for name in ("base", "math", "code")),
            tasks=(TaskSpec(name="pick"), TaskSpec(name="text", weight=0.5, lower_is_better=True)),
        )

    @pytest.fixture(scope="class")
    def evaluator(self, spec: HarnessSpec) -> Iterator[Evaluator]:
        made = Letters(spec)
        yield made
        made.close()
        made.close()

    def test_weights_are_those_that_the_harness_builds(
        self, evaluator: Evaluator, spec: HarnessSpec, tmp_path: Path
    ) -> None:
        (tmp_path / "pick.yaml").write_text(
            "task: pick\ndataset_path: json\ndataset_kwargs: {data_files: {test: data.jsonl}}\n"
            'test_split: test\noutput_type: multiple_choice\ndoc_to_text: "{{q}}"\n'
            'doc_to_choice: ["0", "1"]\ndoc_to_target: right\n'
        )
        (tmp_path / "data.jsonl").write_text('{"q": "1", "right": 0}\n{"q": "2", "right": 1}\n')
        asked = replace(spec, tasks=(TaskSpec(name="pick"),), include_path=(str(tmp_path),))
        harness = HarnessEvaluator(asked)
        made = recipe(math=0.3, code=0.9)
        ids = tuple(question.id for question in harness.catalogue().questions)
        theirs = self.ask(harness, made, ids)
        harness.close()
        own = tuple(question.id for question in evaluator.catalogue().questions)
        assert self.ask(evaluator, made, own).fingerprint == theirs.fingerprint

    @pytest.mark.parametrize(
        ("reference", "words"),
        [
            ("nothing.here:Name", "No module named"),
            ("evaluators.custom_evaluator:Nothing", "has no attribute"),
            ("/nowhere/judge.py:Name", "No such file"),
            ("Name", "expected file.py:NAME or module:NAME"),
            ("evaluators.custom_evaluator:__name__", "expected something to call"),
            ("evaluators.custom_evaluator:ModelEvaluator", "cannot be made"),
            ("builtins:repr", "expected an object with catalogue"),
        ],
    )
    def test_what_cannot_be_made_is_one_line(
        self, spec: HarnessSpec, reference: str, words: str
    ) -> None:
        with pytest.raises(EvaluatorError, match=words) as error:
            OwnFactory(reference=reference, spec=spec)()
        assert len(error.value.problems) == 1

    def test_a_recipe_that_is_asked_on_is_not_built_again(
        self, spec: HarnessSpec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        built: list[str] = []

        def building(*args: Any, **options: Any) -> str:
            built.append(build_into(*args, **options))
            return built[-1]

        monkeypatch.setattr("evaluators.resident_models.model_builder.build_into", building)
        evaluator = Letters(spec)
        ids = tuple(question.id for question in evaluator.catalogue().questions)
        first, second = recipe(math=0.5, code=0.5), recipe(math=0.2, code=0.8)
        part, whole = self.ask(evaluator, first, ids[:5]), self.ask(evaluator, first, ids)
        assert built == [part.fingerprint] == [whole.fingerprint]
        assert set(part.outcomes) <= set(whole.outcomes)
        assert self.ask(evaluator, second, ids).fingerprint == built[1] != built[0]
        evaluator.close()

    def test_a_lost_device_is_no_fault_of_the_recipe(
        self, spec: HarnessSpec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def lost(*args: Any) -> None:
            raise torch.AcceleratorError("CUDA error: unspecified launch failure")

        evaluator = Letters(spec)
        monkeypatch.setattr(Letters, "answer", lost)
        asked = evaluator.catalogue().questions[:1]
        with pytest.raises(EvaluatorError, match="device cpu: lost: AcceleratorError: CUDA"):
            evaluator.evaluate(Candidate(id=0, recipe=recipe(math=1.0), questions=(asked[0].id,)))
        evaluator.close()

    def test_answers_may_come_with_their_texts(
        self, spec: HarnessSpec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        evaluator = Letters(replace(spec, tasks=(TaskSpec(name="pick"),)))
        ids = tuple(question.id for question in evaluator.catalogue().questions)
        plain = self.ask(evaluator, recipe(math=1.0), ids)
        answer = Letters.answer

        def with_text(*given: Any) -> list[tuple[float, str]]:
            return [(value, f"{at}") for at, value in enumerate(answer(*given))]

        monkeypatch.setattr(Letters, "answer", with_text)
        worded = self.ask(evaluator, recipe(math=1.0), ids)
        assert worded.outcomes == plain.outcomes
        assert [one.text for one in worded.outcomes] == [f"{at}" for at in range(12)]
        said = evaluator.question_texts()
        assert [said[name].prompt for name in ids] == [f"{n}=" for n in range(12)]
        evaluator.close()

    def test_models_that_cannot_be_opened_are_a_failure(self, spec: HarnessSpec) -> None:
        evaluator = Letters(replace(spec, models=(("math", "/nowhere"),)))
        asked = evaluator.catalogue().questions[:1]
        result = evaluator.evaluate(
            Candidate(id=0, recipe=recipe(math=1.0), questions=(asked[0].id,))
        )
        assert isinstance(result, Failure)
        assert "/nowhere" in result.message

    def test_tasks_are_those_of_the_class(self, spec: HarnessSpec) -> None:
        few = Letters(replace(spec, tasks=(TaskSpec(name="pick", limit=3),)))
        assert len(few.catalogue().questions) == 3
        with pytest.raises(EvaluatorError, match=r"task other: expected .* \(one of pick, text\)"):
            Letters(replace(spec, tasks=(TaskSpec(name="other"),)))

    @pytest.mark.parametrize("answer", [[1.0], [float("nan")] * 12, "no"])
    def test_wrong_answers_are_failures(
        self, spec: HarnessSpec, answer: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Letters, "answer", lambda *_: answer)
        made = Letters(replace(spec, tasks=(TaskSpec(name="pick"),)))
        ids = tuple(question.id for question in made.catalogue().questions)
        result = made.evaluate(Candidate(id=0, recipe=recipe(math=1.0), questions=ids))
        assert isinstance(result, Failure)
        assert result.kind in (FailureKind.TASK, FailureKind.NON_FINITE)
        assert result.fingerprint
        made.close()
