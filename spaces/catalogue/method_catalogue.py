"""The method catalogue: what each merge method takes, with ranges, defaults, sources, arithmetic.

Parameter names, scopes and defaults are those of mergekit where it has a method, so that a recipe
means the same in both tools. Other packages add methods by entry points (``merge_method``).
"""

from __future__ import annotations

from collections.abc import Iterator

from spaces.catalogue.combination_methods import LINES, PASSTHROUGH, SPHERES
from spaces.catalogue.extensions import METHODS_GROUP, ExtensionError, additions, loaded
from spaces.catalogue.method import BaseRule, Kind, Method, ParameterSpec, Scope
from spaces.catalogue.selection_methods import OF_DELTAS, OF_PAIRS
from spaces.catalogue.shared_parameters import DELLA_DENSITY, IN_ORDER
from spaces.catalogue.task_vector_methods import TASK_VECTORS

__all__ = ["METHODS", "SEARCHED", "BaseRule", "Kind", "Method", "ParameterSpec", "Scope"]

_OURS = (*LINES, *TASK_VECTORS, *OF_DELTAS, *SPHERES, *OF_PAIRS, PASSTHROUGH)


def _added() -> Iterator[Method]:
    """The methods of other packages."""
    for name, entry in additions(METHODS_GROUP).items():
        found = loaded(entry)
        if not isinstance(found, Method) or found.name != name:
            got = f"the method {found.name}" if isinstance(found, Method) else repr(found)
            raise ExtensionError(
                f"{METHODS_GROUP}: expected {name} to be a function of that name with "
                f"@merge_method, got {got} at {entry.value}"
            )
        yield found


def _catalogue() -> dict[str, Method]:
    """Every method by name; none may hide another."""
    found = {method.name: method for method in _OURS}
    for method in _added():
        if method.name in found:
            raise ExtensionError(
                f"{METHODS_GROUP}: expected another name than {method.name}, which is taken"
            )
        found[method.name] = method
    return found


METHODS = _catalogue()
"""Every method by name, those of other packages last."""

SEARCHED: dict[str, ParameterSpec] = {
    spec.search.name: spec
    for spec in (*IN_ORDER, *(spec for method in METHODS.values() for spec in method.parameters))
    if spec.search is not None and spec is not DELLA_DENSITY
}
"""Every parameter that is drawn from a range of its own, by the name of that range."""
