"""Whose config: a parent alone is what it is on disk, a merge has the base's, whatever is asked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from evaluators.harness_spec import HarnessSpec, TaskSpec
from evaluators.resident_models.model_builder import ModelBuilder, Models
from merging.checkpoints.checkpoint import Checkpoint
from merging.planning.merge_plan import plan
from runs.config.run_config import RunConfig, load_config
from search.inputs.given_config import read
from search.inputs.overrides import Overrides
from search.preflight.inspection import check as look
from search.preflight.preflight_depth import PreflightDepth
from spaces.mergekit import from_yaml, to_yaml
from spaces.recipes.recipe import Recipe
from spaces.sampling.draw import draw
from spaces.sampling.seed_recipes import seeds

Project = Callable[..., Path]
THETA = 37.0


def change(folder: Path, **values: object) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text())
    config["rope_parameters"]["rope_theta"] = THETA
    file.write_text(json.dumps(config | values))


@pytest.fixture
def unlike(project: Project, tiny_family: dict[str, Path], tmp_path: Path) -> Path:
    """A project in which the first-listed parents have other rotary embeddings than the base."""
    places = {name: tmp_path / name for name in ("math", "code")}
    for name, folder in places.items():
        shutil.copytree(tiny_family[name], folder)
        change(folder, rms_norm_eps=1e-3)
    (places["math"] / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 7]}))
    models = {name: str(place) for name, place in places.items()}
    models["text"] = str(tiny_family["text"])
    return project(models=models, space={"methods": ["linear", "slerp", "ties"]})


def opened(config: RunConfig) -> dict[str, Checkpoint]:
    return {name: Checkpoint.open(at, name=name) for name, at in config.locations.items()}


def theta(config: Any) -> float:
    parameters = config["rope_parameters"] if isinstance(config, dict) else config.rope_parameters
    return float(parameters["rope_theta"])


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return torch.as_tensor(model(torch.arange(4, 20)[None]).logits)


def test_parents_are_themselves_and_merges_have_the_base_s_config(unlike: Path) -> None:
    config = load_config(unlike)
    checkpoints = opened(config)
    spec = HarnessSpec(
        models=tuple(config.locations.items()), tasks=(TaskSpec(name="any"),), device="cpu"
    )
    builder = ModelBuilder(spec, Models.open(spec))
    tried: dict[str, Recipe] = {seed.name: seed.recipe for seed in seeds(config.space(4))}
    for name in ("math", "code", "text"):
        recipe = tried[f"parent {name}"]
        assert (recipe.alone, recipe.donor) == (name, name)
        model = builder.build(recipe).skeleton.model
        folder = checkpoints[name].folder
        own = AutoModelForCausalLM.from_pretrained(folder)
        assert torch.equal(logits(model), logits(own))
        assert model.generation_config.eos_token_id == own.generation_config.eos_token_id
    for name, recipe in tried.items():
        if not name.startswith("parent"):
            assert recipe.donor == "base", name
            model = builder.build(recipe).skeleton.model
            assert (theta(model.config), model.config.rms_norm_eps) == (10000.0, 1e-6), name


def test_a_named_tokenizer_is_for_merges(unlike: Path, project: Project) -> None:
    given = yaml.safe_load(unlike.read_text()) | {"output": {"tokenizer": "code"}}
    space = load_config(project(**given)).space(4)
    donors = {seed.name: seed.recipe.donor for seed in seeds(space)}
    assert donors.pop("parent math") == "math"
    assert donors.pop("parent text") == "text"
    assert set(donors.values()) == {"code"}


def test_without_a_base_merges_have_the_first_model_s(unlike: Path, project: Project) -> None:
    given = yaml.safe_load(unlike.read_text())
    given |= {"base": None, "space": {"methods": ["linear", "slerp"], "order": "pairwise"}}
    config = load_config(project(**given))
    donors = {s.recipe.donor for s in seeds(config.space(4)) if s.recipe.alone is None}
    assert donors == {next(iter(config.models))}


def test_a_build_writes_the_config_that_was_scored(unlike: Path) -> None:
    config = load_config(unlike)
    checkpoints = opened(config)
    for seed in seeds(config.space(4)):
        document = from_yaml(to_yaml(seed.recipe, config.locations))
        assert document.recipe == seed.recipe, seed.name
        names = {place: name for name, place in config.locations.items()}
        assert {names[place] for place in document.locations.values()} >= {seed.recipe.donor}
        planned = plan(document.recipe, checkpoints)
        expected = THETA if seed.recipe.alone in ("math", "code") else 10000.0
        assert theta(dict(planned.config)) == expected, seed.name


def test_an_earlier_study_goes_on_by_its_own_rule(unlike: Path) -> None:
    from spaces.sampling.distributions import Fixed
    from spaces.search_space.space import Space

    space = load_config(unlike).space(4)
    known = space.to_dict()
    del known["giver"]
    earlier = Space.from_dict(known)
    average = next(seed for seed in seeds(space) if seed.name == "plain average")
    assert average.params is not None
    assert draw(space, Fixed(average.params)).tokenizer == "base"
    assert draw(earlier, Fixed(average.params)).tokenizer is None


def test_check_says_what_differs(unlike: Path) -> None:
    found = look(
        read(unlike, Overrides()),
        depth=PreflightDepth(weights=False, smoke=False),
        progress=lambda what, done, total: None,
    )
    text = "\n".join(found.warnings)
    values = f"base, text: 10000.0 / code, math: {THETA}"
    assert f"The configs differ in rope_parameters.rope_theta ({values})" in text
    assert "rms_norm_eps (base, text: 1e-06 / code, math: 0.001)" in text
    assert "transformers_version" not in text
    assert text.count("configs differ") == 2
