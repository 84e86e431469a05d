"""Forms that the arithmetic of a merge method can have; ``merging`` runs each on any device."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Gram = Sequence[Sequence[float]]
"""Inner products of k tensors with each other, ``(k, k)``."""
PerInput = Mapping[str, Sequence[float]]
Shared = Mapping[str, float | bool]


@dataclass(frozen=True, kw_only=True, slots=True)
class Combination:
    """One linear combination of the inputs, or of their deltas.

    Attributes:
        uses_gram: Whether the coefficients depend on the tensors; an empty Gram matrix does
            otherwise.
        coefficients: From the Gram matrix, values per input, and values of the merge: one per
            input. Called only where the Gram matrix is finite and there are two or more inputs.
        line_axis: Along which axis the tensor falls into lines with coefficients of their own, -1
            for the last; ``None`` for one set of coefficients. From the values of the merge.
    """

    coefficients: Callable[[Gram, PerInput, Shared], tuple[float, ...]]
    uses_gram: bool = True
    line_axis: Callable[[Shared], int | None] = lambda _: None

    def of(self, gram: Gram, per_input: PerInput, shared: Shared) -> tuple[float, ...]:
        """The coefficients; 1 each where an inner product is not finite, so that NaN shows."""
        if not all(math.isfinite(value) for row in gram for value in row):
            return (1.0,) * len(gram)
        return self.coefficients(gram, per_input, shared)


class Keeps(StrEnum):
    """Which entries of a delta are kept; the values name the passes over the tensors."""

    LARGEST = "trimmed"
    MIDDLE = "banded"  # neither the largest nor the smallest
    RANDOM = "dropped"
    RANKED = "ranked"  # at random, those of a high rank in their row more often


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskVectors:
    """Deltas that are thinned, weighted, summed and added to the base.

    Attributes:
        keeps: Which of their entries.
        votes: Whether signs are elected, and only what agrees is summed.
    """

    keeps: Keeps
    votes: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class DeltaFunction:
    """A method's arithmetic as one function of the deltas of a tensor.

    Attributes:
        function: Takes float32 tensors stacked along the first axis, and every parameter by name;
            gives what is added to the base, or the result where there is no base.
        whole: Needs whole tensors in their shape. Otherwise it gets the entries of a tensor in a
            row, some at a time, and what it gives for one must not depend on the others.
    """

    function: Callable[..., Any]
    whole: bool = False


Arithmetic = Combination | TaskVectors | DeltaFunction
