"""Shared by the merge engine's tests: our engine and mergekit, each from a recipe to tensors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from merging.building.build import tensors
from merging.checkpoints.checkpoint import Checkpoint
from merging.planning.merge_plan import plan
from spaces.mergekit import from_yaml, to_yaml
from spaces.recipes.recipe import Recipe

torch.set_num_threads(1)


@pytest.fixture
def build() -> Callable[..., dict[str, Tensor]]:
    """``build(merge, models, dtype=None, **recipe)``: what our engine makes, by tensor name."""

    def make(merge: Any, models: Mapping[str, Path], **recipe: Any) -> dict[str, Tensor]:
        checkpoints = {name: Checkpoint.open(str(at), name=name) for name, at in models.items()}
        made = plan(Recipe.from_dict({"merge": merge, **recipe}), checkpoints)
        return dict(tensors(made, checkpoints))

    return make


@pytest.fixture
def mergekit(tmp_path: Path) -> Callable[..., dict[str, Tensor]]:
    """``mergekit(merge, models, ...)``: what mergekit makes from the YAML that we export."""

    def make(merge: Any, models: Mapping[str, Path], **recipe: Any) -> dict[str, Tensor]:
        text = to_yaml(
            Recipe.from_dict({"merge": merge, **recipe}),
            {name: str(path) for name, path in models.items()},
        )
        made = Checkpoint.open(str(_run_yaml(text, tmp_path / "mergekit")), name="mergekit")
        return {name: made.tensor(name) for name in made.tensors}

    return make


@pytest.fixture
def build_yaml() -> Callable[[str], dict[str, Tensor]]:
    """What our engine makes of a mergekit file, by tensor name."""

    def make(text: str) -> dict[str, Tensor]:
        document = from_yaml(text)
        checkpoints = {
            name: Checkpoint.open(document.locations[name], name=name)
            for name in document.recipe.needed
        }
        return dict(tensors(plan(document.recipe, checkpoints), checkpoints))

    return make


@pytest.fixture
def mergekit_yaml(tmp_path: Path) -> Callable[[str], dict[str, Tensor]]:
    """What mergekit makes of the same file."""

    def make(text: str) -> dict[str, Tensor]:
        made = Checkpoint.open(str(_run_yaml(text, tmp_path / "mergekit")), name="mergekit")
        return {name: made.tensor(name) for name in made.tensors}

    return make


def _run_yaml(text: str, folder: Path) -> Path:
    """Run mergekit on YAML of one or several documents."""
    from mergekit.config import MergeConfiguration
    from mergekit.graph import Executor
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions
    from mergekit.scripts.multimerge import load_config, make_tasks

    logging.disable(logging.WARNING)
    options = MergeOptions(quiet=True, copy_tokenizer=False, write_model_card=False, device="cpu")
    out = folder / "out"
    try:
        if len(list(yaml.safe_load_all(text))) == 1:
            run_merge(MergeConfiguration.model_validate(yaml.safe_load(text)), str(out), options)
        else:
            (folder / "inner").mkdir(parents=True)
            configs, needs = load_config(text, str(folder / "inner"))
            tasks = make_tasks(configs, needs, options, str(folder / "inner"), str(out), True)
            Executor(tasks, math_device="cpu", storage_device="cpu").execute(desc="")
    finally:
        logging.disable(logging.NOTSET)
    return out
