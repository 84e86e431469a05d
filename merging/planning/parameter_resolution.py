"""Which value a parameter has for one tensor: precedence, filters and gradients as in mergekit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from spaces.catalogue.method_catalogue import METHODS, Kind, Method, ParameterSpec, Scope
from spaces.recipes.recipe import (
    ByFilter,
    Gradient,
    Merge,
    Parameter,
    Parameters,
    Slice,
    Source,
    resolve,
)

_NO_WEIGHT = 1e-8  # a sum of weights below this cannot divide


class MissingValueError(ValueError):
    """A required parameter that no table gives a value for this tensor."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Position:
    """Where an output tensor of one merge lies.

    Attributes:
        part: The slice it belongs to; ``None`` where the merge has no slices.
        depth: Depth within the slice in [0, 1]; 0 for tensors outside the layers.
    """

    part: Slice | None
    depth: float


def shared_values(merge: Merge, tensor: str, at: Position) -> dict[str, float | bool]:
    """The merge's own parameters for the output tensor ``tensor``.

    Raises:
        MissingValueError: If a parameter without default has no value for this tensor.
    """
    tables = [*([at.part.parameters] if at.part else []), merge.parameters]
    return {
        spec.name: _look_up(spec, tables, tensor, at.depth)
        for spec in _specs(METHODS[merge.method], Scope.MERGE)
    }


def input_values(
    merge: Merge, sources: Iterable[tuple[Source, str]], at: Position
) -> dict[str, tuple[float, ...]]:
    """The per-input parameters, one value per source.

    Args:
        merge: The merge.
        sources: The inputs (the base of a task-vector method not among them), each with the name
            that the tensor has in it, which is what filters look at.
        at: Where the output tensor lies.

    Raises:
        MissingValueError: If a parameter without default has no value for one of them.
    """
    given = list(sources)
    shared = [*([at.part.parameters] if at.part else []), merge.parameters]
    return {
        spec.name: tuple(
            float(_look_up(spec, [source.parameters, *shared], tensor, at.depth))
            for source, tensor in given
        )
        for spec in _specs(METHODS[merge.method], Scope.INPUT)
    }


def conflict(
    method: str,
    per_input: Mapping[str, Sequence[float]],
    shared: Mapping[str, float | bool],
) -> str | None:
    """What is wrong with values that are legal one by one: ``expected ..., got ...``.

    Args:
        method: Name in ``spaces.catalogue.method_catalogue.METHODS``.
        per_input: Values per input, by parameter.
        shared: Values of the merge, by parameter.
    """
    divides = METHODS[method].divides
    if divides and shared[divides]:
        weights = per_input["weight"]
        if abs(math.fsum(weights)) < _NO_WEIGHT:
            return (
                f"expected weights that do not add up to 0 ({divides} divides by the sum), "
                f"got {list(weights)}"
            )
    if METHODS[method].random and "epsilon" in per_input:
        for density, epsilon in zip(per_input["density"], per_input["epsilon"], strict=True):
            if density < 1 and not epsilon < density < 1 - epsilon:
                return (
                    f"expected a density of 1, or between epsilon and 1 - epsilon, got {density:g} "
                    f"with epsilon {epsilon:g}"
                )
    return None


def _specs(method: Method, scope: Scope) -> Iterable[ParameterSpec]:
    return (spec for spec in method.parameters if spec.scope is scope)


def _look_up(
    spec: ParameterSpec, tables: Iterable[Parameters], tensor: str, depth: float
) -> float | bool:
    for table in tables:
        parameter = _as_mapping(table).get(spec.name)
        if parameter is None:
            continue
        if spec.kind is Kind.FLAG:
            parameter = _as_flag(parameter, depth)
        value = resolve(parameter, tensor=tensor, position=depth)
        if value is not None:
            return bool(value) if spec.kind is Kind.FLAG else float(value)
    if spec.default is None:
        raise MissingValueError(
            f"{spec.name}: expected a value for {tensor}, got none (no filter matches)"
        )
    return spec.default


def _as_mapping(table: Parameters) -> Mapping[str, Parameter]:
    return dict(table)


def _as_flag(parameter: Parameter, depth: float) -> Parameter:
    """A flag is not interpolated: a gradient of flags steps, taking the anchor at or before."""
    match parameter:
        case Gradient(anchors):
            return bool(anchors[int(depth * (len(anchors) - 1))])
        case ByFilter(cases):
            return ByFilter(
                tuple(type(case)(bool(_as_flag(case.value, depth)), case.filter) for case in cases)
            )
        case _:
            return bool(parameter)
