"""Quantised models are read as the plain ones that their formats say they are, bit for bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from merging.building.build import build_into, write_model
from merging.checkpoints.checkpoint import Checkpoint, CheckpointError
from merging.planning.merge_plan import MergePlan, plan
from merging.tensor_statistics.statistics_cache import StatisticsCache
from search.preflight.model_facts import ModelFacts, differences
from spaces.recipes.recipe import Recipe
from tests.merging.quantisers import KINDS, quantised, tiles
from tests.tiny_configs import tiny_config


def merged(first: Path, second: Path) -> tuple[MergePlan, dict[str, Checkpoint]]:
    """A plan that looks at every number of both."""
    sources = [{"of": "one", "parameters": {"weight": 0.7, "density": 0.5}}]
    merge = {"method": "ties", "base": "two", "sources": sources}
    checkpoints = {
        name: Checkpoint.open(str(at), name=name) for name, at in (("one", first), ("two", second))
    }
    return plan(Recipe.from_dict({"merge": merge}), checkpoints), checkpoints


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantised_model_is_the_plain_one(kind: str, tmp_path: Path, tiny_model: Any) -> None:
    """Tensors, plans and merges have the same bits, as parent and as base; the result is plain."""
    base = tiny_model(hidden=64, dtype="bfloat16")
    other = tiny_model(base=base, dtype="bfloat16", seed=1)
    stored, expected = quantised(base, tmp_path, kind)
    found, wanted = (Checkpoint.open(str(at), name="x") for at in (stored, expected))
    assert found.packed
    assert not wanted.packed
    assert {name: (one.shape, one.dtype) for name, one in found.tensors.items()} == {
        name: (one.shape, one.dtype) for name, one in wanted.tensors.items()
    }
    for name in wanted.tensors:
        assert torch.equal(found.tensor(name), wanted.tensor(name)), name
    for number, swapped in enumerate((False, True)):
        prints = []
        for which in (stored, expected):
            pair = (other, which) if swapped else (which, other)
            made, checkpoints = merged(*pair)
            assert "quantization_config" not in made.config
            out = tmp_path / f"out-{which.name}-{number}"
            prints.append(write_model(made, checkpoints, out))
            written = json.loads((out / "config.json").read_text())
            assert "quantization_config" not in written
        assert prints[0] == prints[1]


def test_check_names_quantised_models(tmp_path: Path, tiny_model: Any) -> None:
    plain = tiny_model(dtype="bfloat16", hidden=64)
    stored, _ = quantised(plain, tmp_path, "fp8")
    opened = {"math": Checkpoint.open(str(stored), name="math")}
    facts = {name: ModelFacts.of(one) for name, one in opened.items()}
    assert facts["math"].dtypes == ("bfloat16",)
    assert "weights are read as plain ones (math: fp8)" in differences(facts)[0]
    assert not differences({"x": ModelFacts.of(Checkpoint.open(str(plain), name="x"))})


def test_dequantised_tensors_are_kept(tmp_path: Path, tiny_model: Any) -> None:
    """With a folder for what is computed, each is dequantised once."""
    stored, _ = quantised(tiny_model(dtype="bfloat16", hidden=64), tmp_path, "fp8")
    made, checkpoints = merged(stored, stored)
    targets = {job.name: torch.empty(job.shape, dtype=job.dtype) for job in made.jobs}
    folder = tmp_path / "statistics"
    first = build_into(made, checkpoints, targets, statistics=StatisticsCache(folder))
    again = StatisticsCache(folder)
    assert build_into(made, checkpoints, targets, statistics=again) == first
    assert again.computed == 0


def test_blocks_are_those_of_transformers(tmp_path: Path, tiny_model: Any) -> None:
    """A whole model, against transformers' own reading of it."""
    from transformers import AutoModelForCausalLM, FineGrainedFP8Config

    plain = tiny_model(hidden=64, dtype="bfloat16")
    stored = tmp_path / "stored"
    shutil.copytree(plain, stored)
    tensors = load_file(plain / "model.safetensors")
    for name in [name for name in tensors if name.endswith("proj.weight")]:
        tensors[name], tensors[name + "_scale_inv"] = tiles(tensors[name].float(), 16, 16, 448)
    save_file(tensors, stored / "model.safetensors", metadata={"format": "pt"})
    said = {"quant_method": "fp8", "weight_block_size": [16, 16], "activation_scheme": "dynamic"}
    config = json.loads((plain / "config.json").read_text())
    (stored / "config.json").write_text(json.dumps(config | {"quantization_config": said}))
    theirs = AutoModelForCausalLM.from_pretrained(
        stored, quantization_config=FineGrainedFP8Config(dequantize=True), dtype="auto"
    ).state_dict()
    ours = Checkpoint.open(str(stored), name="x")
    for name in ours.packed:
        assert torch.equal(ours.tensor(name), theirs[name]), name


def test_adapters_on_quantised_models(tmp_path: Path, tiny_model: Any) -> None:
    """QLoRA: what was trained on a quantised model is added to the plain one that it stands for."""
    places = quantised(tiny_model(dtype="bfloat16", hidden=64), tmp_path, "nf4")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    said = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    (adapter / "adapter_config.json").write_text(json.dumps(said))
    stem = "base_model.model.model.layers.1.self_attn.q_proj.lora_"
    factors = {f"{stem}A.weight": torch.ones(2, 64) / 64, f"{stem}B.weight": torch.ones(64, 2)}
    save_file(factors, adapter / "adapter_model.safetensors")
    found, wanted = (Checkpoint.open(f"{at}+{adapter}", name="x") for at in places)
    changed = "model.layers.1.self_attn.q_proj.weight"
    assert found.computed == {*found.packed, changed}
    assert wanted.computed == {changed}
    for name in wanted.tensors:
        assert torch.equal(found.tensor(name), wanted.tensor(name)), name


def test_gpt_oss_as_it_is_published(tmp_path: Path) -> None:
    """MXFP4: tensors as transformers makes them, and merged as the model of plain ones."""
    from transformers import AutoModelForCausalLM
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    config = tiny_config("gpt_oss")
    config.intermediate_size = 64
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(tmp_path / "a")
    tensors = load_file(tmp_path / "a" / "model.safetensors")
    experts = [name for name in tensors if name.endswith(("gate_up_proj", "down_proj"))]
    stored = dict(tensors)
    for name in experts:
        several, inputs, outputs = stored.pop(name).shape
        shape = (several, outputs, inputs // 32)
        stored[f"{name}_blocks"] = torch.randint(0, 256, (*shape, 16), dtype=torch.uint8)
        stored[f"{name}_scales"] = torch.randint(110, 125, shape, dtype=torch.uint8)
        tensors[name] = convert_moe_packed_tensors(
            stored[f"{name}_blocks"], stored[f"{name}_scales"]
        )
    for name, held in (("stored", stored), ("expected", tensors)):
        shutil.copytree(tmp_path / "a", tmp_path / name)
        save_file(held, tmp_path / name / "model.safetensors", metadata={"format": "pt"})
    edited(tmp_path / "stored", quantization_config={"quant_method": "mxfp4"})
    made, checkpoints = merged(tmp_path / "stored", tmp_path / "a")
    assert set(checkpoints["one"].packed) == set(experts)
    for name in experts:
        assert torch.equal(checkpoints["one"].tensor(name), tensors[name]), name
    wanted, plain = merged(tmp_path / "expected", tmp_path / "a")
    assert write_model(made, checkpoints, tmp_path / "b") == write_model(
        wanted, plain, tmp_path / "c"
    )


def edited(folder: Path, **changes: Any) -> Path:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return folder


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"quant_method": "hqq"}, "model x: expected plain weights, .* quantised with hqq;"),
        ({"bits": 4}, "quantised with an unnamed method; dequantise it"),
        (None, r"proj.weight quantised without a word in config.json; dequantise it"),
        ({"quant_method": "fbgemm_fp8"}, "proj.weight quantised with fbgemm_fp8 in another way"),
        (
            {"quant_method": "fp8", "weight_block_size": [7, 7]},
            r"down_proj.weight: expected the parts .* scale \[3, 7\] .*9 more tensors",
        ),
    ],
)
def test_what_cannot_be_read_is_one_line(
    said: Any, message: str, tmp_path: Path, tiny_model: Any
) -> None:
    stored, _ = quantised(tiny_model(hidden=64), tmp_path, "fp8")
    with pytest.raises(CheckpointError, match=message) as caught:
        Checkpoint.open(str(edited(stored, quantization_config=said)), name="x")
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    ("kind", "said", "message"),
    [
        ("awq", {"version": "gemv"}, r"only gemm of 4 bits is read, not gemv of 4\)"),
        ("gptq", {"bits": 3}, r"got weight \[16, 64\], .*, groups \[128\] \(.*13 more tensors"),
    ],
)
def test_layouts_that_are_not_read(
    kind: str, said: dict[str, Any], message: str, tmp_path: Path, tiny_model: Any
) -> None:
    stored, _ = quantised(tiny_model(hidden=64), tmp_path, kind)
    said = KINDS[kind][1] | said
    with pytest.raises(CheckpointError, match=message) as caught:
        Checkpoint.open(str(edited(stored, quantization_config=said)), name="x")
    assert len(caught.value.problems) == 1
