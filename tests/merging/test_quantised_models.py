"""Quantised models are read as the plain ones that their formats say they are, bit for bit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from merging.building.build import build_into, write_model
from merging.checkpoints.checkpoint import Checkpoint, CheckpointError
from merging.planning.merge_plan import MergePlan, plan
from merging.tensor_statistics.statistics_cache import StatisticsCache
from search.preflight.model_facts import ModelFacts, differences
from spaces.recipes.recipe import Recipe

Stored = dict[str, Tensor]
"""What is stored of a module's weight, by the ends of the names."""


def tiles(weight: Tensor, rows: int, columns: int, most: float) -> tuple[Tensor, Tensor]:
    """A weight rounded to eight-bit floats in tiles, each with a scale of its own."""
    tall, wide = -(-weight.shape[0] // rows), -(-weight.shape[1] // columns)
    stored = torch.empty(weight.shape, dtype=torch.float8_e4m3fn)
    scales = torch.empty(tall, wide)
    for at in range(tall):
        for to in range(wide):
            place = slice(at * rows, (at + 1) * rows), slice(to * columns, (to + 1) * columns)
            scales[at, to] = weight[place].abs().max() / most
            stored[place] = (weight[place] / scales[at, to]).to(torch.float8_e4m3fn)
    return stored, scales


def of_tiles(stored: Tensor, scales: Tensor, rows: int, columns: int) -> Tensor:
    """What tiles stand for."""
    each = torch.kron(scales, torch.ones(rows, columns))
    return stored.float() * each[: stored.shape[0], : stored.shape[1]]


def fp8_blocks(weight: Tensor) -> tuple[Stored, Tensor]:
    """Blocks that do not divide the sides, nor the same number of them."""
    stored, scales = tiles(weight, 24, 20, 448)
    return {"weight": stored, "weight_scale_inv": scales}, of_tiles(stored, scales, 24, 20)


def fp8_powers(weight: Tensor) -> tuple[Stored, Tensor]:
    """Scales that are powers of two, of which the exponents are stored, for rows of 32 numbers."""
    stored, scales = tiles(weight, 1, 32, 448)
    scales = (2.0 ** scales.log2().ceil()).to(torch.float8_e8m0fnu)
    return {"weight": stored, "weight_scale_inv": scales}, of_tiles(stored, scales.float(), 1, 32)


def fp8_rows(weight: Tensor) -> tuple[Stored, Tensor]:
    stored, scales = tiles(weight, 1, weight.shape[1], 448)
    scales = scales.bfloat16()
    expected = of_tiles(stored, scales.float(), 1, weight.shape[1])
    return {"weight": stored, "weight_scale": scales}, expected


def fp8_whole(weight: Tensor) -> tuple[Stored, Tensor]:
    """ModelOpt: one scale for all, and one for the activations."""
    stored, scales = tiles(weight, *weight.shape, 448)
    parts = {"weight": stored, "weight_scale": scales.reshape(()), "input_scale": torch.ones(())}
    return parts, of_tiles(stored, scales, *weight.shape)


def int8_rows(weight: Tensor) -> tuple[Stored, Tensor]:
    """compressed-tensors with zero points."""
    low, high = weight.amin(1, keepdim=True), weight.amax(1, keepdim=True)
    scales = ((high - low) / 255).bfloat16()
    zeros = (-128 - low / scales.float()).round().clamp(-128, 127)
    stored = (weight / scales.float() + zeros).round().clamp(-128, 127).to(torch.int8)
    expected = (stored.double() - zeros.double()) * scales.double()  # exact
    parts = {"weight": stored, "weight_scale": scales, "weight_zero_point": zeros.to(torch.int8)}
    return parts, expected


NF4 = (  # QLoRA, appendix E
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
)  # fmt: skip
FP4 = (
    0.0, 0.005208333333, 0.66666667, 1.0, 0.33333333, 0.5, 0.16666667, 0.25, -0.0, -0.005208333333,
    -0.66666667, -1.0, -0.33333333, -0.5, -0.16666667, -0.25,
)  # fmt: skip
"""As bitsandbytes has them, in order of the codes."""


def four_bit(weight: Tensor, kind: str, values: tuple[float, ...]) -> tuple[Stored, Tensor, Any]:
    """Runs of 64 numbers with the largest of each, as bitsandbytes 0.4x stores them."""
    runs = weight.flatten().reshape(-1, 64)
    largest = runs.abs().amax(1)
    levels = torch.tensor(values)
    codes = (runs / largest[:, None])[..., None].sub(levels).abs().argmin(-1)
    flat = codes.flatten().to(torch.uint8)
    parts = {
        "weight": (flat[0::2] * 16 + flat[1::2]).unsqueeze(-1),
        "weight.quant_map": levels,
        "weight.absmax": largest,
    }
    state = {"quant_type": kind, "blocksize": 64, "dtype": "bfloat16", "shape": [*weight.shape]}
    return parts, codes, state


def with_state(parts: Stored, state: Any) -> Stored:
    text = json.dumps(state).encode()
    name = f"weight.quant_state.bitsandbytes__{state['quant_type']}"
    return parts | {name: torch.tensor(list(text), dtype=torch.uint8)}


def nf4_twice(weight: Tensor) -> tuple[Stored, Tensor]:
    """The scales are quantised again, around their mean, in runs of 16."""
    parts, codes, state = four_bit(weight, "nf4", NF4)
    largest = parts.pop("weight.absmax")
    offset = float(largest.mean())
    runs = torch.nn.functional.pad(largest - offset, (0, -len(largest) % 16)).reshape(-1, 16)
    outer = runs.abs().amax(1)
    table = torch.linspace(-1, 1, 256)
    inner = (runs / outer[:, None])[..., None].sub(table).abs().argmin(-1).flatten()[: len(largest)]
    scales = [float(table[i] * outer[n // 16]) for n, i in enumerate(inner.tolist())]
    scale = torch.tensor(scales) + torch.tensor(offset)
    parts |= {
        "weight.absmax": inner.to(torch.uint8),
        "weight.nested_absmax": outer,
        "weight.nested_quant_map": table,
    }
    state |= {"nested_blocksize": 16, "nested_dtype": "float32", "nested_offset": offset}
    expected = torch.tensor(NF4)[codes] * scale[:, None]
    return with_state(parts, state), expected.reshape(weight.shape)


def fp4(weight: Tensor) -> tuple[Stored, Tensor]:
    parts, codes, state = four_bit(weight, "fp4", FP4)
    expected = torch.tensor(FP4)[codes] * parts["weight.absmax"][:, None]
    return with_state(parts, state), expected.reshape(weight.shape)


def llm_int8(weight: Tensor) -> tuple[Stored, Tensor]:
    largest = weight.abs().amax(1)
    stored = (weight / largest[:, None] * 127).round().to(torch.int8)
    expected = (stored.double() * largest[:, None].double() / 127).float()
    parts = {"weight": stored, "SCB": largest, "weight_format": torch.zeros((), dtype=torch.uint8)}
    return parts, expected


Quantiser = Callable[[Tensor], tuple[Stored, Tensor]]
KINDS: Mapping[str, tuple[Quantiser, dict[str, Any]]] = {
    "fp8": (fp8_blocks, {"quant_method": "fp8", "weight_block_size": [24, 20]}),
    "powers": (fp8_powers, {"quant_method": "fp8", "weight_block_size": [1, 32]}),
    "rows": (fp8_rows, {"quant_method": "compressed-tensors", "format": "float-quantized"}),
    "whole": (fp8_whole, {"quant_method": "modelopt", "quant_algo": "FP8"}),
    "int8": (int8_rows, {"quant_method": "compressed-tensors", "format": "int-quantized"}),
    "nf4": (nf4_twice, {"quant_method": "bitsandbytes", "load_in_4bit": True}),
    "fp4": (fp4, {"quant_method": "bitsandbytes", "load_in_4bit": True}),
    "SCB": (llm_int8, {"quant_method": "bitsandbytes", "load_in_8bit": True}),
}


def quantised(plain: Path, folder: Path, kind: str) -> tuple[Path, Path]:
    """A model with its layers quantised, and the plain one that it stands for."""
    quantise, said = KINDS[kind]
    stored, expected = {}, {}
    for name, weight in load_file(plain / "model.safetensors").items():
        if not name.endswith("proj.weight"):
            stored[name] = expected[name] = weight
            continue
        parts, value = quantise(weight.float())
        stored |= {name.removesuffix("weight") + end: part for end, part in parts.items()}
        expected[name] = value.to(weight.dtype)
    for name, tensors in (("stored", stored), ("expected", expected)):
        shutil.copytree(plain, folder / name)
        save_file(tensors, folder / name / "model.safetensors", metadata={"format": "pt"})
    file = folder / "stored" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"quantization_config": said}))
    return folder / "stored", folder / "expected"


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
