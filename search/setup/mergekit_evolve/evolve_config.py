"""mergekit-evolve's config, key by key, as a config of ours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluators.harness.tasks.known_benchmarks import known_set
from evaluators.harness.tasks.task_files import shipped_tasks, task_file
from runs.config.config_checks import BASE, UNION
from runs.config.yaml_document import YamlDocument
from runs.records.question_split import FEWEST_HELD_OUT
from search.inputs.input_error import InputError
from search.inputs.recipe_files import find_location
from search.setup.commented_yaml import CommentedYaml, located
from search.setup.config_request import named
from search.setup.mergekit_evolve.evolve_keys import EvolveKeys
from search.setup.mergekit_evolve.evolve_space import space
from spaces.mergekit.plain_values import Unreadable, reference

TRIALS = 100
"""mergekit-evolve's own number of evaluations where none is given (--max-fevals)."""

DTYPE = "bfloat16"
"""What mergekit-evolve always merges to."""


def evolve_draft(
    source: YamlDocument, *, out: Path, include_path: tuple[str, ...]
) -> tuple[CommentedYaml, list[str]]:
    """A config of ours for a config of mergekit-evolve.

    Returns:
        The draft, and sentences for the user.

    Raises:
        InputError: With everything that is wrong with it.
    """
    read = EvolveKeys(source=source, problems=list(source.problems))
    models, base = _models(read)
    values: dict[str, Any] = {} if base is None else {"base": located(base, out.parent)}
    values["models"] = {name: located(place, out.parent) for name, place in models.items()}
    values["tasks"] = _tasks(read)
    if include_path:
        values["include_path"] = [located(folder, out.parent) for folder in include_path]
    values["harness"] = _harness(read)
    values["held_out"] = _held_out(read)
    values["space"] = space(read, models)
    values["search"] = _search(read)
    values["output"] = _output(read, models, base)
    read.remark_unknown()
    if read.problems:
        raise InputError(source.messages(read.problems))
    _remark_names(read, values["tasks"], include_path)
    head = [
        f"From {source.name}, a mergekit-evolve config. Comments say what maps to what.",
        f"Next: `search check {out}`, then `search run {out}`.",
    ]
    return CommentedYaml(values=values, head=head, notes=read.notes), read.remarks


def _models(read: EvolveKeys) -> tuple[dict[str, str], str | None]:
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


def _tasks(read: EvolveKeys) -> list[dict[str, Any]]:
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


def _remark_names(
    read: EvolveKeys, tasks: Sequence[Mapping[str, Any]], include_path: tuple[str, ...]
) -> None:
    """Say of which tasks a run would not know what to ask; their files may be elsewhere."""
    places = (*map(Path, include_path), shipped_tasks())
    unsure = [task["name"] for task in tasks if task_file(task["name"], places) is None]
    if not unsure:
        return
    from evaluators.harness.lm_eval_adapter import name_problems  # brings torch and lm-eval

    found = name_problems(unsure, include_path)
    for at, task in enumerate(tasks):
        if (problem := found.get(task["name"])) is not None:
            read.note(f"tasks.{at}", f"A run refuses it: {problem}.")
            read.remarks.append(f"warning: tasks.{at}.{problem}; a run refuses it.")
    if found and not include_path:
        read.remarks.append("Where files of tasks are elsewhere, give --include-path.")


def _held_out(read: EvolveKeys) -> float:
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


def _harness(read: EvolveKeys) -> dict[str, Any]:
    read.note("harness.apply_chat_template", "apply_chat_template (true there if not said)")
    read.note("harness.fewshot_as_multiturn", "fewshot_as_multiturn (true there if not said)")
    return {
        "apply_chat_template": read.take("apply_chat_template", bool, True),
        "fewshot_as_multiturn": read.take("fewshot_as_multiturn", bool, True),
        "batch_size": "auto",
    }


def _search(read: EvolveKeys) -> dict[str, Any]:
    read.note("search.trials", "--max-fevals there, 100 if not given.")
    read.note("search.sampler", "cmaes is what mergekit-evolve used; auto needs fewer recipes.")
    values: dict[str, Any] = {"trials": TRIALS, "sampler": "auto"}
    if read.take("random_init", bool, False):
        read.note(
            "search.seeds", "random_init: nothing but parents, average and base is tried first."
        )
        values["seeds"] = "none"
    if read.take("shuffle", bool, False):
        read.note(
            "search.seed", "shuffle: the order of questions is always shuffled, by this seed."
        )
    return values


def _output(read: EvolveKeys, models: Mapping[str, str], base: str | None) -> dict[str, Any]:
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
