"""The passes that look at tensors without writing any, as pure functions of flat chunks.

As ``merge_kernels``, with the same bits in ``merging/kernels/native/cpp``. Sums over entries are of
whole numbers, which have no order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from merging.kernels.table_rows import FloatRow, IntRow
from merging.kernels.torch_kernels.entrywise_kernels import changed
from merging.kernels.torch_kernels.mask_kernels import kept, kept_by_rank, mix

BLOCK = 4096
"""Entries of which passes find what depends on order: sums of floats, and positions."""

_STEP = 0x9E3779B9 - (1 << 32)  # odd, so that positions do not collide
_FOLD = 0x85EBCA6B - (1 << 32)
_TO_WHOLE = 1.5 * 2**23  # float32 numbers of this size are whole: adding it rounds

Look = Callable[[Sequence[Tensor], Tensor, Tensor, Tensor], tuple[Tensor, ...]]
"""Tensors of one shape, their int32 indices, and small tensors of floats and ints.

Zeros after the end of all tensors add nothing to a sum.
"""


def kept_norm(
    tensors: Sequence[Tensor], at: Tensor, floats: Tensor, ints: Tensor
) -> tuple[Tensor, ...]:
    """Sums of |tensor - minus| over what a random mask keeps: see ``_parts_of_sums``.

    Floats: a factor that makes numbers up to 2**11 of them. Ints: see ``kept``.
    """
    return _parts_of_sums(_size(tensors) * kept(at, ints) * floats[FloatRow.FACTOR])


def ranked_norm(
    tensors: Sequence[Tensor], at: Tensor, floats: Tensor, ints: Tensor
) -> tuple[Tensor, ...]:
    """As ``kept_norm``, for a mask that likes high ranks: tensor, minus, ranks.

    Floats: the factor, then the bounds of ``kept_by_rank``.
    """
    mask = kept_by_rank(at, tensors[2], ints, floats[FloatRow.NORM_LEAST : FloatRow.NORM_SLOPE + 1])
    return _parts_of_sums(_size(tensors) * mask * floats[FloatRow.FACTOR])


def overlaps(
    tensors: Sequence[Tensor], at: Tensor, floats: Tensor, ints: Tensor
) -> tuple[Tensor, ...]:
    """Per input, entries that it and others changed, then those it changed alone: int64.

    The base comes last; floats: the change that does not count as one.
    """
    del at, ints
    origin = tensors[-1].to(torch.float32)
    active = [
        changed(one.to(torch.float32) - origin, floats[FloatRow.EPSILON]) for one in tensors[:-1]
    ]
    count = active[0].to(torch.int32)
    for one in active[1:]:
        count = count + one.to(torch.int32)
    alone = count == 1
    shared = [(one & ~alone).sum(dtype=torch.int64) for one in active]
    return (*shared, *((one & alone).sum(dtype=torch.int64) for one in active))


def seal(tensors: Sequence[Tensor], at: Tensor, floats: Tensor, ints: Tensor) -> tuple[Tensor, ...]:
    """Hash sums over words and their positions, and the largest exponent field.

    Args:
        tensors: int32: the bits of the weights.
        at: Indices of the words.
        floats: Unused.
        ints: Position of the first word, and the masks of the exponents that a word holds in its
            low and high half.

    Returns:
        Two int64 sums, which have no order and so depend on no chunk; one int32.
    """
    del floats
    (words,) = tensors
    first, second, exponent = sealed_words(
        words, at + ints[IntRow.POSITION], ints[IntRow.LOW_EXPONENT :]
    )
    return first.sum(dtype=torch.int64), second.sum(dtype=torch.int64), exponent.amax()


def sealed_words(words: Tensor, at: Tensor, masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What ``seal`` sums up, twice, and the exponent field that it takes the largest of: int32.

    Args:
        words: int32.
        at: Their positions in their tensor.
        masks: Of the exponents in the low and high half of a word.
    """
    # zeros add nothing, so that any number of them may follow
    first = torch.where(words == 0, 0, mix(words + at * _STEP))
    second = (first ^ ((first >> 15) & 0x1FFFF)) * _FOLD
    return first, second, torch.maximum(words & masks[0], (words >> 16) & masks[1])


def _size(tensors: Sequence[Tensor]) -> Tensor:
    return (tensors[0].to(torch.float32) - tensors[1].to(torch.float32)).abs()


def _parts_of_sums(values: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over blocks of numbers up to 2**11: of whole numbers, and of 2**-12 of the rest.

    Both are of at most 2**11 each, so that float32 holds any sum over a block exactly, in any
    order; what the second leaves of a number is below 2**-13.
    """
    rows = values.view(-1, min(BLOCK, values.shape[-1]))
    whole = (rows + _TO_WHOLE) - _TO_WHOLE
    rest = ((rows - whole) * 4096.0 + _TO_WHOLE) - _TO_WHOLE
    return whole.sum(dim=1), rest.sum(dim=1)


LOOKS: Mapping[str, Look] = {
    function.__name__: function for function in (kept_norm, ranked_norm, overlaps, seal)
}
"""The passes by name."""
