"""The vision tower of a merged model: of one parent, averaged, or merged as the rest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from merging.building.build import tensors, write_model
from merging.checkpoints.checkpoint import Checkpoint
from merging.planning.merge_plan import plan
from runs.export.model_card import model_card
from spaces.mergekit import from_yaml, to_yaml
from spaces.recipes.contributions import VISION, contributions
from spaces.recipes.recipe import Recipe
from spaces.recipes.vision import Vision
from tests.evaluators.families import save

TIES = {
    "method": "ties",
    "base": "base",
    "parameters": {"lambda": 0.9},
    "sources": [
        {"of": "one", "parameters": {"weight": 0.7, "density": 0.5}},
        {"of": "two", "parameters": {"weight": 0.4, "density": 0.8}},
    ],
}
STACKED = {
    "method": "passthrough",
    "slices": [
        {"sources": [{"of": TIES, "layers": [0, 2]}]},
        {"sources": [{"of": "one", "layers": [1, 2]}]},
    ],
}


@pytest.fixture(scope="module", params=["qwen2_5_vl", "gemma3"])
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp(request.param)
    names = ("base", "one", "two")
    return {name: save(folder / name, request.param, seed) for seed, name in enumerate(names)}


Models = dict[str, Checkpoint]


def recipe_of(models: Models, giver: str | None, merge: object = TIES) -> Recipe:
    recipe = Recipe.from_dict({"merge": merge, "tokenizer": "base"})
    return replace(recipe, vision=Vision(parts=models["base"].vision, model=giver))


def built(recipe: Recipe, models: Models) -> dict[str, torch.Tensor]:
    return dict(tensors(plan(recipe, models), models))


@pytest.mark.parametrize("giver", ["two", "base", None])
def test_the_tower_is_what_the_recipe_says(models: Models, giver: str | None) -> None:
    recipe = recipe_of(models, giver)
    found, merged = built(recipe, models), built(replace(recipe, vision=None), models)
    assert found.keys() == merged.keys()
    tower = {name for name in found if not torch.equal(found[name], merged[name])}
    assert tower == {name for name in found if "vis" in name or "projector" in name}
    for name in tower:
        wanted = [models[one].tensor(name) for one in ([giver] if giver else ["one", "two"])]
        torch.testing.assert_close(found[name], torch.stack(wanted).mean(dim=0))


@pytest.mark.parametrize("merge", [TIES, STACKED], ids=["ties", "stacked"])
@pytest.mark.parametrize("giver", ["one", "base", None])
def test_the_file_says_it_to_mergekit_too(models: Models, giver: str | None, merge: object) -> None:
    """Read with our own facts it is the recipe; without them it is a merge of the same weights."""
    recipe = recipe_of(models, giver, merge)
    text = to_yaml(recipe, {name: name for name in models})
    assert from_yaml(text).recipe == recipe
    *inner, last = yaml.safe_load_all(text)
    del last["merge_search"]
    plain = from_yaml(yaml.safe_dump_all([*inner, last])).recipe
    assert plain.vision is None
    found, wanted = built(plain, models), built(recipe, models)
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert torch.equal(found[name], wanted[name]), name


@pytest.mark.parametrize("method", ["slerp", "ties"])
@pytest.mark.parametrize("giver", ["base", "two", None])
def test_stacks_of_merges_with_a_base_can_be_written(
    models: Models, giver: str | None, method: str
) -> None:
    values = {"slerp": {"t": 0.4}, "ties": {"weight": 0.5, "density": 0.5}}[method]
    base = "one" if method == "slerp" else "base"
    inputs = [*([base] if method == "ties" else []), "one", "two"]
    merge = {
        "method": method,
        "base": base,
        "parameters": values,
        "slices": [
            {"sources": [{"of": name, "layers": layers} for name in inputs]}
            for layers in ([0, 1], [1, 2])
        ],
    }
    recipe = recipe_of(models, giver, merge)
    text = to_yaml(recipe, {name: name for name in models})
    assert from_yaml(text).recipe == recipe
    *inner, last = yaml.safe_load_all(text)
    del last["merge_search"]
    plain = from_yaml(yaml.safe_dump_all([*inner, last])).recipe
    found, wanted = built(plain, models), built(recipe, models)
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-5, atol=1e-6)


def test_cards_and_reports_say_it(models: Models) -> None:
    recipe = recipe_of(models, None)
    card = model_card(recipe, {name: name for name in models}, fingerprint="0")
    assert "Its vision tower is that of one and two." in card
    shares = {one.model: one.shares for one in contributions(recipe, 2) if one.tensors == VISION}
    assert shares == {"one": (0.5, 0.5), "two": (0.5, 0.5)}


def test_processor_files_are_copied(models: Models, tmp_path: Path) -> None:
    names = (
        "preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json",
        "chat_template.jinja", "generation_config.json",
    )  # fmt: skip
    for name in names:
        (models["base"].folder / name).write_text("{}")
    write_model(plan(recipe_of(models, "one"), models), models, tmp_path / "out")
    assert {name for name in names if (tmp_path / "out" / name).is_file()} == {*names}


def test_a_language_model_has_no_tower(tiny_family: dict[str, Path]) -> None:
    assert Checkpoint.open(str(tiny_family["base"]), name="base").vision == ()
