"""How much of each model a recipe brings in, layer by layer.

What the weights of a recipe come to: after normalisation, times ``lambda`` or ``scale``, and
multiplied along a merge tree. Densities do not count (what is kept is meant to make up for what is
dropped), and a base that deltas are taken from has no share of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from spaces.catalogue.method_catalogue import METHODS, BaseRule
from spaces.recipes.recipe import Merge, Model, Parameter, Recipe, Source, filters, resolve

SMALLEST_TOTAL = 1e-8
"""Sums of weights below this are not divided by."""

VISION = "vision tower"
"""The group of tensors of a vision tower that is not merged as the rest."""

Shares = dict[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Contribution:
    """What one model brings in to one group of tensors.

    Attributes:
        model: Name of the model.
        tensors: Part of the names of the tensors, such as ``mlp``; empty for all others; or
            ``VISION``.
        shares: One per layer of the result, from the first; 1 is the model as it is.
    """

    model: str
    tensors: str
    shares: tuple[float, ...]


def contributions(recipe: Recipe, layers: int) -> tuple[Contribution, ...]:
    """What each model of a recipe brings in to each layer of the result.

    Args:
        recipe: Any legal one.
        layers: Layers of every model that goes in, at least 1.

    Returns:
        Models in the order of the recipe; for each the groups of tensors that the recipe tells
        apart, in the order of its filters, then all others. Models without a share anywhere (a
        base) are left out.
    """
    places = list(_places(recipe.root, layers))
    found = []
    for tensors in (*filters(recipe.root), ""):
        mixes = [_mix(node, tensors, layer, position) for node, layer, position in places]
        for model in recipe.models:
            shares = tuple(mix.get(model, 0.0) for mix in mixes)
            if any(shares):
                found.append(Contribution(model=model, tensors=tensors, shares=shares))
    shares = (1.0 / max(len(recipe.towers), 1),) * layers
    found += [Contribution(model=one, tensors=VISION, shares=shares) for one in recipe.towers]
    order = {model: at for at, model in enumerate(recipe.models)}
    return tuple(sorted(found, key=lambda item: order[item.model]))


def _places(root: Merge, layers: int) -> Iterator[tuple[_Inputs, int, float]]:
    """For each layer of the result: what makes it, its number, and its depth in its slice."""
    if not root.slices:
        for layer in range(layers):
            yield _Inputs(root, root.sources), layer, layer / max(layers - 1, 1)
        return
    for part in root.slices:
        for at in range(part.length):
            yield _Inputs(root, part.sources, part.parameters), at, at / max(part.length - 1, 1)


@dataclass(frozen=True, slots=True)
class _Inputs:
    """The inputs of a merge, or of one slice of it."""

    merge: Merge
    sources: tuple[Source, ...]
    shared: tuple[tuple[str, Parameter], ...] = ()

    def value(self, name: str, tensors: str, position: float, source: Source | None) -> float:
        """A parameter as it holds for one tensor: of the source, the slice, the merge, the rule."""
        tables = [() if source is None else source.parameters, self.shared, self.merge.parameters]
        for table in tables:
            for known, value in table:
                if known == name:
                    found = resolve(value, tensor=tensors, position=position)
                    if found is not None:
                        return float(found)
        spec = METHODS[self.merge.method].parameter(name)
        return 1.0 if spec is None or spec.default is None else float(spec.default)


def _mix(inputs: _Inputs, tensors: str, layer: int, position: float) -> Shares:
    """What every model brings in to one layer."""
    mix: Shares = {}
    factors = _factors(inputs, tensors, position)
    for source, factor in zip(inputs.sources, factors, strict=True):
        at = layer if source.layers is None else source.layers[0] + layer
        for model, share in _below(source.of, tensors, at, position).items():
            mix[model] = mix.get(model, 0.0) + factor * share
    return mix


def _below(node: Model | Merge, tensors: str, layer: int, position: float) -> Mapping[str, float]:
    """What every model brings in to one layer of an input, which may stack layers itself."""
    if isinstance(node, Model):
        return {node.name: 1.0}
    if not node.slices:
        return _mix(_Inputs(node, node.sources), tensors, layer, position)
    places = list(_places(node, 0))
    inputs, own, depth = places[min(layer, len(places) - 1)]
    return _mix(inputs, tensors, own, depth)


def _factors(inputs: _Inputs, tensors: str, position: float) -> Sequence[float]:
    """By how much each input comes in."""
    merge, method = inputs.merge, METHODS[inputs.merge.method]

    def value(name: str, source: Source | None = None) -> float:
        return inputs.value(name, tensors, position, source)

    if method.base is BaseRule.ENDPOINT:
        # Only slerp's t is a position; the others take entries from either side by themselves.
        t = value("t") if merge.method == "slerp" else 0.5
        return [1.0 - t if source.of == merge.base else t for source in inputs.sources]
    apart = method.base.apart and merge.base is not None
    taken = [0.0 if apart and source.of == merge.base else 1.0 for source in inputs.sources]
    weight = "scale" if merge.method == "passthrough" else "weight"
    if method.parameter(weight) is None:  # such as model stock: it weighs by the models themselves
        return [there / max(sum(taken), 1.0) for there in taken]
    weights = [
        there * value(weight, source) for there, source in zip(taken, inputs.sources, strict=True)
    ]
    factor = value("lambda") if method.parameter("lambda") is not None else 1.0
    if method.parameter("normalize") is not None and value("normalize"):
        total = sum(weights)
        factor /= total if abs(total) > SMALLEST_TOTAL else 1.0
    return [factor * one for one in weights]
