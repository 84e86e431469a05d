"""Tensors read in chunks as float32, and sums over them that no chunking changes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from merging.kernels.chunks import spans
from merging.kernels.torch_kernels.reduction_kernels import BLOCK


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """A tensor, or its difference from another one, as float32 chunks.

    Attributes:
        tensor: ``(n,)``, any float dtype and device.
        minus: ``(n,)`` what is subtracted; ``None`` for nothing.
        device: Where chunks are computed.
    """

    tensor: Tensor
    minus: Tensor | None
    device: torch.device

    def part(self, start: int, stop: int) -> Tensor:
        """Elements ``start`` to ``stop`` in float32; aliases the tensor where it can."""
        part = load(self.tensor, start, stop, self.device)
        return part if self.minus is None else part - load(self.minus, start, stop, self.device)

    def parts(self, chunk: int) -> Iterator[tuple[int, Tensor]]:
        """Every chunk with the index it starts at."""
        for start, stop in spans(self.tensor.numel(), chunk):
            yield start, self.part(start, stop)


def load(flat: Tensor, start: int, stop: int, device: torch.device) -> Tensor:
    """Elements of a flat tensor on ``device`` in float32; may alias it, so do not write to it."""
    return flat[start:stop].to(device).to(torch.float32)


def magnitude_bits(delta: Tensor) -> Tensor:
    """The bits of the magnitudes (float32) as int32; NaN sorts on top, so it is never lost."""
    return delta.abs().view(torch.int32)


def float_of(bits: int) -> float:
    """The float32 number with these bits."""
    return float(np.array([bits], np.int32).view(np.float32)[0])


class BlockSum:
    """A float64 sum whose rounding depends on nothing but the numbers and their indices."""

    def __init__(self) -> None:
        self._blocks: list[Tensor] = []

    def add(self, values: Tensor) -> None:
        """Take the next elements; all calls but the last bring whole blocks."""
        wide = values.double()
        if rest := -wide.numel() % BLOCK:
            wide = torch.nn.functional.pad(wide, (0, rest))
        self.add_rows(wide.view(-1, BLOCK))

    def add_rows(self, rows: Tensor) -> None:
        """Take the next blocks, ``(blocks, 2**k)`` float64, halved as often as one likes."""
        while rows.shape[1] > 1:  # elementwise additions: no device or thread has a say in them
            half = rows.shape[1] // 2
            rows = rows[:, :half] + rows[:, half:]
        self._blocks.append(rows.flatten())

    def total(self) -> float:
        """The sum; NaN or infinity where an element is."""
        return total_of(torch.cat(self._blocks).tolist() if self._blocks else [])


def total_of(blocks: Sequence[float]) -> float:
    """The sum of blocks' sums, rounded once; NaN or infinity where one is."""
    return math.fsum(blocks) if all(map(math.isfinite, blocks)) else sum(blocks)
