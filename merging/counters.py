"""Hashes of indices in int32 arithmetic, and the random masks made of them, as parts of passes."""

from __future__ import annotations

import torch
from torch import Tensor

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
        at: ``(n,)`` int32 indices.
        mask: Odd multiplier, what is added, and the largest hash kept, with its highest bit
            flipped: then signed numbers sort so.
    """
    return ((mix(at * mask[0] + mask[1]) ^ -(1 << 31)) <= mask[2]).to(torch.float32)


def kept_by_rank(at: Tensor, ranks: Tensor, mask: Tensor) -> Tensor:
    """1 where a uniform number of 24 bits is below ``least + span * rank / steps``; else 0.

    Args:
        at: ``(n,)`` int32 indices.
        ranks: ``(n,)`` whole numbers from 0 to ``steps``.
        mask: Odd multiplier, what is added, ``least``, ``span``, and ``steps``, at least 1.
    """
    uniform = (mix(at * mask[0] + mask[1]) >> 8) & _UNIFORM
    return below(uniform, ranks, mask[2:]).to(torch.float32)


def below(uniform: Tensor, ranks: Tensor, bounds: Tensor) -> Tensor:
    """Whether ``uniform < least + span * rank / steps``, in whole numbers below 2**63."""
    least, span, steps = bounds[0].to(torch.int64), bounds[1], bounds[2]
    return uniform.to(torch.int64) * steps < ranks.to(torch.int64) * span + least * steps
