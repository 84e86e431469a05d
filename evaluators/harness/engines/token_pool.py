"""Keys and values of single tokens: each token has a place, sequences share those of their prefix.

A pass writes the keys and values of its tokens at free places, and reads in each layer those that
its rows attend to. Nothing is copied from step to step, and nothing is padded but what is read.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

Numbers = np.ndarray[Any, np.dtype[np.int64]]

_LEAST = 256
"""Places at the start."""


class TokenPool:
    """The places, and who needs them.

    Attributes:
        cache: What a model takes as its past keys and values.
        size: Number of places; every layer grows to it.
        write: Places of a pass' tokens, row after row.
        read: ``(rows, n)`` places that each row attends to.
    """

    def __init__(self) -> None:
        self.cache = Cache(layer_class_to_replicate=partial(_PooledLayer, self))
        self.size = 0
        self.write = self.read = torch.empty(0, dtype=torch.int64)
        self._uses = np.zeros(0, dtype=np.int64)

    def take(self, count: int) -> Numbers:
        """Free places, used once from now on; the pool grows where there are too few."""
        free = np.flatnonzero(self._uses == 0)
        if len(free) < count:
            more = max(_LEAST, count - len(free), self.size // 8)
            self._uses = np.concatenate([self._uses, np.zeros(more, dtype=np.int64)])
            free = np.concatenate([free, np.arange(self.size, self.size + more)])
            self.size += more
        self.share(free[:count])
        return free[:count]

    def share(self, places: Numbers) -> None:
        """One more needs them."""
        self._uses[places] += 1

    def release(self, places: Numbers) -> None:
        """One fewer needs them."""
        self._uses[places] -= 1

    def aim(self, *, write: Numbers, read: Numbers, device: torch.device) -> None:
        """Say where the next pass writes and reads."""
        self.write = torch.from_numpy(write).to(device)
        self.read = torch.from_numpy(read).to(device)


class _PooledLayer(DynamicLayer):
    """One layer's part: keys and values are ``(places, heads, size)``."""

    def __init__(self, pool: TokenPool) -> None:
        super().__init__()
        self._pool = pool

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **options: Any
    ) -> tuple[Tensor, Tensor]:
        """Write ``(rows, heads, tokens, size)``, and give what the rows attend to."""
        del args, options
        device = key_states.device
        write, read = self._pool.write.to(device), self._pool.read.to(device)
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys = self._written(self.keys, key_states, write)
        self.values = self._written(self.values, value_states, write)
        return self.keys[read].transpose(1, 2), self.values[read].transpose(1, 2)

    def _written(self, held: Tensor, states: Tensor, write: Tensor) -> Tensor:
        _, heads, _, size = states.shape
        more = self._pool.size - len(held)
        if more:  # zeros, as what is masked is multiplied by 0
            held = torch.cat([held.view(-1, heads, size), states.new_zeros(more, heads, size)])
        held[write] = states.transpose(1, 2).reshape(-1, heads, size)
        return held
