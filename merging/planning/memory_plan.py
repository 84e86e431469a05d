"""Where weights live: memory planned from headers, before anything is loaded.

Everything here is arithmetic on byte counts, so a plan for two GPUs can be made, and tested, on a
machine without any.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch

from merging.checkpoints.checkpoint import Checkpoint
from merging.checkpoints.files.model_layout import is_late

CHUNK = 1 << 24
"""Elements that a pass on a GPU handles at a time."""

AHEAD = 2
"""Output tensors whose parents are on their way while one is made."""

_TEMPORARIES = 3  # float32 chunks per input: the delta, its mask, what is kept of it
_SHARED = 6  # further float32 chunks: base, sums, signs, divisors, the output


class Home(StrEnum):
    """Where the parents live."""

    RESIDENT = "resident"
    """On the device, next to the model."""

    PINNED = "pinned"
    """In their files, brought to the device through pinned memory while others are merged."""

    MAPPED = "mapped"
    """In their files, read where they lie: candidates are built on the CPU."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """Bytes of a model by place.

    Attributes:
        first: Embeddings and all else outside the layers that does not come after them.
        layers: Each layer's.
        last: What comes after the layers: the norm, and a head that is not tied.
    """

    first: int
    layers: tuple[int, ...]
    last: int

    @property
    def total(self) -> int:
        """Of the whole model."""
        return self.first + sum(self.layers) + self.last

    def deepened(self, count: int) -> Weights:
        """The same model with so many layers, each as large as the largest."""
        largest = max(self.layers, default=0)
        return Weights(first=self.first, layers=(largest,) * count, last=self.last)

    def times(self, count: int) -> Weights:
        """The same model, so often."""
        layers = tuple(count * size for size in self.layers)
        return Weights(first=count * self.first, layers=layers, last=count * self.last)

    @classmethod
    def of(cls, checkpoint: Checkpoint, dtype: torch.dtype | None = None) -> Weights:
        """Those of a checkpoint, in its own dtype or as a model of another one."""

        def size(names: Iterable[str]) -> int:
            infos = [checkpoint.tensors[name] for name in names]
            return sum(info.numel * (dtype or info.dtype).itemsize for info in infos)

        outside = checkpoint.layout.outside
        late = [name for key, name in outside.items() if _comes_last(checkpoint, key)]
        early = [name for name in outside.values() if name not in late]
        layers = tuple(size(layer.values()) for layer in checkpoint.layout.layers)
        return cls(first=size(early), layers=layers, last=size(late))


@dataclass(frozen=True, kw_only=True, slots=True)
class Capacity:
    """A device, and what a worker may take of it.

    Attributes:
        device: Such as ``cuda:0``.
        nbytes: Bytes.
    """

    device: str
    nbytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Demand:
    """What a worker is to hold.

    Attributes:
        model: The candidate, the deepest that may be drawn.
        parents: Every model that is merged, the base among them.
        largest: Elements of the largest tensor.
        activations: Bytes to answer the smallest batch.
        itemsize: Bytes of a parent's element.
        trees: Whether merges of merges may be drawn.
        whole_inputs: Whether a method holds something of all entries of all inputs at once.
    """

    model: Weights
    parents: tuple[Weights, ...]
    largest: int
    activations: int
    itemsize: int = 4
    trees: bool = False
    whole_inputs: bool = False

    @property
    def workspace(self) -> int:
        """Bytes alive while one tensor is made: chunks, and whole tensors where methods ask."""
        inputs = max(1, len(self.parents))
        chunks = 4 * min(self.largest, CHUNK) * (_TEMPORARIES * inputs + _SHARED)
        inner = 4 * self.largest * max(0, inputs - 1) if self.trees else 0
        held = 4 * self.largest * inputs if self.whole_inputs else 0
        return chunks + inner + held

    @property
    def staging(self) -> int:
        """Bytes on the device for parents that are on their way, merged, and just merged."""
        return (AHEAD + 2) * len(self.parents) * self.itemsize * self.largest


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceShare:
    """What one device holds, in bytes.

    Attributes:
        capacity: The device.
        layers: First layer and the one after the last.
        model: Weights of the candidate.
        parents: Weights of the parents; 0 where they do not live here.
        workspace: While a tensor is made, parents on their way included.
        activations: To answer the smallest batch.
    """

    capacity: Capacity
    layers: tuple[int, int]
    model: int
    parents: int
    workspace: int
    activations: int

    @property
    def needed(self) -> int:
        """The most that is in use at a time: tensors are made before questions are answered."""
        return self.model + self.parents + max(self.workspace, self.activations)

    @property
    def free(self) -> int:
        """What is left for larger batches; below 0 where the device is too small."""
        return self.capacity.nbytes - self.needed

    def line(self) -> str:
        """The share in words."""
        first, stop = self.layers
        held = f"layers {first} to {stop - 1}" if stop > first else "no layer"
        parts = [f"model {_gigabytes(self.model)} ({held})"]
        if self.parents:
            parts.append(f"parents {_gigabytes(self.parents)}")
        parts.append(f"merging {_gigabytes(self.workspace)}")
        parts.append(f"answering at least {_gigabytes(self.activations)}")
        return (
            f"{self.capacity.device}: {', '.join(parts)}; "
            f"{_gigabytes(self.needed)} of {_gigabytes(self.capacity.nbytes)}"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryPlan:
    """What lives where.

    Attributes:
        shares: One per device, in the order of the layers.
        home: Where the parents live.
    """

    shares: tuple[DeviceShare, ...]
    home: Home

    def lines(self) -> tuple[str, ...]:
        """The plan in words, a line per device."""
        where = {
            Home.RESIDENT: "parents stay on the device",
            Home.PINNED: "parents are streamed through pinned memory for every candidate",
            Home.MAPPED: "parents are mapped from their files (page cache, shared by all workers)",
        }
        return (*(share.line() for share in self.shares), where[self.home])

    def problems(self) -> tuple[str, ...]:
        """Devices that are too small, one line each."""
        return tuple(
            f"{share.capacity.device}: expected at least {_gigabytes(share.needed)} of memory for "
            f"a worker, got {_gigabytes(share.capacity.nbytes)} ({share.line()}); give each worker "
            "more GPUs (workers.gpus), or limit max_length and batch_size under harness, where the "
            "engine vllm holds the model twice"
            for share in self.shares
            if share.free < 0
        )


def place(demand: Demand, capacities: Sequence[Capacity], *, parents_share: float) -> MemoryPlan:
    """Plan the memory of a worker with GPUs.

    Parents stay on the devices if they take no more than their share of each, and leave room for
    everything else; otherwise they are streamed.

    Args:
        demand: What is to be held.
        capacities: One or more devices.
        parents_share: Most of each device's memory that parents may take, from 0 to 1.
    """
    resident = _plan(demand, capacities, Home.RESIDENT)
    if all(
        one.free >= 0 and one.parents <= parents_share * one.capacity.nbytes
        for one in resident.shares
    ):
        return resident
    return _plan(demand, capacities, Home.PINNED)


def mapped(demand: Demand, capacity: Capacity) -> MemoryPlan:
    """The plan of a worker on a CPU: parents stay in their files."""
    return _plan(demand, [capacity], Home.MAPPED)


def split(layers: Sequence[int], sizes: Sequence[int]) -> tuple[int, ...]:
    """The device of each layer: contiguous runs, in proportion to what the devices hold.

    Args:
        layers: Bytes of each layer.
        sizes: Bytes of each device.

    Returns:
        Per layer the index of its device, never falling.
    """
    total, room = sum(layers), sum(sizes)
    ends, seen = [], 0
    for size in sizes:
        seen += size
        ends.append(seen / room if room else 1.0)
    owners, before = [], 0
    for size in layers:
        middle = (before + size / 2) / total if total else 0.0
        owners.append(next((at for at, end in enumerate(ends) if middle < end), len(sizes) - 1))
        before += size
    return tuple(owners)


def homes(checkpoint: Checkpoint, sizes: Sequence[int]) -> dict[str, int]:
    """The device of every tensor of a parent, by index: the layers split as a model's are.

    Args:
        checkpoint: The parent.
        sizes: Bytes of each device.
    """
    layout, last = checkpoint.layout, len(sizes) - 1
    found = {
        name: last if _comes_last(checkpoint, key) else 0 for key, name in layout.outside.items()
    }
    owners = split(Weights.of(checkpoint).layers, sizes)
    for layer, owner in zip(layout.layers, owners, strict=True):
        found |= dict.fromkeys(layer.values(), owner)
    return found


def _comes_last(checkpoint: Checkpoint, key: str) -> bool:
    """Whether a tensor outside the layers is used after them; a tied head is where it is shared."""
    return is_late(key) and not (checkpoint.tied and key == checkpoint.layout.head)


def _plan(demand: Demand, capacities: Sequence[Capacity], home: Home) -> MemoryPlan:
    staging = demand.staging if home is Home.PINNED else 0
    shares = []
    for at, capacity in enumerate(capacities):
        mine = [layer for layer, _ in _held(demand.model, capacities, at)]
        begin = mine[0] if mine else 0
        shares.append(
            DeviceShare(
                capacity=capacity,
                layers=(begin, begin + len(mine)),
                model=_bytes_on(demand.model, capacities, at),
                parents=sum(_bytes_on(one, capacities, at) for one in demand.parents)
                if home is Home.RESIDENT
                else 0,
                workspace=demand.workspace + staging,
                activations=demand.activations,
            )
        )
    return MemoryPlan(shares=tuple(shares), home=home)


def _held(weights: Weights, capacities: Sequence[Capacity], at: int) -> list[tuple[int, int]]:
    """Number and bytes of each layer on one of the devices."""
    owners = split(weights.layers, [one.nbytes for one in capacities])
    return [(n, weights.layers[n]) for n, owner in enumerate(owners) if owner == at]


def _bytes_on(weights: Weights, capacities: Sequence[Capacity], at: int) -> int:
    """Bytes on one of the devices: embeddings go on the first, norm and head on the last."""
    outside = (weights.first if at == 0 else 0) + (weights.last if at == len(capacities) - 1 else 0)
    return outside + sum(size for _, size in _held(weights, capacities, at))


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
