"""mergekit files that use every method with every feature, and the models they are about."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from spaces.catalogue.method_catalogue import METHODS, BaseRule, Kind, Method

Document = dict[str, Any]

FILES = ("base", "math", "code", "text")
FLAGS = {"normalize": ("normalize", "normalize_weights"), "rescale": ("rescale",)}
FEATURES = (
    "normalize", "rescale", "lambda", "negative weight", "zero weight", "density 1", "gradients",
    "filters", "slices", "unlisted base", "tied", "untied", "missing optional tensor",
    "other tokenizer",
)  # fmt: skip
NUMBERS = {
    "weight": {"math": 0.8, "code": 0.5, "text": 0.4},
    "density": {"math": 0.6, "code": 0.5, "text": 0.7},
    "epsilon": 0.1,
    "gamma": 0.05,
    "t": 0.35,
    "lambda": 0.9,
    "select_topk": 0.6,
    "r": 0.5,
    "alpha": 0.9,
    "scale": 0.7,
}
OF_METHOD = {"nearswap": {"t": 0.004}, "ram": {"epsilon": 0.004}, "ramplus_tl": {"epsilon": 0.004}}
SHARED_BY_ALL = {"weight": 0.4}  # where a base is added to the inputs, it has no values of its own


def lacks(method: Method, feature: str) -> str:
    """Why a method has no such case; empty where it has one."""
    if feature in FLAGS:
        given = any(method.parameter(name) for name in FLAGS[feature])
        return "" if given else "no such parameter"
    if feature == "lambda":
        return "" if method.parameter("lambda") else "no such parameter"
    if feature in ("negative weight", "zero weight"):
        return "" if method.parameter("weight") else "no weights"
    if feature == "density 1":
        return "" if method.parameter("density") else "no density"
    if feature in ("gradients", "filters"):
        return "" if numbers(method) else "no numbers that may vary"
    if feature == "unlisted base" and method.name == "passthrough":
        return "mergekit has two inputs then, and refuses"
    if feature == "missing optional tensor" and method.name == "passthrough":
        return "one input"
    return ""


def numbers(method: Method) -> dict[str, Any]:
    """Values of a method's numbers, away from the defaults."""
    given = NUMBERS | OF_METHOD.get(method.name, {})
    if not method.in_mergekit:
        given |= {s.name: 1.2 * s.default for s in method.parameters if s.name not in NUMBERS}
    return {
        spec.name: given[spec.name]
        for spec in method.parameters
        if spec.kind is Kind.NUMBER and spec.name in given
    }


def varied(value: float, feature: str) -> Any:
    """A number as a gradient, or by filter."""
    if feature == "gradients":
        return [0.8 * value, value, 0.9 * value]
    if feature == "filters":
        cases = [("self_attn", 0.8 * value), ("mlp", [value, 0.9 * value])]
        return [*({"filter": f, "value": v} for f, v in cases), {"value": 0.85 * value}]
    return value


def parameters(method: Method, feature: str) -> tuple[Document, dict[str, Document]]:
    """Parameters of the merge, and of each input."""
    shared: Document = {}
    own: dict[str, Document] = {name: {} for name in FILES}
    for name, value in numbers(method).items():
        spec = method.parameter(name)
        assert spec is not None
        if not isinstance(value, dict):
            shared[name] = varied(value, feature)
            continue
        for model, number in value.items():
            own[model][name] = varied(number, feature)
    for name in FLAGS.get(feature, ()):
        if (spec := method.parameter(name)) is not None:
            shared[name] = not spec.default
    if feature in ("negative weight", "zero weight"):
        own["code"]["weight"] = -0.3 if feature == "negative weight" else 0.0
    if feature == "density 1" or (feature == "other tokenizer" and method.random):
        for name in own.keys() & set(NUMBERS["density"]):
            own[name]["density"] = 1.0
    if feature == "lambda":
        shared["lambda"] = -1.3
    if feature == "unlisted base" and method.base is BaseRule.NONE:
        shared |= {k: v for k, v in SHARED_BY_ALL.items() if method.parameter(k) is not None}
    return shared, own


def document(method: Method, feature: str, folder: Path) -> Document:
    """The mergekit file of a cell."""
    tuned = ["math", "code", "text"][: method.max_inputs or 3]
    based = method.base is not BaseRule.NONE
    if method.base is BaseRule.ENDPOINT:
        tuned = ["code"]
    elif feature == "other tokenizer" and not based:
        tuned = tuned[:2]  # of more, another lends its rows: see docs/recipes.md
    listed = [*tuned, *(["base"] if method.base is BaseRule.ENDPOINT else [])]
    if feature == "unlisted base":
        listed, based = tuned, True
    shared, own = parameters(method, feature)
    result: Document = {"merge_method": method.name, "dtype": "float32", "parameters": shared}
    if based:
        result["base_model"] = str(folder / "base")
    if feature == "slices":
        sources = [*tuned, *(["base"] if based else [])]
        result["slices"] = [
            {"sources": [entry(name, own[name], folder, layers) for name in order]}
            for layers, order in (([1, 3], sources), ([0, 1], sources[::-1]))
        ]
    else:
        result["models"] = [entry(name, own[name], folder) for name in listed]
    if feature == "other tokenizer":
        result["tokenizer_source"] = str(folder / (tuned[0] if not based else "base"))
    return result


def entry(name: str, own: Document, folder: Path, layers: list[int] | None = None) -> Document:
    place = {} if layers is None else {"layer_range": layers}
    return {"model": str(folder / name), "parameters": own, **place}


def make_folders(tiny_model: Any, new_folder: Callable[[str], Path]) -> dict[str, Path]:
    """Models of three layers: as they mostly are, tied, one without a head, other tokenizers."""

    def made(kind: str, **settings: Any) -> Path:
        root = new_folder(kind)
        base = tiny_model(root / "base", layers=3, hidden=16, **settings)
        for seed, name in enumerate(FILES[1:], start=1):
            tiny_model(root / name, base=base, seed=seed)
        return root

    tokens = new_folder("tokens")
    for seed, (name, vocab) in enumerate(zip(FILES, ("abcd", "dcabx", "acxyd", "bz"), strict=True)):
        tiny_model(tokens / name, layers=3, hidden=16, seed=seed, vocab=vocab)
    headless = made("headless")
    file = headless / "code" / "model.safetensors"
    tensors = load_file(file)
    del tensors["lm_head.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    config = headless / "code" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"tie_word_embeddings": True}))
    return {
        "tied": made("tied", tied=True),
        "untied": made("untied"),
        "missing optional tensor": headless,
        "other tokenizer": tokens,
    }


CELLS = [
    (name, feature)
    for name, method in METHODS.items()
    for feature in FEATURES
    if not lacks(method, feature)
]
