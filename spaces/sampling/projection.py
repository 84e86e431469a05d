"""Recipes that were not drawn by a space: rewritten as it draws them, where that changes nothing.

mergekit leaves much to defaults, has several places for one value and any order of inputs; a space
has one form for each merge. Only what gives the same weights counts as the same merge, so a number
out of range, a method that is not searched or a gradient that the space cannot follow does not fit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, groupby

from spaces.catalogue.method_catalogue import METHODS, BaseRule, Scope
from spaces.catalogue.shared_parameters import INT8_MASK
from spaces.recipes.recipe import ByFilter, Merge, Model, Parameters, Recipe, Source, resolve
from spaces.sampling.distributions import Fixed, Floats, NotInSpace, Value
from spaces.sampling.draw import draw, params
from spaces.sampling.inverse_draw import check_tree, joined, stacked_merge
from spaces.sampling.search_parameters import (
    DRAWN,
    PER_INPUT,
    depths,
    dials,
    filters,
    in_recipes,
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

MOST_FILTERS = 8
"""Filters of a recipe that are told apart; more are nobody's recipe, and 2^n cases to look at."""


def adopt(recipe: Recipe, space: Space) -> Recipe:
    """The same merge with the dtype, mask seed, tokenizer and vocabulary of a space."""
    return replace(space.finished(recipe.root), chat_template=recipe.chat_template)


def fit(recipe: Recipe, space: Space) -> Recipe:
    """The recipe of a space that gives the same weights.

    Args:
        recipe: Any recipe; its dtype, mask seed, tokenizer and vocabulary do not matter.
        space: What may be drawn; its parents have the names that the recipe uses.

    Returns:
        A recipe that ``params`` has values for.

    Raises:
        NotInSpace: If the space draws none; the message says why.
    """
    recipe = adopt(recipe, space)
    try:
        params(recipe, space)
    except NotInSpace:
        return _rewritten(recipe, space)
    return recipe


def _rewritten(recipe: Recipe, space: Space) -> Recipe:
    rewriting = _Rewriting(space)
    rewriting.read(recipe.root)
    drawn = draw(space, Fixed(rewriting.found))
    cells = list(_cells(recipe.root, space))
    wanted, got = (_meaning(root, space, cells) for root in (recipe.root, drawn.root))
    for name in sorted(wanted.keys() | got.keys()):
        one, other = wanted.get(name, ()), got.get(name, ())
        if len(one) != len(other) or not all(map(_same, one, other)):
            raise NotInSpace(f"{name}: the space cannot draw what the recipe has there")
    return drawn


class _Rewriting:
    """The values of a space's dials as a recipe has them."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self.found: dict[str, Value] = {}

    def read(self, root: Merge) -> None:
        space = self._space
        root = _whole(root, space)
        if root.slices:
            merged, runs = stacked_merge(root, space)
            for name, value in runs.items():
                self._set(name, value)
            if merged is None:
                return
            root = _whole(merged, space)
        elif space.stacking is not None:
            self._set("slices", 1)
        paired = any(isinstance(source.of, Merge) for source in root.sources)
        order = "pairwise" if paired else "all-at-once"
        self._set("order", order if len(space.parents) > 2 else orders(space)[0])
        if not paired:
            self._at_once(root)
            return
        tree = self._pairs(root)[1]
        check_tree(tree, space.parents)
        for leaf, digit in enumerate(digits_from_tree(tree), start=2):
            self._set(f"tree.{leaf + 1}", joined(space, leaf, digit))

    def _set(self, name: str, value: Value) -> None:
        dial = dials(self._space).get(name)
        if dial is None:
            raise NotInSpace(f"{name}: expected nothing (the space does not draw it), got {value}")
        if not dial.domain.holds(value):
            raise NotInSpace(f"{name}: expected {dial.domain}, got {value!r}")
        self.found[name] = value

    def _at_once(self, merge: Merge) -> None:
        given = {s.of.name: s for s in merge.sources if isinstance(s.of, Model)}
        if merge.method == "passthrough":
            ((name, source),) = given.items()
            self._set("method", merge.method)
            self._set("parent", name)
            self._value("scale", "scale", merge, source)
            return
        parents = self._space.parents
        fewer = len(given) < len(parents) and merge.method not in SUMS
        if fewer or not given.keys() <= set(parents):
            raise NotInSpace(f"inputs: expected {', '.join(parents)}, got {', '.join(given)}")
        self._set("method", merge.method)
        self._merge(merge, {name: given.get(name) for name in parents}, prefix="")

    def _pairs(self, node: Model | Merge) -> tuple[str, Tree]:
        """Name and tree of a node; the values of its merges are noted on the way."""
        parents = self._space.parents
        if isinstance(node, Model):
            if node.name not in parents:
                raise NotInSpace(f"inputs: expected {', '.join(parents)}, got {node.name}")
            return node.name, parents.index(node.name)
        node = _whole(node, self._space)
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
        """Note the values of a merge with its inputs in the space's order; absent ones weigh 0."""
        first = next(iter(inputs.values()))
        turned = merge.method == "slerp" and first is not None and first.of != merge.base
        for parameter in DRAWN[merge.method]:
            if parameter not in PER_INPUT:
                self._value(parameter, f"{prefix}{parameter}", merge, None, turned=turned)
                continue
            for name, source in inputs.items():
                stem = f"{parameter}.{name}"
                if source is not None:
                    self._value(parameter, stem, merge, source)
                    continue
                for dial in value_names(self._space, parameter, stem):
                    domain = dials(self._space)[dial].domain
                    assert isinstance(domain, Floats)
                    self._set(dial, 0.0 if parameter == "weight" else domain.high)

    def _value(
        self,
        parameter: str,
        stem: str,
        merge: Merge,
        source: Source | None,
        *,
        turned: bool = False,
    ) -> None:
        """Note every number of one parameter; ``turned`` where t counts from the other end."""
        names = value_names(self._space, parameter, stem)
        places = (
            (case or "", position)
            for case in filters(self._space, parameter) or (None,)
            for position in self._positions(parameter)
        )
        for name, (tensor, position) in zip(names, places, strict=True):
            number = float(_number(in_recipes(parameter), merge, source, tensor, position))
            self._set(name, (1.0 - number if turned else number) + 0.0)

    def _positions(self, parameter: str) -> list[float]:
        count, layers = len(depths(self._space, parameter)), self._space.layers
        if count == 1:
            return [0.0]
        if self._space.depth.knots:
            return [at / (count - 1) for at in range(count)]
        runs = groupby(range(layers), key=lambda layer: layer * count // layers)
        return [next(run) / (layers - 1) for _, run in runs]


def _whole(merge: Merge, space: Space) -> Merge:
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


def _number(
    name: str, merge: Merge, source: Source | None, tensor: str, position: float
) -> float | bool:
    """What a parameter is for one tensor: of the input, else of the merge, else the default."""
    tables = (source.parameters if source is not None else (), merge.parameters)
    for table in tables:
        if name in dict(table):
            found = resolve(dict(table)[name], tensor=tensor, position=position)
            if found is not None:
                return found
    spec = METHODS[merge.method].parameter(name)
    if spec is None or spec.default is None:
        raise NotInSpace(f"{name}: expected a value for every tensor, got none for some")
    return spec.default


def _cells(root: Merge, space: Space) -> Iterator[tuple[str, float]]:
    """Stand-ins for all tensors: every combination of filters, outside and in every layer."""
    found = list(dict.fromkeys((*space.filters, *_filters(root))))
    if len(found) > MOST_FILTERS:
        raise NotInSpace(f"filters: expected at most {MOST_FILTERS}, got {len(found)}")
    last = space.layers - 1
    depths_ = dict.fromkeys((0.0, *(at / last if last else 1.0 for at in range(last + 1))))
    for count in range(len(found) + 1):
        for names in combinations(found, count):
            yield from (("\n".join(names), position) for position in depths_)


def _filters(node: Model | Merge) -> Iterator[str]:
    if isinstance(node, Model):
        return
    tables: list[Parameters] = [node.parameters, *(part.parameters for part in node.slices)]
    for group in node.groups():
        for source in group:
            tables.append(source.parameters)
            yield from _filters(source.of)
    for table in tables:
        for _, value in table:
            if isinstance(value, ByFilter):
                yield from (case.filter for case in value.cases if case.filter is not None)


_Cells = Sequence[tuple[str, float]]
_Meaning = dict[str, tuple[object, ...]]


def _meaning(root: Merge, space: Space, cells: _Cells) -> _Meaning:
    """What a merge tree does, by name; equal for trees that give the same weights."""
    result: _Meaning = {}
    root = _whole(root, space)
    if root.slices:
        runs = [part.sources[0] for part in root.slices]
        result["slices"] = tuple(
            (run.of.name if isinstance(run.of, Model) else MERGED, run.layers) for run in runs
        )
        inner = next((run.of for run in runs if isinstance(run.of, Merge)), None)
        if inner is None:
            return result
        root = _whole(inner, space)

    def walk(node: Model | Merge) -> str:
        if isinstance(node, Model):
            return node.name
        inputs = {walk(source.of): source for source in _present(_whole(node, space), cells)}
        title = "+".join(sorted(inputs))
        result[f"{title}: method"] = (node.method,)
        if node.method != "slerp" and node.base is not None:
            result[f"{title}: base"] = (walk(node.base),)
        held = _held(_whole(node, space), inputs, cells)
        result.update({f"{title}: {name}": values for name, values in held})
        return f"({title})"

    walk(root)
    return result


def _present(node: Merge, cells: _Cells) -> list[Source]:
    """The inputs that have a weight somewhere."""
    if node.method not in SUMS:
        return list(node.sources)
    return [s for s in node.sources if any(_number("weight", node, s, *cell) for cell in cells)]


def _held(
    node: Merge, inputs: Mapping[str, Source], cells: _Cells
) -> Iterator[tuple[str, tuple[object, ...]]]:
    """The parameters of one merge in every cell."""

    def over(name: str, source: Source | None = None) -> list[float]:
        return [float(_number(name, node, source, *cell)) for cell in cells]

    for spec in METHODS[node.method].parameters:
        if spec.name == INT8_MASK.name:  # many files have it; it changes nothing
            continue
        if spec.scope is Scope.INPUT:
            rows = {name: over(spec.name, source) for name, source in inputs.items()}
            if (node.method, spec.name) == ("linear", "weight"):
                rows = _shares(rows, over("normalize"))
            yield from ((f"{spec.name} of {name}", tuple(row)) for name, row in rows.items())
        elif spec.name == "t" and node.method == "slerp":
            turned = inputs[min(inputs)].of != node.base
            yield "t", tuple(1.0 - t if turned else t for t in over("t"))
        elif (node.method, spec.name) != ("linear", "normalize"):
            yield spec.name, tuple(over(spec.name))


def _shares(weights: Mapping[str, list[float]], divided: list[float]) -> dict[str, list[float]]:
    """Weights of a linear merge after its division by their sum."""
    sums = [sum(column) for column in zip(*weights.values(), strict=True)]
    by = [total if flag and total else 1.0 for total, flag in zip(sums, divided, strict=True)]
    return {name: [w / b for w, b in zip(row, by, strict=True)] for name, row in weights.items()}


def _same(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
    return one == other
