"""Quantised models made for tests, by formulas of their own, and the plain ones they stand for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

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


def packed(numbers: Tensor, bits: int = 4, order: tuple[int, ...] = tuple(range(32))) -> Tensor:
    """Columns packed into integers; ``order`` is the column that each place holds, lowest first."""
    per = 32 // bits
    made = torch.zeros(numbers.shape[0], numbers.shape[1] // per, dtype=torch.int64)
    for place in range(per):
        made |= numbers[:, order[place] :: per].long() << bits * place
    return made.to(torch.int32)  # what is above 2^31 wraps around


def in_groups(weight: Tensor, groups: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Whole numbers, scales and zero points (groups first) of groups of inputs; what they are."""
    count = int(groups.max()) + 1
    numbers, expected = torch.empty_like(weight), torch.empty_like(weight)
    scales, zeros = torch.empty(count, len(weight)), torch.empty(count, len(weight))
    for at in range(count):
        part = weight[:, groups == at]
        low, high = part.amin(1).clamp(max=-1e-3), part.amax(1).clamp(min=1e-3)
        scales[at] = ((high - low) / (2**bits - 1)).half()
        zeros[at] = (-low / scales[at]).round().clamp(0, 2**bits - 1)
        found = (part / scales[at][:, None] + zeros[at][:, None]).round().clamp(0, 2**bits - 1)
        numbers[:, groups == at] = found
        expected[:, groups == at] = (found - zeros[at][:, None]) * scales[at][:, None]
    return numbers, scales, zeros, expected


def gptq(weight: Tensor, *, bits: int = 4, less: int = 1) -> tuple[Stored, Tensor]:
    """Groups in no order; zero points less 1 in the first format, 0 wrapped around."""
    groups = torch.randperm(weight.shape[1], generator=torch.Generator().manual_seed(1)) % 4
    numbers, scales, zeros, expected = in_groups(weight, groups, bits)
    zeros[0, 0] = 0
    expected[0, groups == 0] = numbers[0, groups == 0] * scales[0, 0]
    parts = {
        "qweight": packed(numbers, bits).T.contiguous(),
        "qzeros": packed((zeros - less) % 2**bits, bits),
        "scales": scales.half(),
        "g_idx": groups.int(),
    }
    return parts, expected


def gptq_eight(weight: Tensor) -> tuple[Stored, Tensor]:
    return gptq(weight, bits=8, less=0)


def awq(weight: Tensor) -> tuple[Stored, Tensor]:
    order = (0, 2, 4, 6, 1, 3, 5, 7)
    numbers, scales, zeros, expected = in_groups(weight, torch.arange(weight.shape[1]) // 16, 4)
    parts = {
        "qweight": packed(numbers.T, 4, order),
        "qzeros": packed(zeros, 4, order),
        "scales": scales.half(),
    }
    return parts, expected


def packed_groups(weight: Tensor) -> tuple[Stored, Tensor]:
    """compressed-tensors: rows packed along the inputs, zero points along the outputs."""
    numbers, scales, zeros, expected = in_groups(weight, torch.arange(weight.shape[1]) // 16, 4)
    parts = {
        "weight_packed": packed(numbers),
        "weight_scale": scales.T.half().contiguous(),
        "weight_zero_point": packed(zeros).T.contiguous(),
        "weight_shape": torch.tensor(weight.shape),
    }
    return parts, expected


def packed_middle(weight: Tensor) -> tuple[Stored, Tensor]:
    """The same without zero points: 8 stands for 0."""
    scale = (weight.abs().amax() / 7).half().float()
    numbers = (weight / scale).round().clamp(-8, 7)
    parts = {
        "weight_packed": packed(numbers + 8),
        "weight_scale": scale.half().expand(len(weight), 1).contiguous(),
        "weight_shape": torch.tensor(weight.shape),
    }
    return parts, numbers * scale


def e2m1(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes of the nearest numbers, two in a byte, and these numbers."""
    sizes = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
    codes = weight.abs()[..., None].sub(sizes).abs().argmin(-1)
    both = codes + 8 * (weight < 0)
    signs = torch.where(weight < 0, -1.0, 1.0)
    return (both[..., 0::2] + 16 * both[..., 1::2]).to(torch.uint8), signs * sizes[codes]


def nvfp4(weight: Tensor) -> tuple[Stored, Tensor]:
    whole = weight.abs().max() / 6 / 448
    runs = weight.unflatten(1, (-1, 16))
    scales = (runs.abs().amax(-1) / 6 / whole).to(torch.float8_e4m3fn)
    each = (scales.float() * whole)[..., None]
    stored, numbers = e2m1((runs / each).flatten(1))
    parts = {"weight": stored, "weight_scale": scales, "weight_scale_2": whole}
    return parts, (numbers.unflatten(1, (-1, 16)) * each).flatten(1)


def nvfp4_divided(weight: Tensor) -> tuple[Stored, Tensor]:
    """compressed-tensors: what scales are divided by."""
    parts, _ = nvfp4(weight)
    divisor = 1 / parts["weight_scale_2"]
    runs = weight.unflatten(1, (-1, 16))
    each = (parts["weight_scale"].float() / divisor)[..., None]
    stored, numbers = e2m1((runs / each).flatten(1))
    made = {
        "weight_packed": stored,
        "weight_scale": parts["weight_scale"],
        "weight_global_scale": divisor.reshape(1),
    }
    return made, (numbers.unflatten(1, (-1, 16)) * each).flatten(1)


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
    "gptq": (gptq, {"quant_method": "gptq", "bits": 4, "group_size": 16, "desc_act": True}),
    "gptq_v2": (gptq_eight, {"quant_method": "gptq", "bits": 8, "checkpoint_format": "gptq_v2"}),
    "awq": (awq, {"quant_method": "awq", "bits": 4, "group_size": 16, "version": "gemm"}),
    "packed": (packed_groups, {"quant_method": "compressed-tensors", "format": "pack-quantized"}),
    "middle": (packed_middle, {"quant_method": "compressed-tensors", "format": "pack-quantized"}),
    "nvfp4": (nvfp4, {"quant_method": "modelopt", "quant_algo": "NVFP4"}),
    "divided": (nvfp4_divided, {"quant_method": "compressed-tensors"}),
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
