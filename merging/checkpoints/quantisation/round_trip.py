"""Weights quantised and made plain again: what a model has that is quantised as it is loaded.

The formulas are those of bitsandbytes and torchao by default: NF4 in runs of 64 numbers (QLoRA,
Dettmers et al. 2023, section 3), eight-bit integers by rows (LLM.int8(), Dettmers et al. 2022),
eight-bit floats (E4M3) by rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
)  # fmt: skip
"""The sixteen numbers of NF4 (QLoRA, appendix E)."""

RUN = 64
"""Numbers of NF4 that share a scale."""

LARGEST = float(torch.finfo(torch.float8_e4m3fn).max)

CHUNK = 1 << 24
"""About how many numbers are worked on at a time; changes nothing but memory."""


def quantise(weight: Tensor, kind: str) -> None:
    """Replace a matrix by what is left of it once it was quantised.

    Args:
        weight: ``(outputs, inputs)``, of any float dtype; written to.
        kind: One of ``KINDS``.
    """
    rows = RUN * max(1, CHUNK // (RUN * weight.shape[1]))  # whole runs in every part
    for part in torch.split(weight, rows):
        part.copy_(KINDS[kind](part.float()))


def _nf4(weight: Tensor) -> Tensor:
    flat = weight.flatten()
    runs = torch.nn.functional.pad(flat, (0, -len(flat) % RUN)).view(-1, RUN)
    scale = runs.abs().amax(dim=1, keepdim=True)
    levels = torch.tensor(NF4, device=weight.device)
    middles = (levels[1:] + levels[:-1]) / 2
    codes = torch.bucketize(runs / _divisor(scale), middles, out_int32=True)
    return (levels[codes] * scale).flatten()[: len(flat)].view_as(weight)


def _int8(weight: Tensor) -> Tensor:
    scale = weight.abs().amax(dim=1, keepdim=True)
    return (weight / _divisor(scale) * 127).round() * scale * (1 / 127)


def _fp8(weight: Tensor) -> Tensor:
    scale = weight.abs().amax(dim=1, keepdim=True) / LARGEST
    stored = (weight / _divisor(scale)).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn)
    return stored.float() * scale


def _divisor(scale: Tensor) -> Tensor:
    """The scale, or 1 where all numbers are 0."""
    return scale.where(scale > 0, 1.0)


KINDS: Mapping[str, Callable[[Tensor], Tensor]] = {"nf4": _nf4, "int8": _int8, "fp8": _fp8}
"""How weights may be quantised."""
