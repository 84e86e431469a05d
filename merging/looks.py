"""The passes that look at tensors without writing any, as pure functions of flat chunks.

As ``merging.passes``: the same bits eager and compiled. Sums over elements are of whole numbers, or
follow one fixed tree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from merging.choices import changed
from merging.counters import kept, kept_by_rank, mix

BLOCK = 4096
"""Elements whose sum is one tree of halvings."""
LANES = 256
"""Partial sums of a block that a pass leaves; the last halvings are done elsewhere."""

_STEP = 0x9E3779B9 - (1 << 32)  # odd, so that positions do not collide
_FOLD = 0x85EBCA6B - (1 << 32)

Look = Callable[[Sequence[Tensor], Tensor, Tensor], tuple[Tensor, ...]]
"""Tensors of one length, and small tensors of floats and ints."""


def kept_norm(tensors: Sequence[Tensor], floats: Tensor, ints: Tensor) -> tuple[Tensor, ...]:
    """Partial sums of |tensor - minus| over what a random mask keeps: ``(n / BLOCK, LANES)``.

    Ints: see ``kept``.
    """
    del floats
    size = _size(tensors)
    at = torch.arange(size.shape[0], dtype=torch.int32, device=size.device)
    return (_halved(size * kept(at, ints)),)


def ranked_norm(tensors: Sequence[Tensor], floats: Tensor, ints: Tensor) -> tuple[Tensor, ...]:
    """As ``kept_norm``, for a mask that likes high ranks: tensor, minus, ranks."""
    size = _size(tensors)
    at = torch.arange(size.shape[0], dtype=torch.int32, device=size.device)
    return (_halved(size * kept_by_rank(at, tensors[2], ints, floats)),)


def equal_counts(tensors: Sequence[Tensor], floats: Tensor, ints: Tensor) -> tuple[Tensor, ...]:
    """How many |tensor - minus| equal ``floats[0]``, per block: ``(n / BLOCK,)`` int32."""
    del ints
    return ((_size(tensors) == floats[0]).view(-1, BLOCK).sum(dim=1, dtype=torch.int32),)


def overlaps(tensors: Sequence[Tensor], floats: Tensor, ints: Tensor) -> tuple[Tensor, ...]:
    """Per input, entries that it and others changed, then those it changed alone: int64.

    The base comes last; floats: the change that does not count as one.
    """
    del ints
    origin = tensors[-1].to(torch.float32)
    active = [changed(one.to(torch.float32) - origin, floats[0]) for one in tensors[:-1]]
    count = active[0].to(torch.int32)
    for one in active[1:]:
        count = count + one.to(torch.int32)
    alone = count == 1
    shared = [(one & ~alone).sum(dtype=torch.int64) for one in active]
    return (*shared, *((one & alone).sum(dtype=torch.int64) for one in active))


def seal(tensors: Sequence[Tensor], floats: Tensor, ints: Tensor) -> tuple[Tensor, ...]:
    """Hash sums over words and their positions, and the largest exponent field.

    Args:
        tensors: ``(n,)`` int32: the bits of the weights.
        floats: Unused.
        ints: Position of the first word, and the masks of the exponents that a word holds in its
            low and high half.

    Returns:
        Two int64 sums, which have no order and so depend on no chunk; one int32.
    """
    del floats
    (words,) = tensors
    at = torch.arange(words.shape[0], dtype=torch.int32, device=words.device)
    first = mix(words + (at + ints[0]) * _STEP)
    second = (first ^ ((first >> 15) & 0x1FFFF)) * _FOLD
    exponent = torch.maximum(words & ints[1], (words >> 16) & ints[2])
    return first.sum(dtype=torch.int64), second.sum(dtype=torch.int64), exponent.amax()


def _size(tensors: Sequence[Tensor]) -> Tensor:
    return (tensors[0].to(torch.float32) - tensors[1].to(torch.float32)).abs()


def _halved(values: Tensor) -> Tensor:
    """``(n,)`` float32 in whole blocks to ``(n / BLOCK, LANES)`` float64: the first halvings."""
    parts = values.view(-1, BLOCK // LANES, LANES)
    rows = [parts[:, index].double() for index in range(BLOCK // LANES)]
    while len(rows) > 1:
        half = len(rows) // 2
        rows = [rows[index] + rows[index + half] for index in range(half)]
    return rows[0]


LOOKS: Mapping[str, Look] = {
    function.__name__: function
    for function in (kept_norm, ranked_norm, equal_counts, overlaps, seal)
}
"""The passes by name."""

IN_BLOCKS = frozenset({"kept_norm", "ranked_norm", "equal_counts"})
"""Passes that take whole blocks only."""
