"""Parameter values: a number or flag, a gradient over depth, or values by tensor name."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from spaces.errors import UserError


class RecipeError(UserError, ValueError):
    """A recipe, or a part of one, that cannot be."""


@dataclass(frozen=True, slots=True)
class Gradient:
    """Values at evenly spaced depths, linearly interpolated in between.

    Attributes:
        anchors: At least one value, from the first layer of a slice to its last.
    """

    anchors: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.anchors:
            raise RecipeError("gradient: expected at least one value, got none")
        _check_finite("gradient", self.anchors)

    def at(self, position: float) -> float:
        """The value at ``position`` in [0, 1]: mergekit's interpolation, term by term."""
        (lower, first), (upper, second) = self.shares(position)
        return first * self.anchors[lower] + second * self.anchors[upper]

    def shares(self, position: float) -> tuple[tuple[int, float], tuple[int, float]]:
        """The anchors on both sides of ``position`` in [0, 1], each with its share."""
        scaled = position * (len(self.anchors) - 1)
        lower = int(scaled)
        upper = min(len(self.anchors) - 1, lower + 1)
        share = scaled - lower
        return (lower, 1 - share), (upper, share)


Level = float | bool | Gradient
"""A value without conditions: a number, a flag, or a gradient over depth."""


@dataclass(frozen=True, slots=True)
class Case:
    """A value for the tensors whose name contains ``filter``; ``None`` matches every tensor."""

    value: Level
    filter: str | None = None

    def __post_init__(self) -> None:
        _check_level("value", self.value)
        if self.filter == "":
            raise RecipeError("filter: expected part of a tensor name, got an empty string")

    def matches(self, tensor: str) -> bool:
        """Whether the case applies: a plain substring test, ``*`` for all, as in mergekit."""
        return self.filter is None or self.filter == "*" or self.filter in tensor


@dataclass(frozen=True, slots=True)
class ByFilter:
    """Cases tried in order; the first that matches the tensor name gives the value."""

    cases: tuple[Case, ...]

    def __post_init__(self) -> None:
        if not self.cases:
            raise RecipeError("filters: expected at least one case, got none")


Parameter = Level | ByFilter
"""A parameter as a recipe holds it: one value, a gradient over depth, or values by filter."""

Parameters = tuple[tuple[str, Parameter], ...]
"""Parameters by name, sorted by name: a hashable mapping."""


def parameters(**values: Parameter) -> Parameters:
    """Parameters from keywords; ``lambda`` is a reserved word, so pass it as ``lambda_``."""
    return tuple(sorted((name.rstrip("_"), value) for name, value in values.items()))


def level_of(parameter: Parameter, tensor: str) -> Level | None:
    """The value without conditions that holds for a tensor; ``None`` where no case matches."""
    if isinstance(parameter, ByFilter):
        return next((case.value for case in parameter.cases if case.matches(tensor)), None)
    return parameter


def resolve(parameter: Parameter, *, tensor: str, position: float) -> float | bool | None:
    """The value for one tensor, or ``None`` where no case matches.

    Args:
        parameter: The parameter.
        tensor: Name of the tensor the filters look at.
        position: Depth within the slice in [0, 1]; 0 for tensors outside the layers.
    """
    level = level_of(parameter, tensor)
    return level.at(position) if isinstance(level, Gradient) else level


def shares(parameter: Parameter, *, tensor: str, position: float) -> tuple[tuple[int, float], ...]:
    """What ``resolve`` makes the value of: a sum of numbers, each with its share.

    Args:
        parameter: The parameter; not a flag.
        tensor: Name of the tensor the filters look at.
        position: Depth within the slice in [0, 1]; 0 for tensors outside the layers.

    Returns:
        The place of each in ``numbers(parameter)``, and its share; empty where no case matches.
    """
    match parameter:
        case ByFilter(cases):
            before = 0
            for case in cases:
                if case.matches(tensor):
                    inner = shares(case.value, tensor=tensor, position=position)
                    return tuple((before + at, share) for at, share in inner)
                before += sum(1 for _ in numbers(case.value))
            return ()
        case Gradient():
            return parameter.shares(position)
        case _:
            return ((0, 1.0),)


def _check_finite(name: str, values: tuple[float, ...]) -> None:
    for value in values:
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            raise RecipeError(f"{name}: expected finite numbers, got {value!r}")


def _check_level(name: str, value: Level) -> None:
    if not isinstance(value, bool | Gradient):
        _check_finite(name, (value,))


def check_parameters(table: Parameters) -> None:
    """Raise RecipeError unless names are sorted and distinct and numbers finite."""
    names = [name for name, _ in table]
    if names != sorted(set(names)):
        raise RecipeError(f"parameters: expected names sorted and once each, got {names}")
    for name, value in table:
        if not isinstance(value, ByFilter):
            _check_level(name, value)


def numbers(value: Parameter) -> Iterator[float | bool]:
    """Every number and flag in a parameter."""
    match value:
        case ByFilter(cases):
            for case in cases:
                yield from numbers(case.value)
        case Gradient(anchors):
            yield from anchors
        case _:
            yield value


def _value_to_json(value: Parameter) -> Any:
    match value:
        case ByFilter(cases):
            return [
                ({"filter": case.filter} if case.filter is not None else {})
                | {"value": _value_to_json(case.value)}
                for case in cases
            ]
        case Gradient(anchors):
            return [float(anchor) for anchor in anchors]
        case bool():
            return value
        case _:
            return float(value)


def value_from_json(data: Any) -> Parameter:
    """A parameter from plain values: a number, a list of numbers, or a list of cases.

    Raises:
        RecipeError: If the data is none of them.
    """
    if isinstance(data, bool):
        return data
    if isinstance(data, int | float):
        return float(data)
    if isinstance(data, list) and data and all(isinstance(item, Mapping) for item in data):
        return ByFilter(tuple(_case_from_json(item) for item in data))
    if isinstance(data, list) and all(
        isinstance(item, int | float) and not isinstance(item, bool) for item in data
    ):
        return Gradient(tuple(float(item) for item in data))
    raise RecipeError(
        "parameter: expected a number, a list of numbers or a list of {filter, value}, "
        f"got {data!r}"
    )


def _case_from_json(item: Mapping[str, Any]) -> Case:
    unknown = sorted(set(item) - {"filter", "value"})
    if unknown or "value" not in item:
        raise RecipeError(f"parameter: expected the keys value and filter, got {sorted(item)}")
    value = value_from_json(item["value"])
    if isinstance(value, ByFilter):
        raise RecipeError("parameter: expected no filters inside a filter, got some")
    return Case(value, item.get("filter"))


def parameters_to_json(table: Parameters) -> dict[str, Any]:
    """Parameters as plain values, as mergekit has them; ``parameters_from_json`` is the inverse."""
    return {name: _value_to_json(value) for name, value in table}


def parameters_from_json(data: Mapping[str, Any] | None) -> Parameters:
    """Parameters from a mapping of plain values.

    Raises:
        RecipeError: If a value is not a parameter; the message starts with its name.
    """
    result = []
    for name, value in sorted((data or {}).items()):
        try:
            result.append((name, value_from_json(value)))
        except RecipeError as error:
            raise RecipeError(f"{name}: {error}") from error
    return tuple(result)
