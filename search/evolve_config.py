"""mergekit-evolve's config, key by key, as a config of ours."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluators.test_sets import known_set
from merging.checkpoint import Checkpoint, CheckpointError
from runs.checks import BASE, UNION
from runs.document import Document, Problem
from runs.sections import one_of
from runs.split import FEWEST_HELD_OUT
from search.building import find_location
from search.config_page import Draft, located
from search.drafting import named
from search.errors import InputError
from spaces.methods import METHODS, BaseRule
from spaces.yaml_values import Unreadable, reference

TRIALS = 100
"""mergekit-evolve's own number of evaluations where none is given (--max-fevals)."""

DTYPE = "bfloat16"
"""What mergekit-evolve always merges to."""

_NORMALIZED = ("linear", "ties", "dare_ties")
"""Methods whose weights mergekit-evolve normalises where the config does not say."""

_GENOME = (
    "models", "merge_method", "base_model", "tokenizer_source", "layer_granularity", "normalize",
    "allow_negative_weights", "filters", "smooth",
)  # fmt: skip
_TOP = (
    "genome", "tasks", "limit", "num_fewshot", "shuffle", "random_init", "apply_chat_template",
    "fewshot_as_multiturn",
)  # fmt: skip


@dataclass(kw_only=True, slots=True)
class _Reading:
    """A config of mergekit-evolve on its way to one of ours."""

    source: Document
    problems: list[Problem] = field(default_factory=list)
    notes: dict[str, list[str]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    @property
    def top(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.source.data
        return found

    @property
    def genome(self) -> Mapping[str, Any]:
        found = self.top.get("genome")
        return found if isinstance(found, Mapping) else {}

    def problem(self, text: str, *place: str | int) -> None:
        self.problems.append(Problem(text=text, place=place))

    def note(self, key: str, *lines: str) -> None:
        self.notes.setdefault(key, []).extend(lines)

    def take(self, key: str, kind: type | tuple[type, ...], default: Any, *place: str) -> Any:
        """A value of a key, of its kind; the default where it is missing or wrong."""
        table = self.genome if place else self.top
        value = table.get(key)
        if value is None:
            return default
        right = isinstance(value, kind) and not (isinstance(value, bool) and kind is int)
        if not right:
            words = {bool: "true or false", int: "a whole number", list: "a list", str: "a text"}
            name = words.get(kind if isinstance(kind, type) else kind[0], "another value")
            self.problem(f"expected {name}, got {value!r}", *place, key)
            return default
        return value


def evolve_draft(
    source: Document, *, out: Path, include_path: tuple[str, ...]
) -> tuple[Draft, list[str]]:
    """A config of ours for a config of mergekit-evolve.

    Args:
        source: The file; its top is a mapping.
        out: Where ours will be.
        include_path: Folders of task files (``--task-search-path`` there).

    Returns:
        The draft, and sentences for the user.

    Raises:
        InputError: With everything that is wrong with it.
    """
    read = _Reading(source=source, problems=list(source.problems))
    models, base = _models(read)
    values: dict[str, Any] = {} if base is None else {"base": located(base, out.parent)}
    values["models"] = {name: located(place, out.parent) for name, place in models.items()}
    values["tasks"] = _tasks(read)
    if include_path:
        values["include_path"] = [located(folder, out.parent) for folder in include_path]
    values["harness"] = _harness(read)
    values["held_out"] = _held_out(read)
    values["space"] = _space(read, models)
    values["search"] = _search(read)
    values["output"] = _output(read, models, base)
    _unknown(read)
    if read.problems:
        raise InputError(source.messages(read.problems))
    head = [
        f"From {source.name}, a mergekit-evolve config. Comments say what maps to what.",
        f"Next: `search check {out}`, then `search run {out}`.",
    ]
    return Draft(values=values, head=head, notes=read.notes), read.remarks


def _models(read: _Reading) -> tuple[dict[str, str], str | None]:
    """The parents by name and the base; a base among the parents is left out of them."""
    listed = read.take("models", list, None, "genome")
    places: list[str] = []
    for at, item in enumerate(listed or ()):
        try:
            places.append(reference(item))
        except Unreadable as error:
            read.problem(str(error), "genome", "models", at)
    base: str | None = None
    if read.genome.get("base_model") is not None:
        try:
            base = reference(read.genome["base_model"])
        except Unreadable as error:
            read.problem(str(error), "genome", "base_model")
    if not isinstance(read.top.get("genome"), Mapping):
        read.problem("expected a mapping of keys", "genome")
    elif not listed:
        read.problem("expected a list of models, got none", "genome", "models")
    folder = Path(read.source.name).parent
    places = [find_location(place, folder) for place in places]
    base = None if base is None else find_location(base, folder)
    if base in places:
        places = [place for place in places if place != base]
        read.note("models", "The base was among genome.models; here it is the base alone.")
    read.note("models", "genome.models")
    if base is not None:
        read.note(BASE, "genome.base_model")
    return named(places, []), base


def _tasks(read: _Reading) -> list[dict[str, Any]]:
    shots = read.take("num_fewshot", int, None)
    limit = read.take("limit", int, None)
    listed = read.take("tasks", list, None)
    if not listed:
        read.problem("expected a list of tasks, got none", "tasks")
    read.note(
        "tasks",
        "tasks: name, metric (acc,none where none was given) and weight.",
        "The score here is the weighted mean; there it was the weighted sum: the same order.",
    )
    if shots is not None or limit is not None:
        read.note("tasks", "num_fewshot and limit, for all tasks there, are given per task here.")
    found = []
    for at, item in enumerate(listed or ()):
        task = {"name": item} if isinstance(item, str) else item
        if not isinstance(task, Mapping) or not isinstance(task.get("name"), str):
            read.problem("expected a name, or a mapping with one", "tasks", at)
            continue
        mine: dict[str, Any] = {"name": task["name"], "metric": task.get("metric") or "acc,none"}
        mine["weight"] = task.get("weight", 1.0)
        mine |= {} if shots is None else {"num_fewshot": shots}
        mine |= {} if limit is None else {"limit": limit}
        found.append(mine)
        title = known_set(task["name"], dataset="", split="test")
        if title is not None:
            read.note(
                f"tasks.{at}",
                f"{title} is a well-known test set: use a train or dev split, or a run refuses it",
                "(search.allow_test_sets).",
            )
    return found


def _held_out(read: _Reading) -> float:
    """A share that leaves enough questions to check on, of those that ``limit`` lets in."""
    read.note(
        "held_out",
        "mergekit-evolve reported the score it had optimised. Here this share of the questions is",
        "kept from the search, and the winner is checked on it.",
    )
    limit = read.top.get("limit")
    if not isinstance(limit, int) or limit < 1:
        return 0.3
    share = max(0.3, math.ceil(100 * FEWEST_HELD_OUT / limit) / 100)
    if share <= 0.6:
        return share
    read.note(
        "held_out", f"limit: {limit} leaves too few: raise it to {FEWEST_HELD_OUT * 3} or more."
    )
    return 0.0


def _harness(read: _Reading) -> dict[str, Any]:
    read.note("harness.apply_chat_template", "apply_chat_template (true there if not said)")
    read.note("harness.fewshot_as_multiturn", "fewshot_as_multiturn (true there if not said)")
    return {
        "apply_chat_template": read.take("apply_chat_template", bool, True),
        "fewshot_as_multiturn": read.take("fewshot_as_multiturn", bool, True),
        "batch_size": "auto",
    }


def _space(read: _Reading, models: Mapping[str, str]) -> dict[str, Any]:
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
    read: _Reading, models: Mapping[str, str], drawn: list[str], values: dict[str, Any]
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
    for name, place in models.items():
        try:
            return len(Checkpoint.open(place, name=name).layout.layers)
        except CheckpointError:
            continue
    return None


def _normalize(read: _Reading, method: str) -> None:
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


def _search(read: _Reading) -> dict[str, Any]:
    read.note("search.trials", "--max-fevals there, 100 if not given.")
    read.note("search.sampler", "cmaes is what mergekit-evolve used; auto needs fewer recipes.")
    values: dict[str, Any] = {"trials": TRIALS, "sampler": "auto"}
    if read.take("random_init", bool, False):
        read.note("search.seeds", "random_init: nothing but parents and average is tried first.")
        values["seeds"] = "none"
    if read.take("shuffle", bool, False):
        read.note(
            "search.seed", "shuffle: the order of questions is always shuffled, by this seed."
        )
    return values


def _output(read: _Reading, models: Mapping[str, str], base: str | None) -> dict[str, Any]:
    values: dict[str, Any] = {"dtype": DTYPE}
    read.note("output.dtype", "mergekit-evolve always merged to bfloat16.")
    source = read.genome.get("tokenizer_source")
    if source is None:
        return values
    read.note("output.vocabulary", "genome.tokenizer_source; not needed where all are the same.")
    names = {place: name for name, place in models.items()}
    try:
        where = find_location(reference(source), Path(read.source.name).parent)
    except Unreadable as error:
        read.problem(str(error), "genome", "tokenizer_source")
        return values
    if where == UNION:
        values["vocabulary"] = UNION
    elif where == base or (where == BASE and base is not None):
        values["vocabulary"] = BASE
    elif where in names:
        values["vocabulary"] = names[where]
    elif where == BASE:
        values["vocabulary"] = next(iter(models), BASE)
    else:
        text = f"expected union, base or one of the models, got {where!r}"
        read.problem(text, "genome", "tokenizer_source")
    return values


def _unknown(read: _Reading) -> None:
    """Keys that mergekit-evolve itself passes over."""
    for place, key in _strange(read):
        read.remarks.append(f"{place}{key} is no key of mergekit-evolve; it was left out.")


def _strange(read: _Reading) -> Iterator[tuple[str, str]]:
    yield from (("", key) for key in read.top if key not in _TOP)
    yield from (("genome.", key) for key in read.genome if key not in _GENOME)
