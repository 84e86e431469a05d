"""Coefficients of recipes: every number of a weight, where it acts, and putting others there."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaces.recipes.coefficients import Coefficients
from spaces.recipes.parameter_values import ByFilter, Case, Gradient, Parameter, resolve, shares
from spaces.recipes.recipe import Merge, Recipe, Source, merges

INNER: dict[str, Any] = {
    "method": "ties",
    "base": "base",
    "sources": [
        {"of": "math", "parameters": {"weight": [0.1, 0.2], "density": 0.5}},
        {"of": "code", "parameters": {"weight": 0.3}},
    ],
}
TREE = {
    "method": "linear",
    "sources": [
        {
            "of": INNER,
            "parameters": {"weight": [{"filter": "mlp", "value": [0.4, 0.5, 0.6]}, {"value": 0.7}]},
        },
        {"of": "text", "parameters": {"weight": 0.8}},
    ],
}


def test_all_numbers_inner_merges_first() -> None:
    found = Coefficients(Recipe.from_dict({"merge": TREE}))
    assert found.values == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


def test_replaced_by_the_same_is_the_same_recipe() -> None:
    recipe = Recipe.from_dict({"merge": TREE, "dtype": "bfloat16", "seed": 3})
    found = Coefficients(recipe)
    assert found.replaced(found.values) == recipe
    moved = Coefficients(found.replaced([2 * value for value in found.values]))
    assert moved.values == tuple(2 * value for value in found.values)
    inner = next(iter(merges(moved.recipe.root)))
    assert dict(inner.sources[0].parameters)["density"] == 0.5


def test_replaced_needs_as_many() -> None:
    with pytest.raises(ValueError, match="values: expected 8 numbers, got 1"):
        Coefficients(Recipe.from_dict({"merge": TREE})).replaced([1.0])


def test_shares_point_at_the_numbers_that_act() -> None:
    recipe = Recipe.from_dict({"merge": TREE})
    found, root = Coefficients(recipe), recipe.root
    first = root.sources[0]
    assert found.shares(root, first, tensor="a.mlp.b", position=0.25) == ((3, 0.5), (4, 0.5))
    assert found.shares(root, first, tensor="norm", position=0.25) == ((6, 1.0),)
    assert found.shares(root, root.sources[1], tensor="norm", position=0.0) == ((7, 1.0),)


def test_weights_from_the_merge_are_no_coefficients() -> None:
    merge = {
        "method": "linear",
        "sources": [{"of": "math"}, {"of": "code"}],
        "parameters": {"weight": 0.5},
    }
    found = Coefficients(Recipe.from_dict({"merge": merge}))
    assert found.values == ()
    root = found.recipe.root
    assert found.shares(root, root.sources[0], tensor="x", position=0.0) == ()


LEVELS = st.one_of(
    st.floats(-2, 2),
    st.lists(st.floats(-2, 2), min_size=1, max_size=5).map(lambda values: Gradient(tuple(values))),
)
PARAMETERS: st.SearchStrategy[Parameter] = st.one_of(
    LEVELS,
    st.lists(
        st.builds(Case, LEVELS, st.sampled_from(["attn", "mlp", "*", None])), min_size=1, max_size=4
    ).map(lambda cases: ByFilter(tuple(cases))),
)


@given(PARAMETERS, st.sampled_from(["attn.q", "mlp.up", "norm"]), st.floats(0, 1))
def test_shares_make_the_resolved_value(value: Parameter, tensor: str, at: float) -> None:
    source = Source(of=Recipe.from_dict({"merge": INNER}).root, parameters=(("weight", value),))
    other = Source(of=source.of.sources[0].of, parameters=(("weight", 1.0),))  # type: ignore[union-attr]
    found = Coefficients(Recipe(root=Merge(method="linear", sources=(source, other))))
    parts = found.shares(found.recipe.root, source, tensor=tensor, position=at)
    expected = resolve(value, tensor=tensor, position=at)
    total = sum(share * found.values[index] for index, share in parts)
    assert (expected is None) == (not parts)
    if expected is not None:
        assert total == pytest.approx(float(expected), abs=1e-12)
    assert shares(value, tensor=tensor, position=at) == tuple((i - 3, a) for i, a in parts)
