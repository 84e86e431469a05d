"""What goes wrong with one candidate is a Failure, and the next candidate is as good as ever."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from evaluators.harness.engines.engine_choice import ENGINES
from evaluators.harness.harness_evaluator import HarnessEvaluator
from evaluators.protocol import Candidate, Failure, FailureKind, Score
from spaces.recipes.recipe import Merge, Model, Recipe, Slice, Source, parameters


@pytest.fixture(scope="module")
def models(tiny_family: dict[str, Path], tiny_model: Any, tmp_path_factory: Any) -> dict[str, Path]:
    """The family, one of huge weights, one whose logits overflow, one of another shape."""
    root = tmp_path_factory.mktemp("bad")

    def changed(name: str, factor: float, part: str) -> Path:
        folder = shutil.copytree(tiny_family["math"], root / name)
        tensors = load_file(folder / "model.safetensors")
        for key, value in tensors.items():
            if part in key:
                tensors[key] = torch.full_like(value, factor)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return Path(folder)

    return {
        **tiny_family,
        "huge": changed("huge", 1e38, "mlp.down_proj"),
        "loud": changed("loud", 3e38, "lm_head"),
        "still": changed("still", 0.01, "embed_tokens"),
        "other": tiny_model(root / "other", layers=3),
    }


@pytest.fixture(scope="module", params=ENGINES)
def evaluator(
    make_spec: Any, models: dict[str, Path], request: pytest.FixtureRequest
) -> HarnessEvaluator:
    return HarnessEvaluator(
        make_spec("tiny_pick", "tiny_write", models=models, engine=request.param)
    )


def ask(evaluator: HarnessEvaluator, recipe: Recipe, *tasks: str) -> Score | Failure:
    questions = evaluator.catalogue().questions
    asked = tuple(q.id for q in questions if not tasks or q.task in tasks)
    return evaluator.evaluate(Candidate(id=0, recipe=recipe, questions=asked))


def test_failures_by_kind_and_usable_afterwards(evaluator: HarnessEvaluator, mix: Any) -> None:
    good = ask(evaluator, mix(math=1.0, code=1.0))
    assert isinstance(good, Score)
    cases = [
        (mix(math=1.0, other=1.0), FailureKind.BUILD, False),
        (mix(math=1.0, nobody=1.0), FailureKind.BUILD, False),
        (_unnormalised(huge=1e10), FailureKind.NON_FINITE, False),
        (mix(loud=1.0), FailureKind.NON_FINITE, True),
    ]
    for recipe, kind, built in cases:
        result = ask(evaluator, recipe)
        assert isinstance(result, Failure)
        assert result.kind is kind, result
        assert result.message
        assert "\n" not in result.message
        assert "Traceback" in result.detail
        assert bool(result.fingerprint) is built
        again = ask(evaluator, mix(math=1.0, code=1.0))
        assert isinstance(again, Score)
        assert (again.value, again.outcomes) == (good.value, good.outcomes)


def _unnormalised(**weights: float) -> Recipe:
    sources = tuple(
        Source(of=Model(n), parameters=parameters(weight=w)) for n, w in weights.items()
    )
    return Recipe(
        root=Merge(method="linear", sources=sources, parameters=parameters(normalize=False))
    )


def test_overflowing_logits_are_seen_in_generation_too(
    evaluator: HarnessEvaluator, mix: Any
) -> None:
    result = ask(evaluator, mix(loud=1.0), "tiny_write")
    assert isinstance(result, Failure)
    assert result.kind is FailureKind.NON_FINITE
    assert "NaN or infinite" in result.message


@pytest.mark.parametrize("questions", [(), ("tiny_pick/none",)])
def test_unknown_questions(
    evaluator: HarnessEvaluator, mix: Any, questions: tuple[str, ...]
) -> None:
    result = evaluator.evaluate(Candidate(id=0, recipe=mix(math=1.0), questions=questions))
    assert isinstance(result, Failure)
    assert result.kind is FailureKind.ERROR
    assert "questions: expected ids of the catalogue" in result.message


def test_a_task_that_raises(make_spec: Any, mix: Any, tmp_path: Path) -> None:
    rows = [{"q": str(number), "a": str(number)} for number in range(4)]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "code.py").write_text(
        "def score(doc, results):\n"
        "    if doc['q'] == '3' and results[0]:\n"
        "        raise RuntimeError('no mark for this')\n"
        "    return {'mark': 1.0}\n"
    )
    (tmp_path / "raises.yaml").write_text(
        "task: raises\ndataset_path: json\ndataset_kwargs: {data_files: {test: data.jsonl}}\n"
        "test_split: test\noutput_type: generate_until\ndoc_to_text: q\ndoc_to_target: a\n"
        "generation_kwargs: {until: ['|'], max_gen_toks: 3}\n"
        "process_results: !function code.score\n"
        "metric_list: [{metric: mark, aggregation: mean, higher_is_better: true}]\n"
    )
    from dataclasses import replace

    spec = replace(make_spec("raises"), include_path=(str(tmp_path),))
    evaluator = HarnessEvaluator(spec)
    result = ask(evaluator, mix(math=1.0))
    assert isinstance(result, Failure)
    assert result.kind is FailureKind.TASK
    assert result.message == "RuntimeError: no mark for this"
    assert "in score" in result.detail
    assert result.fingerprint
    first = tuple(question.id for question in evaluator.catalogue().questions[:3])
    rest = evaluator.evaluate(Candidate(id=1, recipe=mix(math=1.0), questions=first))
    assert isinstance(rest, Score)
    assert rest.value == 1.0


class _Narrow:
    """A device on which larger batches do not fit."""

    def __init__(self, fits: int) -> None:
        self.fits = fits
        self.tried: list[int] = []

    def __call__(self, module: Any, arguments: Any, named: dict[str, Any]) -> None:
        ids = arguments[0] if arguments else named["input_ids"]
        if len(ids) > 1:
            self.tried.append(len(ids))
        if len(ids) > self.fits:
            raise torch.OutOfMemoryError("out of memory (a test's)")


def _narrow(monkeypatch: pytest.MonkeyPatch, fits: int) -> _Narrow:
    narrow = _Narrow(fits)
    from evaluators.resident_models import resident_model

    make = resident_model.Skeleton.__init__

    def init(self: Any, model: Any) -> None:
        model.register_forward_pre_hook(narrow, with_kwargs=True)
        make(self, model)

    monkeypatch.setattr(resident_model.Skeleton, "__init__", init)
    return narrow


def test_out_of_memory_halves_an_automatic_batch(
    make_spec: Any, mix: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ask(HarnessEvaluator(make_spec("tiny_pick", batch_size=8)), mix(math=1.0))
    narrow = _narrow(monkeypatch, 8)
    evaluator = HarnessEvaluator(make_spec("tiny_pick", batch_size="auto"))
    result = ask(evaluator, mix(math=1.0))
    assert isinstance(result, Score)
    assert isinstance(whole, Score)
    assert result.outcomes == whole.outcomes
    assert narrow.tried[:3] == [32, 16, 8]
    narrow.tried.clear()
    ask(evaluator, mix(math=1.0))
    assert max(narrow.tried) == 8  # learnt once


def test_out_of_memory_shrinks_a_batch_of_the_users_own(
    make_spec: Any, mix: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow = _narrow(monkeypatch, 4)
    evaluator = HarnessEvaluator(make_spec("tiny_pick", batch_size=8))
    assert isinstance(ask(evaluator, mix(math=1.0)), Score)
    assert narrow.tried[:2] == [8, 4]
    narrow.tried.clear()
    assert isinstance(ask(evaluator, mix(math=1.0, code=1.0)), Score)
    assert max(narrow.tried) == 4


@pytest.mark.parametrize("batch", [8, "auto"])
def test_out_of_memory_is_a_failure(
    make_spec: Any, mix: Any, monkeypatch: pytest.MonkeyPatch, batch: Any
) -> None:
    """Where single sequences do not fit either; the batch size is then as it was."""
    narrow = _narrow(monkeypatch, 0)
    evaluator = HarnessEvaluator(make_spec("tiny_pick", batch_size=batch))
    result = ask(evaluator, mix(math=1.0))
    assert isinstance(result, Failure)
    assert result.kind is FailureKind.OUT_OF_MEMORY
    assert result.fingerprint
    narrow.fits = 1_000
    narrow.tried.clear()
    assert isinstance(ask(evaluator, mix(math=1.0)), Score)
    assert max(narrow.tried) == (8 if batch == 8 else 32)


def test_a_model_that_says_the_same_always(
    make_spec: Any, mix: Any, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = make_spec("tiny_pick", "tiny_write", models=models)
    evaluator = HarnessEvaluator(wanted)
    asked: list[Any] = []
    monkeypatch.setattr(
        "evaluators.harness.harness_evaluator.respond", lambda *args: asked.append(args)
    )
    result = ask(evaluator, mix(still=1.0, math=1e-9))
    assert isinstance(result, Failure)
    assert result.kind is FailureKind.DEGENERATE
    assert result.fingerprint
    assert "gives the same answer to every prompt" in result.message
    assert not asked  # its tasks were not paid for
    monkeypatch.undo()
    assert isinstance(ask(evaluator, mix(math=1.0, code=1.0)), Score)
    alone = ask(evaluator, mix(still=1.0))
    assert isinstance(alone, Score)  # a parent is always asked
    lenient = HarnessEvaluator(replace(wanted, check_degenerate=False))
    unlooked = ask(lenient, mix(still=1.0, math=1e-9))
    assert isinstance(unlooked, Score)
    assert unlooked.fingerprint == result.fingerprint


def test_interrupts_pass_through(make_spec: Any, mix: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator = HarnessEvaluator(make_spec("tiny_pick"))
    with monkeypatch.context() as patch:
        patch.setattr("evaluators.resident_models.model_builder.build_into", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            ask(evaluator, mix(math=1.0))
    assert isinstance(ask(evaluator, mix(math=1.0)), Score)


def _interrupt(*arguments: Any, **settings: Any) -> str:
    raise KeyboardInterrupt


def test_depth_and_dtype_may_change_between_candidates(
    evaluator: HarnessEvaluator, mix: Any
) -> None:
    stacked = Recipe(
        root=Merge(
            method="passthrough",
            slices=tuple(
                Slice(sources=(Source(of=Model(name), layers=layers),))
                for name, layers in (("math", (0, 3)), ("code", (1, 4)))
            ),
        )
    )
    half = Recipe(root=mix(math=1.0, code=1.0).root, dtype="bfloat16")
    plain = mix(math=1.0, code=1.0)
    first = [ask(evaluator, recipe) for recipe in (plain, stacked, half)]
    second = [ask(evaluator, recipe) for recipe in (half, plain, stacked)]
    assert all(isinstance(result, Score) for result in first)
    for one, other in zip(first, (second[1], second[2], second[0]), strict=True):
        assert isinstance(one, Score)
        assert isinstance(other, Score)
        assert (one.value, one.outcomes, one.fingerprint) == (
            other.value, other.outcomes, other.fingerprint,
        )  # fmt: skip


def test_closing_twice(make_spec: Any) -> None:
    evaluator = HarnessEvaluator(make_spec("tiny_pick"))
    evaluator.close()
    evaluator.close()
