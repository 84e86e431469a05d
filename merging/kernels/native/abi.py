"""How tensors are handed to the native library: addresses and dtypes in an array of numbers."""

from __future__ import annotations

from array import array
from collections.abc import Container, Sequence
from typing import Any

import torch
from torch import Tensor

KINDS = {
    torch.float32: 0,
    torch.bfloat16: 1,
    torch.float16: 2,
    torch.int16: 3,
    torch.int32: 4,
}
"""Dtypes that the library reads, and what it calls them."""

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
"""Those that it merges, and writes."""


def readable(
    flat: Tensor, start: int, stop: int, kinds: Container[torch.dtype], device: torch.device
) -> Tensor:
    """Contiguous entries on a device, as float32 where the library does not read their dtype."""
    part = flat if stop - start == flat.numel() else flat[start:stop]
    if part.device != device:
        part = part.to(device, non_blocking=device.type != "cpu")
    if part.dtype not in kinds:
        part = part.to(torch.float32)
    return part.contiguous()


def task_of(entries: int, inputs: int, tensors: Sequence[Tensor]) -> array[int]:
    """``Task`` of cpp/entries.h: sizes, then address and dtype of every tensor.

    It holds no tensor: who calls the library keeps them, and this array, until it is done.
    """
    task = array("q", (entries, inputs))
    for one in tensors:
        task.append(one.data_ptr())
        task.append(KINDS[one.dtype])
    return task


def series_task(tensors: Sequence[Tensor], minus: Tensor | None) -> array[int]:
    """A task of tensors, or of their differences from one; its base has no address otherwise."""
    task = task_of(tensors[0].numel(), len(tensors), (tensors[0] if minus is None else minus,) * 2)
    if minus is None:
        task[2] = 0
    for one in tensors:
        task.extend((one.data_ptr(), KINDS[one.dtype]))
    return task


def at(numbers: array[Any]) -> int:
    """The address of an array, which has to be kept meanwhile."""
    return numbers.buffer_info()[0]
