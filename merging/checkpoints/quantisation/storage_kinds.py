"""How quantised weights are stored: a table of their parts, and a routine that makes them plain.

The formulas are those of the published formats: eight-bit floats with scales (DeepSeek-V3, section
3.3; compressed-tensors; ModelOpt), NF4 and FP4 with scales that are quantised themselves (QLoRA,
Dettmers et al. 2023, section 3), rows of eight-bit integers (LLM.int8(), Dettmers et al. 2022).
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
    """``q s``, or ``(q - z) s`` where there are zero points."""
    values = parts["weight"].float()
    if "zero" in parts:
        values = values - _spread(parts["zero"].float(), values.shape, settings)
    return values * _spread(parts["scale"].float(), values.shape, settings)


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
    shifted: Tensor = packed.int().unsqueeze(-1) >> places
    return shifted & (2**bits - 1)


_SCALED = StorageKind(
    run=_scaled, parts={"weight": "", "scale": "_scale"}, others={"zero": "_zero_point"}
)
METHODS: Mapping[str, tuple[StorageKind, ...]] = {
    "fp8": (StorageKind(run=_scaled, parts={"weight": "", "scale": "_scale_inv"}), _SCALED),
    "fbgemm_fp8": (_SCALED,),
    "compressed-tensors": (_SCALED,),
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
}
"""How the weights of a model may be stored, by the method that its config names."""
