"""Embeddings and heads with their rows in another order, made when asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from merging.checkpoints.files.safetensors_header import TensorInfo


@dataclass(frozen=True, kw_only=True, eq=False)
class EmbeddingRows:
    """Where each row of a tensor comes from; what comes from nowhere is zero.

    Attributes:
        count: Rows of the result.
        copies: By model, the rows of the result that it gives and its own rows for them.
        means: A row of the result, and the models and rows it is the mean of.
        filled: Rows before the padding, which is the mean of them; ``count`` where there is none.
    """

    count: int
    copies: Mapping[str, tuple[Tensor, Tensor]]
    means: Sequence[tuple[int, tuple[tuple[str, int], ...]]] = ()
    filled: int

    @cached_property
    def digest(self) -> str:
        """Hash of the content."""
        digest = hashlib.sha256(f"{self.count} {self.filled} {list(self.means)}".encode())
        for model in sorted(self.copies):
            digest.update(model.encode())
            for part in self.copies[model]:
                digest.update(part.numpy().tobytes())
        return digest.hexdigest()

    @property
    def models(self) -> tuple[str, ...]:
        """Every model that gives a row."""
        named = [*self.copies, *(model for _, parts in self.means for model, _ in parts)]
        return tuple(dict.fromkeys(named))

    @property
    def exact(self) -> bool:
        """Whether all rows are copies or zeros, so that the inputs' dtype holds them."""
        return not self.means and self.filled == self.count

    def gather(self, tensors: Mapping[str, Tensor], like: TensorInfo) -> Tensor:
        """The tensor with these rows.

        Args:
            tensors: ``(rows, *rest)`` by model, any float dtype.
            like: Shape and dtype of the result; sums are taken in float32.
        """
        rest, dtype = like.shape[1:], like.dtype
        out = torch.zeros(like.shape, dtype=dtype)
        for model, (to, source) in self.copies.items():
            out[to] = tensors[model][source].to(dtype)
        for row, parts in self.means:
            total = torch.zeros(rest, dtype=torch.float32)
            for model, number in parts:
                total += tensors[model][number].float()
            out[row] = (total / len(parts)).to(dtype)
        if self.filled < self.count:
            out[self.filled :] = out[: self.filled].float().mean(dim=0).to(dtype)
        return out
