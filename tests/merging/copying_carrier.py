"""How tensors travel where there is no GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from merging.building.tensor_sources import Key


class CopyingCarrier:
    """Copies within main memory: what streaming is on a machine without a GPU."""

    def bring(
        self, tensors: Mapping[Key, Tensor], device: torch.device
    ) -> Callable[[], dict[Key, Tensor]]:
        copied = {key: tensor.to(device, copy=True) for key, tensor in tensors.items()}
        return lambda: copied
