"""Reading the values of a drawn recipe back from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from spaces.recipes.recipe import (
    ByFilter,
    Gradient,
    Level,
    Merge,
    Model,
    Parameter,
    Parameters,
    Recipe,
)
from spaces.sampling.distributions import NotInSpace, Value
from spaces.sampling.search_parameters import (
    DRAWN,
    PER_INPUT,
    depths,
    filters,
    in_recipes,
    joinable,
    value_names,
)
from spaces.search_space.bounds import MERGED
from spaces.search_space.merge_trees import Join, Tree, digits_from_tree
from spaces.search_space.space import Space


def values_of(recipe: Recipe, space: Space) -> dict[str, Value]:
    """The values a recipe holds, under the names of the space's dials.

    They are read where ``draw`` would have put them; what the recipe holds besides is not looked
    at, so that only drawing it again shows whether this is all.

    Raises:
        NotInSpace: If the recipe has not the form that the space draws.
    """
    reading = _Reading(space)
    reading.read(recipe.root)
    return reading.found


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


def joined(space: Space, leaf: int, digit: int) -> str:
    """What a leaf joins in a tree of a space.

    Raises:
        NotInSpace: If the space has no such place.
    """
    places = joinable(space, leaf)
    if digit >= len(places):
        raise NotInSpace(f"tree.{leaf + 1}: expected one of {', '.join(places)}, got another")
    return places[digit]


class _Reading:
    """Values found so far."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self.found: dict[str, Value] = {}

    def read(self, root: Merge) -> None:
        if root.slices:
            merged, runs = stacked_merge(root, self._space)
            self.found.update(runs)
            if merged is None:
                return
            root = merged
        elif self._space.stacking is not None:
            self.found["slices"] = 1
        paired = any(isinstance(source.of, Merge) for source in root.sources)
        self.found["order"] = "pairwise" if paired else "all-at-once"
        if not paired:
            self._at_once(root)
            return
        for leaf, digit in enumerate(digits_from_tree(self._pairs(root)), start=2):
            self.found[f"tree.{leaf + 1}"] = joined(self._space, leaf, digit)

    def _at_once(self, merge: Merge) -> None:
        self.found["method"] = merge.method
        names = [source.of.name for source in merge.sources if isinstance(source.of, Model)]
        if merge.method == "passthrough":
            self.found["parent"] = names[0]
            self._value("scale", "scale", merge.sources[0].parameters)
        elif tuple(names) != self._space.parents:
            expected = ", ".join(self._space.parents)
            raise NotInSpace(f"inputs: expected {expected} in this order, got {', '.join(names)}")
        else:
            self._merge(merge, names, prefix="")

    def _pairs(self, root: Merge) -> Tree:
        """The tree of a pairwise merge; its values are noted on the way."""
        space = self._space

        def read(node: Model | Merge) -> tuple[str, Tree]:
            if isinstance(node, Model):
                if node.name not in space.parents:
                    raise NotInSpace(f"inputs: expected parents of the space, got {node.name}")
                return node.name, space.parents.index(node.name)
            if node.slices or len(node.sources) != 2:
                raise NotInSpace("inputs: expected all parents at once or in pairs, got a mixture")
            (first, left), (second, right) = (read(source.of) for source in node.sources)
            tree = Join(left, right)
            name = f"node{tree.node}"
            self.found[f"{name}.method"] = node.method
            self._merge(node, [first, second], prefix=f"{name}.")
            return name, tree

        tree = read(root)[1]
        check_tree(tree, space.parents)
        return tree

    def _merge(self, merge: Merge, names: Sequence[str], *, prefix: str) -> None:
        drawn = DRAWN[merge.method]
        for parameter in drawn:
            if parameter not in PER_INPUT:
                self._value(parameter, f"{prefix}{parameter}", merge.parameters)
                continue
            for name, source in zip(names, merge.sources, strict=True):
                self._value(parameter, f"{parameter}.{name}", source.parameters)

    def _value(self, parameter: str, stem: str, table: Parameters) -> None:
        """Note every number of one parameter."""
        value = dict(table).get(in_recipes(parameter))
        if value is None:
            raise NotInSpace(f"{stem}: expected a value (the space always draws one), got none")
        count = len(depths(self._space, parameter))
        numbers = [
            number
            for level in self._levels(parameter, stem, value)
            for number in self._numbers(stem, level, count)
        ]
        self.found.update(zip(value_names(self._space, parameter, stem), numbers, strict=True))

    def _levels(self, parameter: str, stem: str, value: Parameter) -> list[Level]:
        cases = filters(self._space, parameter)
        if not cases:
            if isinstance(value, ByFilter):
                raise NotInSpace(f"{stem}: expected no filters, got some")
            return [value]
        given = tuple(case.filter for case in value.cases) if isinstance(value, ByFilter) else ()
        if not isinstance(value, ByFilter) or given != cases:
            names = ", ".join(case or "the rest" for case in cases)
            raise NotInSpace(f"{stem}: expected a value for each of {names}, got other filters")
        return [case.value for case in value.cases]

    def _numbers(self, stem: str, level: Level, count: int) -> list[float]:
        if count == 1:
            if isinstance(level, Gradient | bool):
                raise NotInSpace(f"{stem}: expected one number for all layers, got {level}")
            return [float(level)]
        if not isinstance(level, Gradient):
            raise NotInSpace(f"{stem}: expected {count} values over depth, got {level}")
        anchors, layers = level.anchors, self._space.layers
        if self._space.depth.knots:
            if len(anchors) != count:
                raise NotInSpace(f"{stem}: expected {count} knots, got {len(anchors)}")
            return [float(anchor) for anchor in anchors]
        runs = [list(run) for _, run in groupby(range(layers), key=lambda k: k * count // layers)]
        if len(anchors) != layers or any(len({anchors[k] for k in run}) > 1 for run in runs):
            raise NotInSpace(f"{stem}: expected {count} groups of {layers} layers, got {level}")
        return [float(anchors[run[0]]) for run in runs]


def stacked_merge(root: Merge, space: Space) -> tuple[Merge | None, dict[str, Value]]:
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


def check_tree(tree: Tree, parents: Sequence[str]) -> None:
    """Refuse a tree unless it holds every parent once, the earlier one's side first in every join.

    Raises:
        NotInSpace: If it does not.
    """
    try:
        digits = digits_from_tree(tree)
    except ValueError as error:
        raise NotInSpace(f"inputs: expected every parent once, the first first: {error}") from error
    if len(digits) != len(parents) - 2:
        raise NotInSpace(f"inputs: expected all of {', '.join(parents)}, got fewer")
