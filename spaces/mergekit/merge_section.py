"""The part of a mergekit document that says what is merged: models or slices, and parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from spaces.catalogue.method_catalogue import BaseRule, Method, Scope
from spaces.mergekit.plain_values import (
    MERGEKIT_PARAMETERS,
    Unreadable,
    parameter,
    reference,
    whole,
)
from spaces.recipes.recipe import (
    ByFilter,
    Case,
    Merge,
    Model,
    Parameter,
    Parameters,
    RecipeError,
    Slice,
    Source,
)

_T = TypeVar("_T")
_P = ParamSpec("_P")

Node = Callable[[str, str], Model | Merge | None]
"""What a location stands for, given the key it is under; ``None`` where that has problems."""


class Notes:
    """What is found wrong with one document, and what of it has no effect.

    Args:
        where: Start of every line: the file, and the document where there are several.
        problems: Where problems are noted, one line each.
        ignored: Where keys are noted that change nothing.
    """

    def __init__(self, where: str, problems: list[str], ignored: list[str]) -> None:
        self.sound = True
        self._where = where
        self._problems = problems
        self._ignored = ignored

    def problem(self, key: str, text: str) -> None:
        """Note what is wrong with a key; without a key, with the document."""
        self.sound = False
        self._problems.append(f"{self._where}{key}{': ' if key else ''}{text}")

    def ignore(self, key: str, why: str) -> None:
        """Note that a key changes nothing."""
        self._ignored.append(f"{self._where}{key}: {why}")

    def take(
        self, key: str, read: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> _T | None:
        """What ``read`` makes of a value, or ``None`` with the problem noted under the key."""
        try:
            return read(*args, **kwargs)
        except (Unreadable, RecipeError) as error:
            self.problem(key, str(error))
            return None


@dataclass(frozen=True, kw_only=True, slots=True)
class MergeSection:
    """Where a document says what is merged.

    Attributes:
        key: Full key of the list, such as ``models`` or ``modules.default.slices``.
        entries: The list.
        tables: Parameters of the module, if there is one, then of the document, with their keys.
        base: Location of the document's base, if it has one.
    """

    key: str
    entries: list[Mapping[Any, Any]]
    tables: tuple[tuple[str, Any], ...]
    base: str | None

    @property
    def sliced(self) -> bool:
        """Whether the entries are slices rather than models."""
        return self.key.endswith("slices")


def read_merge(layout: MergeSection, method: Method, *, notes: Notes, node: Node) -> Merge | None:
    """The merge that a document describes; ``None`` where problems were noted."""
    return _MergeReading(layout, method, notes, node).merge()


class _MergeReading:
    def __init__(self, layout: MergeSection, method: Method, notes: Notes, node: Node) -> None:
        self._layout = layout
        self._method = method
        self._notes = notes
        self._node = node

    def merge(self) -> Merge | None:
        method, layout = self._method, self._layout
        shared = self._shared()
        slices = self._slices() if layout.sliced else ()
        base = self._slice_base() if layout.sliced else layout.base
        sources = () if layout.sliced else self._models(base)
        uses_base = method.base is not BaseRule.NONE
        base_node = self._node(base, "base_model") if base is not None and uses_base else None
        if not self._notes.sound or slices is None or sources is None:
            return None
        if uses_base and base is not None and base_node is None:
            return None
        try:
            return Merge(
                method=method.name,
                sources=sources,
                slices=slices,
                base=base_node,
                parameters=shared,
            )
        except RecipeError as error:
            self._notes.problem("", str(error))
            return None

    def _shared(self) -> Parameters:
        """The parameters of the module, and where those say nothing, of the document."""
        result: dict[str, Parameter] = {}
        for key, table in self._layout.tables:
            for name, value in self._parameters(key, table, tuple(Scope)):
                result[name] = _else(result[name], value) if name in result else value
        return tuple(sorted(result.items()))

    def _models(self, base: str | None) -> tuple[Source, ...] | None:
        """The inputs; a base is added, or left out, as the method has it."""
        method, key = self._method, self._layout.key
        found: list[Source | None] = []
        listed = False
        for at, entry in enumerate(self._layout.entries):
            where = f"{key}[{at}]"
            location = self._location(entry, where)
            listed = listed or (base is not None and location == base)
            if location == base and base is not None and method.base.apart:
                for name in entry.get("parameters") or ():
                    self._notes.ignore(f"{where}.parameters.{name}", "the base has no parameters")
                continue
            found.append(self._source(entry, location, where))
        if base is not None and not listed and not method.base.apart:
            node = self._node(base, "base_model")
            found.append(Source(of=node) if node is not None else None)
        sources = tuple(source for source in found if source is not None)
        return sources if len(sources) == len(found) else None

    def _slices(self) -> tuple[Slice, ...] | None:
        found = [
            self._slice(entry, f"{self._layout.key}[{at}]")
            for at, entry in enumerate(self._layout.entries)
        ]
        slices = tuple(part for part in found if part is not None)
        return slices if len(slices) == len(found) else None

    def _slice(self, entry: Mapping[Any, Any], where: str) -> Slice | None:
        for name in entry.keys() - {"sources", "parameters", "base_model"}:
            self._notes.ignore(f"{where}.{name}", "without effect in mergekit")
        entries = entry.get("sources")
        if not isinstance(entries, list) or not all(isinstance(e, Mapping) for e in entries):
            text = f"expected a list of keys and values, got {entries!r}"
            self._notes.problem(f"{where}.sources", text)
            return None
        table = self._parameters(f"{where}.parameters", entry.get("parameters"), tuple(Scope))
        found = [
            self._source(item, self._location(item, below), below)
            for at, item in enumerate(entries)
            for below in [f"{where}.sources[{at}]"]
        ]
        sources = tuple(source for source in found if source is not None)
        if len(sources) != len(found):
            return None
        try:
            return Slice(sources=sources, parameters=table)
        except RecipeError as error:
            self._notes.problem(where, str(error))
            return None

    def _slice_base(self) -> str | None:
        """The base of all slices: each may name one, else it is the document's."""
        bases: dict[str | None, None] = {}
        for at, entry in enumerate(self._layout.entries):
            value, key = entry.get("base_model"), f"{self._layout.key}[{at}].base_model"
            bases[
                self._layout.base if value is None else self._notes.take(key, reference, value)
            ] = None
        if len(bases) > 1:
            names = ", ".join(str(base) for base in bases)
            text = (
                f"expected one base for all slices, got {names} (give each group of slices a "
                "document with a name, and stack those with passthrough)"
            )
            self._notes.problem(self._layout.key, text)
        return next(iter(bases), None)

    def _location(self, entry: Mapping[Any, Any], where: str) -> str | None:
        if "model" not in entry:
            self._notes.problem(f"{where}.model", "expected a path or hub id, got none")
            return None
        return self._notes.take(f"{where}.model", reference, entry["model"])

    def _source(self, entry: Mapping[Any, Any], location: str | None, where: str) -> Source | None:
        sliced = self._layout.sliced
        known = {"model", "parameters", *(["layer_range"] if sliced else [])}
        for name in entry.keys() - known:
            self._notes.ignore(f"{where}.{name}", "not a key of mergekit")
        table = self._parameters(f"{where}.parameters", entry.get("parameters"), (Scope.INPUT,))
        layers = self._layers(entry, where) if sliced else None
        node = self._node(location, f"{where}.model") if location is not None else None
        if node is None or (sliced and layers is None):
            return None
        return self._notes.take(where, Source, of=node, layers=layers, parameters=table)

    def _layers(self, entry: Mapping[Any, Any], where: str) -> tuple[int, int] | None:
        value, key = entry.get("layer_range"), f"{where}.layer_range"
        if not isinstance(value, list) or len(value) != 2:
            got = "none" if value is None else repr(value)
            self._notes.problem(key, f"expected [first layer, layer after the last], got {got}")
            return None
        start, end = (self._notes.take(key, whole, item) for item in value)
        return None if start is None or end is None else (start, end)

    def _parameters(self, key: str, table: Any, scopes: tuple[Scope, ...]) -> Parameters:
        """A table of parameters; those that do nothing here are noted and left out."""
        if table is None:
            return ()
        if not isinstance(table, Mapping):
            self._notes.problem(key, f"expected keys and values, got {table!r}")
            return ()
        result: dict[str, Parameter] = {}
        for name, value in table.items():
            spec = self._method.parameter(str(name))
            if spec is not None and spec.scope in scopes:
                found = self._notes.take(f"{key}.{name}", parameter, value, spec)
                if found is not None:
                    result[spec.name] = found
            elif spec is not None:
                self._notes.ignore(f"{key}.{name}", "holds for a whole merge, not for one input")
            elif name in MERGEKIT_PARAMETERS:
                self._notes.ignore(f"{key}.{name}", f"{self._method.name} has no use for it")
            else:
                legal = ", ".join(p.name for p in self._method.parameters if p.scope in scopes)
                self._notes.problem(key, f"expected names from {legal or 'none'}, got {name!r}")
        return tuple(sorted(result.items()))


def _else(value: Parameter, fallback: Parameter) -> Parameter:
    """A parameter, and where no filter of it matches, another."""
    if not isinstance(value, ByFilter):
        return value
    cases = fallback.cases if isinstance(fallback, ByFilter) else (Case(fallback),)
    return ByFilter(value.cases + cases)
