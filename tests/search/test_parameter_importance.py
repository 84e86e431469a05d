"""Which parts of the recipes matter: on scores whose cause is known."""

import math
import random
from collections.abc import Callable

import optuna
import pytest

from runs.records.record import Estimate, Record
from search.samplers.parameter_importance import insights
from spaces.recipes.contributions import contributions
from spaces.recipes.recipe import Recipe
from spaces.sampling.draw import draw
from spaces.search_space.space import Order, Space

SPACE = Space(parents=("a", "b", "c"), base="base", layers=4, methods=("task_arithmetic", "ties"))


def weight_of(recipe: Recipe, parent: str) -> float:
    """The effective one, the same in every layer."""
    (found,) = [item.shares[0] for item in contributions(recipe, 4) if item.model == parent]
    return found


@pytest.fixture(scope="module")
def recipes() -> list[Recipe]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = (draw(SPACE, study.ask()) for _ in range(400))
    return [
        recipe for recipe in drawn if "+" not in recipe.title and len(recipe.root.sources) == 3
    ][:120]


def found(recipes: list[Recipe], score: Callable[[Recipe], float]):
    noise = random.Random(0)
    records = [
        Record(
            id=number,
            recipe=recipe,
            origin="random",
            trial=number,
            estimate=Estimate(value=score(recipe) + noise.gauss(0, 0.02), stderr=0.02),
        )
        for number, recipe in enumerate(recipes)
    ]
    return insights(records, SPACE)


def test_the_weight_that_decides_comes_first(recipes: list[Recipe]) -> None:
    result = found(recipes, lambda recipe: -((weight_of(recipe, "b") - 0.8) ** 2))
    shares = {item.name: item.share for item in result.importance}
    assert result.importance[0].name == "weight of b"
    assert shares["weight of b"] > 5 * max(shares["weight of a"], shares["weight of c"])
    assert result.explained > 0.7


def test_the_method_that_decides_comes_first(recipes: list[Recipe]) -> None:
    result = found(recipes, lambda recipe: float(recipe.root.method == "ties"))
    assert result.importance[0].name == "method"


def test_noise_is_not_explained(recipes: list[Recipe]) -> None:
    assert found(recipes, lambda _: 0.5).explained < 0.2


def test_dials_are_the_means_of_the_recipe(recipes: list[Recipe]) -> None:
    result = found(recipes, lambda _: 0.5)
    for number, recipe in enumerate(recipes):
        dials = result.dials[number]
        assert dials.weights["a"] == pytest.approx(weight_of(recipe, "a"))
        assert set(dials.densities) == ({"a", "b", "c"} if recipe.root.method == "ties" else set())


def test_too_few_recipes_say_nothing(recipes: list[Recipe]) -> None:
    result = found(recipes[:10], lambda _: 0.5)
    assert result.importance == ()
    assert math.isnan(result.explained)
    assert len(result.dials) == 10


def test_shares_are_sobols_total_indices_whatever_recipes_were_tried() -> None:
    """With w in (0, 1.5), l in (0.5, 1.5): 0.8125 and 0.25 of the variance of w l, by hand."""
    space = Space(
        parents=("a", "b"),
        base="base",
        layers=4,
        methods=("task_arithmetic",),
        order=Order.ALL_AT_ONCE,
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    drawn = {(recipe := draw(space, study.ask())).key: recipe for _ in range(300)}
    # As an adaptive search does: most of what was tried is near the best.
    best = sorted(drawn.values(), key=lambda recipe: -weight_of(recipe, "b"))
    tried = [*best[:80], *best[80::4]]
    records = [
        Record(
            id=number,
            recipe=recipe,
            origin="surrogate",
            trial=number,
            estimate=Estimate(value=weight_of(recipe, "b"), stderr=0.01),
        )
        for number, recipe in enumerate(tried)
    ]
    shares = {item.name: item.share for item in insights(records, space).importance}
    assert shares["weight of b"] == pytest.approx(0.8125, abs=0.06)
    assert shares["lambda"] == pytest.approx(0.25, abs=0.06)
    assert shares["weight of a"] < 0.03
    assert sum(shares.values()) >= 1.0


def test_every_part_of_a_space_has_a_name(recipes: list[Recipe]) -> None:
    result = found(recipes, lambda recipe: weight_of(recipe, "a"))
    names = {item.name for item in result.importance}
    each = {f"{what} of {of}" for what in ("weight", "density") for of in SPACE.parents}
    joins = {"weight of intermediate merges", "density of intermediate merges"}
    assert names == each | joins | {"method", "merge order", "lambda"}
