"""Losses of right answers with their gradients: the model's own losses, and finite differences."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import OPTConfig, OPTForCausalLM

from evaluators.harness.answers import answer_gradients
from evaluators.harness.answers.answer_gradients import AnswerTokens, backward, recomputing
from evaluators.harness.harness_evaluator import HarnessEvaluator
from evaluators.harness_spec import HarnessSpec, TaskSpec
from evaluators.protocol import Candidate, Failure, LossGradient, Score, scored
from evaluators.workers.attempt import attempt
from spaces.recipes.coefficients import Coefficients
from spaces.recipes.recipe import Recipe

MakeSpec = Callable[..., HarnessSpec]

MERGE = {
    "method": "task_arithmetic",
    "base": "base",
    "sources": [
        {"of": "math", "parameters": {"weight": [0.4, 0.9]}},
        {"of": "code", "parameters": {"weight": 0.6}},
    ],
}


@pytest.fixture
def recipe() -> Recipe:
    return Recipe.from_dict({"merge": MERGE, "dtype": "float32"})


def differentiated(
    evaluator: HarnessEvaluator, recipe: Recipe, *, weigh: Callable[[int], float] = lambda _: 1.0
) -> LossGradient:
    questions = tuple(one.id for one in evaluator.catalogue().questions)
    weights = {name: weigh(at) for at, name in enumerate(questions) if weigh(at)}
    found = evaluator.gradient(Candidate(id=0, recipe=recipe, questions=questions, weights=weights))
    assert isinstance(found, LossGradient), found
    return found


@pytest.mark.parametrize("task", ["tiny_pick", "tiny_write", "tiny_last", "tiny_shots"])
def test_gradients_are_finite_differences(make_spec: MakeSpec, recipe: Recipe, task: str) -> None:
    metric = {"tiny_write": "exact_match,strict"}.get(task)
    evaluator = HarnessEvaluator(make_spec(TaskSpec(name=task, metric=metric)))
    found, coefficients = differentiated(evaluator, recipe), Coefficients(recipe)
    assert found.tokens > 0
    for index in range(len(coefficients.values)):
        ends = []
        for step in (0.02, -0.02):
            values = list(coefficients.values)
            values[index] += step
            ends.append(
                sum(differentiated(evaluator, coefficients.replaced(values)).losses.values())
            )
        expected = (ends[0] - ends[1]) / 0.04
        assert found.gradient[index] == pytest.approx(expected, rel=0.02, abs=0.02)


def test_a_written_answer_has_the_loss_that_lm_eval_gives(
    make_spec: MakeSpec, recipe: Recipe
) -> None:
    evaluator = HarnessEvaluator(make_spec("tiny_last"))
    questions = tuple(one.id for one in evaluator.catalogue().questions)
    expected = evaluator.losses(Candidate(id=0, recipe=recipe, questions=questions))
    assert not isinstance(expected, Failure)
    found = differentiated(evaluator, recipe).losses
    assert found == pytest.approx(dict(expected), rel=1e-4)


def test_a_choice_is_judged_among_all_choices(make_spec: MakeSpec, recipe: Recipe) -> None:
    evaluator = HarnessEvaluator(make_spec("tiny_pick"))
    losses = differentiated(evaluator, recipe).losses
    # an untrained model chooses at random: its loss is near that of four equal choices
    assert sum(losses.values()) / len(losses) == pytest.approx(math.log(4), rel=0.5)


def test_questions_without_weight_give_their_loss_only(make_spec: MakeSpec, recipe: Recipe) -> None:
    evaluator = HarnessEvaluator(make_spec("tiny_last"))
    every = differentiated(evaluator, recipe)
    half = differentiated(evaluator, recipe, weigh=lambda at: 1.0 if at % 2 else 0.0)
    rest = differentiated(evaluator, recipe, weigh=lambda at: 0.0 if at % 2 else 1.0)
    assert half.losses == pytest.approx(dict(every.losses), rel=1e-5)
    total = [a + b for a, b in zip(half.gradient, rest.gradient, strict=True)]
    assert total == pytest.approx(list(every.gradient), rel=1e-3, abs=1e-5)


def test_references_that_would_be_marked_wrong_are_not_learned(
    make_spec: MakeSpec, recipe: Recipe
) -> None:
    """The strict filter takes the whole answer; one that looks for more in it finds nothing."""
    spec = make_spec(TaskSpec(name="tiny_write", metric="exact_match,loose"))
    folder = spec.include_path[0]
    assert differentiated(HarnessEvaluator(spec), recipe).losses  # (.) finds the bare letter
    text = (Path(folder) / "tiny_write.yaml").read_text()
    other = re.sub(r"task: tiny_write", "task: tiny_reason", text).replace(
        '"(.)"', '"the answer is (.)"'
    )
    (Path(folder) / "tiny_reason.yaml").write_text(other)
    try:
        spec = make_spec(TaskSpec(name="tiny_reason", metric="exact_match,loose"))
        assert differentiated(HarnessEvaluator(spec), recipe).losses == {}
    finally:
        (Path(folder) / "tiny_reason.yaml").unlink()


def test_scores_after_learning_are_those_before(make_spec: MakeSpec, recipe: Recipe) -> None:
    evaluator = HarnessEvaluator(make_spec("tiny_pick"))
    questions = tuple(one.id for one in evaluator.catalogue().questions)
    asked = Candidate(id=0, recipe=recipe, questions=questions)
    before = scored(attempt(evaluator, asked))
    differentiated(evaluator, recipe)
    after = scored(attempt(evaluator, asked))
    assert not isinstance(before, Failure)
    assert not isinstance(after, Failure)
    assert (after.outcomes, after.fingerprint) == (before.outcomes, before.fingerprint)


def test_methods_without_a_derivative_are_a_failure(make_spec: MakeSpec) -> None:
    merge = {
        "method": "nuslerp",
        "sources": [
            {"of": "math", "parameters": {"weight": 0.4}},
            {"of": "code", "parameters": {"weight": 0.6}},
        ],
    }
    evaluator = HarnessEvaluator(make_spec("tiny_last"))
    name = evaluator.catalogue().questions[0].id
    asked = Candidate(
        id=0, recipe=Recipe.from_dict({"merge": merge}), questions=(name,), weights={name: 1.0}
    )
    found = attempt(evaluator, asked)
    assert isinstance(found, Failure)
    assert "method: expected one of" in found.message


class Table:
    """A model whose next token depends on the last one alone; it counts what it reads."""

    def __init__(self) -> None:
        self.logits = torch.randn(10, 10, generator=torch.Generator().manual_seed(0))
        self.read: list[torch.Size] = []

    def __call__(self, *, input_ids: torch.Tensor, **_: object) -> SimpleNamespace:
        self.read.append(input_ids.shape)
        return SimpleNamespace(logits=self.logits[input_ids])


def test_choices_of_one_token_are_read_off_one_prompt() -> None:
    model, said = Table(), Table().logits.log_softmax(-1)
    short = AnswerTokens(question="short", texts=((1, 2, 3), (1, 2, 4)), starts=(2, 2), right=1)
    long = AnswerTokens(question="long", texts=((1, 2, 3), (1, 2, 4, 5)), starts=(2, 2), right=1)
    found = backward(model, [short, long], {}, batch=4, device=torch.device("cpu"))
    assert model.read == [(2, 3)]  # the prompt, and the prompt with a token of the long choice
    first, second, third = said[2, 3], said[2, 4], said[2, 4] + said[4, 5]
    assert found["short"] == pytest.approx(float(torch.logaddexp(first, second) - second), rel=1e-5)
    assert found["long"] == pytest.approx(float(torch.logaddexp(first, third) - third), rel=1e-5)


def activations(monkeypatch: pytest.MonkeyPatch, *, limit: float = math.inf) -> list[int]:
    """Numbers that each forward pass keeps for a backward one, where no more than some fit."""
    kept: list[int] = []
    losses = answer_gradients._losses

    def limited(*arguments: Any) -> torch.Tensor:
        kept.append(0)

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            kept[-1] += tensor.numel()
            if kept[-1] > limit:
                raise torch.OutOfMemoryError("out of memory (a test's)")
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            return losses(*arguments)

    monkeypatch.setattr(answer_gradients, "_losses", limited)
    return kept


def test_activations_that_do_not_fit_are_computed_once_more(
    make_spec: MakeSpec, recipe: Recipe
) -> None:
    evaluator = HarnessEvaluator(make_spec("tiny_last", batch_size=1))
    with pytest.MonkeyPatch.context() as patch:
        single = activations(patch)
        expected = differentiated(evaluator, recipe)
    assert expected.passes == 3
    evaluator = HarnessEvaluator(make_spec("tiny_last", batch_size=2))
    with pytest.MonkeyPatch.context() as patch:
        tried = activations(patch, limit=0.9 * max(single))
        found = differentiated(evaluator, recipe)
    assert len(tried) > 2  # two sequences and one were too much
    assert found.passes == 4
    assert found.losses == pytest.approx(dict(expected.losses), rel=1e-5)
    assert found.gradient == pytest.approx(expected.gradient, rel=1e-4, abs=1e-6)
    whole = evaluator.evaluate(Candidate(id=1, recipe=recipe, questions=tuple(found.losses)))
    assert isinstance(whole, Score), whole


def test_what_is_computed_once_more_drops_no_values() -> None:
    torch.manual_seed(0)
    model = OPTForCausalLM(
        OPTConfig(
            vocab_size=60,
            hidden_size=32,
            word_embed_proj_dim=32,
            num_hidden_layers=2,
            ffn_dim=64,
            num_attention_heads=4,
            max_position_embeddings=64,
            dropout=0.5,  # OPT's layers look at their own flag
        )
    ).eval()
    text = AnswerTokens(question="q", texts=((1, 5, 6, 7, 8, 9, 10),), starts=(4,), right=0)
    found = []
    for frugal in (nullcontext, recomputing):
        model.zero_grad()
        with frugal(model):
            loss = backward(model, [text], {"q": 1.0}, batch=1, device=torch.device("cpu"))["q"]
        found.append(
            (loss, [one.grad.clone() for one in model.parameters() if one.grad is not None])
        )
    assert found[0][0] == found[1][0]
    assert all(map(torch.equal, found[0][1], found[1][1]))
    assert not any(one.training for one in model.modules())
