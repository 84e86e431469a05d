"""A vision tower that is not merged as the rest: drawn, learned from, written and read."""

from __future__ import annotations

import pytest

from spaces.mergekit import from_yaml, to_yaml
from spaces.recipes.recipe import Merge, Model, Recipe, RecipeError, Source, parameters
from spaces.recipes.vision import Vision
from spaces.sampling.distributions import Fixed
from spaces.sampling.draw import draw, params
from spaces.sampling.layered_weights import layered
from spaces.sampling.seed_recipes import seeds
from spaces.search_space.bounds import Stacking
from spaces.search_space.space import Space, SpaceError

PARTS = ("visual.", "projector.")
PARENTS = ("math", "code")


def space(model: str | None = None, **more: object) -> Space:
    fields = {"parents": PARENTS, "base": "base", "layers": 4, "methods": ("linear", "ties")}
    return Space(**fields | {"vision": Vision(parts=PARTS, model=model)} | more)  # type: ignore[arg-type]


@pytest.mark.parametrize("model", ["code", "base", None])
def test_every_merge_has_it_and_a_parent_alone_keeps_its_own(model: str | None) -> None:
    of = space(model)
    assert Space.from_dict(of.to_dict()) == of
    found = {seed.name: seed for seed in seeds(of)}
    average = found["plain average"].recipe
    assert average.vision == of.vision
    assert average.towers == (PARENTS if model is None else (model,))
    assert average.alone is None
    assert draw(of, Fixed(params(average, of))) == average
    assert found["parent math"].recipe.vision is None
    assert layered(of, layers=4, filters=()).vision == of.vision


def test_a_model_that_is_not_there_is_refused() -> None:
    with pytest.raises(SpaceError, match="vision: expected one of math, code, base, got 'chat'"):
        space("chat")


@pytest.mark.parametrize("model", ["code", "base", None])
@pytest.mark.parametrize("stacked", [False, True])
def test_files_hold_it(model: str | None, stacked: bool) -> None:
    stacking = Stacking(max_slices=2, min_layers=4, max_layers=6, sources="any")
    of = space(model, stacking=stacking if stacked else None, dtype="bfloat16")
    recipe = seeds(of)[2].recipe
    assert recipe.vision is not None
    if stacked:
        values = params(recipe, of) | {
            "slices": 2, "slice1.start": 0, "slice1.end": 2, "slice1.source": "code",
            "slice2.start": 1, "slice2.end": 4, "slice2.source": "(merged)",
        }  # fmt: skip
        recipe = draw(of, Fixed(values))
        assert recipe.root.slices
    text = to_yaml(recipe, {name: f"org/{name}" for name in ("base", *PARENTS)})
    read = from_yaml(text)
    assert read.recipe == recipe
    assert read.key == recipe.key


def test_a_file_that_was_changed_is_refused() -> None:
    recipe = seeds(space("code"))[2].recipe
    text = to_yaml(recipe, {name: f"org/{name}" for name in ("base", *PARENTS)})
    changed = text.replace("filter: visual.", "filter: visual")
    assert changed != text
    with pytest.raises(RecipeError, match="vision: expected the merge that was written with it"):
        from_yaml(changed)


def test_recipes_are_told_apart_by_it() -> None:
    weight = parameters(weight=1.0)
    sources = tuple(Source(of=Model(name), parameters=weight) for name in PARENTS)
    root = Merge(method="linear", sources=sources)
    plain, other = Recipe(root=root), Recipe(root=root, vision=Vision(parts=PARTS, model="code"))
    assert plain.key != other.key
    assert Recipe.from_dict(other.to_dict()) == other
    assert other.words == f"{plain.words}; vision tower of code"
    with pytest.raises(RecipeError, match="expected parts of tensor names, got none"):
        Vision(parts=())
