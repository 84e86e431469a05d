"""What a worker does once so that candidates are built fast: memory, passes, statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from evaluators.harness.engines.engine_choice import VLLM
from evaluators.harness_spec import HarnessSpec
from evaluators.protocol import EvaluatorError
from evaluators.resident_models.devices.batch_size import sequence_bytes
from evaluators.resident_models.devices.device_sharding import DeviceSharding
from evaluators.resident_models.devices.free_memory import free_bytes
from merging.building.tensor_sources import (
    MappedTensors,
    PinnedCarrier,
    ResidentTensors,
    StreamedTensors,
    TensorSource,
)
from merging.checkpoints.checkpoint import Checkpoint, widest_dtype
from merging.kernels.native.gpu_passes import try_warm_up_on
from merging.kernels.native.native_library import try_warm_up
from merging.planning.memory_plan import (
    Capacity,
    Demand,
    Home,
    MemoryPlan,
    Weights,
    homes,
    mapped,
    place,
)
from merging.tensor_statistics.statistics_cache import StatisticsCache
from spaces.catalogue.method_catalogue import METHODS

PLANNED_TOKENS = 2048
"""Longest sequence that memory is planned for where the user sets none; models may allow more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildPreparation:
    """What builds of this worker use.

    Attributes:
        statistics: What is known of the parents.
        supply: Where their tensors come from.
    """

    statistics: StatisticsCache
    supply: TensorSource


def prepare_builds(
    spec: HarnessSpec,
    checkpoints: Mapping[str, Checkpoint],
    *,
    memory: MemoryPlan,
    devices: Sequence[torch.device],
) -> BuildPreparation:
    """Load the passes, compiled for these devices if need be, and open parents and statistics."""
    if memory.home is Home.MAPPED:
        try_warm_up()
    for gpu in (device for device in devices if device.type == "cuda"):
        try_warm_up_on(gpu)
    statistics = StatisticsCache(None if spec.statistics is None else Path(spec.statistics))
    supply = _supply(memory, devices, checkpoints, MappedTensors(statistics))
    return BuildPreparation(statistics=statistics, supply=supply)


def plan_memory(
    spec: HarnessSpec, checkpoints: Mapping[str, Checkpoint], devices: Sequence[torch.device]
) -> MemoryPlan:
    """Plan a worker's memory from headers and configs.

    Args:
        spec: How deep candidates are, how they are merged and asked.
        checkpoints: The models.
        devices: Where the model lives; several GPUs, or one device.
    """
    capacities = [_capacity(device, spec.gpus) for device in devices]
    if devices[0].type != "cuda":
        return mapped(_demand(spec, checkpoints), capacities[0])
    return plan_gpus(spec, checkpoints, capacities)


def plan_gpus(
    spec: HarnessSpec, checkpoints: Mapping[str, Checkpoint], capacities: Sequence[Capacity]
) -> MemoryPlan:
    """Plan a worker's memory on GPUs that need not be here.

    Args:
        spec: How deep candidates are, how they are merged and asked.
        checkpoints: The models.
        capacities: The GPUs of one worker.
    """
    return place(_demand(spec, checkpoints), capacities, parents_share=spec.parents_on_device)


def spread_over(memory: MemoryPlan, devices: Sequence[torch.device]) -> DeviceSharding | None:
    """How models are spread over the devices of a plan; ``None`` where there is only one."""
    if len(devices) == 1:
        return None
    sizes = tuple(share.capacity.nbytes for share in memory.shares)
    return DeviceSharding(devices=tuple(devices), sizes=sizes)


def read_config(checkpoint: Checkpoint, *, trust: bool) -> Any:
    """The model's config as transformers reads it.

    Raises:
        EvaluatorError: If transformers does not know such a model.
    """
    try:
        return AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=trust)
    except (ValueError, OSError, KeyError, TypeError, ImportError) as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "custom code" in text and not trust:
            text = "it brings code of its own; set harness.trust_remote_code if you trust it"
        where = f"model {checkpoint.name}: {checkpoint.folder}"
        raise EvaluatorError(
            [f"{where}: expected a model that transformers knows: {text}"]
        ) from error


def context_length(checkpoint: Checkpoint, *, trust: bool) -> int | None:
    """Tokens that a model takes; ``None`` where its config does not say.

    Raises:
        EvaluatorError: If transformers does not know such a model.
    """
    config = read_config(checkpoint, trust=trust).get_text_config()
    return getattr(config, "max_position_embeddings", None)


def _demand(spec: HarnessSpec, checkpoints: Mapping[str, Checkpoint]) -> Demand:
    parents = tuple(Weights.of(checkpoint) for checkpoint in checkpoints.values())
    model = max(parents, key=lambda weights: weights.total)
    if spec.most_layers is not None:
        model = model.deepened(spec.most_layers)
    if spec.engine == VLLM:
        model = model.times(2)  # it has weights of its own
    first = next(iter(checkpoints.values()))
    config = read_config(first, trust=spec.trust_remote_code)
    length = context_length(first, trust=spec.trust_remote_code)
    tokens = spec.max_length or min(PLANNED_TOKENS, length or PLANNED_TOKENS)
    dtype = getattr(torch, widest_dtype(checkpoints.values()))
    each = sequence_bytes(config, dtype=dtype, tokens=tokens)
    batch = spec.batch_size if isinstance(spec.batch_size, int) else 1
    return Demand(
        model=model,
        parents=parents,
        largest=max(info.numel for one in checkpoints.values() for info in one.tensors.values()),
        activations=batch * each,
        itemsize=dtype.itemsize,
        trees=spec.trees,
        whole_inputs=any(METHODS[name].whole_inputs for name in _methods(spec)),
    )


def _capacity(device: torch.device, gpus: float) -> Capacity:
    """What a worker may take of a device: all that is free, or its share of a GPU."""
    return Capacity(device=str(device), nbytes=free_bytes(device, gpus=gpus))


def _methods(spec: HarnessSpec) -> tuple[str, ...]:
    if spec.methods is not None:
        return spec.methods
    return tuple(name for name, method in METHODS.items() if method.searched_by_default)


def _supply(
    memory: MemoryPlan,
    devices: Sequence[torch.device],
    checkpoints: Mapping[str, Checkpoint],
    source: MappedTensors,
) -> TensorSource:
    """Where builds get parents from; those that stay on devices are brought there now."""
    if memory.home is Home.RESIDENT:
        sizes = [share.capacity.nbytes for share in memory.shares]
        return ResidentTensors(
            source,
            {
                one: {name: devices[at] for name, at in homes(one, sizes).items()}
                for one in checkpoints.values()
            },
        )
    return StreamedTensors(source, PinnedCarrier()) if memory.home is Home.PINNED else source
