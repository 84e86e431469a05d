"""The result of a run for use elsewhere: a recipe as YAML, and the card of a built model."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runs.config.yaml_document import dump
from runs.export.recorded_scores import noted_scores, noted_verdict
from runs.output_files import write_text
from runs.ranking.verdict import Verdict, name_of
from runs.records.record import Record, Split, State
from runs.report.report_markdown import code_block, escaped
from runs.report.task_tables import models_compared
from spaces.catalogue.method_catalogue import METHODS
from spaces.mergekit import not_in_mergekit, to_yaml
from spaces.paths import exists
from spaces.recipes.recipe import Recipe, merges
from spaces.text.error_text import listed

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.\-]*/[\w.\-]+(@[\w.\-]+)?\Z")


def recipe_meta(record: Record, verdict: Verdict | None = None) -> dict[str, Any]:
    """What an exported recipe says about its place in a run: plain values by name, in order.

    Scores are exact, so that those of a rebuilt model can be compared with them.

    Args:
        record: The candidate.
        verdict: Of the run; it is told of the winner only, with the scores of parents and base.
    """
    meta: dict[str, Any] = {"candidate": record.id, "origin": record.origin}
    search = record.evaluations.get(Split.SEARCH)
    if search is not None and search.fingerprint:
        meta["fingerprint"] = search.fingerprint
    if record.posterior is not None:
        known = record.posterior
        meta["expected"] = {
            "value": known.value,
            "stderr": None if math.isnan(known.stderr) else known.stderr,
        }
    for split, name in ((Split.SEARCH, "score"), (Split.HELD_OUT, "held_out")):
        evaluation = record.evaluations.get(split)
        if evaluation is not None and evaluation.state is State.COMPLETE:
            meta[name] = {
                "value": evaluation.value,
                "stderr": None if math.isnan(evaluation.stderr) else evaluation.stderr,
                "questions": evaluation.questions,
                "tasks": {score.task: score.value for score in evaluation.tasks},
            }
    if verdict is not None and verdict.winner == name_of(record):
        meta |= _judged(verdict)
    return meta


def _judged(verdict: Verdict) -> dict[str, Any]:
    found = {
        one.name: {
            "value": one.held_out.combined.value,
            "tasks": {task: score.value for task, score in one.held_out.tasks.items()},
        }
        for one in models_compared(verdict)
    }
    return {"verdict": verdict.sentence} | ({"compared": found} if found else {})


def write_recipe(
    recipe: Recipe,
    locations: Mapping[str, str],
    *,
    path: Path,
    meta: Mapping[str, Any] | None = None,
    inputs_dtype: str | None = None,
) -> None:
    """Write a recipe as mergekit YAML; the file appears whole or not at all.

    Args:
        recipe: The recipe.
        locations: Path or hub id of every model in it, by name.
        path: File to write.
        meta: What to note about it, such as ``recipe_meta`` gives.
        inputs_dtype: Dtype of the models, for recipes that keep it.

    Raises:
        RecipeError: If a model has no location.
    """
    write_text(path, to_yaml(recipe, locations, meta=meta, inputs_dtype=inputs_dtype))


def model_card(
    recipe: Recipe,
    locations: Mapping[str, str],
    *,
    fingerprint: str,
    meta: Mapping[str, Any] | None = None,
    inputs_dtype: str | None = None,
    name: str = "Merged model",
) -> str:
    """The README.md of a built model.

    Args:
        recipe: What it was built from.
        locations: Path or hub id of every model in the recipe, by name.
        fingerprint: Hash of its weights.
        meta: What ``recipe_meta`` noted in its file, for the scores.
        inputs_dtype: Dtype of the models, for recipes that keep it.
        name: Title of the card.
    """
    document = to_yaml(recipe, locations, inputs_dtype=inputs_dtype)
    models = listed([f"`{model}`" for model in recipe.models])
    parts = [
        _front_matter(recipe, locations),
        f"# {escaped(name)}",
        f"A merge of {models} ({escaped(recipe.title)}), made with merge-search.",
        "## Models",
        "\n".join(f"- `{model}`: {escaped(locations[model])}" for model in recipe.models),
        "## Methods",
        "\n".join(_method_lines(recipe)),
    ]
    if table := noted_scores(meta or {}):
        parts += ["## Scores", table]
    if verdict := noted_verdict(meta or {}):
        parts.append(verdict)
    parts += ["## Recipe", code_block(document, "yaml"), "## How to build it again"]
    parts.append(_how_to(recipe, document, fingerprint))
    return "\n\n".join(parts) + "\n"


def _front_matter(recipe: Recipe, locations: Mapping[str, str]) -> str:
    """Metadata as model hubs read it; paths of this machine would mean nothing there."""
    ids = [part for model in recipe.models for part in locations[model].split("+")]
    hub = [item.partition("@")[0] for item in ids if _HUB_ID.match(item)]
    hub = [item for item in hub if not exists(item)]
    data: dict[str, object] = {"base_model": list(dict.fromkeys(hub))} if hub else {}
    data |= {"library_name": "transformers", "tags": ["merge", "mergekit", "merge-search"]}
    return f"---\n{dump(data)}---"


def _method_lines(recipe: Recipe) -> list[str]:
    used = dict.fromkeys(merge.method for merge in merges(recipe.root))
    return [
        f"- {method.title} (`{name}`): {method.summary}. {method.source}."
        for name in used
        if (method := METHODS[name])
    ]


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
