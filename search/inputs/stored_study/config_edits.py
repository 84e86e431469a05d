"""A config file that was edited after its study was made: what differs, and what to do about it.

A study keeps its config; the file is not read again. Whoever edits it and resumes has to hear that.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from runs.config.run_config import ConfigError, RunConfig, load_config
from runs.config.yaml_document import shown
from runs.storage.store import Store
from search.inputs.given_config import GivenConfig
from search.inputs.overrides import ON_RESUME

FACT = "config file"
"""Where a study keeps the config file that it was made from."""


def note_file(store: Store, given: GivenConfig) -> None:
    """Keep which file a study was made from, and what it said."""
    if given.path is not None:
        known = {"file": str(given.path.resolve()), "config": given.written.to_dict()}
        store.set_fact(FACT, json.dumps(known))


def edits(store: Store, config: RunConfig) -> tuple[str, ...]:
    """Lines on what the config's file says now and the study does not follow.

    Args:
        store: The study.
        config: What counts: the study's config with what the command line says.
    """
    known = store.mapping(FACT)
    try:
        file = Path(known["file"])  # keys that its version had not have their defaults
        before = dict(_leaves(RunConfig.model_validate(known["config"]).to_dict()))
    except (ValueError, KeyError, TypeError):  # made in Python, or before files were kept
        return ()
    if not file.is_file():
        return ()  # the study may have moved
    try:
        now = dict(_leaves(load_config(file).to_dict()))
    except ConfigError as error:
        return (f"{file} was edited and cannot be read now ({error.problems[0]}); the study's "
                "own config counts",)  # fmt: skip
    counts = dict(_leaves(config.to_dict()))
    keys = [
        key
        for key in dict.fromkeys([*now, *counts])
        if now.get(key) != before.get(key) and now.get(key) != counts.get(key)
    ]
    if not keys:
        return ()
    lines = [_difference(key, now.get(key), counts.get(key)) for key in keys]
    head = f"{file} was edited since the study was made; the study's own values apply:"
    fixed = [key for key in keys if key not in ON_RESUME]
    advice = (
        "To search with the file as it is now, start a new run, with what this one found among "
        f"its seeds: search.seeds: [defaults, {store.name}]"
    )
    return (head, *lines, *([advice] if fixed else []))


def _difference(key: str, now: Any, counts: Any) -> str:
    option = f"; --{ON_RESUME[key].replace('_', '-')} changes it" if key in ON_RESUME else ""
    return f"  {key}: {shown(counts)} counts, the file says {shown(now)}{option}"


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Values by dotted key; lists are values."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
