"""Recipes that were not drawn by a space: rewritten as it draws them, where that changes nothing.

Only what gives the same weights counts as the same merge, so a number out of range, a method that
is not searched or a gradient that the space cannot follow does not fit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

from spaces.catalogue.method_catalogue import METHODS, Scope
from spaces.catalogue.shared_parameters import INT8_MASK
from spaces.recipes.recipe import Merge, Model, Recipe, Source, filters
from spaces.sampling.distributions import Fixed, NotInSpace
from spaces.sampling.draw import draw
from spaces.sampling.inverse_draw import SUMS, number_of, values_of, whole
from spaces.search_space.bounds import MERGED
from spaces.search_space.space import Space

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
    drawn = draw(space, Fixed(values_of(recipe, space)))
    if drawn.key == recipe.key:
        return recipe
    cells = list(_cells(recipe.root, space))
    wanted, got = (_meaning(root, space, cells) for root in (recipe.root, drawn.root))
    for name in sorted(wanted.keys() | got.keys()):
        one, other = wanted.get(name, ()), got.get(name, ())
        if len(one) != len(other) or not all(map(_same, one, other)):
            raise NotInSpace(f"{name}: the space cannot draw what the recipe has there")
    return drawn


def _cells(root: Merge, space: Space) -> Iterator[tuple[str, float]]:
    """Stand-ins for all tensors: every combination of filters, outside and in every layer."""
    found = list(dict.fromkeys((*space.filters, *filters(root))))
    if len(found) > MOST_FILTERS:
        raise NotInSpace(f"filters: expected at most {MOST_FILTERS}, got {len(found)}")
    last = space.layers - 1
    depths_ = dict.fromkeys((0.0, *(at / last if last else 1.0 for at in range(last + 1))))
    for count in range(len(found) + 1):
        for names in combinations(found, count):
            yield from (("\n".join(names), position) for position in depths_)


_Cells = Sequence[tuple[str, float]]
_Meaning = dict[str, tuple[object, ...]]


def _meaning(root: Merge, space: Space, cells: _Cells) -> _Meaning:
    """What a merge tree does, by name; equal for trees that give the same weights."""
    result: _Meaning = {}
    root = whole(root, space)
    if root.slices:
        runs = [part.sources[0] for part in root.slices]
        result["slices"] = tuple(
            (run.of.name if isinstance(run.of, Model) else MERGED, run.layers) for run in runs
        )
        inner = next((run.of for run in runs if isinstance(run.of, Merge)), None)
        if inner is None:
            return result
        root = whole(inner, space)

    def walk(node: Model | Merge) -> str:
        if isinstance(node, Model):
            return node.name
        inputs = {walk(source.of): source for source in _present(whole(node, space), cells)}
        title = "+".join(sorted(inputs))
        result[f"{title}: method"] = (node.method,)
        if node.method != "slerp" and node.base is not None:
            result[f"{title}: base"] = (walk(node.base),)
        held = _held(whole(node, space), inputs, cells)
        result.update({f"{title}: {name}": values for name, values in held})
        return f"({title})"

    walk(root)
    return result


def _present(node: Merge, cells: _Cells) -> list[Source]:
    """The inputs that have a weight somewhere."""
    if node.method not in SUMS:
        return list(node.sources)
    return [s for s in node.sources if any(number_of("weight", node, s, *cell) for cell in cells)]


def _held(
    node: Merge, inputs: Mapping[str, Source], cells: _Cells
) -> Iterator[tuple[str, tuple[object, ...]]]:
    """The parameters of one merge in every cell."""

    def over(name: str, source: Source | None = None) -> list[float]:
        return [float(number_of(name, node, source, *cell)) for cell in cells]

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
