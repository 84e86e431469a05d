"""The card of a built model: its parts, their licenses, scores, sources, and how to repeat it.

A card is made to be published. It names models by hub id or by relative path, never by an absolute
path of the machine that it was written on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from runs.config.locations import published
from runs.config.yaml_document import dump
from runs.export.recorded_scores import noted_scores, noted_verdict
from runs.report.report_markdown import code_block, escaped
from spaces.catalogue.method_catalogue import METHODS, Method
from spaces.mergekit import not_in_mergekit, to_yaml
from spaces.paths import exists
from spaces.recipes.recipe import Recipe, merges
from spaces.text.error_text import listed

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.\-]*/[\w.\-]+(@[\w.\-]+)?\Z")
_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
_BOUND = "The merge is bound by the licenses of all these models. Check that they allow it."


def model_card(
    recipe: Recipe,
    locations: Mapping[str, str],
    *,
    fingerprint: str,
    licenses: Mapping[str, str] | None = None,
    meta: Mapping[str, Any] | None = None,
    inputs_dtype: str | None = None,
    name: str = "Merged model",
) -> str:
    """The README.md of a built model.

    Args:
        recipe: What it was built from.
        locations: Path or hub id of every model in the recipe, by name.
        fingerprint: Hash of its weights.
        licenses: What the models' own cards declare, by name; empty where they declare nothing.
        meta: What ``recipe_meta`` noted in its file: scores and verdict.
        inputs_dtype: Dtype of the models, for recipes that keep it.
        name: Begins the title.
    """
    public = {model: published(place, model) for model, place in locations.items()}
    places = {model: public[model] for model in recipe.models}
    declared = {model: (licenses or {}).get(model, "") for model in recipe.models}
    document = to_yaml(recipe, public, inputs_dtype=inputs_dtype)
    parts = [
        _front_matter(places, declared),
        f"# {escaped(name)}: {escaped(recipe.title)} of {escaped(listed(recipe.inputs))}",
        "Merged by merge-search from the models below.",
        f"Its vision tower is that of {listed(recipe.towers)}." if recipe.towers else "",
        "## Models",
        "\n".join(
            f"- `{model}`: {escaped(place)} (license: {escaped(declared[model]) or 'not declared'})"
            for model, place in places.items()
        ),
        "" if _common(declared) else _BOUND,
        "## Methods",
        "\n".join(f"- {one.title} (`{one.name}`): {one.summary}." for one in _used(recipe)),
    ]
    if table := noted_scores(meta or {}):
        parts += ["## Scores", table]
    if verdict := noted_verdict(meta or {}):
        parts.append(verdict)
    parts += ["## Recipe", code_block(document, "yaml"), "## How to build it again"]
    parts += [_how_to(recipe, document, fingerprint), "## Citation"]
    linked = [_ARXIV.sub(r"[\g<0>](https://arxiv.org/abs/\1)", m.source) for m in _used(recipe)]
    named = zip(_used(recipe), linked, strict=True)
    parts.append("\n".join(f"- {one.title}: {source}" for one, source in named))
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(places: Mapping[str, str], licenses: Mapping[str, str]) -> str:
    """Metadata as model hubs read it; paths would mean nothing there."""
    ids = [part for place in places.values() for part in place.split("+")]
    hub = [item.partition("@")[0] for item in ids if _HUB_ID.match(item) and not exists(item)]
    data: dict[str, object] = {"base_model": list(dict.fromkeys(hub))} if hub else {}
    if common := _common(licenses):
        data["license"] = common
    data |= {"library_name": "transformers", "tags": ["merge", "mergekit", "merge-search"]}
    return f"---\n{dump(data)}---"


def _common(licenses: Mapping[str, str]) -> str:
    """The license that all models declare; empty where they do not agree, or one declares none."""
    declared = set(licenses.values())
    return declared.pop() if len(declared) == 1 else ""


def _used(recipe: Recipe) -> list[Method]:
    return [METHODS[name] for name in dict.fromkeys(merge.method for merge in merges(recipe.root))]


def _how_to(recipe: Recipe, document: str, fingerprint: str) -> str:
    several = "\n---" in document
    tool = "mergekit-multi" if several else "mergekit-yaml"
    more = " --intermediate-dir PARTS --out-path OUT" if several else " OUT"
    here = " in this folder" if "# Relative paths" in document else ""
    text = (
        f"Save the recipe above as `recipe.yaml`{here}; then\n\n"
        + code_block("search build recipe.yaml OUT", "sh")
        + f"\n\nmakes the same weights, with the fingerprint `{fingerprint}`."
    )
    if lacking := not_in_mergekit(recipe):
        return f"{text} mergekit does not have {listed(lacking)}."
    text += f" So does `{tool} recipe.yaml{more}` of mergekit, to rounding"
    if any(METHODS[merge.method].random for merge in merges(recipe.root)):
        text += ", but for the entries that it drops at random: there mergekit draws anew each time"
    return text + "."
