"""A model on a GPU answers as on the CPU, and what goes wrong there is one candidate's failure.

Without a GPU the CPU is held against itself: other workers, other batches, questions in parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from evaluators.harness.harness_evaluator import HarnessEvaluator
from evaluators.protocol import Candidate, Failure, FailureKind, Score
from spaces.recipes.recipe import Recipe

TASKS = ("tiny_pick", "tiny_write", "tiny_text", "tiny_last")
ROUNDED = {"tiny_text", "tiny_last"}
"""Tasks whose outcomes are likelihoods: sums of float32 numbers, in an order of the device's."""

CLOSE: Mapping[str, float] = {"rel": 1e-4, "abs": 1e-6}
"""Float32 sums of a few hundred numbers in another order."""

TIES = {
    "method": "ties",
    "base": "base",
    "sources": [{"of": "math"}, {"of": "code"}],
    "parameters": {"weight": 0.7, "density": 0.4},
}
STACK = {
    "method": "passthrough",
    "slices": [
        {"sources": [{"of": "math", "layers": [0, 3]}]},
        {"sources": [{"of": "code", "layers": [1, 4]}]},
    ],
}
DARE = TIES | {"method": "dare_linear"}
RECIPES = {
    name: Recipe.from_dict({"merge": merge})
    for name, merge in (("ties", TIES), ("stack", STACK), ("dare", DARE))
}

MakeEvaluator = Callable[..., HarnessEvaluator]


@pytest.fixture
def make(make_spec: Any, device: torch.device) -> Iterator[MakeEvaluator]:
    """``make(**spec)``: an evaluator on the device; all are closed in the end."""
    made: list[HarnessEvaluator] = []

    def evaluator(*tasks: str, **fields: Any) -> HarnessEvaluator:
        fields = {"device": str(device), **fields}
        made.append(HarnessEvaluator(make_spec(*(tasks or TASKS), **fields)))
        return made[-1]

    yield evaluator
    for one in made:
        one.close()


def ask(
    evaluator: HarnessEvaluator, recipe: Recipe, keep: Callable[[int], bool] = lambda _: True
) -> Score:
    found = evaluator.evaluate(candidate(evaluator, recipe, keep))
    assert isinstance(found, Score), found
    return found


def candidate(
    evaluator: HarnessEvaluator, recipe: Recipe, keep: Callable[[int], bool] = lambda _: True
) -> Candidate:
    questions = evaluator.catalogue().questions
    asked = tuple(one.id for one in questions if keep(one.position))
    return Candidate(id=0, recipe=recipe, questions=asked)


def outcomes(*scores: Score) -> dict[str, float]:
    found = {one.question: one.value for score in scores for one in score.outcomes}
    assert len(found) == sum(len(score.outcomes) for score in scores)
    return found


def alike(found: Mapping[str, float], expected: Mapping[str, float]) -> None:
    """The same answers; likelihoods may be rounded otherwise."""
    assert found.keys() == expected.keys()
    other = {}
    for name, value in expected.items():
        rounded = name.partition("/")[0] in ROUNDED
        if found[name] != (pytest.approx(value, **CLOSE) if rounded else value):
            other[name] = (found[name], value)
    assert not other


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_answers_are_those_of_the_cpu(make: MakeEvaluator, recipe: Recipe) -> None:
    there, here = make(device="cpu"), make()
    expected, found = ask(there, recipe), ask(here, recipe)
    assert found.fingerprint == expected.fingerprint
    alike(outcomes(found), outcomes(expected))
    for one, other in zip(found.tasks, expected.tasks, strict=True):
        assert (one.task, one.n) == (other.task, other.n)
        assert one.value == pytest.approx(other.value, **CLOSE)
    likely, expected_likely = (
        one.losses(candidate(one, recipe, lambda at: at % 5 == 0)) for one in (here, there)
    )
    assert isinstance(likely, Mapping)
    assert isinstance(expected_likely, Mapping)
    assert len(likely) == len(TASKS) * 8
    assert likely == pytest.approx(expected_likely, **CLOSE)


def test_in_parts_on_two_workers(make: MakeEvaluator) -> None:
    recipe = RECIPES["ties"]
    first, second = make(), make()
    whole = ask(first, recipe)
    ask(first, RECIPES["dare"])
    parts = ask(first, recipe, lambda at: at % 3 == 0), ask(second, recipe, lambda at: at % 3)
    assert {one.fingerprint for one in parts} == {whole.fingerprint}
    alike(outcomes(*parts), outcomes(whole))


def test_batches_and_where_parents_live(make: MakeEvaluator, device: torch.device) -> None:
    recipe = RECIPES["dare"]
    whole = ask(make(), recipe)
    cases: list[dict[str, Any]] = [
        {"batch_size": "auto"},
        {"batch_size": 1},
        {"parents_on_device": 0.0},
        {"gpus": 0.5, "batch_size": "auto"},
    ]
    for case in cases:
        evaluator = make(**case)
        found = ask(evaluator, recipe)
        assert found.fingerprint == whole.fingerprint
        alike(outcomes(found), outcomes(whole))
        streamed = any("streamed" in note for note in evaluator.notes)
        assert streamed == (device.type == "cuda" and "parents_on_device" in case)


def test_half_precision(make: MakeEvaluator) -> None:
    """Answers may differ there; weights and dtype may not."""
    half = Recipe.from_dict({"merge": TIES, "dtype": "bfloat16"})
    evaluator = make()
    found = ask(evaluator, half)
    assert found.fingerprint == ask(make(device="cpu"), half).fingerprint
    assert ask(evaluator, RECIPES["ties"]).fingerprint != found.fingerprint
    again = ask(evaluator, half)
    assert (again.fingerprint, outcomes(again)) == (found.fingerprint, outcomes(found))


@contextmanager
def full(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """There is no memory left on the device; on the CPU a build says so."""
    if device.type == "cpu":
        with monkeypatch.context() as patch:
            patch.setattr("evaluators.resident_models.model_builder.build_into", _no_memory)
            yield
        return
    torch.cuda.empty_cache()
    total = torch.cuda.mem_get_info(device)[1]
    limit = torch.cuda.memory_reserved(device) + (4 << 20)
    ballast: list[torch.Tensor] = []
    torch.cuda.set_per_process_memory_fraction(limit / total)
    try:
        for size in (1 << 20, 1 << 16, 1 << 9):
            while True:
                try:
                    ballast.append(torch.empty(size, dtype=torch.uint8, device=device))
                except torch.OutOfMemoryError:
                    break
        yield
    finally:
        ballast.clear()
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


def _no_memory(*arguments: Any, **settings: Any) -> str:
    raise torch.OutOfMemoryError("CUDA out of memory (a test's)")


def test_memory_that_runs_out_is_a_failure(
    make: MakeEvaluator, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator = make()
    good = ask(evaluator, RECIPES["ties"])
    for recipe in (RECIPES["dare"], RECIPES["stack"]):  # the second one asks for another model too
        with full(device, monkeypatch):
            result = evaluator.evaluate(candidate(evaluator, recipe))
        assert isinstance(result, Failure)
        assert result.kind is FailureKind.OUT_OF_MEMORY, result
        assert "out of memory" in result.message
        again = ask(evaluator, RECIPES["ties"])
        assert again.fingerprint == good.fingerprint
        assert outcomes(again) == outcomes(good)
        assert ask(evaluator, recipe).fingerprint == ask(make(device="cpu"), recipe).fingerprint


def test_global_generators_are_left_alone(make: MakeEvaluator, device: torch.device) -> None:
    """Sampled answers are seeded, and nobody outside notices."""
    evaluator = make("tiny_vote")
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    first = ask(evaluator, RECIPES["ties"])
    ask(evaluator, RECIPES["dare"])
    assert outcomes(ask(evaluator, RECIPES["ties"])) == outcomes(first)
    assert torch.equal(torch.get_rng_state(), states[0])
    if device.type == "cuda":
        assert torch.equal(torch.cuda.get_rng_state(device), states[1])
