"""What a worker does once so that candidates are built fast: compiled passes, kept statistics."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import torch

from evaluators.spec import HarnessSpec
from merging.cache import Statistics
from merging.checkpoint import Checkpoint, widest_dtype
from merging.compiled import try_warm_up
from merging.warming import LARGE, variants_for
from spaces.methods import METHODS

_log = logging.getLogger(__name__)


def prepare_builds(
    spec: HarnessSpec, checkpoints: Mapping[str, Checkpoint], device: torch.device
) -> Statistics:
    """Compile for the methods of the search where that pays, and open the statistics.

    It pays on a CPU for models of ``warming.LARGE`` elements or more. On other devices passes run
    eagerly: their compilers contract multiplications and additions, which gives other bits.

    Args:
        spec: ``warm_up`` and ``statistics`` are used.
        checkpoints: The models.
        device: Where candidates are built.
    """
    largest = max(
        sum(info.numel for info in checkpoint.tensors.values())
        for checkpoint in checkpoints.values()
    )
    if device.type == "cpu" and spec.warm_up != () and largest >= LARGE:
        default = [name for name, method in METHODS.items() if method.searched_by_default]
        dtype = getattr(torch, widest_dtype(checkpoints.values()))
        _log.info("compiling for builds; the first time on a machine this takes some minutes")
        parents = max(1, len(checkpoints) - 1)
        try_warm_up(
            variants_for(
                spec.warm_up or default,
                parents=parents,
                read=dtype,
                written=dtype,
                trees=parents > 2,
            )
        )
    return Statistics(None if spec.statistics is None else Path(spec.statistics))
