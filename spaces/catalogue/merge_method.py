"""A merge method as one function: ``@merge_method`` over a function of the deltas of a tensor."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from spaces.catalogue.method import (
    BaseRule,
    DeltaFunction,
    Kind,
    Method,
    ParameterSpec,
    Scope,
    Search,
)


def parameter(
    default: float | bool,
    *,
    meaning: str,
    search: tuple[float, float] | None = None,
    log: bool = False,
    low: float | None = None,
    high: float | None = None,
) -> Any:
    """A parameter of a method, as the default of its function's argument.

    Args:
        default: Value where a recipe gives none; its type is the parameter's.
        meaning: One line, with the unit.
        search: Least and largest number that a search draws; ``None`` leaves it at the default.
        log: Draw it on a logarithmic scale.
        low: Smallest legal number.
        high: Largest one.
    """
    kind = Kind.FLAG if isinstance(default, bool) else Kind.NUMBER
    return ParameterSpec(
        name="",
        scope=Scope.MERGE,
        kind=kind,
        default=default,
        meaning=meaning,
        low=low,
        high=high,
        search=None if search is None else Search(name="", low=search[0], high=search[1], log=log),
    )


def merge_method(
    *, source: str, base: bool = True, least: int = 1, most: int | None = None, whole: bool = False
) -> Callable[[Callable[..., Any]], Method]:
    """Make a merge method of a function; it has the function's name and its first line of text.

    The function takes the deltas of a tensor, float32, stacked along the first axis, and its
    parameters by name: numbers of the merge as they are; ``WEIGHT`` and ``DENSITY``, which have a
    value per input, as a tensor that broadcasts over the deltas. It gives what is added to the
    base. Entries come in a row, some at a time, so each must be computed from those of its place
    alone.

    Args:
        source: Where the formula comes from.
        base: Inputs are deltas from a base. Otherwise they are taken as they are, and what the
            function gives is the result.
        least: Fewest inputs.
        most: Most inputs; ``None`` is unbounded.
        whole: The function needs whole tensors, in their shape.

    Raises:
        ValueError: If an argument has no parameter as its default, or cannot be drawn as it says.
    """

    def made(function: Callable[..., Any]) -> Method:
        name = function.__name__
        first, *rest = inspect.signature(function).parameters.values()
        del first  # the deltas
        return Method(
            name=name,
            title=name.replace("_", " ").capitalize(),
            summary=(inspect.getdoc(function) or name).splitlines()[0].rstrip("."),
            source=source,
            base=BaseRule.REQUIRED if base else BaseRule.NONE,
            min_inputs=least,
            max_inputs=most,
            parameters=tuple(_named(one.name, one.default, name) for one in rest),
            in_mergekit=False,
            arithmetic=DeltaFunction(function=function, whole=whole),
        )

    return made


def _named(name: str, given: object, method: str) -> ParameterSpec:
    """The parameter of an argument; what is drawn for it is named after the method."""
    if not isinstance(given, ParameterSpec):
        raise ValueError(f"{method}: expected {name}=parameter(...), got {given!r}")
    if given.name:  # one that methods share
        if given.name != name:
            raise ValueError(f"{method}: expected {given.name} as the name of {name}, got another")
        return given
    search = given.search
    if search is None:
        return replace(given, name=name)
    if not (search.low <= search.high and given.allows(search.low) and given.allows(search.high)):
        raise ValueError(
            f"{method}: expected a search of {name} from low to high, within "
            f"{given.range_text()}, got {search.low:g} to {search.high:g}"
        )
    if search.log and search.low <= 0.0:
        raise ValueError(f"{method}: expected a search of {name} above 0 for log=True")
    return replace(given, name=name, search=replace(search, name=f"{method}_{name}"))
