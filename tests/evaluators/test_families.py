"""Models of many classes: filled in memory they are what a fresh load of the built folder is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from evaluators.resident_models.resident_model import ResidentModel
from evaluators.resident_models.skeleton import ResidentError
from merging.building.build import build_into, write_model
from merging.checkpoints.checkpoint import Checkpoint
from merging.gradients.coefficient_gradients import CoefficientGradients
from merging.planning.merge_plan import MergePlan, plan
from spaces.recipes.coefficients import Coefficients
from spaces.recipes.recipe import Merge, Model, Recipe, Source, parameters
from tests.tiny_configs import tiny_config

CPU = torch.device("cpu")
EXPERTS = (
    "mixtral", "qwen3_moe", "olmoe", "deepseek_v3", "qwen3_next", "gpt_oss", "granitemoe", "jamba",
)  # fmt: skip
OTHERS = (
    "falcon_h1", "mamba2", "bamba", "granitemoehybrid", "nemotron_h", "gptj", "codegen",
)  # fmt: skip
"""State-space models, hybrids, and those with buffers that depend on the dtype."""


def in_dtypes(families: Sequence[str]) -> list[Any]:
    """Each in bfloat16, which tells more; in float32 too where slow tests are run."""
    slow = [pytest.param(family, "float32", marks=pytest.mark.slow) for family in families]
    return [(family, "bfloat16") for family in families] + slow


def new_model(family: str, seed: int, dtype: str) -> Any:
    """A random model of a family."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(tiny_config(family), dtype=getattr(torch, dtype))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


def save(
    folder: Path, family: str, seed: int, dtype: str = "float32", *, hub: bool = True
) -> Checkpoint:
    """The same in a folder, as the hub has it or as it is in memory."""
    new_model(family, seed, dtype).save_pretrained(folder, save_original_format=hub)
    return Checkpoint.open(str(folder), name=folder.name)


def planned(first: float, checkpoints: dict[str, Checkpoint]) -> MergePlan:
    sources = tuple(
        Source(of=Model(name), parameters=parameters(weight=weight))
        for name, weight in (("one", first), ("two", 1 - first))
    )
    return plan(Recipe(root=Merge(method="linear", sources=sources)), checkpoints)


def logits(model: Any) -> torch.Tensor:
    ids = torch.randint(3, 60, (2, 12), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        return torch.as_tensor(model(input_ids=ids, use_cache=False).logits)


def compare(checkpoints: dict[str, Checkpoint], folder: Path) -> None:
    """Three recipes in one resident model, each against a fresh load of what is built."""
    resident = ResidentModel(device=CPU)
    for number, first in enumerate((0.3, 0.8, 0.5)):
        made = planned(first, checkpoints)
        write_model(made, checkpoints, folder / f"out{number}")
        expected = AutoModelForCausalLM.from_pretrained(folder / f"out{number}", dtype="auto")
        skeleton = resident.skeleton(made, checkpoints[made.donor].folder)
        build_into(made, checkpoints, skeleton.targets(made.jobs))
        skeleton.settle()
        assert torch.equal(logits(skeleton.model), logits(expected))


@pytest.mark.parametrize(("family", "dtype"), in_dtypes(EXPERTS))
def test_experts_are_filled_in_place(tmp_path: Path, family: str, dtype: str) -> None:
    checkpoints = {
        name: save(tmp_path / name, family, seed, dtype) for seed, name in enumerate(("one", "two"))
    }
    compare(checkpoints, tmp_path)
    made = planned(0.5, checkpoints)
    skeleton = ResidentModel(device=CPU).skeleton(made, tmp_path / "one")
    own = {one.untyped_storage().data_ptr() for one in skeleton.model.parameters()}
    for name, one in skeleton.targets(made.jobs).items():
        assert one.dim() == 1 or one.untyped_storage().data_ptr() in own, name


@pytest.mark.parametrize(("family", "dtype"), in_dtypes(OTHERS))
def test_hybrids_are_what_is_loaded(tmp_path: Path, family: str, dtype: str) -> None:
    checkpoints = {
        name: save(tmp_path / name, family, seed, dtype) for seed, name in enumerate(("one", "two"))
    }
    compare(checkpoints, tmp_path)


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "olmoe"])
def test_parents_of_two_layouts(tmp_path: Path, family: str) -> None:
    """Experts stored as one tensor are merged one by one, and built as the hub has them."""
    hub = {name: save(tmp_path / name, family, seed) for seed, name in enumerate(("one", "two"))}
    (tmp_path / "fused").mkdir()
    mixed = {"one": hub["one"], "two": save(tmp_path / "fused" / "two", family, 1, hub=False)}
    stored = {name for header in mixed["two"].headers.values() for name in header.tensors}
    assert any(name.endswith("experts.down_proj") for name in stored)
    assert mixed["two"].tensors.keys() == hub["two"].tensors.keys()
    for name in hub["two"].tensors:
        assert torch.equal(mixed["two"].tensor(name), hub["two"].tensor(name))
    compare(mixed, tmp_path)
    built = Checkpoint.open(str(tmp_path / "out0"), name="built")
    assert {name for header in built.headers.values() for name in header.tensors} == {
        *hub["one"].tensors
    }


def test_a_missing_expert_is_named(tmp_path: Path) -> None:
    """The config asks for more experts than are stored."""
    one = save(tmp_path / "one", "mixtral", 0)
    made = planned(0.5, {"one": one, "two": one})
    config = {**made.config, "num_local_experts": 6}
    skeleton = ResidentModel(device=CPU).skeleton(replace(made, config=config), tmp_path / "one")
    with pytest.raises(
        ResidentError, match=r"experts\.gate_up_proj: expected 12 tensors for it .*, got 8"
    ):
        skeleton.targets(made.jobs)


def test_gradients_of_experts(tmp_path: Path) -> None:
    """A weight of the experts alone: its gradient is what autograd has for the fused tensors."""
    checkpoints = {
        name: save(tmp_path / name, "mixtral", seed) for seed, name in enumerate(("one", "two"))
    }
    by_filter = [{"filter": "experts", "value": 0.5}, {"value": 0.5}]
    sources = [
        {"of": name, "parameters": {"weight": given}}
        for name, given in (("one", by_filter), ("two", 0.5))
    ]
    merge = {"method": "linear", "sources": sources, "parameters": {"normalize": False}}
    made = plan(Recipe.from_dict({"merge": merge}), checkpoints)
    skeleton = ResidentModel(device=CPU).skeleton(made, tmp_path / "one")
    build_into(made, checkpoints, skeleton.targets(made.jobs))
    skeleton.settle()
    write_model(made, checkpoints, tmp_path / "out")
    whole, one = (AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("out", "one"))
    ids = torch.randint(3, 60, (2, 12), generator=torch.Generator().manual_seed(5))
    whole(input_ids=ids, labels=ids).loss.backward()
    expected = sum(
        float((parameter.grad * own.detach()).sum())
        for (name, parameter), own in zip(whole.named_parameters(), one.parameters(), strict=True)
        if "experts" in name
    )
    found = CoefficientGradients(
        made, checkpoints, skeleton.parameters(made.jobs), Coefficients(made.recipe)
    )
    with found.collecting():
        skeleton.model(input_ids=ids, labels=ids).loss.backward()
    assert float(found.values[0]) == pytest.approx(expected, rel=1e-4)
