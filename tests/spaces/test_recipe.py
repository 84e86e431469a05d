"""Recipes: what cannot be is refused, equal ones have equal keys, values resolve as they should."""

import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaces.recipes.recipe import (
    ByFilter,
    Case,
    Gradient,
    Merge,
    Model,
    Recipe,
    RecipeError,
    Slice,
    Source,
    merges,
    parameters,
    parameters_from_json,
    resolve,
    value_from_json,
)
from spaces.sampling.draw import draw


def model(name: str, **values) -> Source:
    return Source(of=Model(name), parameters=parameters(**values))


def part(name: str, start: int, end: int) -> Source:
    return Source(of=Model(name), layers=(start, end))


def merge(method: str, *sources: Source, base: str | None = None, **values) -> Merge:
    node = None if base is None else Model(base)
    return Merge(method=method, sources=sources, base=node, parameters=parameters(**values))


A, B = model("a", weight=1.0), model("b", weight=1.0)
SLICE = Slice(sources=(part("a", 0, 2),))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Model(""), "model name: expected letters, digits"),
        (lambda: Model("-a"), "model name: expected letters, digits"),
        (lambda: Model("a/b"), "model name: expected letters.*got 'a/b'"),
        (lambda: Model("a\n"), "model name: expected letters"),
        (lambda: Gradient(()), "gradient: expected at least one value, got none"),
        (lambda: Gradient((1.0, float("nan"))), "gradient: expected finite numbers, got nan"),
        (lambda: Gradient((True,)), "gradient: expected finite numbers, got True"),
        (lambda: Case(float("inf")), "value: expected finite numbers, got inf"),
        (lambda: Case(1.0, ""), "filter: expected part of a tensor name, got an empty string"),
        (lambda: ByFilter(()), "filters: expected at least one case, got none"),
        (lambda: model("a", weight="1"), "weight: expected finite numbers, got '1'"),
        (
            lambda: Source(of=Model("a"), parameters=(("b", 1.0), ("a", 1.0))),
            r"parameters: expected names sorted and once each, got \['b', 'a'\]",
        ),
        (lambda: part("a", 2, 1), r"layers: expected 0 <= start <= end, got \[2, 1\]"),
        (lambda: part("a", -1, 1), r"layers: expected 0 <= start <= end, got \[-1, 1\]"),
        (lambda: Slice(sources=()), "slice: expected at least one source, got none"),
        (lambda: Slice(sources=(A,)), "slice: expected a layer range for every source"),
        (
            lambda: Slice(sources=(part("a", 0, 1), part("b", 0, 2))),
            r"slice: expected layer ranges of one length, got \[1, 2\]",
        ),
        (lambda: merge("delta", A), "method: expected one of linear, .*, got 'delta'"),
        (lambda: merge("linear"), "linear: expected either sources or slices, got both or none"),
        (
            lambda: Merge(method="linear", sources=(A,), slices=(SLICE,)),
            "linear: expected either sources or slices, got both or none",
        ),
        (lambda: merge("ties", A), "ties: expected a base model, got none"),
        (lambda: merge("linear", A, base="c"), "linear: expected no base .* got one"),
        (lambda: merge("linear", A, A), "linear: expected distinct inputs, got one of them twice"),
        (
            lambda: merge("passthrough", part("a", 0, 1)),
            "passthrough: expected no layer range outside slices, got one",
        ),
        (
            lambda: merge("slerp", model("a"), model("b"), base="c", t=0.5),
            "slerp: expected the base among the inputs, got another",
        ),
        (
            lambda: merge("slerp", model("a"), base="a", t=0.5),
            "slerp: expected exactly 2 inputs, got 1",
        ),
        (lambda: merge("passthrough", model("a"), model("b")), "expected exactly 1 inputs, got 2"),
        (lambda: merge("ties", model("c"), base="c"), "ties: expected at least 1 inputs, got 0"),
        (
            lambda: Merge(method="ties", slices=(SLICE,), base=Model("c")),
            "ties: expected the base in every slice, got a slice without",
        ),
        (
            lambda: merge("linear", model("a", weight=1.0, density=0.5)),
            "linear: expected parameters weight, got 'density'",
        ),
        (
            lambda: merge("linear", A, t=1.0),
            "linear: expected parameters weight, normalize, got 't'",
        ),
        (lambda: merge("linear", model("a")), "linear: expected a value for 'weight', got none"),
        (
            lambda: merge("slerp", model("a"), model("b"), base="a"),
            "slerp: expected a value for 't', got none",
        ),
        (
            lambda: merge("ties", A, base="c", density=Gradient((0.5, 0.0))),
            r"density: expected a value in \(0, 1\], got 0.0",
        ),
        (
            lambda: merge("ties", A, base="c", density=ByFilter((Case(1.5, "mlp"), Case(1.0)))),
            r"density: expected a value in \(0, 1\], got 1.5",
        ),
        (lambda: Recipe(root=merge("linear", A), dtype="int8"), "dtype: expected one of float32"),
        (
            lambda: Recipe(root=merge("linear", A), seed=-1),
            "seed: expected 0 to 2147483647, got -1",
        ),
        (lambda: Recipe(root=merge("linear", A), seed=2**31), "seed: expected 0 to 2147483647"),
        (lambda: Recipe.from_dict({}), "recipe: expected the fields of a recipe"),
        (lambda: Recipe.from_dict({"merge": 3}), "recipe: expected the fields of a recipe"),
        (lambda: value_from_json("1"), "parameter: expected a number, a list of numbers"),
        (lambda: value_from_json([1, "2"]), "parameter: expected a number, a list of numbers"),
        (lambda: value_from_json([{"filter": "a"}]), "expected the keys value and filter"),
        (
            lambda: value_from_json([{"value": [{"value": 1}]}]),
            "parameter: expected no filters inside a filter, got some",
        ),
        (lambda: parameters_from_json({"t": "x"}), "t: parameter: expected a number"),
    ],
)
def test_what_cannot_be_is_refused(make, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        make()


def test_equal_recipes_have_equal_keys() -> None:
    first = Recipe(root=merge("linear", model("a", weight=1), B))
    assert first == Recipe(root=merge("linear", A, B))
    assert first.key == Recipe(root=merge("linear", A, B)).key
    assert len(first.key) == 16


@pytest.mark.parametrize(
    "other",
    [
        Recipe(root=merge("linear", B, A)),
        Recipe(root=merge("linear", A, model("b", weight=1.0 + 2**-52))),
        Recipe(root=merge("linear", A, B, normalize=True)),
        Recipe(root=merge("linear", A, B), seed=1),
        Recipe(root=merge("linear", A, B), dtype="float32"),
        Recipe(root=merge("linear", A, B), tokenizer="b"),
        Recipe(root=merge("linear", A, model("c", weight=1.0))),
        Recipe(root=merge("linear", A, model("b", weight=Gradient((1.0,))))),
    ],
)
def test_keys_tell_recipes_apart(other: Recipe) -> None:
    assert other.key != Recipe(root=merge("linear", A, B)).key


@given(data=st.data(), seed=st.integers(0, 2**32))
def test_round_trip_through_json_and_pickle(any_space, random_trial, data, seed: int) -> None:
    recipe = draw(data.draw(any_space), random_trial(seed))
    again = Recipe.from_dict(json.loads(json.dumps(recipe.to_dict())))
    assert again == recipe
    assert again.key == recipe.key
    sent = pickle.loads(pickle.dumps(recipe))
    assert (sent, sent.key, hash(sent)) == (recipe, recipe.key, hash(recipe))


@pytest.mark.parametrize(
    ("tensor", "position", "value"),
    [
        ("model.layers.0.mlp.up_proj.weight", 0.0, 0.0),
        ("model.layers.0.mlp.up_proj.weight", 0.25, 0.5),
        ("model.layers.0.mlp.up_proj.weight", 1.0, 3.0),
        ("model.layers.0.self_attn.mlp.weight", 0.5, 1.0),  # the first match counts
        ("lm_head.weight", 0.7, None),
    ],
)
def test_filters_and_gradients_resolve(tensor: str, position: float, value: float | None) -> None:
    cases = ByFilter((Case(Gradient((0.0, 1.0, 3.0)), "mlp"), Case(9.0, "self_attn")))
    assert resolve(cases, tensor=tensor, position=position) == value


@pytest.mark.parametrize(
    ("weights", "shared", "expected"),
    [
        ((0.0, 1.0), {}, "b"),
        ((0.0, 0.3), {}, "b"),  # divided by the sum
        ((0.0, 0.3), {"normalize": False}, None),
        ((0.0, 1.0), {"normalize": False}, "b"),
        ((0.5, 0.5), {}, None),
        ((Gradient((0.0, 0.0)), Gradient((1.0, 0.5))), {}, "b"),
        ((Gradient((0.0, 0.1)), 1.0), {}, None),
    ],
)
def test_who_stands_alone(weights: Any, shared: dict[str, Any], expected: str | None) -> None:
    sources = tuple(
        Source(of=Model(name), parameters=parameters(weight=weight))
        for name, weight in zip("ab", weights, strict=True)
    )
    root = Merge(method="linear", sources=sources, parameters=parameters(**shared))
    assert Recipe(root=root).alone == expected
    assert Recipe(root=root).donor == (expected or "a")
    outer = Source(of=root, parameters=parameters(weight=1.0))
    assert Recipe(root=Merge(method="linear", sources=(outer,))).alone == expected
    scaled = Source(of=Model("a"), parameters=parameters(scale=0.5))
    assert Recipe(root=Merge(method="passthrough", sources=(scaled,))).alone is None


def test_names_in_order_of_appearance_and_the_donor() -> None:
    inner = merge("slerp", model("b"), model("c"), base="c", t=0.5)
    root = Merge(method="linear", sources=(A, Source(of=inner, parameters=parameters(weight=1.0))))
    recipe = Recipe(root=root)
    assert recipe.models == ("a", "b", "c")
    assert recipe.donor == "c"
    assert Recipe(root=root, tokenizer="b").donor == "b"
    assert Recipe(root=merge("linear", A, B)).donor == "a"
    assert [found.method for found in merges(root)] == ["slerp", "linear"]
