"""Fingerprints: a hash over the weights of a model that does not depend on how they are read.

Per tensor, every eight bytes are taken as an int64, mixed with their position (the multiply and
xor-shift steps of splitmix64, Steele et al. 2014) and summed with wrap-around. Integer sums have no
order, so device, chunking and threads do not matter. The result hashes names, dtypes and shapes in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor

from merging.checkpoint import Checkpoint
from merging.headers import DTYPE_CODES
from merging.statistics import spans

_STEP = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX = 0xBF58476D1CE4E5B9 - (1 << 64)
_CHUNK = {"cpu": 1 << 18}
_DEVICE_CHUNK = 1 << 24


def tensor_hash(tensor: Tensor, *, chunk: int | None = None) -> int:
    """The hash of one tensor's bits and their order, as an int64.

    Args:
        tensor: Any dtype and device; contiguous or not.
        chunk: Elements at a time; the result does not depend on it.
    """
    flat = tensor.detach().reshape(-1)
    total = 0
    size = chunk or _CHUNK.get(flat.device.type, _DEVICE_CHUNK)
    for start, stop in spans(flat.numel(), size):
        words = _words(flat[start:stop])
        first = start * flat.element_size() // 8
        at = torch.arange(words.numel(), dtype=torch.int64, device=flat.device)
        mixed = at.add_(first).mul_(_STEP).add_(words)
        mixed.bitwise_xor_((mixed >> 32).bitwise_and_(0xFFFFFFFF)).mul_(_MIX)
        mixed.bitwise_xor_(mixed >> 29)
        total += int(mixed.sum())
    return total % (1 << 64)


def _words(part: Tensor) -> Tensor:
    """The bits as int64 words, zeros after the end."""
    if part.stride() != (1,):
        part = torch.empty_like(part, memory_format=torch.contiguous_format).copy_(part)
    raw = part.view(torch.uint8)
    if rest := -raw.numel() % 8:
        raw = torch.nn.functional.pad(raw, (0, rest))
    if raw.storage_offset() % 8:
        raw = raw.clone()
    return raw.view(torch.int64)


def describe(name: str, tensor: Tensor, digest: int) -> str:
    """One line of what a fingerprint hashes."""
    return f"{name} {DTYPE_CODES[tensor.dtype]} {list(tensor.shape)} {digest:016x}"


def fingerprint(lines: Iterable[str]) -> str:
    """The fingerprint of a model from one ``describe`` line per tensor, in any order: 32 digits."""
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:32]


def fingerprint_checkpoint(checkpoint: Checkpoint) -> str:
    """The fingerprint of a model on disk; equals that of the build that wrote it."""
    return fingerprint(
        describe(name, tensor := checkpoint.tensor(name), tensor_hash(tensor))
        for name in checkpoint.tensors
    )
