"""Recipes with many coefficients: a weight for every parent, layer and kind of tensor.

No search finds its way among so many numbers, but a gradient does (``coefficient_gradients``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from spaces.recipes.recipe import ByFilter, Case, Gradient, Merge, Model, Recipe, Source, parameters
from spaces.search_space.space import Space

METHOD = "task_arithmetic"
"""The method that coefficients are learned for."""

OUTSIDE = "embed"
"""The filter of the embeddings, which have a coefficient of their own."""


def start_weight(parents: int) -> float:
    """The weight to begin with: k orthogonal deltas so added are as long as one of them."""
    return 1.0 / math.sqrt(parents)


def layered(space: Space, *, layers: int, filters: Sequence[str]) -> Recipe:
    """Task arithmetic with one weight for every parent, layer and filter, all alike.

    Tensors that no filter matches have one weight per parent and layer; the embeddings have one
    per parent. Any other tensor outside the layers takes the first layer's.

    Args:
        space: Its parents, base and output are the recipe's.
        layers: Number of layers, at least 1.
        filters: Parts of tensor names, such as ``self_attn`` and ``mlp``.

    Raises:
        ValueError: If the space has no base.
    """
    if space.base is None:
        raise ValueError("space: expected a base model, got none")
    weight = start_weight(len(space.parents))
    whole = Gradient((weight,) * layers)
    cases = (*(Case(whole, name) for name in filters), Case(weight, OUTSIDE), Case(whole))
    return Recipe(
        root=Merge(
            method=METHOD,
            base=Model(space.base),
            sources=tuple(
                Source(of=Model(name), parameters=parameters(weight=ByFilter(cases)))
                for name in space.parents
            ),
        ),
        dtype=space.dtype,
        seed=space.seed,
        tokenizer=space.tokenizer,
        vocabulary=space.vocabulary,
        vision=space.vision,
    )
