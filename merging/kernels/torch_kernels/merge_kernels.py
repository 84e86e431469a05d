"""The passes that write an output, as pure functions of chunks, entry by entry.

Each function has a twin in ``merging/kernels/native/cpp`` that gives the same bits: only single
additions, subtractions, multiplications, divisions and comparisons of float32 numbers, and int32
arithmetic, which wraps. ``dispatch`` says which of the two runs. Numbers of a recipe come in small
tables with a column per input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from merging.kernels.table_rows import FloatRow, IntRow
from merging.kernels.torch_kernels.entrywise_kernels import (
    near_pair,
    ram_mean,
    sce_mean,
    sce_selected,
)
from merging.kernels.torch_kernels.mask_kernels import kept, kept_by_rank

Merge = Callable[[Sequence[Tensor], Tensor, Tensor, Tensor, Tensor, Tensor], None]
"""Inputs, base, output to overwrite, indices of its entries, and the tables of floats and ints.

All but the tables have one shape; indices are int32.
"""


_RANKS = slice(FloatRow.RANK_LEAST, FloatRow.RANK_SLOPE + 1)


def weighted_sum(
    inputs: Sequence[Tensor], base: Tensor, out: Tensor, at: Tensor, floats: Tensor, ints: Tensor
) -> None:
    """``out = sum(w x)``; floats: weights."""
    del base, at, ints
    total = inputs[0].to(torch.float32) * floats[FloatRow.WEIGHT, 0]
    for index in range(1, len(inputs)):
        total = total + inputs[index].to(torch.float32) * floats[FloatRow.WEIGHT, index]
    out.copy_(total)


_Thin = Callable[[Tensor, Tensor, Sequence[Tensor], Tensor, Tensor], Tensor]
"""A delta, its indices, what else is stored of it, and its columns: 0 where it is dropped."""


def _whole(
    delta: Tensor, at: Tensor, stored: Sequence[Tensor], floats: Tensor, ints: Tensor
) -> Tensor:
    del at, stored, floats, ints
    return delta


def _trimmed(
    delta: Tensor, at: Tensor, stored: Sequence[Tensor], floats: Tensor, ints: Tensor
) -> Tensor:
    """What is larger than the outer limits."""
    del stored
    limit = torch.where(
        at < ints[IntRow.OUTER_CUTOFF], floats[FloatRow.OUTER_BEFORE], floats[FloatRow.OUTER_AFTER]
    )
    return torch.where(delta.abs() <= limit, 0.0, delta)  # NaN stays


def _banded(
    delta: Tensor, at: Tensor, stored: Sequence[Tensor], floats: Tensor, ints: Tensor
) -> Tensor:
    """As ``_trimmed``, without what is larger than the inner limits."""
    limit = torch.where(
        at < ints[IntRow.INNER_CUTOFF], floats[FloatRow.INNER_BEFORE], floats[FloatRow.INNER_AFTER]
    )
    outer = _trimmed(delta, at, stored, floats, ints)
    return outer * (delta.abs() <= limit).to(torch.float32)  # infinity becomes NaN


def _dropped(
    delta: Tensor, at: Tensor, stored: Sequence[Tensor], floats: Tensor, ints: Tensor
) -> Tensor:
    """What a random mask keeps; ints: see ``kept``."""
    del stored, floats
    return delta * kept(at, ints)


def _ranked(
    delta: Tensor, at: Tensor, stored: Sequence[Tensor], floats: Tensor, ints: Tensor
) -> Tensor:
    """What a random mask keeps that likes high ranks; see ``kept_by_rank``."""
    return delta * kept_by_rank(at, stored[0], ints, floats[_RANKS])


def _sum(deltas: Sequence[Tensor], divisors: Tensor) -> Tensor:
    del divisors
    total = deltas[0]
    for delta in deltas[1:]:
        total = total + delta
    return total


def _vote(deltas: Sequence[Tensor], divisors: Tensor) -> Tensor:
    """The sum of those with the sign of the sum, divided by the sum of their divisors.

    A sum of 0 counts as plus; divisors that sum to 0 do not divide.
    """
    sign = torch.where(_sum(deltas, divisors) >= 0.0, 1.0, -1.0)
    mixed, divisor = torch.zeros_like(sign), torch.zeros_like(sign)
    for index, delta in enumerate(deltas):
        agreeing = delta * sign
        mixed = mixed + agreeing.relu()  # NaN stays
        divisor = divisor + torch.where(agreeing <= 0.0, 0.0, divisors[index])
    return mixed / torch.where(divisor == 0.0, 1.0, divisor) * sign


_Mix = Callable[[Sequence[Tensor], Tensor], Tensor]
"""Scaled deltas and their divisors; what is added to the base."""


def _task_vectors(thin: _Thin, mix: _Mix) -> Merge:
    """The pass that thins deltas, scales and mixes them, and adds them to the base.

    Inputs may be followed by as many tensors that thinning reads.
    """

    def merge(
        inputs: Sequence[Tensor],
        base: Tensor,
        out: Tensor,
        at: Tensor,
        floats: Tensor,
        ints: Tensor,
    ) -> None:
        origin, count = base.to(torch.float32), floats.shape[1]
        deltas = []
        for index in range(count):
            delta = inputs[index].to(torch.float32) - origin
            stored = inputs[count + index :: count]
            thinned = thin(delta, at, stored, floats[:, index], ints[:, index])
            deltas.append(thinned * floats[FloatRow.SCALE, index])
        out.copy_(mix(deltas, floats[FloatRow.DIVISOR]) * floats[FloatRow.STRENGTH, 0] + origin)

    return merge


def _at_once(thin: _Thin, mix: _Mix) -> Merge:
    """The pass of ``_task_vectors``, with the inputs stacked: the same bits in fewer calls."""

    def merge(
        inputs: Sequence[Tensor],
        base: Tensor,
        out: Tensor,
        at: Tensor,
        floats: Tensor,
        ints: Tensor,
    ) -> None:
        origin, count = base.to(torch.float32), floats.shape[1]
        starts = range(0, len(inputs), count)
        first, *stored = [torch.stack(list(inputs[i : i + count])) for i in starts]
        columns, words = floats[:, :, None], ints[:, :, None]
        thinned = thin(first.to(torch.float32) - origin, at, stored, columns, words)
        out.copy_(
            mix((thinned * columns[FloatRow.SCALE]).unbind(), floats[FloatRow.DIVISOR])
            * floats[FloatRow.STRENGTH, 0]
            + origin
        )

    return merge


_VECTORS: Mapping[str, tuple[_Thin, _Mix]] = {
    "whole_sum": (_whole, _sum),
    "trimmed_vote": (_trimmed, _vote),
    "banded_sum": (_banded, _sum),
    "banded_vote": (_banded, _vote),
    "dropped_sum": (_dropped, _sum),
    "dropped_vote": (_dropped, _vote),
    "ranked_sum": (_ranked, _sum),
    "ranked_vote": (_ranked, _vote),
}

MERGES: Mapping[str, Merge] = {
    "weighted_sum": weighted_sum,
    **{name: _task_vectors(*parts) for name, parts in _VECTORS.items()},
    "ram_mean": ram_mean,
    "sce_mean": sce_mean,
    "sce_selected": sce_selected,
    "near_pair": near_pair,
}
"""The passes by name."""

AT_ONCE: Mapping[str, Merge] = {name: _at_once(*parts) for name, parts in _VECTORS.items()}
"""Those that also take their inputs all at once, which is faster where calls take the time."""
