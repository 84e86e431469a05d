"""Experts that a folder stores as one tensor, seen one by one as the hub stores them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from merging.checkpoints.files.safetensors_header import TensorInfo

if TYPE_CHECKING:  # transformers stays out where no experts are stored in one tensor
    from merging.checkpoints.weight_places import Place


def in_hub_layout(folder: Path, tensors: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
    """The tensors of a folder as transformers saves its class; a part is a range of the file.

    What has no experts in one tensor, or no class in transformers, stays as it is.
    """
    if not any(".experts." in name and len(info.shape) > 2 for name, info in tensors.items()):
        return dict(tensors)
    from merging.checkpoints.weight_places import saved_places

    parts: dict[str, dict[str, Place]] = {name: {} for name in tensors}
    for name, place in saved_places(folder).items():
        if place.tensor in parts:
            parts[place.tensor][name] = place
    found = {}
    for whole, pieces in parts.items():
        info = tensors[whole]
        if sum(math.prod(one.size) for one in pieces.values()) != info.numel:
            found[whole] = info
            continue
        for name, one in pieces.items():
            start = info.start + one.offset * info.dtype.itemsize
            end = start + math.prod(one.size) * info.dtype.itemsize
            found[name] = replace(info, shape=one.size, start=start, end=end)
    return found
