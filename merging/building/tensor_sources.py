"""Bringing the parents' tensors to where they are merged: as they lie, kept there, or streamed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from merging.checkpoints.checkpoint import Checkpoint
from merging.planning.memory_plan import AHEAD
from merging.tensor_statistics.statistics_cache import StatisticsCache

Key = tuple[str, str]
"""Model and tensor, by name."""

Stream = Generator[dict[Key, Tensor], None, None]
"""The tensors of one want after the other; close it to stop early."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Want:
    """The stored tensors that one output tensor is made of.

    Attributes:
        stored: Checkpoint and name of each, by model and tensor.
        device: Where they are merged.
    """

    stored: Mapping[Key, tuple[Checkpoint, str]]
    device: torch.device


class TensorSource(Protocol):
    """Where a build gets stored tensors from."""

    def stream(self, wants: Sequence[Want]) -> Stream:
        """The tensors of each want, in order; each valid until the next is asked for.

        They may lie on another device than asked for: passes bring over what they read.
        """
        ...


class MappedTensors:
    """Tensors where their files are mapped; those that are computed are kept in a folder.

    Args:
        statistics: Where computed tensors are kept, mapped from then on; ``None``, or one without a
            folder, computes them on every read.
    """

    def __init__(self, statistics: StatisticsCache | None = None) -> None:
        self._statistics = statistics

    def stream(self, wants: Sequence[Want]) -> Stream:
        for want in wants:
            yield self.tensors(want)

    def tensors(self, want: Want) -> dict[Key, Tensor]:
        """Those of one want."""
        return {key: self.read(*source) for key, source in want.stored.items()}

    def read(self, checkpoint: Checkpoint, name: str) -> Tensor:
        """One tensor, in main memory."""
        statistics = self._statistics
        if statistics is None or statistics.folder is None or name not in checkpoint.computed:
            return checkpoint.tensor(name)
        # Asked for again each time: where the disk is full nobody holds what was computed.
        return statistics.mapped(
            "adapted", f"{checkpoint.identity}:{name}", lambda: checkpoint.tensor(name)
        )


class ResidentTensors:
    """Tensors kept on devices; passes on another device bring over what they read."""

    def __init__(
        self, source: MappedTensors, homes: Mapping[Checkpoint, Mapping[str, torch.device]]
    ) -> None:
        self._source = source
        self._kept = {
            (checkpoint.identity, name): self._copied(checkpoint, name, device)
            for checkpoint, places in homes.items()
            for name, device in places.items()
        }

    def stream(self, wants: Sequence[Want]) -> Stream:
        for want in wants:
            yield {key: self._tensor(*source) for key, source in want.stored.items()}

    def _tensor(self, checkpoint: Checkpoint, name: str) -> Tensor:
        kept = self._kept.get((checkpoint.identity, name))
        if kept is not None:
            return kept
        return self._source.read(checkpoint, name)  # rows of other vocabularies: made for a recipe

    def _copied(self, checkpoint: Checkpoint, name: str, device: torch.device) -> Tensor:
        stored = self._source.read(checkpoint, name)
        return torch.empty_like(stored, device=device).copy_(stored)


class Carrier(Protocol):
    """Brings tensors to a device while it works on others."""

    def bring(
        self, tensors: Mapping[Key, Tensor], device: torch.device
    ) -> Callable[[], dict[Key, Tensor]]:
        """Start to copy tensors; called in the order of use, by one thread of its own.

        Returns:
            What hands them over, whole, to the thread that calls it.
        """
        ...


class PinnedCarrier:
    """Copies through page-locked memory, on a CUDA stream of its own per device.

    Page-locked blocks come from torch's pool, which takes them back when the copy is done.
    """

    def __init__(self) -> None:
        self._streams: dict[torch.device, torch.cuda.Stream] = {}

    def bring(
        self, tensors: Mapping[Key, Tensor], device: torch.device
    ) -> Callable[[], dict[Key, Tensor]]:
        own = self._streams.setdefault(device, torch.cuda.Stream(device))  # type: ignore[no-untyped-call]
        with torch.cuda.stream(own):
            copied = {
                key: tensor.pin_memory().to(device, non_blocking=True)
                for key, tensor in tensors.items()
            }
            done = own.record_event()

        def hand_over() -> dict[Key, Tensor]:
            current = torch.cuda.current_stream(device)
            current.wait_event(done)
            for tensor in copied.values():  # their memory is not given away before they are read
                tensor.record_stream(current)
            return copied

        return hand_over


class StreamedTensors:
    """Tensors on their way to a device while those before them are merged.

    Args:
        source: Where they come from.
        carrier: How they get there.
        ahead: Wants under way besides the one in use; bounds the memory.
    """

    def __init__(self, source: MappedTensors, carrier: Carrier, *, ahead: int = AHEAD) -> None:
        self._source = source
        self._carrier = carrier
        self._ahead = ahead

    def stream(self, wants: Sequence[Want]) -> Stream:
        under_way: deque[Future[Callable[[], dict[Key, Tensor]]]] = deque()
        with ThreadPoolExecutor(1, thread_name_prefix="parents") as thread:
            try:
                for want in wants:
                    under_way.append(thread.submit(self._bring, want))
                    if len(under_way) > self._ahead:
                        yield under_way.popleft().result()()
                while under_way:
                    yield under_way.popleft().result()()
            finally:  # a build that stops early needs none of the rest
                for rest in under_way:
                    rest.cancel()

    def _bring(self, want: Want) -> Callable[[], dict[Key, Tensor]]:
        with torch.no_grad():
            return self._carrier.bring(self._source.tensors(want), want.device)
