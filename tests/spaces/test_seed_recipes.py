"""Seeds: baselines always, known-good recipes where the space can draw them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaces.recipes.recipe import Model, Recipe, merges, resolve
from spaces.sampling.draw import Fixed, draw, params
from spaces.sampling.seed_recipes import seeds
from spaces.search_space.space import Depth, Order, Range, Space, Stacking

METHODS = ("linear", "slerp", "task_arithmetic", "ties", "dare_linear", "dare_ties")


def space(**changes) -> Space:
    values = {"parents": ("math", "code", "chat"), "base": "base", "layers": 6, "methods": METHODS}
    return Space(**(values | changes))


def shares(recipe: Recipe) -> dict[str, float]:
    """What a linear recipe, perhaps a tree, gives of each parent."""

    def spread(node, factor: float) -> None:
        if isinstance(node, Model):
            result[node.name] = result.get(node.name, 0.0) + factor
            return
        weights = [
            resolve(dict(source.parameters)["weight"], tensor="x", position=0.3)
            for source in node.sources
        ]
        total = sum(weights) if dict(node.parameters).get("normalize", True) else 1.0
        for source, weight in zip(node.sources, weights, strict=True):
            spread(source.of, factor * weight / total)

    result: dict[str, float] = {}
    assert {merge.method for merge in merges(recipe.root)} == {"linear"}
    spread(recipe.root, 1.0)
    return result


def test_default_space() -> None:
    found = seeds(space())
    assert [seed.name for seed in found] == [
        "parent math",
        "parent code",
        "parent chat",
        "plain average",
        "specialist math",
        "specialist code",
        "specialist chat",
        "ties density 0.5 weight 1",
        "dare_ties density 0.5 weight 0.5",
        "task_arithmetic weight 1/sqrt(3)",
        "task_arithmetic weight 1",
    ]
    assert all(seed.params is not None for seed in found)
    by_name = {seed.name: seed.recipe for seed in found}
    assert shares(by_name["parent code"]) == {"math": 0, "code": 1, "chat": 0}
    assert shares(by_name["plain average"]) == pytest.approx(dict.fromkeys(space().parents, 1 / 3))
    weights = [
        [dict(source.parameters)["weight"] for source in by_name[name].root.sources]
        for name in ("task_arithmetic weight 1/sqrt(3)", "task_arithmetic weight 1")
    ]
    assert weights == [[0.58] * 3, [1.0] * 3]
    specialist = {"math": 0.65, "code": 0.175, "chat": 0.175}
    assert shares(by_name["specialist math"]) == pytest.approx(specialist)


@given(data=st.data())
def test_in_every_space(any_space: st.SearchStrategy[Space], data: st.DataObject) -> None:
    drawn = data.draw(any_space)
    found = seeds(drawn)
    assert len({seed.recipe.key for seed in found}) == len(found)
    names = [seed.name for seed in found]
    baselines = [f"parent {parent}" for parent in drawn.parents]
    if len(drawn.parents) > 1:
        baselines.append("plain average")
    assert names[: len(baselines)] == baselines
    for seed in found:
        recipe = seed.recipe
        assert (recipe.dtype, recipe.seed, recipe.tokenizer) == (
            drawn.dtype, drawn.seed, drawn.tokenizer,
        )  # fmt: skip
        if seed.params is not None:
            assert draw(drawn, Fixed(seed.params)).key == recipe.key
            assert params(recipe, drawn) == seed.params
        else:
            assert seed.name.startswith("parent ") or seed.name == "plain average"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"order": Order.PAIRWISE},
        {"depth": Depth(groups=3), "filters": ("mlp",)},
        {"depth": Depth(knots=3), "order": Order.PAIRWISE},
        {"stacking": Stacking(min_layers=6, max_layers=9)},
        {"parents": ("a", "b")},
        {"parents": ("a", "b", "c", "d", "e"), "order": Order.PAIRWISE},
        {"weight": Range(low=-1, high=1)},
    ],
)
def test_parents_and_average_are_drawn_where_linear_is(changes: dict) -> None:
    drawn = space(**changes)
    found = {seed.name: seed for seed in seeds(drawn)}
    for parent in drawn.parents:
        seed = found[f"parent {parent}"]
        assert seed.params is not None
        wanted = {name: float(name == parent) for name in drawn.parents}
        assert shares(seed.recipe) == pytest.approx(wanted, abs=0)
    average = found["plain average"]
    assert average.params is not None
    even = dict.fromkeys(drawn.parents, 1 / len(drawn.parents))
    assert shares(average.recipe) == pytest.approx(even)


def test_a_parent_alone_is_passed_through_where_the_space_can() -> None:
    found = seeds(space(methods=("linear", "passthrough")))[0]
    assert found.recipe.root.method == "passthrough"
    assert found.params == {
        "order": "all-at-once", "method": "passthrough", "parent": "math", "scale": 1.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"methods": ("ties",)},
        {"methods": ("slerp",)},
        {"weight": Range(low=2, high=3), "methods": ("linear", "ties")},
        {"stacking": Stacking(min_layers=7, max_layers=9)},
    ],
)
def test_baselines_outside_the_space(changes: dict) -> None:
    drawn = space(**changes)
    found = {seed.name: seed for seed in seeds(drawn)}
    alone = found["parent code"]
    assert alone.params is None
    assert alone.recipe.root.method == "passthrough"
    assert alone.recipe.models == ("code",)
    average = found["plain average"]
    assert shares(average.recipe) == pytest.approx(dict.fromkeys(drawn.parents, 1 / 3))
    # Any equal weights are the average: a range without 1 has it too.
    assert (average.params is None) is (changes.keys() != {"weight", "methods"})


def test_a_constant_that_is_another_value_is_no_seed() -> None:
    names = {seed.name for seed in seeds(space(weight=Range(low=0.5, high=0.5)))}
    assert "dare_ties density 0.5 weight 0.5" in names
    assert "ties density 0.5 weight 1" not in names
    assert "specialist math" not in names


@pytest.mark.parametrize(
    ("weight", "drawn"),
    [((0.0, 1e-4), False), ((-1.0, 0.0), True), ((-2.0, -0.1), True), ((0.002, 0.01), True)],
)
@pytest.mark.parametrize("order", list(Order))
def test_an_average_is_one_whatever_the_range(weight: tuple, drawn: bool, order: Order) -> None:
    methods = ("linear", "ties")
    bounds = space(weight=Range(low=weight[0], high=weight[1]), order=order, methods=methods)
    found = {seed.name: seed for seed in seeds(bounds)}
    average = found["plain average"]
    assert shares(average.recipe) == pytest.approx(dict.fromkeys(bounds.parents, 1 / 3))
    assert (average.params is not None) is drawn


def test_two_parents_meet_half_way_and_one_is_its_own_average() -> None:
    assert seeds(space(parents=("a", "b")))[-1].name == "slerp t 0.5"
    found = seeds(space(parents=("a",), methods=("linear", "task_arithmetic")))
    assert [seed.name for seed in found] == ["parent a", "task_arithmetic weight 1"]
