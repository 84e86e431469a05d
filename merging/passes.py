"""The arithmetic that runs over every weight, as pure functions of flat chunks.

Each function is written once and run in two ways, eager or compiled (``merging.fused``). Both give
the same bits: only single additions, subtractions, multiplications, divisions and comparisons of
float32 numbers, and int32 arithmetic, which wraps; sums over elements are of whole numbers, or
follow one fixed tree. Numbers of a recipe come in small tensors, so that no recipe is compiled for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from merging.choices import near_pair, ram_mean, sce_mean, sce_selected

BLOCK = 4096
"""Elements whose sum is one tree of halvings."""
LANES = 256
"""Partial sums of a block that a compiled pass leaves; the last halvings are done elsewhere."""

HASH_FIRST, HASH_SECOND = 0x7FEB352D, 0x846CA68B - (1 << 32)
_STEP = 0x9E3779B9 - (1 << 32)  # odd, so that positions do not collide
_FOLD = 0x85EBCA6B - (1 << 32)


def mix(word: Tensor) -> Tensor:
    """The "lowbias32" finaliser, a bijection of int32 (Wellons 2018, public domain)."""
    word = (word ^ ((word >> 16) & 0xFFFF)) * HASH_FIRST
    word = (word ^ ((word >> 15) & 0x1FFFF)) * HASH_SECOND
    return word ^ ((word >> 16) & 0xFFFF)


def weighted_sum(
    inputs: Sequence[Tensor], base: Tensor, out: Tensor, floats: Tensor, ints: Tensor
) -> None:
    """``out = sum(w x)``; floats: a weight per input."""
    del base, ints
    total = inputs[0].to(torch.float32) * floats[0]
    for index in range(1, len(inputs)):
        total = total + inputs[index].to(torch.float32) * floats[index]
    out.copy_(total)


def delta_sum(
    inputs: Sequence[Tensor], base: Tensor, out: Tensor, floats: Tensor, ints: Tensor
) -> None:
    """``out = base + sum(w (x - base))``; floats: a weight per input."""
    del ints
    origin = base.to(torch.float32)
    total = (inputs[0].to(torch.float32) - origin) * floats[0]
    for index in range(1, len(inputs)):
        total = total + (inputs[index].to(torch.float32) - origin) * floats[index]
    out.copy_(total + origin)


def _trimmed(
    inputs: Sequence[Tensor], origin: Tensor, floats: Tensor, ints: Tensor
) -> list[Tensor]:
    """Scaled deltas, 0 where not larger than the limit in ``floats[1 + 2p + i]``."""
    del ints
    count, made = len(inputs), []
    for index in range(count):
        delta = inputs[index].to(torch.float32) - origin
        keep = delta.abs() > floats[1 + 2 * count + index]
        made.append(delta * keep.to(torch.float32) * floats[1 + index])
    return made


def _banded(inputs: Sequence[Tensor], origin: Tensor, floats: Tensor, ints: Tensor) -> list[Tensor]:
    """As ``_trimmed``, and 0 also where larger than the limit in ``floats[1 + 3p + i]``."""
    del ints
    count, made = len(inputs), []
    for index in range(count):
        delta = inputs[index].to(torch.float32) - origin
        size = delta.abs()
        inside = size > floats[1 + 2 * count + index]
        outside = size > floats[1 + 3 * count + index]
        keep = inside.to(torch.float32) - outside.to(torch.float32)
        made.append(delta * keep * floats[1 + index])
    return made


def _dropped(
    inputs: Sequence[Tensor], origin: Tensor, floats: Tensor, ints: Tensor
) -> list[Tensor]:
    """Scaled deltas, 0 where the mask of ``ints[3i:3i+3]`` (step, offset, limit) drops them."""
    made = []
    at = torch.arange(origin.shape[0], dtype=torch.int32, device=origin.device)
    for index in range(len(inputs)):
        delta = inputs[index].to(torch.float32) - origin
        keep = kept(at, ints[3 * index], ints[3 * index + 1], ints[3 * index + 2])
        made.append(delta * keep * floats[1 + index])
    return made


def kept(at: Tensor, step: Tensor, offset: Tensor, limit: Tensor) -> Tensor:
    """1 where the hash of an index is at most ``limit``, both read as unsigned; else 0.

    Args:
        at: ``(n,)`` int32 indices.
        step: Odd multiplier.
        offset: What is added.
        limit: The largest hash kept, with its highest bit flipped: then signed numbers sort so.
    """
    return ((mix(at * step + offset) ^ -(1 << 31)) <= limit).to(torch.float32)


_Thin = Callable[[Sequence[Tensor], Tensor, Tensor, Tensor], list[Tensor]]


def _summed(deltas: Sequence[Tensor], origin: Tensor, out: Tensor, floats: Tensor) -> None:
    total = deltas[0]
    for delta in deltas[1:]:
        total = total + delta
    out.copy_(total * floats[0] + origin)


def _voted(deltas: Sequence[Tensor], origin: Tensor, out: Tensor, floats: Tensor) -> None:
    """The sum of those with the sign of the sum, divided by their weights in ``floats[1+p:]``.

    A sum of 0 counts as plus; weights that sum to 0 do not divide.
    """
    total = deltas[0]
    for delta in deltas[1:]:
        total = total + delta
    sign = (total >= 0.0).to(torch.float32) * 2.0 - 1.0
    mixed, divisor = torch.zeros_like(sign), torch.zeros_like(sign)
    for index, delta in enumerate(deltas):
        agreeing = (delta * sign).clamp_min(0.0)  # NaN stays NaN
        mixed = mixed + agreeing
        weight = floats[1 + len(deltas) + index]
        divisor = divisor + (agreeing > 0.0).to(torch.float32) * weight
    divisor = divisor + (divisor == 0.0).to(torch.float32)
    out.copy_(mixed / divisor * (sign * floats[0]) + origin)


def trimmed_sum(
    inputs: Sequence[Tensor], base: Tensor, out: Tensor, floats: Tensor, ints: Tensor
) -> None:
    """Base plus trimmed deltas; floats: strength, scales, p unused, limits."""
    origin = base.to(torch.float32)
    _summed(_trimmed(inputs, origin, floats, ints), origin, out, floats)


def trimmed_vote(
    inputs: Sequence[Tensor], base: Tensor, out: Tensor, floats: Tensor, ints: Tensor
) -> None:
    """Base plus the consensus of trimmed deltas; floats: strength, scales, divisors, limits."""
    origin = base.to(torch.float32)
    _voted(_trimmed(inputs, origin, floats, ints), origin, out, floats)


def banded_sum(
    inputs: Sequence[Tensor], base: Tensor, out: Tensor, floats: Tensor, ints: Tensor
) -> None:
    """Base plus deltas of middling size; floats: as trimmed, then upper limits."""
    origin = base.to(torch.float32)
    _summed(_banded(inputs, origin, floats, ints), origin, out, floats)


def banded_vote(
    inputs: Sequence[Tensor], base: Tensor, out: Tensor, floats: Tensor, ints: Tensor
) -> None:
    """Base plus the consensus of deltas of middling size."""
    origin = base.to(torch.float32)
    _voted(_banded(inputs, origin, floats, ints), origin, out, floats)


def dropped_sum(
    inputs: Sequence[Tensor], base: Tensor, out: Tensor, floats: Tensor, ints: Tensor
) -> None:
    """Base plus deltas thinned at random; ints: step, offset and limit of each mask."""
    origin = base.to(torch.float32)
    _summed(_dropped(inputs, origin, floats, ints), origin, out, floats)


def dropped_vote(
    inputs: Sequence[Tensor], base: Tensor, out: Tensor, floats: Tensor, ints: Tensor
) -> None:
    """Base plus the consensus of deltas thinned at random."""
    origin = base.to(torch.float32)
    _voted(_dropped(inputs, origin, floats, ints), origin, out, floats)


def _halved(values: Tensor) -> Tensor:
    """``(n,)`` float32 in whole blocks to ``(n / BLOCK, LANES)`` float64: the first halvings."""
    parts = values.view(-1, BLOCK // LANES, LANES)
    rows = [parts[:, index].double() for index in range(BLOCK // LANES)]
    while len(rows) > 1:
        half = len(rows) // 2
        rows = [rows[index] + rows[index + half] for index in range(half)]
    return rows[0]


def kept_norm(tensor: Tensor, minus: Tensor, ints: Tensor) -> Tensor:
    """Partial sums of |tensor - minus| over what a mask keeps; ints: step, offset, limit."""
    size = (tensor.to(torch.float32) - minus.to(torch.float32)).abs()
    at = torch.arange(tensor.shape[0], dtype=torch.int32, device=tensor.device)
    return _halved(size * kept(at, ints[0], ints[1], ints[2]))


def equal_counts(tensor: Tensor, minus: Tensor, value: Tensor) -> Tensor:
    """How many |tensor - minus| equal ``value[0]``, per block: ``(n / BLOCK,)`` int32."""
    size = (tensor.to(torch.float32) - minus.to(torch.float32)).abs()
    return (size == value[0]).view(-1, BLOCK).sum(dim=1, dtype=torch.int32)


def seal(words: Tensor, ints: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hash sums over words and their positions, and the largest exponent field.

    Args:
        words: ``(n,)`` int32: the bits of the weights.
        ints: Position of the first word, and the masks of the exponents that a word holds in its
            low and high half.

    Returns:
        Two int64 sums, which have no order and so depend on no chunk; one int32.
    """
    at = torch.arange(words.shape[0], dtype=torch.int32, device=words.device)
    first = mix(words + (at + ints[0]) * _STEP)
    second = (first ^ ((first >> 15) & 0x1FFFF)) * _FOLD
    exponent = torch.maximum(words & ints[1], (words >> 16) & ints[2])
    return first.sum(dtype=torch.int64), second.sum(dtype=torch.int64), exponent.amax()


MERGES: Mapping[str, Callable[[Sequence[Tensor], Tensor, Tensor, Tensor, Tensor], None]] = {
    function.__name__: function
    for function in (
        weighted_sum,
        delta_sum,
        trimmed_sum,
        trimmed_vote,
        banded_sum,
        banded_vote,
        dropped_sum,
        dropped_vote,
        ram_mean,
        sce_mean,
        sce_selected,
        near_pair,
    )
}
"""The passes that write an output, by name."""
