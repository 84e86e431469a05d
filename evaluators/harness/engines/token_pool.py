"""Keys and values of single tokens: each token has a place, sequences share those of their prefix.

A pass writes the keys and values of its tokens at free places, and reads in each layer those that
its rows attend to. Nothing is copied from step to step, and nothing is padded but what is read.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import Cache

Numbers = np.ndarray[Any, np.dtype[np.int64]]

LEAST = 256
"""Places at the start."""


class TokenPool(Cache):
    """The places, and who needs them: what a model takes as its past keys and values.

    Attributes:
        size: Number of places; every layer grows to it.
    """

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.size = 0
        self._uses = np.zeros(0, dtype=np.int64)
        self._write = self._read = torch.empty(0, dtype=torch.int64)
        self._held: dict[tuple[int, str], Tensor] = {}

    def take(self, count: int) -> Numbers:
        """Free places, used once from now on; the pool grows where there are too few."""
        free = np.flatnonzero(self._uses == 0)
        if len(free) < count:
            more = max(LEAST, count - len(free), self.size // 8)
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
        """Say where the next pass writes and reads.

        Args:
            write: Places of its tokens, row after row.
            read: ``(rows, n)`` places that each row attends to.
            device: Where the model's inputs go.
        """
        self._write = torch.from_numpy(write).to(device)
        self._read = torch.from_numpy(read).to(device)

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        layer_idx: int,
        *args: Any,
        **options: Any,
    ) -> tuple[Tensor, Tensor]:
        """Write a layer's ``(rows, heads, tokens, size)``, and give what the rows attend to."""
        del args, options
        keys = self._through((layer_idx, "keys"), key_states)
        return keys, self._through((layer_idx, "values"), value_states)

    def _through(self, name: tuple[int, str], states: Tensor) -> Tensor:
        """One of a layer's two, kept as ``(places, heads, size)``."""
        _, heads, _, size = states.shape
        held = self._held.get(name, states.new_empty(0, heads, size))
        if len(held) < self.size:  # by zeros, as what is masked is multiplied by 0
            held = torch.cat([held, held.new_zeros(self.size - len(held), heads, size)])
        held[self._write.to(held.device)] = states.transpose(1, 2).reshape(-1, heads, size)
        self._held[name] = held
        return held[self._read.to(held.device)].transpose(1, 2)
