"""Recipes as mergekit YAML: one document, or one per merge of a tree."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from spaces.catalogue.method_catalogue import METHODS, BaseRule
from spaces.mergekit.plain_values import Unreadable, reference
from spaces.mergekit.tokenizer_section import vocabulary_keys
from spaces.mergekit.vision_documents import joined
from spaces.recipes.parameter_values import parameters_to_json
from spaces.recipes.recipe import (
    DTYPES,
    Merge,
    Model,
    Parameters,
    Recipe,
    RecipeError,
    Source,
    merges,
)
from spaces.text.error_text import listed

BLOCK = "merge_search"
"""Key of the final document that holds what mergekit has no word for; mergekit ignores it."""

METHOD_KEY = "merge_search_method"
"""Names the method in place of ``merge_method`` where mergekit has none, and refuses the file."""

OWN = ("key", "seed", "tokenizer", "vision", "keep_dtype", "models")
"""Keys of the block that are ours; the others are the caller's."""

_HEADER = "# Made by merge-search. With mergekit: "
_NOT_THERE = "# Made by merge-search: search build THIS_FILE OUTPUT_FOLDER (mergekit lacks {})\n"
_ONE = "mergekit-yaml THIS_FILE OUTPUT_FOLDER\n"
_SEVERAL = "mergekit-multi THIS_FILE --intermediate-dir FOLDER --out-path OUTPUT_FOLDER\n"
_RELATIVE = "# Relative paths count from this file's folder: start mergekit there.\n"


def to_yaml(
    recipe: Recipe,
    locations: Mapping[str, str],
    *,
    meta: Mapping[str, Any] | None = None,
    inputs_dtype: str | None = None,
) -> str:
    """A recipe as YAML that mergekit runs as it is; ``from_yaml`` is the inverse.

    A tree becomes several documents, inner merges first, each named; the last has no name. All
    arithmetic is asked for in float32.

    Args:
        recipe: The recipe.
        locations: Path or hub id of every model in it, written as given: relative paths count from
            the folder of the file, where mergekit has to be started then.
        meta: Further facts for the ``merge_search`` block (fingerprint, score ...): plain values.
        inputs_dtype: Dtype of the models. Only used where the recipe keeps that of its inputs:
            mergekit has to be told it, and saves float32 otherwise.

    Raises:
        RecipeError: If a model has no location, two have the same, or ``meta`` is not plain.
    """
    located = _locations(recipe, locations)
    if inputs_dtype is not None and inputs_dtype not in DTYPES:
        raise RecipeError(f"inputs_dtype: expected one of {', '.join(DTYPES)}, got {inputs_dtype}")
    references: dict[Model | Merge, str] = {Model(name): at for name, at in located.items()}
    root = joined(recipe)
    documents = []
    for number, merge in enumerate(merges(root), start=1):
        body = _body(merge, references, donor=recipe.donor)
        if merge == root:
            documents.append(body | _ending(recipe, located, meta or {}, inputs_dtype))
            continue
        # A name that changes with the content: mergekit-multi takes an intermediate model that is
        # there already under this name, so another recipe must not use the same one.
        digest = hashlib.sha256(_dump(body).encode()).hexdigest()[:8]
        references[merge] = f"step{number}-{digest}"
        ending = {"dtype": "float32"} | _vocabulary(recipe, located)
        documents.append({"name": references[merge]} | body | ending)
    text = "---\n".join(_dump(document) for document in documents)
    header = _HEADER + (_ONE if len(documents) == 1 else _SEVERAL)
    if lacking := not_in_mergekit(recipe):
        header = _NOT_THERE.format(listed(lacking))
    if any(part.startswith(".") for place in located.values() for part in place.split("+")):
        header += _RELATIVE
    return header + text


def not_in_mergekit(recipe: Recipe) -> list[str]:
    """The methods of a recipe that mergekit does not have."""
    used = dict.fromkeys(merge.method for merge in merges(recipe.root))
    return [name for name in used if not METHODS[name].in_mergekit]


def _locations(recipe: Recipe, locations: Mapping[str, str]) -> dict[str, str]:
    """Locations of the models of a recipe, in order of appearance."""
    names = recipe.needed
    missing = [name for name in names if name not in locations]
    if missing:
        raise RecipeError(f"locations: expected one for every model, got none for {missing}")
    located = {name: str(locations[name]) for name in names}
    by_place: dict[str, str] = {}
    for name, place in located.items():
        try:
            reference(place)
        except Unreadable as error:
            raise RecipeError(f"locations: {name}: {error}") from error
        if place in by_place:
            raise RecipeError(
                f"locations: expected another for every model, got {place} for "
                f"{by_place[place]} and {name}"
            )
        by_place[place] = name
    return located


def _body(merge: Merge, references: Mapping[Model | Merge, str], *, donor: str) -> dict[str, Any]:
    """The part of a document that says what is merged and how."""
    known = METHODS[merge.method].in_mergekit
    result: dict[str, Any] = {"merge_method" if known else METHOD_KEY: merge.method}
    base = merge.base if merge.base is not None else _giver(merge, donor)
    if base is not None:
        result["base_model"] = references[base]
    if merge.slices:
        result["slices"] = [
            {"sources": [_source(source, references) for source in part.sources]}
            | _parameters(part.parameters)
            for part in merge.slices
        ]
    else:
        result["models"] = [_source(source, references) for source in merge.sources]
    return result | _parameters(merge.parameters)


def _giver(merge: Merge, donor: str) -> Model | Merge | None:
    """The input that gives config and tokenizer in a method that has no base.

    mergekit takes those of ``base_model``, which such a method otherwise ignores; without one it
    takes any of several inputs.
    """
    inputs = list(dict.fromkeys(source.of for group in merge.groups() for source in group))
    if METHODS[merge.method].base is not BaseRule.NONE or len(inputs) == 1:
        return None
    return next((node for node in inputs if donor in _names(node)), inputs[0])


def _names(node: Model | Merge) -> tuple[str, ...]:
    return (node.name,) if isinstance(node, Model) else Recipe(root=node).models


def _ending(
    recipe: Recipe, located: Mapping[str, str], meta: Mapping[str, Any], inputs_dtype: str | None
) -> dict[str, Any]:
    """The part of the final document that says what the result looks like, and the block."""
    clashes = sorted(set(meta) & set(OWN))
    if clashes:
        raise RecipeError(f"meta: expected names other than {', '.join(OWN)}, got {clashes}")
    result: dict[str, Any] = {"dtype": "float32"}
    saved = recipe.dtype or inputs_dtype
    if saved not in (None, "float32"):
        result["out_dtype"] = saved
    result |= _vocabulary(recipe, located)
    if recipe.chat_template is not None:
        result["chat_template"] = recipe.chat_template
    block: dict[str, Any] = {"key": recipe.key}
    if recipe.seed:
        block["seed"] = recipe.seed
    if recipe.tokenizer is not None:
        block["tokenizer"] = recipe.tokenizer
    if recipe.vision is not None:
        block["vision"] = recipe.vision.to_dict()
    if recipe.dtype is None:
        block["keep_dtype"] = True
    return result | {BLOCK: block | {"models": dict(located)} | dict(meta)}


def _vocabulary(recipe: Recipe, located: Mapping[str, str]) -> dict[str, Any]:
    """The tokenizer keys, in every document of a tree: each has to end up with that vocabulary."""
    if recipe.vocabulary is None:
        return {}
    if recipe.vocabulary.tokens and len(list(merges(joined(recipe)))) > 1:
        raise RecipeError("vocabulary.tokens: expected none for a tree of merges, got some")
    return vocabulary_keys(recipe.vocabulary, located)


def _source(source: Source, references: Mapping[Model | Merge, str]) -> dict[str, Any]:
    result: dict[str, Any] = {"model": references[source.of]}
    if source.layers is not None:
        result["layer_range"] = list(source.layers)
    return result | _parameters(source.parameters)


def _parameters(table: Parameters) -> dict[str, Any]:
    return {"parameters": parameters_to_json(table)} if table else {}


class _MergekitDumper(yaml.SafeDumper):
    """Numbers of a list in one line, no anchors, nested lists indented."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the name and form are PyYAML's
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        super().increase_indent(flow, indentless=False)


def _list(dumper: yaml.SafeDumper, data: Iterable[Any]) -> yaml.Node:
    flow = all(isinstance(item, int | float) for item in data)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=flow)


_MergekitDumper.add_representer(list, _list)


def _dump(document: Mapping[str, Any]) -> str:
    try:
        text: str = yaml.dump(
            dict(document),
            Dumper=_MergekitDumper,
            sort_keys=False,
            width=math.inf,
            allow_unicode=True,
        )
    except (yaml.YAMLError, RecursionError) as error:
        raise RecipeError(f"meta: expected plain values, got something else: {error}") from error
    return text
