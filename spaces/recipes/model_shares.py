"""How much of each model a recipe holds, roughly: what pretended scores are computed from."""

from __future__ import annotations

from collections.abc import Mapping

from spaces.catalogue.method_catalogue import METHODS, BaseRule
from spaces.recipes.recipe import (
    ByFilter,
    Gradient,
    Merge,
    Model,
    Parameter,
    Parameters,
    Source,
)


def model_shares(node: Model | Merge) -> dict[str, float]:
    """How much of each model a merge holds, to first order in the weights.

    Gradients and filters count with their mean, slices with their length, and a density as the
    share of the delta that it keeps, half rescaled; what else thins a delta counts likewise: enough
    for a landscape that depends on every parameter, not a prediction.
    """
    if isinstance(node, Model):
        return {node.name: 1.0}
    if not node.slices:
        return _merged(node, node.sources, node.parameters)
    total = sum(part.length for part in node.slices) or 1
    result: dict[str, float] = {}
    for part in node.slices:
        table = dict(node.parameters) | dict(part.parameters)
        _add(result, _merged(node, part.sources, tuple(table.items())), part.length / total)
    return result


def _merged(node: Merge, sources: tuple[Source, ...], shared: Parameters) -> dict[str, float]:
    rule = METHODS[node.method].base
    base = model_shares(node.base) if node.base is not None else {}
    result: dict[str, float] = {}
    if rule is BaseRule.ENDPOINT and node.base is not None:
        position = _position(node, shared)
        for source in sources:
            share = 1.0 - position if source.of == node.base else position
            _add(result, model_shares(source.of), share)
        return result
    inputs = [source for source in sources if not rule.apart or source.of != node.base]
    weights = [_weight(node, source, shared) for source in inputs]
    total = sum(weights)
    scale = 1.0 / total if abs(total) > 1e-6 and _value(node, "normalize", shared) else 1.0
    if node.base is not None:
        scale *= _value(node, "lambda", shared) * _share(node, shared)
        _add(result, base, 1.0 - scale * total)
    for source, weight in zip(inputs, weights, strict=True):
        _add(result, model_shares(source.of), scale * weight)
    return result


def _weight(node: Merge, source: Source, shared: Parameters) -> float:
    own = tuple((dict(shared) | dict(source.parameters)).items())
    return _value(node, "weight", own) * (1.0 + _value(node, "density", own)) / 2.0


def _position(node: Merge, shared: Parameters) -> float:
    """How far a merge of two is from the one that is its base."""
    match node.method:
        case "slerp":
            return _value(node, "t", shared)
        case "nearswap":  # half way at the usual change of a weight
            t = _value(node, "t", shared)
            return t / (t + 1e-3)
        case _:
            return 0.5


def _share(node: Merge, shared: Parameters) -> float:
    """What of the deltas a merge keeps, by the parameters that few methods have."""
    names = ("gamma", "epsilon", "select_topk", "r", "alpha")
    known = [name for name in names if METHODS[node.method].parameter(name) is not None]
    given = {name: _value(node, name, shared) for name in known}
    share = (1.0 + given.get("select_topk", 1.0)) / 2.0
    share *= 1.0 - given.get("gamma", 0.0) / 2.0
    epsilon = given.get("epsilon", 0.0)
    share *= 1.0 - epsilon / 4.0 if METHODS[node.method].random else 1e-2 / (1e-2 + epsilon)
    return share * (1.0 + given.get("r", 0.0) * given.get("alpha", 0.0) / 2.0)


def _value(node: Merge, name: str, table: Parameters) -> float:
    """The mean of a parameter, else its default, else 1."""
    for known, value in table:
        if known == name:
            return _mean(value)
    spec = METHODS[node.method].parameter(name)
    return 1.0 if spec is None or spec.default is None else float(spec.default)


def _mean(value: Parameter) -> float:
    match value:
        case ByFilter(cases):
            return sum(_mean(case.value) for case in cases) / len(cases)
        case Gradient(anchors):
            return sum(anchors) / len(anchors)
        case _:
            return float(value)


def _add(result: dict[str, float], shares: Mapping[str, float], factor: float) -> None:
    for name, share in shares.items():
        result[name] = result.get(name, 0.0) + factor * share
