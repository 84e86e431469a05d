"""A candidate built again and again on a device, beside copies of its inputs there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing

import torch

from merging.building.build import build_into
from merging.building.tensor_sources import (
    MappedTensors,
    PinnedCarrier,
    ResidentTensors,
    StreamedTensors,
    TensorSource,
    Want,
)
from merging.checkpoints.checkpoint import Checkpoint
from merging.kernels.native import native_library
from merging.kernels.native.gpu_passes import try_warm_up_on
from merging.planning.memory_plan import Demand, Home, Weights
from merging.planning.merge_plan import MergePlan
from merging.tensor_statistics.statistics_cache import StatisticsCache
from spaces.catalogue.method_catalogue import METHODS


def supply_of(
    home: Home, checkpoints: Mapping[str, Checkpoint], device: torch.device, known: StatisticsCache
) -> TensorSource:
    """Parents as a worker with such a plan has them; those that live on the device go there now."""
    source = MappedTensors(known)
    if home is Home.MAPPED:
        return source
    if home is Home.PINNED:
        return StreamedTensors(source, PinnedCarrier())
    return ResidentTensors(
        source, {one: dict.fromkeys(one.tensors, device) for one in checkpoints.values()}
    )


def synchronised(clock: Callable[[], float], device: torch.device) -> Callable[[], float]:
    """A clock that lets the device come to its end first."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return clock()

    return now


class Build:
    """A candidate built again and again, and copies of its inputs.

    Args:
        made: What to build.
        checkpoints: Of the models.
        known: Statistics.
        clock: Tells seconds, when the device is done.
        device: Where the candidate lives.
        home: Where its parents do.
        supply: What brings them from there.
        chunk: Elements at a time; ``None`` suits the device.
    """

    def __init__(
        self,
        made: MergePlan,
        checkpoints: Mapping[str, Checkpoint],
        known: StatisticsCache,
        clock: Callable[[], float],
        *,
        device: torch.device,
        home: Home,
        supply: TensorSource,
        chunk: int | None = None,
    ) -> None:
        self.names = list(made.recipe.models)
        self.moved = made.size * (len(self.names) + 1)
        self._made, self._checkpoints, self._known = made, checkpoints, known
        self._clock, self._chunk = clock, chunk
        self._device, self._home, self._supply = device, home, supply
        stored = [
            ((model, tensor), info)
            for model in self.names
            for tensor, info in checkpoints[model].tensors.items()
        ]
        self._copies = [
            torch.zeros(info.shape, dtype=info.dtype, device=device) for _, info in stored
        ]
        self._wants = [
            Want(stored={key: (checkpoints[key[0]], key[1])}, device=device) for key, _ in stored
        ]
        self._targets = {
            job.name: torch.zeros(job.shape, dtype=job.dtype, device=device) for job in made.jobs
        }

    def set_up(self, *, warmed: bool) -> float:
        """Seconds of the warm-up and the first build with its statistics."""
        began = time.perf_counter()
        if warmed and self._device.type == "cpu":
            native_library.warm_up()
        elif warmed:
            try_warm_up_on(self._device)
        self.run()
        taken = time.perf_counter() - began
        self.copy()
        return taken

    def run(self) -> float:
        """Seconds of a build."""
        began = self._clock()
        build_into(
            self._made,
            self._checkpoints,
            self._targets,
            statistics=self._known,
            supply=self._supply,
            chunk=self._chunk,
        )
        return self._clock() - began

    def copy(self) -> float:
        """Seconds of copying the inputs, from where they live to the device."""
        began = self._clock()
        with closing(self._supply.stream(self._wants)) as stream:
            for brought, target in zip(stream, self._copies, strict=True):
                (tensor,) = brought.values()
                target.copy_(tensor)
        return self._clock() - began

    def peak(self) -> int:
        """Most bytes of the device's memory that a build takes beside the model and its parents."""
        torch.cuda.reset_peak_memory_stats(self._device)
        before = torch.cuda.memory_allocated(self._device)
        self.run()
        return torch.cuda.max_memory_allocated(self._device) - before

    @property
    def planned(self) -> int:
        """What a worker plans for it."""
        parents = [self._checkpoints[name] for name in self.names]
        infos = [info for one in parents for info in one.tensors.values()]
        demand = Demand(
            model=Weights.of(parents[0]),
            parents=tuple(map(Weights.of, parents)),
            largest=max(info.numel for info in infos),
            activations=0,
            itemsize=max(info.dtype.itemsize for info in infos),
            whole_inputs=METHODS[self._made.recipe.root.method].whole_inputs,
        )
        return demand.workspace + (demand.staging if self._home is Home.PINNED else 0)
