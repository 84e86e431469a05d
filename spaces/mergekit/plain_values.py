"""Plain values of a mergekit file as what they stand for: numbers, flags, parameters, models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from spaces.catalogue.method_catalogue import METHODS, Kind, ParameterSpec
from spaces.recipes.recipe import ByFilter, Case, Gradient, Level, Parameter

_TRUE = frozenset({"1", "on", "t", "true", "y", "yes"})
_FALSE = frozenset({"0", "off", "f", "false", "n", "no"})

MERGEKIT_PARAMETERS = frozenset(
    spec.name for method in METHODS.values() for spec in method.parameters
)
"""Names that some method of mergekit has; where another method is used they do nothing."""


class Unreadable(ValueError):  # noqa: N818 - the text of a problem, on its way to the list of all
    """A value that is not what it should be: ``expected ..., got ...``."""


def number(value: Any) -> float:
    """A number as mergekit reads one: YAML takes ``1e-3`` for a text, so texts are tried too.

    Raises:
        Unreadable: If it is none.
    """
    if isinstance(value, bool | int | float | str):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    raise Unreadable(f"expected a number, got {value!r}")


def flag(value: Any) -> bool:
    """True or false, from a boolean, 0 or 1, or a word for it.

    Raises:
        Unreadable: If it is none of them.
    """
    word = str(value).strip().lower() if isinstance(value, str) else value
    if isinstance(word, str | bool | int | float):
        if word in _TRUE or word == 1:
            return True
        if word in _FALSE or word == 0:
            return False
    raise Unreadable(f"expected true or false, got {value!r}")


def whole(value: Any) -> int:
    """A whole number.

    Raises:
        Unreadable: If it is none.
    """
    if not isinstance(value, bool):
        try:
            found = number(value)
        except Unreadable:
            found = 0.5
        if found.is_integer():
            return int(found)
    raise Unreadable(f"expected a whole number, got {value!r}")


def parameter(value: Any, spec: ParameterSpec) -> Parameter | None:
    """A parameter: a value, a gradient, or values by filter; ``None`` for an empty list.

    Raises:
        Unreadable: If it is none of them, or a number is out of the parameter's range.
    """
    if isinstance(value, Mapping):
        return ByFilter((_case(value, spec),))
    if isinstance(value, list) and not value:
        return None  # mergekit then looks further up, as if it were not there
    if isinstance(value, list) and all(isinstance(item, Mapping) for item in value):
        return ByFilter(tuple(_case(item, spec) for item in value))
    return _level(value, spec)


def _case(item: Mapping[str, Any], spec: ParameterSpec) -> Case:
    unknown = sorted(str(key) for key in item if key not in ("filter", "value"))
    if unknown or "value" not in item:
        raise Unreadable(f"expected the keys value and filter, got {', '.join(map(str, item))}")
    name = item.get("filter")
    if name is not None and not isinstance(name, str):
        raise Unreadable(f"expected part of a tensor name as filter, got {name!r}")
    return Case(_level(item["value"], spec), name or None)


def _level(value: Any, spec: ParameterSpec) -> Level:
    if isinstance(value, list):
        if spec.kind is Kind.FLAG:
            raise Unreadable(f"expected true or false, got a gradient {value!r}")
        if spec.kind is Kind.COUNT:
            raise Unreadable(f"expected {spec.range_text()}, got a gradient {value!r}")
        if not value or any(isinstance(item, Mapping | list) for item in value):
            raise Unreadable(f"expected numbers only or filters only, got {value!r}")
        return Gradient(tuple(_allowed(item, spec) for item in value))
    return flag(value) if spec.kind is Kind.FLAG else _allowed(value, spec)


def _allowed(value: Any, spec: ParameterSpec) -> float:
    found = number(value)
    if not spec.allows(found):
        raise Unreadable(f"expected {spec.range_text()}, got {value!r}")
    return found


def reference(value: Any) -> str:
    """A model as ``path[@revision][+lora[@revision]]``; the long form becomes the short one.

    Raises:
        Unreadable: If it is neither.
    """
    if isinstance(value, Mapping):
        if value.get("override_architecture") is not None:
            raise Unreadable(
                "expected no override_architecture (leave it out: tensors go by the names in the "
                "files), got one"
            )
        parts = [_path(value[key]) for key in ("model", "lora") if value.get(key) is not None]
        if "model" not in value or set(value) - {"model", "lora", "override_architecture"}:
            raise Unreadable(f"expected a model, and perhaps a lora, got {dict(value)!r}")
        return reference("+".join(parts))
    parts = value.split("+") if isinstance(value, str) else []
    if not 1 <= len(parts) <= 2 or any(part.count("@") > 1 for part in parts):
        raise Unreadable(f"expected path[@revision][+lora[@revision]], got {value!r}")
    if not all(part.split("@")[0] for part in parts):
        raise Unreadable(f"expected a path or hub id, got {value!r}")
    return str(value)


def _path(value: Any) -> str:
    if isinstance(value, Mapping) and isinstance(value.get("path"), str):
        revision = value.get("revision")
        return f"{value['path']}@{revision}" if revision is not None else str(value["path"])
    if isinstance(value, str):
        return value
    raise Unreadable(f"expected a path, got {value!r}")


def path_of(location: str) -> str:
    """The path in a reference, without revision and adapter."""
    return location.split("+")[0].split("@")[0]


def short_name(location: str) -> str:
    """A short name for a model: the last part of its path, and of its adapter's."""
    parts = [part.split("@")[0] for part in location.split("+")]
    names = [re.split(r"[\\/]", part.rstrip("\\/"))[-1] for part in parts]
    cleaned = re.sub(r"[^A-Za-z0-9_.\-]+", "-", "-".join(names))
    return re.sub(r"\A[^A-Za-z0-9]+", "", cleaned).rstrip("-") or "model"
