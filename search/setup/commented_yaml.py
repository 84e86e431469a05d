"""A config file to be read: every value with a comment, further keys to uncomment."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from runs.config.run_config import json_schema
from spaces.paths import exists, expanded
from spaces.text.terminal_text import printable

SCHEMA_FILE = "search.schema.json"
"""Name of the JSON Schema beside a config."""

_KEYS = (
    "base", "models", "tasks", "include_path", "evaluator", "harness", "held_out", "space",
    "search", "workers", "output",
)  # fmt: skip

_OFFERED = {
    "harness": ("apply_chat_template", "batch_size", "max_length", "gen_kwargs"),
    "space": ("methods", "weight", "density", "depth", "filters", "order", "slices"),
    "search": ("hours", "trials", "sampler", "objective", "seeds", "validate", "seed"),
    "workers": ("count", "gpus", "ray_address"),
    "output": ("dtype", "tokenizer", "vocabulary"),
}
"""Keys of each section that are shown, set or not."""

_EXAMPLES = {
    "harness.max_length": 4096,
    "harness.gen_kwargs": {"max_gen_toks": 256},
    "space.depth": {"knots": 3},
    "space.filters": ["self_attn", "mlp"],
    "search.hours": 8,
    "search.trials": 300,
    "workers.ray_address": "auto",
    "output.dtype": "bfloat16",
    "output.tokenizer": "base",
    "output.vocabulary": "union",
}
"""Values for keys that are not set by default, to show what one looks like."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CommentedYaml:
    """A config to be written.

    Attributes:
        values: As in the file; sections are mappings.
        head: Comment lines at the top.
        notes: Comment lines above a key, by dotted key: ``base``, ``models.math``, ``tasks.0``,
            ``space.depth``; those of ``end`` come last.
    """

    values: Mapping[str, Any]
    head: Sequence[str] = ()
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)


def text_of(draft: CommentedYaml) -> str:
    """The draft as YAML; what ``runs.config.run_config`` reads from it are its values."""
    lines = [f"# yaml-language-server: $schema=./{SCHEMA_FILE}"]
    lines += [f"# {line}".rstrip() for line in draft.head]
    for key in _KEYS:
        if key in draft.values or key in _OFFERED or key in draft.notes:
            lines += ["", *_block(draft, key)]
    if "end" in draft.notes:
        lines += ["", *_comments(draft, "end")]
    return "\n".join(lines) + "\n"


def located(location: str, folder: Path) -> str:
    """A location given from here as a config in ``folder`` has to give it.

    Absolute paths and hub ids stay as they are; of ``path+adapter`` each part counts for itself.
    """
    return "+".join(_relative(part, folder) for part in location.split("+"))


def _relative(part: str, folder: Path) -> str:
    path = expanded(part)
    if path.is_absolute() or not exists(path):
        return part
    found = Path(os.path.relpath(path, folder)).as_posix()
    return found if found == "." or found.startswith("..") else f"./{found}"


def _block(draft: CommentedYaml, key: str) -> Iterator[str]:
    """The lines of one key at the top."""
    yield from _comments(draft, key)
    value = draft.values.get(key)
    if key in _OFFERED:
        yield from _section(draft, key, value or {})
    elif key not in draft.values:
        return
    elif isinstance(value, Mapping):
        yield f"{key}:"
        for name, item in value.items():
            yield from _comments(draft, f"{key}.{name}", indent=2)
            yield f"  {name}: {flow(item)}"
    elif key == "tasks":
        yield f"{key}:"
        for at, item in enumerate(value or ()):
            yield from _comments(draft, f"{key}.{at}", indent=2)
            yield f"  - {flow(item)}"
    else:
        yield f"{key}: {flow(value)}"


def _section(draft: CommentedYaml, key: str, values: Mapping[str, Any]) -> Iterator[str]:
    """A section: what is set, and what could be, commented out with its meaning."""
    known = _properties(key)
    yield f"{key}:"
    names = (*_OFFERED[key], *(name for name in values if name not in _OFFERED[key]))
    for name in names:
        meaning = str(known[name].get("description", ""))
        notes = list(_comments(draft, f"{key}.{name}", indent=2))
        if name in values:
            yield from notes or [f"  # {meaning}"]
            yield f"  {name}: {flow(values[name])}"
            continue
        yield from notes
        shown = _EXAMPLES.get(f"{key}.{name}", known[name].get("default"))
        yield f"  # {name}: {flow(shown)}  # {meaning}"


def _comments(draft: CommentedYaml, key: str, *, indent: int = 0) -> Iterator[str]:
    for line in draft.notes.get(key, ()):
        yield f"{' ' * indent}# {printable(line)}".rstrip()


def _properties(section: str) -> Mapping[str, Any]:
    """What the schema says of the keys of a section."""
    schema = json_schema()
    kinds = {
        "harness": "HarnessSection", "space": "SpaceSection", "search": "SearchSection",
        "workers": "WorkersSection", "output": "OutputSection",
    }  # fmt: skip
    found: Mapping[str, Any] = schema["$defs"][kinds[section]]["properties"]
    return found


def flow(value: Any) -> str:
    """A value on one line, as YAML reads it back."""
    text: str = yaml.safe_dump(
        _listed(value), default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**9
    )
    return text.removesuffix("\n").removesuffix("...").rstrip("\n")


def _listed(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_listed(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _listed(item) for key, item in value.items()}
    return value
