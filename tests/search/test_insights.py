"""Which parts of the recipes matter: on scores whose cause is known."""

import math
import random
from collections.abc import Callable

import optuna
import pytest

from runs.records import Estimate, Record
from search.insights import insights
from spaces.contributions import contributions
from spaces.draw import draw
from spaces.recipe import Recipe
from spaces.space import Space

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
