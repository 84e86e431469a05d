"""Which tensors are parents, and what is known of them: the scope that statistics look in.

A build names the stored tensors it is about to merge; functions of ``inner_products`` then find
what was computed of them before, instead of reading them again. Results are the same either way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch
from torch import Tensor

from merging.tensor_statistics.statistics_cache import StatisticsCache

Address = tuple[int, int, torch.dtype, torch.device]


@dataclass(kw_only=True, slots=True)
class ParentTensors:
    """Stored tensors by where they lie in memory.

    Attributes:
        statistics: What was computed before.
        names: Of tensors; unique by content.
        held: Keeps the tensors alive, so that no other can take a place that has a name.
    """

    statistics: StatisticsCache
    names: dict[Address, str] = field(default_factory=dict)
    held: list[Tensor] = field(default_factory=list)

    def add(self, tensor: Tensor, name: str) -> None:
        """Name a tensor for as long as the scope lasts."""
        if tensor.numel():
            self.names[_address(tensor)] = name
            self.held.append(tensor)

    def clear(self) -> None:
        """Forget all names."""
        self.names.clear()
        self.held.clear()

    def name(self, tensor: Tensor, minus: Tensor | None) -> str | None:
        """What a tensor, or its difference from another, is called; ``None`` if it is not known."""
        first = self.names.get(_address(tensor))
        if first is None or minus is None:
            return first
        second = self.names.get(_address(minus))
        return None if second is None else f"{first} - {second}"


_active: ContextVar[ParentTensors | None] = ContextVar("known", default=None)


@contextmanager
def scope(statistics: StatisticsCache | None) -> Iterator[ParentTensors | None]:
    """Look statistics up, and keep new ones, until the end of the block."""
    known = None if statistics is None else ParentTensors(statistics=statistics)
    token = _active.set(known)
    try:
        yield known
    finally:
        _active.reset(token)


def active() -> ParentTensors | None:
    """The innermost scope."""
    return _active.get()


def _address(tensor: Tensor) -> Address:
    return tensor.data_ptr(), tensor.numel(), tensor.dtype, tensor.device
