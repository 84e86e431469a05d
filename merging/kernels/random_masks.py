"""Random masks that are a pure function of a key and the element's index.

A counter-based generator in int32 arithmetic: the index times an odd step plus an offset (both
from the key), then the "lowbias32" finaliser (Wellons 2018, https://nullprogram.com/blog/2018/07/31/,
public domain). Integer arithmetic wraps the same everywhere, so a mask has the same bits on any
device and in any chunking, and needs no state. An entry is kept iff its 24-bit uniform number lies
below the density; masks are thus nested: what a density keeps, a larger one keeps too.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor

_PERIOD = 1 << 32  # indices beyond it use another step and offset
_BITS = 24
_FIRST, _SECOND = 0x7FEB352D, 0x846CA68B


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskKey:
    """What tells one mask from another.

    Attributes:
        seed: The recipe's seed.
        model: Label of the input whose delta is thinned.
        tensor: Name of the tensor that is made.
    """

    seed: int
    model: str
    tensor: str

    def step_and_offset(self, period: int) -> tuple[int, int]:
        """Odd multiplier and offset of the counter, as int32 values, for a block of indices."""
        text = "\n".join((str(self.seed), self.model, self.tensor, str(period)))
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        step, offset = int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")
        return _signed(step | 1), _signed(offset)


def keep(
    key: MaskKey, *, density: float, start: int, stop: int, device: torch.device | str = "cpu"
) -> Tensor:
    """Which of the elements ``start`` to ``stop`` of a flattened tensor are kept.

    Args:
        key: Which mask.
        density: Probability of being kept, in [0, 1]; resolution 2**-24.
        start: First index.
        stop: Index after the last.
        device: Where to compute; the result does not depend on it.

    Returns:
        ``(stop - start,)`` float32: 1 for kept, 0 for dropped.
    """
    bound = math.ceil(density * (1 << _BITS))
    # comparing in place keeps the dtype, which costs a quarter of going through bool
    return uniform(key, start=start, stop=stop, device=device).lt_(bound).to(torch.float32)


def numbers(key: MaskKey, *, density: float, start: int = 0) -> tuple[int, int, int]:
    """A mask as int32 numbers for ``mask_kernels.kept``: step, offset, and the limit on the hash.

    Args:
        key: Which mask.
        density: Probability of being kept, above 0, at most 1.
        start: As of which index; they serve up to the next multiple of 2**32.
    """
    limit = (math.ceil(density * (1 << _BITS)) << (32 - _BITS)) - 1
    return *counter(key, start), _signed((limit % _PERIOD) ^ (1 << 31))


def counter(key: MaskKey, start: int) -> tuple[int, int]:
    """Step and offset of the counter as of an index, as int32 values."""
    period, first = divmod(start, _PERIOD)
    step, offset = key.step_and_offset(period)
    # the counter wraps at 2**32, so its start may be folded into the offset
    return step, _signed((first * step + offset) % _PERIOD)


def uniform(key: MaskKey, *, start: int, stop: int, device: torch.device | str = "cpu") -> Tensor:
    """The 24-bit uniform numbers behind ``keep``: ``(stop - start,)`` int32 in [0, 2**24)."""
    period, first = divmod(start, _PERIOD)
    if first + (stop - start) > _PERIOD:
        edge = (period + 1) * _PERIOD
        parts = [
            uniform(key, start=start, stop=edge, device=device),
            uniform(key, start=edge, stop=stop, device=device),
        ]
        return torch.cat(parts)
    step, offset = counter(key, start)
    dtype = torch.int32 if stop - start < _PERIOD // 2 else torch.int64
    word = torch.arange(stop - start, dtype=dtype, device=device).to(torch.int32)
    word.mul_(step).add_(offset)
    word.bitwise_xor_(_shift(word, 16)).mul_(_signed(_FIRST))
    word.bitwise_xor_(_shift(word, 15)).mul_(_signed(_SECOND))
    word.bitwise_xor_(_shift(word, 16))
    return _shift(word, 32 - _BITS)


def _shift(word: Tensor, bits: int) -> Tensor:
    """Logical right shift: int32 shifts are arithmetic, so the sign's copies are masked off."""
    return (word >> bits).bitwise_and_((1 << (32 - bits)) - 1)


def _signed(value: int) -> int:
    """The int32 with the same 32 bits."""
    return value - _PERIOD if value >= _PERIOD // 2 else value
