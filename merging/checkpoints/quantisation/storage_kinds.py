"""How quantised weights are stored: a table of their parts, and a routine that makes them plain.

The formulas are those of the published formats: eight-bit floats with scales (DeepSeek-V3, section
3.3; compressed-tensors; ModelOpt), NF4 and FP4 with scales that are quantised themselves (QLoRA,
Dettmers et al. 2023, section 3), rows of eight-bit integers (LLM.int8(), Dettmers et al. 2022),
GPTQ (Frantar et al. 2022), AWQ (Lin et al. 2023), E2M1 in blocks (OCP Microscaling Formats 1.0,
section 5; NVFP4).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Parts = Mapping[str, Tensor]
"""What is stored of a weight, by role."""

Settings = Mapping[str, Any]
"""What the config, or the file, says of how a weight is stored."""

_E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
_AWQ_ORDER = [0, 4, 1, 5, 2, 6, 3, 7]
"""Which bits of an integer each of its eight columns is, in fours."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StorageKind:
    """A way to store a weight.

    Attributes:
        run: From the parts to numbers in float32; of parts without memory it makes the shape.
        parts: How the names of its parts end that are always there, by role; ``weight`` and
            ``scale`` are among them.
        others: Likewise of parts that may be there.
        result: How the name of the plain weight ends instead.
    """

    run: Callable[[Parts, Settings], Tensor]
    parts: Mapping[str, str]
    others: Mapping[str, str] = field(default_factory=dict)
    result: str = ""


def _spread(scale: Tensor, shape: torch.Size, settings: Settings) -> Tensor:
    """A scale for each number, of one for all, for rows, or for blocks as the config says."""
    if scale.numel() == 1:
        return scale.reshape(())
    if scale.dim() == 1:
        scale = scale.unsqueeze(-1)
    for axis, (size, block) in enumerate(zip(shape, _block(settings), strict=True)):
        count = scale.shape[axis]
        if count in (1, size):
            continue
        step = block if -(-size // block) == count else size // count
        if -(-size // step) != count:
            raise ValueError(f"{count} scales for {size} numbers")
        scale = scale.repeat_interleave(step, axis).narrow(axis, 0, size)
    return scale


def _block(settings: Settings) -> tuple[int, int]:
    """Rows and columns that share a scale; 1 where the config does not say it."""
    groups = list((settings.get("config_groups") or {}).values())
    inner = groups[0].get("weights") or {} if groups else {}
    rows, columns = settings.get("weight_block_size") or inner.get("block_structure") or (1, 1)
    return int(rows), int(columns)


def _scaled(parts: Parts, settings: Settings) -> Tensor:
    """``q s``, or ``(q - z) s`` where there are zero points; NVFP4's scales have one themselves."""
    values, scale = _numbers(parts["weight"]), parts["scale"].float()
    if "outer" in parts:
        scale = scale * parts["outer"].float()
    if "divisor" in parts:
        scale = scale / parts["divisor"].float()
    if "zero" in parts:
        values = values - _spread(parts["zero"].float(), values.shape, settings)
    return values * _spread(scale, values.shape, settings)


def _vectorwise(parts: Parts, settings: Settings) -> Tensor:
    """``q c / 127`` with the largest magnitude ``c`` of each row; bitsandbytes multiplies so."""
    del settings
    return parts["weight"].float() * parts["scale"].unsqueeze(-1) * (1 / 127)


def _four_bit(parts: Parts, settings: Settings) -> Tensor:
    """``m[q] s``: entries of a map, and a scale for each run, that may be stored so itself."""
    shape, scale = [int(one) for one in settings["shape"]], parts["scale"]
    if "inner_map" in parts:
        inner = parts["inner_scale"].repeat_interleave(int(settings["nested_blocksize"]))
        scale = parts["inner_map"][scale.int()] * inner[: len(scale)]
        scale = scale + float(settings["nested_offset"])
    count = math.prod(shape)
    bits = _unpacked(parts["weight"].flatten().view(torch.uint8), 4)
    codes = bits.flip(-1).flatten()[:count]  # the high ones are the first number
    each = scale.repeat_interleave(int(settings["blocksize"]))[:count]
    return (parts["map"][codes] * each).view(shape)


def _unpacked(packed: Tensor, bits: int) -> Tensor:
    """The numbers within integers, along a new last axis, the lowest bits first."""
    width = 8 * packed.dtype.itemsize
    places = torch.arange(0, width, bits, dtype=torch.int32, device=packed.device)
    return torch.bitwise_and(packed.int().unsqueeze(-1) >> places, 2**bits - 1)


def _numbers(stored: Tensor) -> Tensor:
    """Stored numbers in float32; a byte is two in E2M1, the low bits first."""
    if stored.dtype != torch.uint8:
        return stored.float()
    return torch.tensor(_E2M1, device=stored.device)[_unpacked(stored, 4)].flatten(-2)


def _microscaled(parts: Parts, settings: Settings) -> Tensor:
    """``q 2^e`` in runs of 32, inputs last where they are stored and first in the model."""
    del settings
    powers = parts["scale"].view(torch.float8_e8m0fnu).float()
    return (_numbers(parts["weight"]) * powers.unsqueeze(-1)).flatten(-2).T


def _grouped(numbers: Tensor, zeros: Tensor, parts: Parts) -> Tensor:
    """``(q - z) s`` by groups along the first axis, of equal size where it is not said which."""
    scale, count = parts["scale"].float(), len(numbers)
    if "groups" in parts:
        groups = parts["groups"].int()
    elif count % len(scale):
        raise ValueError(f"{len(scale)} groups of {count} numbers")
    else:
        groups = torch.arange(count, device=scale.device) // (count // len(scale))
    return (numbers - zeros[groups]) * scale[groups]


def _gptq(parts: Parts, settings: Settings) -> Tensor:
    bits = int(settings["bits"])
    numbers = _unpacked(parts["weight"], bits).movedim(-1, 1).flatten(0, 1)
    zeros = _unpacked(parts["zeros"], bits).flatten(1)
    if settings.get("checkpoint_format") != "gptq_v2":  # the first format stores them less 1
        zeros = (zeros + 1) % 2**bits
    return _grouped(numbers, zeros, parts).T


def _awq(parts: Parts, settings: Settings) -> Tensor:
    version = str(settings.get("version") or settings.get("format") or "gemm").lower()
    if version != "gemm" or int(settings.get("bits") or 4) != 4:
        raise ValueError(f"only gemm of 4 bits is read, not {version} of {settings.get('bits')}")
    numbers, zeros = (
        _unpacked(parts[role], 4)[..., _AWQ_ORDER].flatten(1) for role in ("weight", "zeros")
    )
    return _grouped(numbers, zeros, parts).T


def _packed_rows(parts: Parts, settings: Settings) -> Tensor:
    rows, columns = (int(one) for one in settings["shape"])
    bits = 32 * parts["weight"].shape[1] // columns
    middle = 2 ** (bits - 1)
    numbers = _unpacked(parts["weight"], bits).flatten(1)[:, :columns] - middle
    zeros = torch.zeros_like(parts["scale"], dtype=torch.int32)
    if "zeros" in parts:
        zeros = _unpacked(parts["zeros"], bits).movedim(-1, 1).flatten(0, 1)[:rows] - middle
    by_column = {**parts, "scale": parts["scale"].T}
    return _grouped(numbers.T, zeros.T, by_column).T


_SCALED = StorageKind(
    run=_scaled,
    parts={"weight": "", "scale": "_scale"},
    others={"zero": "_zero_point", "outer": "_scale_2"},
)
_INTEGERS = {"weight": ".qweight", "zeros": ".qzeros", "scale": ".scales"}
_PACKED = {"weight": ".weight_packed", "scale": ".weight_scale"}
METHODS: Mapping[str, tuple[StorageKind, ...]] = {
    "fp8": (StorageKind(run=_scaled, parts={"weight": "", "scale": "_scale_inv"}), _SCALED),
    "fbgemm_fp8": (_SCALED,),
    "compressed-tensors": (
        _SCALED,
        StorageKind(
            run=_packed_rows,
            parts={**_PACKED, "shape": ".weight_shape"},
            others={"zeros": ".weight_zero_point", "groups": ".weight_g_idx"},
            result=".weight",
        ),
        StorageKind(
            run=_scaled,
            parts={**_PACKED, "divisor": ".weight_global_scale"},
            result=".weight",
        ),
    ),
    "modelopt": (_SCALED,),
    "bitsandbytes": (
        StorageKind(
            run=_four_bit,
            parts={"weight": "", "scale": ".absmax", "map": ".quant_map"},
            others={
                "inner_scale": ".nested_absmax",
                "inner_map": ".nested_quant_map",
                "nf4": ".quant_state.bitsandbytes__nf4",
                "fp4": ".quant_state.bitsandbytes__fp4",
            },
        ),
        StorageKind(
            run=_vectorwise, parts={"weight": ".weight", "scale": ".SCB"}, result=".weight"
        ),
    ),
    "gptq": (
        StorageKind(run=_gptq, parts=_INTEGERS, others={"groups": ".g_idx"}, result=".weight"),
    ),
    "awq": (StorageKind(run=_awq, parts=_INTEGERS, result=".weight"),),
    "mxfp4": (StorageKind(run=_microscaled, parts={"weight": "_blocks", "scale": "_scales"}),),
}
"""How the weights of a model may be stored, by the method that its config names."""
