"""What a method merges for one tensor, and the views of it that methods work on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from merging.kernels.blocked_sums import Series
from merging.kernels.random_masks import MaskKey


@dataclass(frozen=True, kw_only=True, slots=True)
class Operands:
    """What a method merges for one tensor.

    Attributes:
        inputs: Tensors of one shape, any float dtype and device, in merge order. For methods whose
            base is one of the two inputs, that one comes first.
        base: What deltas are taken from; ``None`` where inputs are taken as they are.
        per_input: Values of ``weight``, ``density``, ``scale`` and so on: one per input.
        shared: Values of ``t``, ``lambda``, ``normalize`` and so on.
        masks: Keys of the random masks, one per input, for the methods that use them.
        shape: Of the tensors, where they are given flat.
        asked_chunk: Elements at a time that the caller asked for; ``None`` where it did not, and a
            pass over the tensors may take what suits it.
    """

    inputs: Sequence[Tensor]
    base: Tensor | None = None
    per_input: Mapping[str, Sequence[float]] = field(default_factory=dict)
    shared: Mapping[str, float | bool] = field(default_factory=dict)
    masks: Sequence[MaskKey] = ()
    shape: tuple[int, ...] | None = None
    asked_chunk: int | None = None

    def number(self, name: str, default: float) -> float:
        """A value of the merge."""
        return float(self.shared.get(name, default))

    def flag(self, name: str, default: bool) -> bool:
        """A flag of the merge."""
        return bool(self.shared.get(name, default))

    def each(self, name: str, default: float) -> Sequence[float]:
        """A value per input."""
        return self.per_input.get(name, [default] * len(self.inputs))


Kernel = Callable[[Operands, Tensor, int], None]
"""Merges flat operands into a flat output that is not empty, so many elements at a time."""


def series_of(operands: Operands, out: Tensor) -> list[Series]:
    """The inputs as chunks on the device of ``out``: deltas where there is a base."""
    return [Series(tensor=x, minus=operands.base, device=out.device) for x in operands.inputs]


def as_lines(flat: Tensor, shape: tuple[int, ...] | None, axis: int) -> Tensor:
    """A flat tensor as ``(lines, length)``: its lines along one axis.

    Args:
        flat: ``(n,)``, n at least 1.
        shape: Its shape; ``None`` for one line. One and no dimensions are one line too.
        axis: -1 (the last), 0 or 1.

    Returns:
        A view for the first and the last axis, a copy for one in between.
    """
    if shape is None or len(shape) < 2:
        return flat.view(1, -1)
    if axis in (-1, len(shape) - 1):
        return flat.view(-1, shape[-1])
    if axis == 0:
        return flat.view(shape[0], -1).t()
    return flat.view(shape).movedim(axis, -1).reshape(-1, shape[axis])


def from_lines(lines: Tensor, shape: tuple[int, ...] | None, axis: int) -> Tensor:
    """The flat tensor whose lines these are: the inverse of ``as_lines``."""
    if shape is None or len(shape) < 2 or axis in (-1, len(shape) - 1):
        return lines.reshape(-1)
    rest = [length for at, length in enumerate(shape) if at != axis]
    return lines.reshape(*rest, shape[axis]).movedim(-1, axis).reshape(math.prod(shape))
