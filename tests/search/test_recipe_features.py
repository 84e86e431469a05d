"""What recipes look like to the sampler: worked by hand, and for every kind of space."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.samplers.features.batch_features import BatchFeatures
from search.samplers.features.recipe_features import RecipeFeatures
from search.samplers.proposals import Cube
from spaces.sampling.draw import Choices, Fixed, draw, parameters, params
from spaces.search_space.space import Depth, Order, Range, Space, Stacking

ANY_SPACE = runpy.run_path(str(Path(__file__).parents[1] / "spaces" / "conftest.py"))["spaces"]()

THREE = Space(
    parents=("a", "b", "c"), base="base", layers=5, methods=("linear", "ties", "slerp")
)  # fmt: skip


def part(space: Space, values: dict[str, object], name: str) -> np.ndarray:
    features = RecipeFeatures(space)
    (group,) = [group for group in features.groups if group.name == name]
    return features.vector(draw(space, Fixed(values)))[group.start : group.end]


def at_once(method: str, **values: object) -> dict[str, object]:
    weights = {"weight.a": 1.0, "weight.b": 0.5, "weight.c": 0.5}
    density = {f"density.{name}": 0.5 for name in "abc"}
    return {"order": "all-at-once", "method": method, "lambda": 1.2} | weights | density | values


def test_shares_are_what_the_weights_come_to() -> None:
    np.testing.assert_allclose(part(THREE, at_once("linear"), "share"), [0.5, 0.25, 0.25])
    np.testing.assert_allclose(part(THREE, at_once("ties"), "share"), [0.6, 0.3, 0.3])
    np.testing.assert_allclose(part(THREE, at_once("ties"), "scale"), [1.2])
    np.testing.assert_allclose(part(THREE, at_once("linear"), "density"), 1 / np.sqrt(3))
    np.testing.assert_allclose(part(THREE, at_once("ties"), "density"), 0.5 / np.sqrt(3))


PAIRS = {
    "order": "pairwise",
    "tree.3": "node1",
    "node1.method": "slerp",
    "node1.t": 0.25,
    "node2.method": "ties",
    "weight.node1": 1.0,
    "weight.c": 0.5,
    "density.node1": 0.5,
    "density.c": 0.8,
    "node2.lambda": 1.5,
}


def test_a_pairwise_order_is_multiplied_out() -> None:
    np.testing.assert_allclose(part(THREE, PAIRS, "share"), [0.75, 0.25, 0.5])
    np.testing.assert_allclose(part(THREE, PAIRS, "density") * np.sqrt(3), [0.5, 0.5, 0.8])
    # a and b are two once they are together; c comes to the three.
    np.testing.assert_allclose(part(THREE, PAIRS, "tree") * np.sqrt(3), [1.0, 2 / 3, 2 / 3])
    methods = (part(THREE, PAIRS, "method") * np.sqrt(3)).reshape(3, 3)
    np.testing.assert_allclose(methods, [[0, 0, 1], [0, 1, 0], [0, 1, 0]])


def test_recipes_that_mix_alike_lie_together() -> None:
    features = RecipeFeatures(THREE)
    doubled = {
        f"weight.{name}": 1.4 * value for name, value in (("a", 1.0), ("b", 0.5), ("c", 0.5))
    }
    one = draw(THREE, Fixed(at_once("linear")))
    same = draw(THREE, Fixed(at_once("linear", **doubled)))
    other = draw(THREE, Fixed(at_once("linear", **{"weight.c": 1.5})))
    assert one.key != same.key
    x = features.matrix([one, same, other])
    assert np.abs(x[0] - x[1]).max() < 1e-12
    assert np.abs(x[0] - x[2]).max() > 0.1


def test_depths_and_filters_have_cells_of_their_own() -> None:
    space = Space(
        parents=("a", "b"), base="base", layers=5, methods=("task_arithmetic",),
        depth=Depth(knots=2), filters=("mlp",),
    )  # fmt: skip
    values: dict[str, object] = {"lambda": 1.0, "lambda[mlp]": 1.0, "lambda[*]": 1.0}
    numbers = {"a[mlp]": (0.1, 0.2), "a[*]": (0.3, 0.4), "b[mlp]": (0.5, 0.6), "b[*]": (0.7, 0.8)}
    for name, pair in numbers.items():
        values |= {f"weight.{name}.k{k}": value for k, value in enumerate(pair, start=1)}
    np.testing.assert_allclose(
        part(space, values, "share") * 2, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    )


def test_groups_of_layers_are_looked_at_in_their_middle() -> None:
    space = Space(
        parents=("a", "b"), base="base", layers=7, methods=("task_arithmetic",),
        depth=Depth(groups=3, parameters=("weight",)),
    )  # fmt: skip
    values: dict[str, object] = {"lambda": 1.0}
    values |= {f"weight.a.g{k}": 0.1 * k for k in (1, 2, 3)}
    values |= {f"weight.b.g{k}": 1.0 for k in (1, 2, 3)}
    np.testing.assert_allclose(part(space, values, "share")[:3] * np.sqrt(3), [0.1, 0.2, 0.3])


def test_stacked_layers_are_seen() -> None:
    space = Space(
        parents=("a", "b"), base=None, layers=8, methods=("linear",),
        stacking=Stacking(max_slices=2, min_layers=8, max_layers=12),
    )  # fmt: skip
    plain = {"weight.a": 1.0, "weight.b": 1.0, "slices": 1}
    runs = {"slice1.start": 0, "slice1.end": 6, "slice2.start": 3, "slice2.end": 8}
    stacked = {**plain, "slices": 2, **runs}
    assert part(space, plain, "slices")[-1] == 1.0
    np.testing.assert_allclose(part(space, stacked, "slices")[-1], 11 / 8)
    twice = part(space, stacked, "slices")[:8] * np.sqrt(8)
    np.testing.assert_allclose(twice, [1, 1, 1, 2, 2, 2, 1, 1])


def test_sources_of_stacked_layers_are_seen() -> None:
    space = Space(
        parents=("a", "b"), base=None, layers=8, methods=("linear",),
        stacking=Stacking(min_layers=8, max_layers=12, sources="any", max_repeated=4),
    )  # fmt: skip
    runs = {"slices": 2, "slice1.end": 4, "slice2.shift": 0}
    values = runs | {"slice1.source": "a", "slice2.source": "b"}
    each = part(space, values, "slices")[17:].reshape(8, 3) * np.sqrt(8)
    np.testing.assert_allclose(each, np.eye(3)[[0] * 4 + [1] * 4])
    np.testing.assert_allclose(part(space, values, "share"), [0.5, 0.5])


def test_what_only_some_methods_have_is_seen() -> None:
    space = Space(
        parents=("a", "b"), base="base", layers=4,
        methods=("linear", "breadcrumbs", "nearswap", "sce", "ram"),
        gamma=Range(low=0.0, high=0.2), nearswap_t=Range(low=1e-4, high=1e-2),
        select_topk=Range(low=0.5, high=0.5), depth=Depth(knots=2, parameters=("nearswap_t",)),
    )  # fmt: skip
    two = {"weight.a": 1.0, "weight.b": 1.0, "density.a": 0.5, "density.b": 0.5, "lambda": 1.0}
    # Columns: gamma, nearswap's t (over depth, the mean of the exponents), ram's epsilon.
    plain = part(space, {"method": "linear", **two}, "tuning")
    np.testing.assert_allclose(plain, [0.5, 0.5, 0.5])
    crumbs = part(space, {"method": "breadcrumbs", "gamma": 0.05, **two}, "tuning")
    np.testing.assert_allclose(crumbs, [0.25, 0.5, 0.5])
    near = {"method": "nearswap", "nearswap_t.k1": 1e-2, "nearswap_t.k2": 1e-3}
    np.testing.assert_allclose(part(space, near, "tuning"), [0.5, 0.75, 0.5])
    ram = part(space, {"method": "ram", "ram_epsilon": 1e-6}, "tuning")
    np.testing.assert_allclose(ram, [0.5, 0.5, 0.0], atol=1e-12)


@pytest.mark.parametrize("order", list(Order))
def test_groups_that_say_nothing_are_left_out(order: Order) -> None:
    space = Space(parents=("a", "b", "c"), base=None, layers=3, methods=("linear",), order=order)
    names = [group.name for group in RecipeFeatures(space).groups]
    assert names == ["share", "scale", *(["tree"] if order is not Order.ALL_AT_ONCE else [])]


@settings(max_examples=60)
@given(space=ANY_SPACE, seed=st.integers(0, 2**32 - 1))
def test_every_recipe_of_every_space_has_features(space: Space, seed: int) -> None:
    cube, features, rng = Cube(space), RecipeFeatures(space), np.random.default_rng(seed)
    x = features.matrix(cube.recipes(cube.random(rng, 3)))
    assert x.shape == (3, features.columns)
    assert np.isfinite(x).all()
    assert features.groups[0].start == 0
    for one, other in zip(features.groups, features.groups[1:], strict=False):
        assert one.end == other.start


@settings(max_examples=60)
@given(space=ANY_SPACE, seed=st.integers(0, 2**32 - 1))
def test_every_change_of_a_recipe_is_legal(space: Space, seed: int) -> None:
    cube, rng = Cube(space), np.random.default_rng(seed)
    (first,) = cube.recipes(cube.random(rng, 1))
    point = cube.point(params(first, space), rng)
    assert draw(space, Fixed(cube.values(point))).title == first.title
    for recipe in cube.recipes(cube.near([point], rng, scales=(0.02, 0.5), each=3)):
        found = params(recipe, space)
        assert draw(space, Fixed(found)).key == recipe.key
    for name, value in cube.values(point).items():
        assert parameters(space)[name].holds(value)


def test_mutations_stay_near_and_keep_most_words() -> None:
    cube, rng = Cube(THREE), np.random.default_rng(0)
    words = np.array([isinstance(d, Choices) for d in parameters(THREE).values()])
    point = np.full(cube.size, 0.5)
    near = cube.mutations(point, rng, count=400, scale=0.03)
    assert near.min() >= 0.0
    assert near.max() <= 1.0
    assert np.abs(near[:, ~words] - 0.5).max() < 0.25
    assert 0.3 < (near[:, ~words] != 0.5).mean() < 0.8
    assert 0.05 < (near[:, words] != 0.5).mean() < 0.15


@pytest.mark.parametrize("low", [-1.0, -(2.0**-6), -1e-4])
def test_negative_weights_at_once(low: float) -> None:
    """Weights of a sketch are divided by their sum where those of its recipes are."""
    weight = Range(low=low, high=0.0)
    space = Space(parents=("a",), base="base", layers=2, methods=("linear",), weight=weight)
    cube, features = Cube(space), RecipeFeatures(space)
    points = cube.random(np.random.default_rng(0), 8)
    one_by_one = features.matrix(cube.recipes(points))
    np.testing.assert_allclose(BatchFeatures(space, cube, features).matrix(points), one_by_one)


@settings(max_examples=100)
@given(space=ANY_SPACE, seed=st.integers(0, 2**32 - 1))
def test_many_at_once_have_the_features_of_each(space: Space, seed: int) -> None:
    cube, features, rng = Cube(space), RecipeFeatures(space), np.random.default_rng(seed)
    sketches = BatchFeatures(space, cube, features)
    points = cube.random(rng, 4)
    points = np.vstack([points, cube.near(list(points[:2]), rng, scales=(0.1,), each=3)])
    one_by_one = features.matrix(cube.recipes(points))
    for _ in range(2):  # also with sketches that are known
        np.testing.assert_allclose(sketches.matrix(points), one_by_one, rtol=1e-9, atol=1e-12)


@settings(max_examples=100)
@given(space=ANY_SPACE, seed=st.integers(0, 2**32 - 1))
def test_recipes_that_are_built_alike_have_the_features_of_each_to_the_bit(
    space: Space, seed: int
) -> None:
    cube, features, rng = Cube(space), RecipeFeatures(space), np.random.default_rng(seed)
    points = cube.random(rng, 3)
    points = np.vstack([points, cube.near(list(points[:2]), rng, scales=(0.1,), each=4)])
    recipes = cube.recipes(points)
    recipes += recipes[:1]
    each = np.array([features.vector(recipe) for recipe in recipes])
    np.testing.assert_array_equal(features.matrix(recipes), each)
