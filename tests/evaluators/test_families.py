"""Models of many classes: filled in memory they are what a fresh load of the built folder is."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator, Sequence
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
from merging.checkpoints.quantisation.round_trip import quantise
from merging.gradients.coefficient_gradients import CoefficientGradients
from merging.planning.merge_plan import plan
from spaces.recipes.coefficients import Coefficients
from spaces.recipes.recipe import Recipe
from tests.evaluators.families import (
    CPU,
    differing,
    every_class,
    loaded,
    new_model,
    outcome,
    planned,
    save,
    state,
    stated,
)

EXPERTS = (
    "mixtral", "qwen3_moe", "olmoe", "deepseek_v3", "qwen3_next", "gpt_oss", "granitemoe", "jamba",
)  # fmt: skip
OTHERS = (
    "falcon_h1", "mamba2", "bamba", "granitemoehybrid", "nemotron_h", "gptj", "codegen", "hrm_text",
)  # fmt: skip
"""State-space models, hybrids, and those with buffers that depend on the dtype."""

ASKED = os.environ.get("FAMILIES", "").split()
"""Those to be tried whose outcome is to be written down; ``all`` is each."""

SAMPLE = sorted({*OTHERS, *random.Random(1).sample(every_class(), 8)})
"""Those of every class that are tried each time; ``make families`` tries all."""


def in_dtypes(families: Sequence[str]) -> list[Any]:
    """Each in bfloat16, which tells more; in float32 too where slow tests are run."""
    slow = [pytest.param(family, "float32", marks=pytest.mark.slow) for family in families]
    return [(family, "bfloat16") for family in families] + slow


@pytest.mark.parametrize(("family", "dtype"), in_dtypes(EXPERTS))
def test_experts_are_filled_in_place(tmp_path: Path, family: str, dtype: str) -> None:
    checkpoints = {
        name: save(tmp_path / name, family, seed, dtype) for seed, name in enumerate(("one", "two"))
    }
    assert differing(checkpoints, tmp_path) == ""
    made = planned(0.5, checkpoints)
    skeleton = ResidentModel(device=CPU).skeleton(made, tmp_path / "one")
    own = {one.untyped_storage().data_ptr() for one in skeleton.model.parameters()}
    for name, one in skeleton.targets(made.jobs).items():
        assert one.dim() == 1 or one.untyped_storage().data_ptr() in own, name


@pytest.fixture(scope="module")
def known() -> Iterator[dict[str, str]]:
    """What the docs say of each family; where some are asked for, this is what they say then."""
    found = {} if ASKED == ["all"] else stated()
    yield found
    if ASKED:
        state(found)


@pytest.mark.parametrize("family", every_class() if ASKED == ["all"] else ASKED or SAMPLE)
def test_what_becomes_of_a_class(tmp_path: Path, family: str, known: dict[str, str]) -> None:
    """Checked, filled in memory by three recipes, and compared with fresh loads, in two dtypes."""
    found = outcome(family, tmp_path)
    if ASKED:
        known[family] = found
    assert found == known[family]
    assert not found.startswith("wrong")


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
    assert differing(mixed, tmp_path) == ""
    built = Checkpoint.open(str(tmp_path / "out1"), name="built")
    assert {name for header in built.headers.values() for name in header.tensors} == {
        *hub["one"].tensors
    }


@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
def test_a_bias_that_is_tied(tmp_path: Path, family: str) -> None:
    """``tie_weights()`` swaps parameters: the second and third recipe go into those in use."""
    bias = [
        name for name in new_model(family, 0, "float32").state_dict() if name.endswith("r.bias")
    ]
    checkpoints = {
        name: save(tmp_path / name, family, seed) for seed, name in enumerate(("one", "two"))
    }
    made = planned(0.5, checkpoints)
    skeleton = ResidentModel(device=CPU).skeleton(made, tmp_path / "one")
    held = skeleton.model.state_dict(keep_vars=True)
    assert any(held[name] is other for name in bias for key, other in held.items() if key != name)
    assert differing(checkpoints, tmp_path) == ""


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


@pytest.mark.parametrize(
    ("family", "plain", "turned"),
    [
        ("llama", r"embed_tokens|norm|lm_head", r"^$"),
        ("gpt2", r"wte|wpe|ln_|bias|lm_head", r"c_attn|c_proj|c_fc"),
        ("mixtral", r"embed_tokens|norm|lm_head|gate\.weight", r"^$"),
        ("gpt_oss", r"embed_tokens|norm|lm_head|router|bias|sinks", r"experts"),
    ],
)
def test_linear_layers_and_experts_are_quantised_in_place(
    tmp_path: Path, family: str, plain: str, turned: str
) -> None:
    """Each row of outputs by itself; embeddings, norms, routers and the head stay as they are."""
    checkpoints = {name: save(tmp_path / name, family, 0) for name in ("one", "two")}
    made = planned(0.5, checkpoints)
    skeleton = ResidentModel(device=CPU).skeleton(made, tmp_path / "one")
    build_into(made, checkpoints, skeleton.targets(made.jobs))
    skeleton.settle()
    before = {name: one.clone() for name, one in skeleton.model.named_parameters()}
    skeleton.quantise("int8")
    for name, after in skeleton.model.named_parameters():
        wanted = before[name].clone()
        if not re.search(plain, name):
            view = wanted.transpose(-1, -2) if re.search(turned, name) else wanted
            for matrix in view if view.dim() == 3 else [view]:
                quantise(matrix, "int8")
            assert not torch.equal(wanted, before[name]), name
        assert torch.equal(after, wanted), name


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


@pytest.mark.parametrize("family", ["gptj", "codegen"])
def test_positions_are_computed_as_on_load(tmp_path: Path, family: str) -> None:
    """No checkpoint holds them, and a constructor makes them in the dtype of the weights."""
    checkpoints = {
        name: save(tmp_path / name, family, seed, "bfloat16")
        for seed, name in enumerate(("one", "two"))
    }
    made = planned(0.5, checkpoints)
    held = dict(ResidentModel(device=CPU).skeleton(made, tmp_path / "one").model.named_buffers())
    fresh = dict(loaded(tmp_path / "one").named_buffers())
    assert held.keys() == fresh.keys()
    for name, buffer in fresh.items():
        assert torch.equal(held[name], buffer), name
