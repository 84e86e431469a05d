"""What a recipe brings in of each model, layer by layer."""

import pytest

from spaces.recipes.contributions import contributions
from spaces.recipes.recipe import (
    ByFilter,
    Case,
    Gradient,
    Merge,
    Model,
    Parameter,
    Recipe,
    Slice,
    Source,
    parameters,
)

A, B, C, BASE = (Model(name) for name in ("a", "b", "c", "base"))


def source(of: Model | Merge, **values: Parameter) -> Source:
    return Source(of=of, parameters=parameters(**values))


def shares(root: Merge, layers: int = 3) -> dict[tuple[str, str], list[float]]:
    found = contributions(Recipe(root=root), layers)
    return {(item.model, item.tensors): list(item.shares) for item in found}


def test_linear_divides_by_the_sum_and_follows_a_gradient() -> None:
    root = Merge(
        method="linear", sources=(source(A, weight=Gradient((0.0, 1.0))), source(B, weight=1.0))
    )
    found = shares(root)
    assert found["a", ""] == pytest.approx([0.0, 1 / 3, 0.5])
    assert found["b", ""] == pytest.approx([1.0, 2 / 3, 0.5])


def test_task_vectors_times_lambda_and_no_base() -> None:
    root = Merge(
        method="task_arithmetic",
        base=BASE,
        sources=(source(A, weight=0.5), source(B, weight=0.25)),
        parameters=parameters(lambda_=2.0),
    )
    assert shares(root) == {("a", ""): [1.0] * 3, ("b", ""): [0.5] * 3}


def test_filters_and_trees() -> None:
    t = ByFilter((Case(0.25, filter="mlp"), Case(0.5)))
    inner = Merge(
        method="slerp", base=A, sources=(source(A), source(B)), parameters=parameters(t=t)
    )
    root = Merge(method="linear", sources=(source(inner, weight=3.0), source(C, weight=1.0)))
    found = shares(root, layers=1)
    assert found["a", "mlp"] == pytest.approx([0.75 * 0.75])
    assert found["b", "mlp"] == pytest.approx([0.75 * 0.25])
    assert found["b", ""] == pytest.approx([0.75 * 0.5])
    assert found["c", ""] == found["c", "mlp"] == pytest.approx([0.25])


def test_slices_have_depths_of_their_own() -> None:
    def run(start: int, end: int, of: Model) -> Slice:
        scale = Gradient((1.0, 0.0))
        part = Source(of=of, layers=(start, end), parameters=parameters(scale=scale))
        return Slice(sources=(part,))

    root = Merge(method="passthrough", slices=(run(0, 2, A), run(1, 4, B)))
    found = shares(root, layers=4)
    assert found["a", ""] == pytest.approx([1.0, 0.0, 0.0, 0.0, 0.0])
    assert found["b", ""] == pytest.approx([0.0, 0.0, 1.0, 0.5, 0.0])


def test_methods_that_weigh_by_themselves_count_all_alike() -> None:
    root = Merge(method="model_stock", base=BASE, sources=(source(A), source(B)))
    assert shares(root, layers=1) == {("a", ""): [0.5], ("b", ""): [0.5]}
