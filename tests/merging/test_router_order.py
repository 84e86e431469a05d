"""Routers of small mixtures of experts: experts in another order, and filters that name them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from merging.checkpoints.checkpoint import Checkpoint
from merging.planning.expressions import Combine
from merging.planning.merge_plan import plan
from merging.tensor_statistics.model_similarity import survey
from search.preflight.advice import advise
from spaces.recipes.recipe import Recipe
from tests.evaluators.families import save

ORDER = [2, 0, 3, 1]
"""Of the four experts that the small models have."""

FAMILIES = ("mixtral", "qwen3_moe", "deepseek_v3", "gpt_oss")


def changed(source: Path, folder: Path, *, noise: float, ordered: bool = False) -> Checkpoint:
    """A fine-tune; with its experts, and the routers' rows, in another order if so asked."""
    shutil.copytree(source, folder)
    file = folder / "model.safetensors"
    draws = torch.Generator().manual_seed(7)
    found = {}
    for name, tensor in load_file(file).items():
        tensor = tensor + noise * torch.randn(tensor.shape, generator=draws)
        if ordered and (expert := re.search(r"\.experts\.(\d)\.", name)):
            name = name.replace(expert[0], f".experts.{ORDER.index(int(expert[1]))}.")
        elif ordered and re.search(r"\.(gate|router)\.|\.experts\.", name):
            tensor = tensor[ORDER].contiguous()
        found[name] = tensor
    save_file(found, file, metadata={"format": "pt"})
    return Checkpoint.open(str(folder), name=folder.name)


@pytest.mark.parametrize("family", FAMILIES)
def test_experts_in_another_order_are_told(family: str, tmp_path: Path) -> None:
    base = save(tmp_path / "base", family, 0)
    models = {
        "base": base,
        "tuned": changed(base.folder, tmp_path / "tuned", noise=0.01),
        "moved": changed(base.folder, tmp_path / "moved", noise=0.01, ordered=True),
    }
    found = survey(models, "base")
    tuned, moved = found.routers
    assert (tuned.moved, tuned.drifted) == (0, False)
    assert tuned.likeness > 0.9
    assert moved.moved == moved.experts == tuned.experts
    assert moved.experts % len(ORDER) == 0
    (line,) = [line for line in advise(found).warnings if "Routers" in line]
    assert f"moved: {moved.moved} of {moved.experts} match another expert" in line
    assert "tuned" not in line
    del models["moved"]
    assert not any("Routers" in line for line in advise(survey(models, "base")).warnings)


def test_routers_of_another_origin_are_told_without_a_base(tmp_path: Path) -> None:
    models = {
        name: save(tmp_path / name, "mixtral", seed) for seed, name in enumerate(("one", "two"))
    }
    found = survey(models, None)
    (two,) = found.routers
    assert two.likeness < 0.5
    assert [line for line in advise(found).warnings if "apart from those of one" in line]


def test_dense_models_have_no_routers(tiny_family: dict[str, Path]) -> None:
    models = {name: Checkpoint.open(str(place), name=name) for name, place in tiny_family.items()}
    assert survey(models, "base").routers == ()


@pytest.mark.parametrize("family", FAMILIES)
def test_filters_name_experts_and_routers(family: str, tmp_path: Path) -> None:
    """The filters that the page on models gives: of routed experts, of routers, of nothing else."""
    models = {name: save(tmp_path / name, family, 0) for name in ("one", "two")}
    cases = [
        {"filter": ".experts.", "value": 2.0},
        {"filter": ".gate.", "value": 3.0},
        {"filter": ".router.", "value": 3.0},
        {"value": 1.0},
    ]
    sources = [{"of": name, "parameters": {"weight": cases}} for name in models]
    made = plan(Recipe.from_dict({"merge": {"method": "linear", "sources": sources}}), models)
    weights = {
        job.name: job.expression.per_input["weight"][0]
        for job in made.jobs
        if isinstance(job.expression, Combine)
    }
    experts = {name for name in weights if re.search(r"\bexperts\b", name)}
    routers = {
        name for name in weights if re.search(r"\.(mlp|block_sparse_moe)\.(gate|router)\.", name)
    }
    assert {name for name, weight in weights.items() if weight == 2.0} == experts != set()
    assert {name for name, weight in weights.items() if weight == 3.0} == routers != set()
