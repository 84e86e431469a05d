"""Reading the values that a space would draw a recipe with, in whatever form it is written.

mergekit leaves much to defaults, has several places for one value and any order of inputs; a space
has one form for each merge. The values are read where any of the forms has them, so that only
drawing with them shows whether they are the whole recipe.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from spaces.catalogue.method_catalogue import METHODS, BaseRule
from spaces.recipes.parameter_values import level_of
from spaces.recipes.recipe import Gradient, Merge, Model, Recipe, Source
from spaces.sampling.distributions import Floats, NotInSpace, Value
from spaces.sampling.search_parameters import (
    DRAWN,
    PER_INPUT,
    depths,
    dials,
    filters,
    in_recipes,
    joinable,
    orders,
    value_names,
)
from spaces.search_space.bounds import MERGED
from spaces.search_space.merge_trees import Join, Tree, digits_from_tree, leaves_of
from spaces.search_space.space import Space

SUMS = tuple(
    name
    for name, drawn in DRAWN.items()
    if "weight" in drawn and METHODS[name].base in (BaseRule.NONE, BaseRule.REQUIRED)
)
"""Methods that take an input of weight 0 for none."""


def values_of(recipe: Recipe, space: Space) -> dict[str, Value]:
    """The values a recipe holds, by the names of the space's parameters.

    Raises:
        NotInSpace: If the space cannot draw one of them, or has no merge of this form.
    """
    reading = _ValueReading(space)
    reading.read(recipe.root)
    return reading.values


def difference(drawn: Any, given: Any, path: str = "") -> str | None:
    """Where two JSON trees first differ, as ``path: expected ..., got ...``, or ``None``."""
    if isinstance(drawn, Mapping) and isinstance(given, Mapping):
        for key in sorted(drawn.keys() | given.keys()):
            below = f"{path}.{key}" if path else str(key)
            found = difference(drawn.get(key), given.get(key), below)
            if found is not None:
                return found
        return None
    if isinstance(drawn, list) and isinstance(given, list) and len(drawn) == len(given):
        for at, (one, other) in enumerate(zip(drawn, given, strict=True)):
            found = difference(one, other, f"{path}[{at}]")
            if found is not None:
                return found
        return None
    # As texts: -0.0 and 0.0, or 1 and True, are equal but not the same recipe.
    if repr(drawn) == repr(given):
        return None
    return f"{path}: expected {_shown(drawn)}, got {_shown(given)}"


def _shown(value: Any) -> str:
    return "none" if value is None else repr(value)


class _ValueReading:
    """The values of a space's parameters as a recipe has them, whatever form it is written in."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self.values: dict[str, Value] = {}

    def read(self, root: Merge) -> None:
        space = self._space
        root = whole(root, space)
        if root.slices:
            merged, runs = _stacked_merge(root, space)
            for name, value in runs.items():
                self._set(name, value)
            if merged is None:
                return
            root = whole(merged, space)
        elif space.stacking is not None:
            self._set("slices", 1)
        paired = any(isinstance(source.of, Merge) for source in root.sources)
        order = "pairwise" if paired else "all-at-once"
        self._set("order", order if len(space.parents) > 2 else orders(space)[0])
        if not paired:
            self._at_once(root)
            return
        digits = _digits(self._pairs(root)[1], space.parents)
        for leaf, digit in enumerate(digits, start=2):
            self._set(f"tree.{leaf + 1}", joinable(space, leaf)[digit])

    def _set(self, name: str, value: Value) -> None:
        dial = dials(self._space).get(name)
        if dial is None:
            raise NotInSpace(f"{name}: expected nothing (the space does not draw it), got {value}")
        if not dial.domain.holds(value):
            raise NotInSpace(f"{name}: expected {dial.domain}, got {value!r}")
        self.values[name] = value

    def _at_once(self, merge: Merge) -> None:
        given = {s.of.name: s for s in merge.sources if isinstance(s.of, Model)}
        if merge.method == "passthrough":
            ((name, source),) = given.items()
            self._set("method", merge.method)
            self._set("parent", name)
            self._parameter("scale", "scale", merge, source)
            return
        parents = self._space.parents
        fewer = len(given) < len(parents) and merge.method not in SUMS
        if fewer or not given.keys() <= set(parents):
            raise NotInSpace(f"inputs: expected {', '.join(parents)}, got {', '.join(given)}")
        self._set("method", merge.method)
        self._merge(merge, {name: given.get(name) for name in parents}, prefix="")

    def _pairs(self, node: Model | Merge) -> tuple[str, Tree]:
        """Name and tree of a node; the values of its merges are read on the way."""
        parents = self._space.parents
        if isinstance(node, Model):
            if node.name not in parents:
                raise NotInSpace(f"inputs: expected {', '.join(parents)}, got {node.name}")
            return node.name, parents.index(node.name)
        node = whole(node, self._space)
        if node.slices or len(node.sources) != 2:
            raise NotInSpace("inputs: expected all parents at once or in pairs, got a mixture")
        sides = [(*self._pairs(source.of), source) for source in node.sources]
        sides.sort(key=lambda side: min(leaves_of(side[1])))
        tree = Join(sides[0][1], sides[1][1])
        name = f"node{tree.node}"
        self._set(f"{name}.method", node.method)
        self._merge(node, {side: source for side, _, source in sides}, prefix=f"{name}.")
        return name, tree

    def _merge(self, merge: Merge, inputs: Mapping[str, Source | None], *, prefix: str) -> None:
        """Read a merge with its inputs in the space's order; absent ones weigh 0."""
        first = next(iter(inputs.values()))
        turned = merge.method == "slerp" and first is not None and first.of != merge.base
        for parameter in DRAWN[merge.method]:
            if parameter not in PER_INPUT:
                self._parameter(parameter, f"{prefix}{parameter}", merge, None, turned=turned)
                continue
            for name, source in inputs.items():
                stem = f"{parameter}.{name}"
                if source is not None:
                    self._parameter(parameter, stem, merge, source)
                    continue
                for dial in value_names(self._space, parameter, stem):
                    domain = dials(self._space)[dial].domain
                    assert isinstance(domain, Floats)
                    self._set(dial, 0.0 if parameter == "weight" else domain.high)

    def _parameter(
        self,
        parameter: str,
        stem: str,
        merge: Merge,
        source: Source | None,
        *,
        turned: bool = False,
    ) -> None:
        """Read every number of one parameter; ``turned`` where t counts from the other end."""
        names = value_names(self._space, parameter, stem)
        places = (
            (case or "", position)
            for case in filters(self._space, parameter) or (None,)
            for position in self._positions(parameter)
        )
        for name, (tensor, position) in zip(names, places, strict=True):
            number = float(number_of(in_recipes(parameter), merge, source, tensor, position))
            self._set(name, (1.0 - number if turned else number) + 0.0)

    def _positions(self, parameter: str) -> list[float]:
        count, layers = len(depths(self._space, parameter)), self._space.layers
        if count == 1:
            return [0.0]
        if self._space.depth.knots:
            return [at / (count - 1) for at in range(count)]
        runs = groupby(range(layers), key=lambda layer: layer * count // layers)
        return [next(run) / (layers - 1) for _, run in runs]


def whole(merge: Merge, space: Space) -> Merge:
    """A merge written as one slice of all layers as a merge of whole models."""
    if len(merge.slices) != 1:
        return merge
    (part,) = merge.slices
    if any(source.layers != (0, space.layers) for source in part.sources):
        return merge
    apart = METHODS[merge.method].base.apart
    return replace(
        merge,
        slices=(),
        sources=tuple(
            replace(source, layers=None)
            for source in part.sources
            if not (apart and source.of == merge.base)
        ),
        parameters=tuple(sorted((dict(merge.parameters) | dict(part.parameters)).items())),
    )


def number_of(
    name: str, merge: Merge, source: Source | None, tensor: str, position: float
) -> float | bool:
    """What a parameter is for one tensor: of the input, else of the merge, else the default."""
    tables = (source.parameters if source is not None else (), merge.parameters)
    for table in map(dict, tables):
        if name in table:
            level = level_of(table[name], tensor)
            if level is not None:
                return _at(level, position) if isinstance(level, Gradient) else level
    spec = METHODS[merge.method].parameter(name)
    if spec is None or spec.default is None:
        raise NotInSpace(f"{name}: expected a value for every tensor, got none for some")
    return spec.default


def _at(gradient: Gradient, position: float) -> float:
    """The value at a position in [0, 1]; at an anchor, but for rounding, the anchor itself."""
    place = position * (len(gradient.anchors) - 1)
    near = math.isclose(place, round(place), abs_tol=1e-9)
    return float(gradient.anchors[round(place)]) if near else gradient.at(position)


def _stacked_merge(root: Merge, space: Space) -> tuple[Merge | None, dict[str, Value]]:
    """The merge whose layers are stacked, if there is one, and the values of the stacking.

    Raises:
        NotInSpace: If it is not a stack of the kind that the space draws.
    """
    stacking = space.stacking
    if stacking is None:
        raise NotInSpace("slices: expected none (stacking is off), got some")
    nodes = {source.of for group in root.groups() for source in group}
    merged = [node for node in nodes if isinstance(node, Merge)]
    single = len(merged) <= 1 and all(len(group) == 1 for group in root.groups())
    plain = not any(node.slices for node in merged)
    fits = stacking.sources != "merged" or len(nodes) == len(merged)
    if root.method != "passthrough" or not (single and plain and fits) or len(root.slices) < 2:
        raise NotInSpace(
            "slices: expected passthrough over two or more layer runs of one merge that has no "
            "slices itself, got something else"
        )
    values: dict[str, Value] = {"slices": len(root.slices)}
    before = 0
    for number, part in enumerate(root.slices, start=1):
        (source,) = part.sources
        start, end = source.layers or (0, 0)
        if not stacking.in_order:
            values |= {f"slice{number}.start": start, f"slice{number}.end": end}
        else:
            values |= {f"slice{number}.shift": start - before} if number > 1 else {}
            values |= {f"slice{number}.end": end} if number < len(root.slices) else {}
        if stacking.sources != "merged":
            of = source.of
            values[f"slice{number}.source"] = of.name if isinstance(of, Model) else MERGED
        before = end
    return (merged[0] if merged else None), values


def _digits(tree: Tree, parents: Sequence[str]) -> tuple[int, ...]:
    """The digits of a tree that holds every parent once.

    Raises:
        NotInSpace: If it does not.
    """
    try:
        digits = digits_from_tree(tree)
    except ValueError as error:
        raise NotInSpace(f"inputs: expected every parent once: {error}") from error
    if len(digits) != len(parents) - 2:
        raise NotInSpace(f"inputs: expected all of {', '.join(parents)}, got fewer")
    return digits
