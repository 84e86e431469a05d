"""Fingerprints: a hash over the weights of a model that does not depend on how they are read.

Per tensor, every four bytes are taken as an int32, mixed with their position by a bijection, and
summed up twice: once as they are, once mixed further. Zeros count by the shape alone. Whole numbers
that wrap have no order, so device, chunking and threads do not matter. The result hashes names,
dtypes and shapes in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from merging.checkpoints.checkpoint import Checkpoint
from merging.checkpoints.files.safetensors_header import DTYPE_CODES
from merging.kernels import batched_dispatch, dispatch
from merging.kernels.native.native_library import library_on

_EXPONENTS: Mapping[torch.dtype, tuple[int, int]] = {
    torch.bfloat16: (0x7F80, 0x7F80),
    torch.float16: (0x7C00, 0x7C00),
    torch.float32: (0, 0x7F80),
}
"""Where the low and the high half of a word hold exponents; all ones mean NaN or infinity."""

FEW = 1 << 15
"""Entries up to which calls take more time than looking at them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seal:
    """What one pass over the bits of a tensor tells.

    Attributes:
        digest: The hash of the bits and their order, 64 bits.
        finite: Whether all numbers are finite.
    """

    digest: int
    finite: bool


def seal(tensor: Tensor, *, chunk: int | None = None) -> Seal:
    """Hash a tensor and see whether it is finite.

    Args:
        tensor: Any dtype and device; contiguous or not.
        chunk: Elements at a time; the result does not depend on it.
    """
    flat = tensor.detach().reshape(-1)
    exponents = _EXPONENTS.get(flat.dtype, (0, 0))
    digest, largest = dispatch.seal(_words(flat), exponents, chunk=chunk)
    if flat.dtype in _EXPONENTS:
        finite = largest != exponents[1]
    else:
        finite = not flat.is_floating_point() or bool(flat.double().isfinite().all())
    return Seal(digest=digest, finite=finite)


def seals(tensors: Sequence[Tensor], *, chunk: int | None = None) -> list[Seal]:
    """``seal`` of each, in order; those of few entries together, which changes nothing but speed.

    Args:
        tensors: Any dtype and device each.
        chunk: Elements at a time of those that are looked at alone.
    """
    found: list[Seal] = []
    for (dtype, _), group in groupby(tensors, key=_together):
        if dtype is None:
            found += [seal(tensor, chunk=chunk) for tensor in group]
            continue
        exponents = _EXPONENTS[dtype]
        words = [_words(tensor.detach().reshape(-1)) for tensor in group]
        found += [
            Seal(digest=digest, finite=largest != exponents[1])
            for digest, largest in batched_dispatch.seals(words, exponents)
        ]
    return found


def _together(tensor: Tensor) -> tuple[torch.dtype | None, torch.device]:
    """What tensors that are looked at together have in common; no dtype for those that are not."""
    few = 0 < tensor.numel() <= FEW and tensor.dtype in _EXPONENTS
    alone = not few or library_on(tensor.device) is not None
    return None if alone else tensor.dtype, tensor.device


def tensor_hash(tensor: Tensor, *, chunk: int | None = None) -> int:
    """The hash of one tensor's bits and their order, from 0 to 2**64 - 1."""
    return seal(tensor, chunk=chunk).digest


def _words(flat: Tensor) -> Tensor:
    """The bits as int32 words, zeros after the end; a view where that is possible."""
    if flat.stride() != (1,):
        flat = torch.empty_like(flat, memory_format=torch.contiguous_format).copy_(flat)
    raw = flat.view(torch.uint8)
    if rest := -raw.numel() % 4:
        raw = torch.nn.functional.pad(raw, (0, rest))
    if raw.storage_offset() % 4:
        raw = raw.clone()
    return raw.view(torch.int32)


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
