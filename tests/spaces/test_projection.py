"""Recipes from elsewhere: the same merge in the form of a space, or a reason why not."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaces.mergekit import from_yaml, to_yaml
from spaces.recipes.recipe import Recipe
from spaces.sampling.draw import Fixed, NotInSpace, draw, params
from spaces.sampling.projection import fit
from spaces.sampling.seed_recipes import Seed
from spaces.search_space.space import Depth, Range, Space, Stacking

METHODS = ("linear", "slerp", "task_arithmetic", "ties", "dare_ties", "passthrough")


def space(**changes) -> Space:
    values = {"parents": ("a", "b", "c"), "base": "base", "layers": 4, "methods": METHODS}
    return Space(**(values | changes))


TWO = space(parents=("a", "b"))


def written(text: str) -> Recipe:
    return from_yaml(text).recipe


def fitted(text: str, into: Space) -> dict[str, object]:
    """What the space draws the recipe with."""
    recipe = fit(written(text), into)
    found = params(recipe, into)
    assert draw(into, Fixed(found)).key == recipe.key
    return found


LINEAR = """
merge_method: linear
models:
  - {model: c, parameters: {weight: 0.2}}
  - {model: a, parameters: {weight: 0.5}}
  - {model: b, parameters: {weight: 0.3}}
"""


def test_inputs_may_come_in_any_order() -> None:
    found = fitted(LINEAR, space())
    assert found == {
        "order": "all-at-once", "method": "linear",
        "weight.a": 0.5, "weight.b": 0.3, "weight.c": 0.2,
    }  # fmt: skip


def test_weights_that_sum_to_one_need_no_division() -> None:
    assert fitted(LINEAR + "parameters: {normalize: false}\n", space())["weight.c"] == 0.2
    with pytest.raises(NotInSpace, match="weight of a"):
        fit(written(LINEAR.replace("0.5", "0.6") + "parameters: {normalize: false}\n"), space())


def test_one_value_for_all_inputs_and_defaults_are_written_out() -> None:
    text = """
merge_method: ties
base_model: base
models: [{model: a}, {model: b}, {model: c}]
parameters: {weight: 0.7}
"""
    found = fitted(text, space())
    assert {found[f"weight.{name}"] for name in "abc"} == {0.7}
    assert {found[f"density.{name}"] for name in "abc"} == {1.0}
    assert found["lambda"] == 1.0


def test_an_absent_parent_weighs_nothing() -> None:
    text = """
merge_method: dare_ties
base_model: base
models:
  - {model: a, parameters: {weight: 0.7, density: 0.4}}
  - {model: c, parameters: {weight: 0.5, density: 0.6}}
"""
    assert fitted(text, space())["weight.b"] == 0.0
    with pytest.raises(NotInSpace, match=r"weight\.b: expected a number in \[0\.1, 1\], got 0"):
        fit(written(text), space(weight=Range(low=0.1, high=1.0)))


SLERP = """
merge_method: slerp
base_model: b
slices:
  - sources:
      - {model: a, layer_range: [0, 4]}
      - {model: b, layer_range: [0, 4]}
parameters: {t: 0.3}
"""


def test_a_slice_of_all_layers_is_none_and_slerp_may_start_at_the_other_end() -> None:
    assert fitted(SLERP, TWO)["t"] == pytest.approx(0.7)
    shorter = SLERP.replace("[0, 4]", "[0, 3]")
    with pytest.raises(NotInSpace, match="slices: expected none"):
        fit(written(shorter), TWO)


def test_one_number_is_the_same_at_every_depth_and_for_every_filter() -> None:
    into = space(parents=("a", "b"), depth=Depth(knots=3), filters=("mlp",))
    found = fitted(SLERP, into)
    numbers = {name: value for name, value in found.items() if name.startswith("t")}
    assert set(numbers) == {f"t[{case}].k{k}" for case in ("mlp", "*") for k in (1, 2, 3)}
    assert set(numbers.values()) == {0.7}


def test_a_gradient_fits_where_the_knots_can_follow_it() -> None:
    text = SLERP.replace("0.3", "[0.2, 0.4]").replace("base_model: b", "base_model: a")
    found = fitted(text, space(parents=("a", "b"), depth=Depth(knots=3)))
    assert [found[f"t.k{k}"] for k in (1, 2, 3)] == pytest.approx([0.2, 0.3, 0.4])
    for into in (TWO, space(parents=("a", "b"), depth=Depth(groups=2))):
        with pytest.raises(NotInSpace, match=r"\(?a\+b: t|t: the space cannot draw"):
            fit(written(text), into)


def test_filters_that_the_space_has_not() -> None:
    text = SLERP.replace("0.3", "[{filter: mlp, value: 0.1}, {value: 0.6}]")
    assert fitted(text, space(parents=("a", "b"), filters=("mlp",)))["t[mlp]"] == 0.9
    with pytest.raises(NotInSpace, match="t: the space cannot draw"):
        fit(written(text), TWO)
    with pytest.raises(NotInSpace, match="t: the space cannot draw"):
        fit(written(text), space(parents=("a", "b"), filters=("self_attn",)))


PAIRS = """
name: inner
merge_method: slerp
base_model: c
models: [{model: c}, {model: b}]
parameters: {t: 0.25}
---
merge_method: linear
models:
  - {model: inner, parameters: {weight: 0.4}}
  - {model: a, parameters: {weight: 0.6}}
"""


def test_a_tree_with_the_later_parents_first() -> None:
    found = fitted(PAIRS, space())
    assert found["tree.3"] == "b"
    assert found["node2.t"] == 0.75
    assert found["weight.node2"] == 0.4
    with pytest.raises(NotInSpace, match="order: expected one of all-at-once"):
        fit(written(PAIRS), space(order="all-at-once", methods=("linear",)))


STACK = """
name: inner
merge_method: linear
models: [{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: 1}}]
---
merge_method: passthrough
slices:
  - sources: [{model: inner, layer_range: [0, 3]}]
  - sources: [{model: inner, layer_range: [1, 4]}]
"""


def test_stacked_layers() -> None:
    into = space(parents=("a", "b"), stacking=Stacking(min_layers=4, max_layers=6))
    assert fitted(STACK, into)["slice2.start"] == 1
    small = space(parents=("a", "b"), stacking=Stacking(min_layers=4, max_layers=5))
    with pytest.raises(NotInSpace, match="slices: the space cannot draw"):
        fit(written(STACK), small)


@pytest.mark.parametrize(
    ("text", "changes", "reason"),
    [
        (LINEAR, {"methods": ("ties",)}, "method: expected one of ties, got 'linear'"),
        (LINEAR.replace("0.5", "9"), {}, r"weight\.a: expected a number in \[0, 1\.5\], got 9"),
        (LINEAR.replace("model: c", "model: base"), {}, "inputs: expected a, b, c, got base, a, b"),
        (SLERP, {}, "inputs: expected a, b, c, got a, b"),
        (
            "merge_method: model_stock\nbase_model: base\nmodels: [{model: a}, {model: b}]",
            {"methods": ("model_stock", "linear")},
            "inputs: expected a, b, c, got a, b",
        ),
    ],
)
def test_what_does_not_fit_says_why(text: str, changes: dict, reason: str) -> None:
    with pytest.raises(NotInSpace, match=reason):
        fit(written(text), space(**changes))


def test_a_seed_outside_is_kept_as_it_was_written() -> None:
    into = space(dtype="bfloat16", seed=3)
    seed = Seed.of(written(LINEAR.replace("0.5", "9")), into, name="seed x")
    assert (seed.params, seed.recipe.dtype, seed.recipe.seed) == (None, "bfloat16", 3)
    assert seed.recipe.root == written(LINEAR.replace("0.5", "9")).root
    assert "weight.a: expected" in seed.reason
    assert Seed.from_dict(seed.to_dict()) == seed
    inside = Seed.of(written(LINEAR), into, name="seed y")
    assert Seed.from_dict(inside.to_dict()) == inside
    assert inside.reason == ""


@given(data=st.data())
def test_what_a_space_draws_fits_it_after_a_trip_through_mergekit(
    any_space: st.SearchStrategy[Space], random_trial: Callable, data: st.DataObject
) -> None:
    into = data.draw(any_space)
    recipe = draw(into, random_trial(data.draw(st.integers(0, 2**32))))
    assert fit(recipe, into).key == recipe.key
    recipe = Recipe(root=recipe.root)  # the rest is the space's anyway
    text = to_yaml(recipe, {name: f"./{name}" for name in recipe.needed})
    assert fit(from_yaml(text).recipe, into).root == recipe.root


@given(data=st.data())
def test_what_another_space_draws_fits_or_has_a_reason(
    any_space: st.SearchStrategy[Space], random_trial: Callable, data: st.DataObject
) -> None:
    into, other = data.draw(any_space), data.draw(any_space)
    recipe = draw(other, random_trial(data.draw(st.integers(0, 2**32))))
    seed = Seed.of(recipe, into, name="seed")
    if seed.params is None:
        assert seed.reason
    else:
        assert draw(into, Fixed(seed.params)).key == seed.recipe.key
