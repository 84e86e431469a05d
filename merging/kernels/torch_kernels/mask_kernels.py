"""Hashes of indices in int32 arithmetic, and the random masks made of them, as parts of passes."""

from __future__ import annotations

import torch
from torch import Tensor

from merging.kernels.table_rows import IntRow

HASH_FIRST, HASH_SECOND = 0x7FEB352D, 0x846CA68B - (1 << 32)
_UNIFORM = 0xFFFFFF  # the 24 high bits of a hash


def mix(word: Tensor) -> Tensor:
    """The "lowbias32" finaliser, a bijection of int32 (Wellons 2018, public domain)."""
    word = (word ^ ((word >> 16) & 0xFFFF)) * HASH_FIRST
    word = (word ^ ((word >> 15) & 0x1FFFF)) * HASH_SECOND
    return word ^ ((word >> 16) & 0xFFFF)


def kept(at: Tensor, mask: Tensor) -> Tensor:
    """1 where the hash of an index is at most a limit, both read as unsigned; else 0.

    Args:
        at: int32 indices.
        mask: Odd multiplier, what is added, and the largest hash kept, with its highest bit
            flipped: then signed numbers sort so.
    """
    return (
        (mix(at * mask[IntRow.MASK_STEP] + mask[IntRow.MASK_OFFSET]) ^ -(1 << 31))
        <= mask[IntRow.MASK_LIMIT]
    ).to(torch.float32)


def kept_by_rank(at: Tensor, ranks: Tensor, counter: Tensor, bounds: Tensor) -> Tensor:
    """1 where a uniform number of 24 bits is below ``least + slope * rank``; else 0.

    Args:
        at: int32 indices.
        ranks: Whole numbers from 0, as float32; of the indices' shape.
        counter: Odd multiplier, and what is added.
        bounds: ``least`` and ``slope``, float32.
    """
    uniform = (mix(at * counter[IntRow.MASK_STEP] + counter[IntRow.MASK_OFFSET]) >> 8) & _UNIFORM
    return below(uniform, ranks, bounds).to(torch.float32)


def below(uniform: Tensor, ranks: Tensor, bounds: Tensor) -> Tensor:
    """Whether ``uniform < least + slope * rank``; float32 holds 24 bits exactly."""
    return uniform.to(torch.float32) < ranks.to(torch.float32) * bounds[1] + bounds[0]
