"""The method catalogue: what each merge method takes, with ranges, defaults and sources.

This is data, not arithmetic; ``merging/kernels.py`` implements every entry. Parameter names, scopes
and defaults are those of mergekit, so that a recipe means the same in both tools.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Scope(StrEnum):
    """Where a parameter is looked up."""

    INPUT = "input"  # one value per merged input; the base has none
    MERGE = "merge"  # one value for the whole merge


class Kind(StrEnum):
    """The type of a parameter's value."""

    NUMBER = "number"
    FLAG = "flag"


class BaseRule(StrEnum):
    """How a method uses ``base_model``."""

    REQUIRED = "required"  # inputs are read as deltas from the base
    ENDPOINT = "endpoint"  # the base is one of the inputs and marks the start (slerp)
    NONE = "none"  # no base in the arithmetic


@dataclass(frozen=True, kw_only=True, slots=True)
class ParameterSpec:
    """One parameter of a method.

    Attributes:
        name: mergekit's name for it.
        scope: Per input, or one value for the merge.
        kind: Number or flag.
        default: Value when a recipe does not give it; ``None`` means it must be given.
        low: Smallest legal value (inclusive unless ``low_open``); ``None`` is unbounded.
        high: Largest legal value, inclusive; ``None`` is unbounded.
        low_open: The lower bound itself is not legal.
        meaning: One line, with the unit.
    """

    name: str
    scope: Scope
    meaning: str
    kind: Kind = Kind.NUMBER
    default: float | bool | None = None
    low: float | None = None
    high: float | None = None
    low_open: bool = False

    def allows(self, value: float) -> bool:
        """Whether a number lies in the legal range; NaN and infinities never do."""
        if value != value or value in (float("inf"), float("-inf")):
            return False
        if self.low is not None and (value <= self.low if self.low_open else value < self.low):
            return False
        return self.high is None or value <= self.high

    def range_text(self) -> str:
        """The legal range in words, for error messages: ``a value in (0, 1]``."""
        if self.kind is Kind.FLAG:
            return "true or false"
        if self.low is None and self.high is None:
            return "a finite number"
        left = "(" if self.low_open or self.low is None else "["
        low = "-inf" if self.low is None else f"{self.low:g}"
        high = "inf)" if self.high is None else f"{self.high:g}]"
        return f"a value in {left}{low}, {high}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """One merge method.

    Attributes:
        name: mergekit's name.
        title: Name for people.
        summary: What it computes, in one line.
        source: Where the formula comes from.
        base: How the base model is used.
        min_inputs: Fewest inputs, not counting a base of rule ``REQUIRED``.
        max_inputs: Most inputs; ``None`` is unbounded.
        parameters: What a recipe may set.
        random: Whether it drops entries by a (seeded) random mask.
    """

    name: str
    title: str
    summary: str
    source: str
    base: BaseRule
    min_inputs: int
    max_inputs: int | None
    parameters: tuple[ParameterSpec, ...]
    random: bool = False

    def parameter(self, name: str) -> ParameterSpec | None:
        """The parameter of that name, or ``None``."""
        return next((p for p in self.parameters if p.name == name), None)

    def takes(self, inputs: int) -> bool:
        """Whether the method can merge this many inputs (the base not counted, see above)."""
        return self.min_inputs <= inputs and (self.max_inputs is None or inputs <= self.max_inputs)


WEIGHT = ParameterSpec(
    name="weight", scope=Scope.INPUT, meaning="factor of the input (or of its delta), unitless"
)
DENSITY = ParameterSpec(
    name="density",
    scope=Scope.INPUT,
    default=1.0,
    low=0.0,
    high=1.0,
    low_open=True,
    meaning="fraction of each delta tensor that is kept",
)
LAMBDA = ParameterSpec(
    name="lambda", scope=Scope.MERGE, default=1.0, meaning="factor of the summed delta, unitless"
)
# mergekit only holds the sign tensors in another type for it; the result is the same.
INT8_MASK = ParameterSpec(
    name="int8_mask",
    scope=Scope.MERGE,
    kind=Kind.FLAG,
    default=False,
    meaning="accepted for mergekit's sake; changes nothing",
)


def _flag(name: str, default: bool, meaning: str) -> ParameterSpec:
    return ParameterSpec(
        name=name, scope=Scope.MERGE, kind=Kind.FLAG, default=default, meaning=meaning
    )


def _task_vector(
    name: str,
    title: str,
    summary: str,
    source: str,
    *,
    normalize: bool,
    rescale: bool,
    random: bool,
) -> Method:
    """A member of the task-vector family; they differ in defaults and in what drops entries."""
    return Method(
        name=name,
        title=title,
        summary=summary,
        source=source,
        base=BaseRule.REQUIRED,
        min_inputs=1,
        max_inputs=None,
        random=random,
        parameters=(
            WEIGHT,
            DENSITY,
            LAMBDA,
            _flag("normalize", normalize, "divide by the sum of the weights that took part"),
            _flag("rescale", rescale, "scale a thinned delta back to its L1 norm"),
            INT8_MASK,
        ),
    )


_ALL = (
    Method(
        name="linear",
        title="Linear (model soup)",
        summary="weighted mean of the inputs",
        source="Wortsman et al. 2022, arXiv:2203.05482",
        base=BaseRule.NONE,
        min_inputs=1,
        max_inputs=None,
        parameters=(
            WEIGHT,
            _flag("normalize", True, "divide by the sum of the weights"),
        ),
    ),
    Method(
        name="slerp",
        title="SLERP",
        summary="spherical interpolation from the base input to the other one, per tensor",
        source="Shoemake 1985, Animating rotation with quaternion curves",
        base=BaseRule.ENDPOINT,
        min_inputs=2,
        max_inputs=2,
        parameters=(
            ParameterSpec(
                name="t",
                scope=Scope.MERGE,
                meaning="position on the arc: 0 is the base input, 1 the other one",
            ),
        ),
    ),
    _task_vector(
        "task_arithmetic",
        "Task arithmetic",
        "base plus the weighted sum of the deltas",
        "Ilharco et al. 2023, arXiv:2212.04089",
        normalize=False,
        rescale=False,
        random=False,
    ),
    _task_vector(
        "ties",
        "TIES",
        "largest entries of each delta, sign consensus, mean of those that agree",
        "Yadav et al. 2023, arXiv:2306.01708",
        normalize=True,
        rescale=False,
        random=False,
    ),
    _task_vector(
        "dare_linear",
        "DARE",
        "random entries of each delta, scaled back to its norm, summed",
        "Yu et al. 2024, arXiv:2311.03099",
        normalize=False,
        rescale=True,
        random=True,
    ),
    _task_vector(
        "dare_ties",
        "DARE-TIES",
        "random entries of each delta, scaled back to its norm, then sign consensus",
        "Yu et al. 2024, arXiv:2311.03099, with the consensus of arXiv:2306.01708",
        normalize=False,
        rescale=True,
        random=True,
    ),
    Method(
        name="passthrough",
        title="Passthrough",
        summary="one input unchanged, or scaled; with slices, layer stacking",
        source="mergekit",
        base=BaseRule.NONE,
        min_inputs=1,
        max_inputs=1,
        parameters=(
            ParameterSpec(
                name="scale",
                scope=Scope.INPUT,
                default=1.0,
                meaning="factor of the tensor, unitless",
            ),
        ),
    ),
)

METHODS: dict[str, Method] = {method.name: method for method in _ALL}
"""Every method by name."""
