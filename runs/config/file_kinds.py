"""What a YAML file is, where it is not what was asked for: one word of help for many faults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runs.config.yaml_document import shown
from spaces.mergekit.writer import METHOD_KEY

_MERGE = ("merge_method", METHOD_KEY, "slices", "modules")
_MOST_KEYS = 6


def not_a_config(data: Mapping[str, Any]) -> str | None:
    """What the top of a YAML file shows it to be; ``None`` if it may be a config."""
    if "genome" in data:
        return "expected a config, got one of mergekit-evolve; `search import` makes one of it"
    if any(key in data for key in _MERGE):
        return (
            "expected a config, got a merge; `search build` makes a model of it, and "
            "`search import` a recipe that a search tries first"
        )
    if _is_task(data):
        return "expected a config, got an lm-eval task; `search init --task` makes a config for it"
    if data and "models" not in data and "tasks" not in data:
        return f"expected a config with models and tasks, got a file with {_keys(data)}"
    return None


def not_of_mergekit(data: Mapping[str, Any]) -> str | None:
    """What shows a YAML file to be neither a merge nor a mergekit-evolve config, or ``None``."""
    wanted = "expected a mergekit-evolve config or a mergekit YAML"
    if _is_task(data):
        return f"{wanted}, got an lm-eval task"
    if "merge_method" not in data and "tasks" in data and "models" in data:
        return f"{wanted}, got a config of merge-search already"
    if data and not any(key in data for key in (*_MERGE, "models", "experts", "genome")):
        return f"{wanted}, got a file with {_keys(data)}"
    return None


def _is_task(data: Mapping[str, Any]) -> bool:
    return "task" in data and ("dataset_path" in data or "output_type" in data)


def _keys(data: Mapping[str, Any]) -> str:
    names = [name if name.isidentifier() else shown(name) for name in list(data)[:_MOST_KEYS]]
    more = f" and {len(data) - _MOST_KEYS} more" if len(data) > _MOST_KEYS else ""
    return f"the keys {', '.join(names)}{more}" if len(data) > 1 else f"the key {names[0]}"
