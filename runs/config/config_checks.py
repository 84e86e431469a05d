"""What is wrong with a config: pydantic's errors in plain words, and checks across sections."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from evaluators.harness_spec import MOST_KEYS
from runs.config.config_sections import one_of
from runs.config.yaml_document import Place, YamlProblem, path_text, shown
from runs.records.record import MEASURES, PARAMETERS, SCORE
from spaces.catalogue.method_catalogue import METHODS, BaseRule
from spaces.search_space.parameter_ranges import FURTHER

BASE = "base"
"""Name of the base model in recipes; no parent may have it."""

UNION = "union"
"""What ``output.vocabulary`` is for the tokens of all models."""

MERGE, AVERAGE = "merge", "average"
"""What ``output.vision`` is for a tower merged as all else, and for the mean of the inputs'."""

THINKING_KEYS = ("think_end_token", "max_think_toks", "enable_thinking")
"""Keys of ``harness`` that are no generation settings."""

ONE_OBJECTIVE = ("cmaes",)
"""Samplers that cannot search for a Pareto front."""

_WORDS = {
    "bool_type": "true or false",
    "dict_type": "a mapping of keys",
    "finite_number": "a finite number",
    "float_type": "a number",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "a number of at least {ge:g}",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "less_than": "a number below {lt:g}",
    "less_than_equal": "a number of at most {le:g}",
    "literal_error": "{expected}",
    "model_type": "a mapping of keys",
    "string_too_short": "a text that is not empty",
    "string_type": "a text",
    "too_short": "at least {min_length} of them",
    "tuple_type": "a list",
}
"""What was expected, by pydantic's error type."""


def typed_problems(error: ValidationError, schema: Mapping[str, Any]) -> list[YamlProblem]:
    """Errors of pydantic as problems, in our words."""
    problems = []
    for item in error.errors(include_url=False):
        kind, found = item["type"], item.get("input")
        place: Place = tuple(part for part in item["loc"] if part != "[key]")
        context = item.get("ctx", {})
        if kind == "cross":  # these are found again, with their places, by cross_problems
            continue
        if kind == "too_short" and found:  # its items are faulty and reported, it is not empty
            continue
        if kind == "missing":
            text = "expected a value, got none"
        elif kind == "extra_forbidden":
            text = _unknown_key(place, schema)
        elif kind == "expected":
            text = item["msg"]
        elif kind == "value_error":
            text = str(context.get("error", item["msg"]))
        else:
            words = _WORDS.get(kind, "another value").format(**context)
            text = f"expected {words}, got {shown(found)}"
            if kind == "string_type" and isinstance(found, bool | int | float):
                text += "; put it in quotes"
        problems.append(YamlProblem(text=text, place=place))
    return problems


def _unknown_key(place: Place, schema: Mapping[str, Any]) -> str:
    known = set(key_paths(schema))
    around = tuple("*" if isinstance(part, int) else part for part in place[:-1])
    key = str(place[-1])
    here = [path[-1] for path in known if path[:-1] == around]
    near = difflib.get_close_matches(key, here, n=1, cutoff=0.6)
    if near:
        return f"unknown key; did you mean {near[0]!r}?"
    elsewhere = sorted(path_text(path) for path in known if path[-1] == key and "*" not in path)
    if elsewhere:
        return f"unknown key here; did you mean {elsewhere[0]}?"
    return f"unknown key; expected one of {', '.join(sorted(here))}"


def key_paths(schema: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Every key a config may have, as paths; ``*`` stands for the items of a list."""
    definitions = schema.get("$defs", {})

    def walk(node: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        if "$ref" in node:
            yield from walk(definitions[node["$ref"].rsplit("/", 1)[-1]], path)
        for branch in (*node.get("anyOf", ()), *node.get("allOf", ())):
            yield from walk(branch, path)
        if isinstance(node.get("items"), Mapping):
            yield from walk(node["items"], (*path, "*"))
        for key, inner in node.get("properties", {}).items():
            yield (*path, key)
            yield from walk(inner, (*path, key))

    yield from walk(schema, ())


def cross_problems(data: Mapping[str, Any]) -> list[YamlProblem]:
    """Faults that only show between keys, found even where other values are faulty.

    Args:
        data: The config's values, as read; nothing about their types is taken for granted.
    """
    return [
        *_model_problems(data),
        *_task_problems(data),
        *_thinking_problems(data),
        *_generation_problems(data),
        *_floor_problems(data),
        *_held_out_problems(data),
        *_method_problems(data),
        *_depth_problems(data),
        *_slice_problems(data),
        *_tokenizer_problems(data),
        *_worker_problems(data),
        *_objective_problems(data),
        *_token_problems(data),
    ]


def _at(data: Any, *place: str) -> Any:
    for key in place:
        data = data.get(key) if isinstance(data, Mapping) else None
    return data


def _model_names(data: Mapping[str, Any]) -> list[str]:
    models = _at(data, "models")
    return list(models) if isinstance(models, Mapping) else []


def _model_problems(data: Mapping[str, Any]) -> Iterator[YamlProblem]:
    seen: dict[str, str] = {}
    if isinstance(_at(data, "base"), str):
        seen[data["base"]] = "the base"
    for name in _model_names(data):
        location = data["models"][name]
        place: Place = ("models", name)
        if name == BASE:
            text = "expected another name: 'base' stands for the base model"
            yield YamlProblem(text=text, place=place)
        elif isinstance(location, str):
            if location in seen:
                text = f"expected a model of its own, got the same as {seen[location]}"
                yield YamlProblem(text=text, place=place)
            seen.setdefault(location, path_text(place))


def _task_names(data: Mapping[str, Any]) -> list[str | None]:
    tasks = _at(data, "tasks")
    if not isinstance(tasks, Sequence) or isinstance(tasks, str):
        return []
    names = [task if isinstance(task, str) else _at(task, "name") for task in tasks]
    return [name if isinstance(name, str) else None for name in names]


def _task_problems(data: Mapping[str, Any]) -> Iterator[YamlProblem]:
    names = _task_names(data)
    for at, name in enumerate(names):
        if name is not None and name in names[:at]:
            text = f"expected each task once, got {shown(name)} again"
            yield YamlProblem(text=text, place=("tasks", at))


def _thinking_problems(data: Mapping[str, Any]) -> Iterator[YamlProblem]:
    harness = _at(data, "harness")
    if not isinstance(harness, Mapping):
        return
    arguments, thinking = harness.get("chat_template_args"), harness.get("enable_thinking")
    ends = harness.get("think_end_token") is not None
    chat = harness.get("apply_chat_template") not in (None, False)
    for key, given in (("chat_template_args", arguments or None), ("enable_thinking", thinking)):
        if given is not None and not chat:
            text = f"expected none without harness.apply_chat_template, got {shown(given)}"
            yield YamlProblem(text=text, place=("harness", key))
    if isinstance(arguments, Mapping) and "enable_thinking" in arguments:
        text = "expected it as harness.enable_thinking"
        yield YamlProblem(text=text, place=("harness", "chat_template_args", "enable_thinking"))
    if thinking is True and not ends:
        text = "expected false without harness.think_end_token (such as </think>), got true"
        yield YamlProblem(text=text, place=("harness", "enable_thinking"))
    if (most := harness.get("max_think_toks")) is not None and not ends:
        text = f"expected none without harness.think_end_token, got {shown(most)}"
        yield YamlProblem(text=text, place=("harness", "max_think_toks"))


def _generation_problems(data: Mapping[str, Any]) -> Iterator[YamlProblem]:
    settings = _at(data, "harness", "gen_kwargs")
    for key, value in settings.items() if isinstance(settings, Mapping) else ():
        place = ("harness", "gen_kwargs", key)
        if key in MOST_KEYS and not (type(value) is int and value >= 1):
            text = f"expected a whole number of at least 1, got {shown(value)}"
            yield YamlProblem(text=text, place=place)
        if key in THINKING_KEYS:
            yield YamlProblem(text=f"expected it as harness.{key}", place=place)


def _floor_problems(data: Mapping[str, Any]) -> Iterator[YamlProblem]:
    weights, held_out = _task_weights(data), _at(data, "held_out")
    for at, name in enumerate(_task_names(data)):
        floor = _at(data["tasks"][at], "floor")
        if weights[at] == 0 and floor is None:
            text = "expected a number above 0 without a floor, got 0; give the task a floor"
            yield YamlProblem(text=text, place=("tasks", at, "weight"))
        if floor is not None and isinstance(held_out, list | tuple) and name in held_out:
            text = "expected a floor for a task to search on only, got one for a held-out task"
            yield YamlProblem(text=text, place=("tasks", at, "floor"))
    if weights and not any(weights):
        text = "expected at least one task with a weight above 0, got none"
        yield YamlProblem(text=text, place=("tasks",))


def _task_weights(data: Mapping[str, Any]) -> list[Any]:
    """The weight of every task as it is given, else 1."""
    found = [_at(data["tasks"][at], "weight") for at in range(len(_task_names(data)))]
    return [1.0 if weight is None else weight for weight in found]


def _held_out_problems(data: Mapping[str, Any]) -> Iterator[YamlProblem]:
    held_out, tasks = _at(data, "held_out"), _task_names(data)
    if not isinstance(held_out, list | tuple) or not tasks or None in tasks:
        return
    known = [name for name in tasks if name is not None]
    for at, name in enumerate(held_out):
        if isinstance(name, str) and name and name not in known:
            yield YamlProblem(text=one_of(name, dict.fromkeys(known)), place=("held_out", at))
        if name in held_out[:at]:
            text = f"expected each task once, got {shown(name)} again"
            yield YamlProblem(text=text, place=("held_out", at))
    if set(known) <= {name for name in held_out if isinstance(name, str)}:
        text = "expected at least one task to be left for the search, got all of them held out"
        yield YamlProblem(text=text, place=("held_out",))


def _method_problems(data: Mapping[str, Any]) -> Iterator[YamlProblem]:
    methods = _at(data, "space", "methods")
    if _at(data, "base") is not None or not isinstance(methods, list | tuple):
        return
    for at, name in enumerate(methods):
        method = METHODS.get(name) if isinstance(name, str) else None
        if method is not None and method.base is BaseRule.REQUIRED:
            text = f"expected a base for {name}, got none; give 'base', or leave {name} out"
            yield YamlProblem(text=text, place=("space", "methods", at))


def _depth_problems(data: Mapping[str, Any]) -> Iterator[YamlProblem]:
    depth = _at(data, "space", "depth")
    if isinstance(depth, Mapping):
        given = [key for key in ("knots", "groups") if depth.get(key) is not None]
        if len(given) != 1:
            text = f"expected exactly one of knots and groups, got {'both' if given else 'none'}"
            yield YamlProblem(text=text, place=("space", "depth"))


def _slice_problems(data: Mapping[str, Any]) -> Iterator[YamlProblem]:
    low = _at(data, "space", "slices", "min_layers")
    high = _at(data, "space", "slices", "max_layers")
    if type(low) is int and type(high) is int and low > high:
        text = f"expected min_layers <= max_layers, got {low} and {high}"
        yield YamlProblem(text=text, place=("space", "slices"))


def _tokenizer_problems(data: Mapping[str, Any]) -> Iterator[YamlProblem]:
    models = _model_names(data)
    known = models if _at(data, "base") is None else [BASE, *models]
    words = {"tokenizer": [], "vocabulary": [UNION], "vision": [MERGE, AVERAGE]}
    for key, others in words.items():
        name = _at(data, "output", key)
        if not isinstance(name, str) or not models or name in (*known, *others):
            continue
        text = one_of(name, [*others, *known])
        if name == BASE:
            text = "expected a model's name, got 'base' where no base is given"
        yield YamlProblem(text=text, place=("output", key))


def _worker_problems(data: Mapping[str, Any]) -> Iterator[YamlProblem]:
    if _at(data, "workers", "ray") is not False:
        return
    if _at(data, "workers", "ray_address") is not None:
        text = "expected no address where ray is false, got one"
        yield YamlProblem(text=text, place=("workers", "ray_address"))
    count = _at(data, "workers", "count")
    if type(count) is int and count > 1:
        text = f"expected 1 or auto where ray is false, got {count}"
        yield YamlProblem(text=text, place=("workers", "count"))


def _token_problems(data: Mapping[str, Any]) -> Iterator[YamlProblem]:
    if _at(data, "search", "tokens") is not None and _at(data, "evaluator") is not None:
        text = "expected none with an evaluator of your own, which counts no tokens; use questions"
        yield YamlProblem(text=text, place=("search", "tokens"))


def _objective_problems(data: Mapping[str, Any]) -> Iterator[YamlProblem]:
    small = _at(data, "search", "minimize") or ()
    pareto = _at(data, "search", "objective") == "pareto"
    if not isinstance(small, list | tuple) or not (pareto or small):
        return
    yield from _measure_problems(data, small)
    held_out = _at(data, "held_out")
    apart = held_out if isinstance(held_out, list | tuple) else ()
    searched = [
        name
        for name, weight in zip(_task_names(data), _task_weights(data), strict=True)
        if name not in apart and weight != 0
    ]
    if pareto and len(searched) < (1 if small else 2):
        text = f"expected two tasks or more to search on for pareto, got {len(searched)}; use sum"
        yield YamlProblem(text=text, place=("search", "objective"))
    sampler = _at(data, "search", "sampler")
    if sampler in ONE_OBJECTIVE:
        text = f"expected a sampler for several objectives, got {shown(sampler)}; use auto or nsga2"
        yield YamlProblem(text=text, place=("search", "sampler"))


def _measure_problems(data: Mapping[str, Any], small: Sequence[Any]) -> Iterator[YamlProblem]:
    place: Place = ("search", "minimize")
    if len(set(map(str, small))) < len(small):
        yield YamlProblem(text="expected each measure once, got one twice", place=place)
    if PARAMETERS in small and not _at(data, "space", "slices"):
        text = (
            "expected parameters only with space.slices, without which all models are of one size"
        )
        yield YamlProblem(text=text, place=place)
    taken = [name for name in _task_names(data) if name in (SCORE, *MEASURES)]
    for name in taken:
        yield YamlProblem(
            text=f"expected no task named {name!r} with further objectives", place=place
        )


_SPACE_KEYS: dict[str, Place] = {
    "base": ("base",),
    "dtype": ("output", "dtype"),
    "parents": ("models",),
    "scale": ("space", "lambda"),
    "seed": ("output", "seed"),
    "stacking": ("space", "slices"),
    "tokenizer": ("output", "tokenizer"),
    "vision": ("output", "vision"),
    "vocabulary": ("output", "vocabulary"),
}


def space_problem(text: str) -> YamlProblem:
    """A line of a SpaceError with the config key that it is about."""
    start = re.match(r"([a-z_]+)(?:\.([a-z_]+))?(?:\[\d+\])?: ", text)
    if start is None:
        return YamlProblem(text=text, place=("space",))
    first, second = start.groups()
    if first in FURTHER:
        first, second = "ranges", first
    place = _SPACE_KEYS.get(first, ("space", first))
    return YamlProblem(text=text[start.end() :], place=(*place, second) if second else place)
