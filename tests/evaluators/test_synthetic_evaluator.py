"""The closed-form landscape: an optimum inside, parents mediocre, neighbours alike."""

from __future__ import annotations

import pickle
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.protocol import Candidate, EvaluatorError, Failure, FailureKind, Score
from evaluators.synthetic_evaluator import SyntheticEvaluator, SyntheticSpec
from spaces.catalogue.method_catalogue import METHODS, BaseRule
from spaces.recipes.model_shares import model_shares
from spaces.recipes.recipe import (
    ByFilter,
    Case,
    Gradient,
    Merge,
    Model,
    Recipe,
    Slice,
    Source,
    parameters,
)

SPEC = SyntheticSpec(parents=("math", "code", "text"), tasks=(("sums", 1.0), ("lists", 2.0)))


def arithmetic(**weights: Any) -> Recipe:
    sources = tuple(
        Source(of=Model(name), parameters=parameters(weight=weight))
        for name, weight in weights.items()
    )
    return Recipe(root=Merge(method="task_arithmetic", sources=sources, base=Model("base")))


def linear(**weights: float) -> Merge:
    sources = tuple(
        Source(of=Model(name), parameters=parameters(weight=weight))
        for name, weight in weights.items()
    )
    return Merge(method="linear", sources=sources)


def score(recipe: Recipe, spec: SyntheticSpec = SPEC) -> Score:
    evaluator = SyntheticEvaluator(spec)
    asked = tuple(question.id for question in evaluator.catalogue().questions)
    result = evaluator.evaluate(Candidate(id=0, recipe=recipe, questions=asked))
    assert isinstance(result, Score)
    return result


def test_mixing_beats_every_parent_and_there_is_an_optimum_inside() -> None:
    spec = SyntheticSpec(parents=SPEC.parents, tasks=(("a", 1.0), ("b", 1.0), ("c", 1.0)))

    def value(**weights: float) -> float:
        return score(arithmetic(**weights), spec).value

    alone = [value(**{name: 1.0}) for name in spec.parents]
    plain = score(Recipe(root=linear(math=1.0, code=1.0, text=1.0)), spec).value
    best = value(math=0.53, code=0.53, text=0.53)
    assert max(alone) < 0.5 < plain < best
    for other in (0.2, 0.9, 1.4):
        assert value(math=other, code=other, text=other) < best


@given(st.floats(0, 1.5), st.floats(0, 1.5), st.floats(0, 0.01))
def test_neighbours_answer_alike(first: float, second: float, step: float) -> None:
    here = score(arithmetic(math=first, code=second))
    there = score(arithmetic(math=first + step, code=second))
    changed = sum(a.value != b.value for a, b in zip(here.outcomes, there.outcomes, strict=True))
    assert changed <= 12  # of 200


def test_model_shares() -> None:
    inner = linear(math=1.0, code=3.0)
    assert model_shares(inner) == pytest.approx({"math": 0.25, "code": 0.75})
    t = parameters(t=Gradient((0.0, 0.5)))
    sources = (Source(of=Model("text")), Source(of=inner))
    outer = Merge(method="slerp", sources=sources, base=Model("text"), parameters=t)
    assert model_shares(outer) == pytest.approx({"text": 0.75, "math": 0.0625, "code": 0.1875})
    by_filter = ByFilter((Case(0.2, "mlp"), Case(0.4)))
    assert model_shares(arithmetic(math=by_filter).root) == pytest.approx(
        {"base": 0.7, "math": 0.3}
    )
    ties = Merge(
        method="ties", base=Model("base"),
        sources=(
            Source(of=Model("math"), parameters=parameters(weight=2.0, density=1.0)),
            Source(of=Model("code"), parameters=parameters(weight=2.0, density=0.5)),
        ),
    )  # fmt: skip
    assert model_shares(ties)["math"] == pytest.approx(4 / 7)  # normalised, half a density counts
    slices = tuple(
        Slice(sources=(Source(of=Model(name), layers=layers),))
        for name, layers in (("math", (0, 1)), ("code", (1, 4)))
    )
    assert model_shares(Merge(method="passthrough", slices=slices)) == {"math": 0.25, "code": 0.75}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_model_shares(method: str) -> None:
    """Shares of all inputs, and of the base what is left; they add up to about one."""
    found = METHODS[method]
    names = ("math", "code")[: found.max_inputs or 2]
    needed = {"weight": 0.5, "t": 0.001}
    base = {BaseRule.ENDPOINT: Model("math"), BaseRule.NONE: None}.get(found.base, Model("base"))
    merge = Merge(
        method=method,
        sources=tuple(Source(of=Model(name)) for name in names),
        base=base,
        parameters=tuple(
            (spec.name, needed[spec.name]) for spec in found.parameters if spec.default is None
        ),
    )
    shares = model_shares(merge)
    assert all(shares[name] > 0 for name in names)
    assert sum(shares.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("method", "first", "second"),
    [
        ("sce", {"select_topk": 0.2}, {"select_topk": 0.9}),
        ("breadcrumbs", {"gamma": 0.0}, {"gamma": 0.3}),
        ("della", {"epsilon": 0.05}, {"epsilon": 0.3}),
        ("ram", {"epsilon": 1e-5}, {"epsilon": 1e-3}),
        ("ramplus_tl", {"r": 0.1}, {"r": 0.5}),
        ("ramplus_tl", {"alpha": 0.1}, {"alpha": 0.5}),
    ],
)
def test_every_number_counts(
    method: str, first: dict[str, float], second: dict[str, float]
) -> None:
    def share(values: dict[str, float]) -> float:
        given = {"weight": 0.5, **values} if METHODS[method].parameter("weight") else values
        merge = Merge(
            method=method,
            sources=(Source(of=Model("math")),),
            base=Model("base"),
            parameters=parameters(**given),
        )
        return model_shares(merge)["math"]

    assert share(first) != pytest.approx(share(second))


def test_lower_is_better_counts_the_wrong_answers() -> None:
    other = SyntheticSpec(parents=SPEC.parents, tasks=SPEC.tasks, lower_is_better=("sums",))
    recipe = arithmetic(math=0.4)
    right, wrong = score(recipe).tasks[0], score(recipe, other).tasks[0]
    assert right.value + wrong.value == pytest.approx(1.0)
    assert not SyntheticEvaluator(other).catalogue().tasks[0].higher_is_better


def _heavy(recipe: Recipe) -> bool:
    return "math" in recipe.models


def test_failures_by_order() -> None:
    spec = SyntheticSpec(
        parents=SPEC.parents, tasks=SPEC.tasks, fail_when=_heavy, failure=FailureKind.OUT_OF_MEMORY
    )
    evaluator = SyntheticEvaluator(spec)
    asked = tuple(question.id for question in evaluator.catalogue().questions)
    bad = evaluator.evaluate(Candidate(id=0, recipe=arithmetic(math=1.0), questions=asked))
    good = evaluator.evaluate(Candidate(id=1, recipe=arithmetic(code=1.0), questions=asked))
    assert isinstance(bad, Failure)
    assert bad.kind is FailureKind.OUT_OF_MEMORY
    assert isinstance(good, Score)


def test_a_share_of_recipes_fails() -> None:
    spec = SyntheticSpec(parents=SPEC.parents, tasks=SPEC.tasks, questions=2, fail_rate=0.3)
    evaluator = SyntheticEvaluator(spec)
    asked = tuple(question.id for question in evaluator.catalogue().questions)
    results = [
        evaluator.evaluate(Candidate(id=n, recipe=arithmetic(math=n / 200), questions=asked))
        for n in range(200)
    ]
    assert 40 <= sum(isinstance(result, Failure) for result in results) <= 80


def test_travels_to_workers() -> None:
    make = pickle.loads(pickle.dumps(partial(SyntheticEvaluator, SPEC)))
    assert make().catalogue() == SyntheticEvaluator(SPEC).catalogue()


def test_impossible_specs() -> None:
    spec = SyntheticSpec(parents=(), tasks=(("a", -1.0), ("a", 1.0)), questions=0, fail_rate=2.0)
    with pytest.raises(EvaluatorError) as caught:
        SyntheticEvaluator(spec)
    assert len(caught.value.problems) == 5
    with pytest.raises(EvaluatorError, match="tasks: expected at least one"):
        SyntheticEvaluator(SyntheticSpec(parents=("a",), tasks=()))
