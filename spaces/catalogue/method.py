"""What a merge method is described by: parameters, how it uses a base, and its arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Scope(StrEnum):
    """Where a parameter is looked up."""

    INPUT = "input"  # one value per merged input; the base has none
    MERGE = "merge"  # one value for the whole merge


class Kind(StrEnum):
    """The type of a parameter's value; a count is a number too."""

    NUMBER = "number"
    COUNT = "count"  # a whole number
    FLAG = "flag"


class BaseRule(StrEnum):
    """How a method uses ``base_model``."""

    REQUIRED = "required"  # inputs are read as deltas from the base
    OPTIONAL = "optional"  # inputs are read as deltas where there is a base, else as they are
    ENDPOINT = "endpoint"  # the base is one of the inputs and marks the start (slerp)
    NONE = "none"  # no base in the arithmetic

    @property
    def apart(self) -> bool:
        """Whether a base, where there is one, is not an input but what deltas are taken from."""
        return self in (BaseRule.REQUIRED, BaseRule.OPTIONAL)


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """How a search draws a parameter.

    Attributes:
        low: Least value that is drawn where a config says nothing.
        high: Largest one.
        name: Of the range, and in trials; parameters of one name are drawn from one range.
        log: Drawn on a logarithmic scale, since it spans orders of magnitude.
        below_high: The parameter's upper bound itself is not drawn.
    """

    low: float
    high: float
    name: str
    log: bool = False
    below_high: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ParameterSpec:
    """One parameter of a method.

    Attributes:
        name: mergekit's name for it.
        scope: Per input, or one value for the merge.
        kind: Number, whole number or flag.
        default: Value when a recipe does not give it; ``None`` means it must be given.
        low: Smallest legal value (inclusive unless ``low_open``); ``None`` is unbounded.
        high: Largest legal value, inclusive; ``None`` is unbounded.
        low_open: The lower bound itself is not legal.
        meaning: One line, with the unit.
        search: How it is drawn; ``None`` leaves it at its default.
    """

    name: str
    scope: Scope
    meaning: str
    kind: Kind = Kind.NUMBER
    default: float | bool | None = None
    low: float | None = None
    high: float | None = None
    low_open: bool = False
    search: Search | None = None

    def allows(self, value: float) -> bool:
        """Whether a number lies in the legal range; NaN and infinities never do."""
        if value != value or value in (float("inf"), float("-inf")):
            return False
        if self.kind is Kind.COUNT and value != int(value):
            return False
        if self.low is not None and (value <= self.low if self.low_open else value < self.low):
            return False
        return self.high is None or value <= self.high

    def range_text(self) -> str:
        """The legal range in words, for error messages: ``a value in (0, 1]``."""
        if self.kind is Kind.FLAG:
            return "true or false"
        what = "a whole number" if self.kind is Kind.COUNT else "a value"
        if self.low is None and self.high is None:
            return "a finite number"
        left = "(" if self.low_open or self.low is None else "["
        low = "-inf" if self.low is None else f"{self.low:g}"
        high = "inf)" if self.high is None else f"{self.high:g}]"
        return f"{what} in {left}{low}, {high}"


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
"""The forms that a method's arithmetic can have; ``merging`` runs each on any device."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """One merge method.

    Attributes:
        name: mergekit's name, where it has the method.
        title: Name for people.
        summary: What it computes, in one line.
        source: Where the formula comes from.
        base: How the base model is used.
        min_inputs: Fewest inputs, not counting a base of rule ``REQUIRED`` or ``OPTIONAL``.
        max_inputs: Most inputs; ``None`` is unbounded.
        parameters: What a recipe may set.
        random: Whether it drops entries by a (seeded) random mask.
        searched_by_default: Whether a search draws it where its config names no methods.
        divides: The flag that makes it divide by the sum of all weights; empty where none does.
        in_mergekit: Whether mergekit has it under this name.
        arithmetic: What it computes; ``None`` where ``merging/methods/entrywise_methods.py`` has
            a function of its name.
    """

    name: str
    title: str
    summary: str
    source: str
    base: BaseRule
    min_inputs: int = 1
    max_inputs: int | None = None
    parameters: tuple[ParameterSpec, ...] = ()
    random: bool = False
    searched_by_default: bool = False
    divides: str = ""
    in_mergekit: bool = True
    arithmetic: Arithmetic | None = None

    @property
    def drawn(self) -> tuple[str, ...]:
        """Names of what a search draws for it."""
        return tuple(spec.search.name for spec in self.parameters if spec.search is not None)

    @property
    def whole_inputs(self) -> bool:
        """Whether it holds a number for every entry of every input of a tensor at once."""
        match self.arithmetic:
            case TaskVectors(keeps=keeps):
                return keeps is Keeps.RANKED
            case DeltaFunction(whole=whole):
                return whole
            case _:
                return False

    def parameter(self, name: str) -> ParameterSpec | None:
        """The parameter of that name, or ``None``."""
        return next((p for p in self.parameters if p.name == name), None)

    def takes(self, inputs: int) -> bool:
        """Whether the method can merge this many inputs (the base not counted, see above)."""
        return self.min_inputs <= inputs and (self.max_inputs is None or inputs <= self.max_inputs)
