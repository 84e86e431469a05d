"""What a genome of mergekit-evolve comes to as bounds of a search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runs.config.config_sections import one_of
from search.setup.mergekit_evolve.evolve_keys import EvolveKeys
from spaces.catalogue.method_catalogue import METHODS, BaseRule

_NORMALIZED = ("linear", "ties", "dare_ties")
"""Methods whose weights mergekit-evolve normalises where the config does not say."""


def space(read: EvolveKeys, models: Mapping[str, str]) -> dict[str, Any]:
    """The section ``space``."""
    method = read.take("merge_method", str, None, "genome")
    if method not in METHODS:
        text = "expected a method, got none" if method is None else one_of(method, METHODS)
        read.problem(text, "genome", "merge_method")
        return {}
    if METHODS[method].base is BaseRule.REQUIRED and read.genome.get("base_model") is None:
        read.problem(f"expected a base for {method}, got none", "genome", "base_model")
    read.note(
        "space.methods",
        "genome.merge_method: one method there. Several can be searched at once here;",
        "leave the key out for the usual ones.",
    )
    values: dict[str, Any] = {"methods": [method]}
    drawn = ["t"] if method == "slerp" else ["weight"]
    if method in ("ties", "dare_ties", "dare_linear"):
        drawn.append("density")
    negative = read.take("allow_negative_weights", bool, False, "genome")
    read.note("space.weight", "genome.allow_negative_weights; the range is a bound, unlike there.")
    values["weight"] = [-1.5 if negative else 0.0, 1.5]
    if method == "slerp":
        values["order"] = "any" if len(models) == 2 else "pairwise"
        read.note(
            "space.order",
            "slerp there took the two models with the largest weights per group of layers; here",
            "all models are merged, two at a time.",
        )
    else:
        values["order"] = "all-at-once"
        read.note("space.order", "All models in one merge, as there; any also tries pairs.")
    filters = read.take("filters", list, [], "genome")
    if filters:
        read.note("space.filters", "genome.filters")
        values |= {"filters": filters, "filter_parameters": drawn}
    _depth(read, models, drawn, values)
    _normalize(read, method)
    return values


def _depth(
    read: EvolveKeys, models: Mapping[str, str], drawn: list[str], values: dict[str, Any]
) -> None:
    """``layer_granularity`` counts layers in a group; ours counts groups."""
    size = read.take("layer_granularity", int, 0, "genome")
    smooth = read.take("smooth", bool, False, "genome")
    kind = "knots" if smooth else "groups"
    if size <= 0:
        read.note("space.depth", "No genome.layer_granularity: one value for all layers.")
        return
    layers = _layers(models)
    if layers is None:
        read.note(
            "space.depth",
            f"genome.layer_granularity: {size} layers share a value. The models are not on this",
            f"machine; give {kind} as their number of layers divided by {size}.",
        )
        read.remarks.append(
            "The models are not on this machine, so their depth is not known: set space.depth "
            "by hand."
        )
        return
    if layers % size:
        text = f"expected a divisor of the {layers} layers, got {size}"
        read.problem(text, "genome", "layer_granularity")
        return
    if layers // size < 2:
        read.note("space.depth", "genome.layer_granularity takes in all layers: one value.")
        return
    read.note(
        "space.depth",
        f"genome.layer_granularity: {size} of {layers} layers share a value"
        + (", smooth: values in between are interpolated." if smooth else "."),
    )
    values["depth"] = {kind: layers // size, "parameters": drawn}


def _layers(models: Mapping[str, str]) -> int | None:
    """How deep the models are; ``None`` where none of them is here."""
    from merging.checkpoints.checkpoint import Checkpoint, CheckpointError  # brings torch

    for name, place in models.items():
        try:
            return len(Checkpoint.open(place, name=name).layout.layers)
        except CheckpointError:
            continue
    return None


def _normalize(read: EvolveKeys, method: str) -> None:
    default = next((p.default for p in METHODS[method].parameters if p.name == "normalize"), None)
    asked = read.take("normalize", bool, method in _NORMALIZED, "genome")
    if default is None:
        return
    if asked == default:
        read.note("space.methods", f"genome.normalize: {str(asked).lower()} for {method}, as here.")
        return
    read.note(
        "space.methods",
        f"genome.normalize: {str(asked).lower()} has no key here: {method} is drawn with "
        f"normalize: {str(default).lower()}.",
        "What it does to the sum of the weights, weight and lambda can do as well.",
    )
    read.remarks.append(
        f"genome.normalize: {str(asked).lower()} does not carry over; see the file."
    )
