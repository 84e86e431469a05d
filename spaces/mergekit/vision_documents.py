"""A vision tower that is not merged as the rest, in mergekit's words: one linear merge more.

Its first input is the merge; the others are the models that the tower is taken from. By filter,
the tower's tensors have a weight of 1 in these and all others a weight of 1 in the merge.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from spaces.recipes.recipe import (
    ByFilter,
    Case,
    Merge,
    Model,
    Recipe,
    RecipeError,
    Source,
    parameters,
)
from spaces.recipes.vision import Vision


def joined(recipe: Recipe) -> Merge:
    """The whole recipe as one tree, its vision tower in it; the root itself where it has none."""
    vision = recipe.vision
    if vision is None:
        return recipe.root
    towers = tuple(Model(name) for name in recipe.towers)

    def with_tower(node: Model | Merge) -> Model | Merge:
        if towers == (node,):
            return node
        return Merge(
            method="linear",
            sources=tuple(
                _source(one, vision, tower=one in towers, rest=one == node)
                for one in dict.fromkeys((node, *towers))
            ),
        )

    return _changed(recipe.root, with_tower)


def parted(root: Merge, vision: Vision) -> Merge:
    """The root of the recipe that ``joined`` gives this tree for.

    Raises:
        RecipeError: If there is none.
    """
    found = _changed(root, lambda node: node if isinstance(node, Model) else node.sources[0].of)
    if isinstance(found, Merge) and joined(Recipe(root=found, vision=vision)) == root:
        return found
    raise RecipeError(
        "vision: expected the merge that was written with it, got another; remove the key to build "
        "what the file says"
    )


def _changed(root: Merge, change: Callable[[Model | Merge], Model | Merge]) -> Merge:
    """Another root; of stacked layers, other inputs, so that the stack stays outermost."""
    if not root.slices:
        found = change(root)
        return found if isinstance(found, Merge) else root
    return replace(
        root,
        base=None if root.base is None else change(root.base),
        slices=tuple(
            replace(part, sources=tuple(replace(one, of=change(one.of)) for one in part.sources))
            for part in root.slices
        ),
    )


def _source(node: Model | Merge, vision: Vision, *, tower: bool, rest: bool) -> Source:
    cases = [Case(float(tower), part) for part in vision.parts]
    weight = ByFilter((*cases, Case(float(rest))))
    return Source(of=node, parameters=parameters(weight=weight))
