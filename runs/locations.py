"""Where models, tasks and seeds lie: a config's relative paths made absolute, hub ids left."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runs.document import Problem, shown
from spaces.places import exists, expanded, is_folder

DEFAULTS = ("defaults", "default")
"""What stands for the default seeds in a list of seeds."""


def located(data: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A config's values with local paths made absolute.

    Args:
        data: Values as read; what is not a text is left for the checks to report.
        folder: What relative paths are relative to.
    """
    result = dict(data)
    if isinstance(data.get("base"), str):
        result["base"] = locate(data["base"], folder)
    if isinstance(data.get("models"), dict):
        result["models"] = {
            name: locate(location, folder) if isinstance(location, str) else location
            for name, location in data["models"].items()
        }
    paths = data.get("include_path")
    if isinstance(paths, str):
        paths = [paths]
    if isinstance(paths, list):
        result["include_path"] = [
            _absolute(path, folder) if isinstance(path, str) and path else path for path in paths
        ]
    evaluator = data.get("evaluator")
    if isinstance(evaluator, str) and ".py:" in evaluator:
        file, _, name = evaluator.rpartition(":")
        result["evaluator"] = f"{_absolute(file, folder)}:{name}"
    search = data.get("search")
    if isinstance(search, dict) and isinstance(search.get("seeds"), list):
        seeds = [
            _absolute(item, folder) if isinstance(item, str) and _names_file(item) else item
            for item in search["seeds"]
        ]
        result["search"] = search | {"seeds": seeds}
    return result


def split_top(entry: str) -> tuple[str, int | None]:
    """A study among the seeds: its path, and how many of its best are wanted if that is said.

    Args:
        entry: ``other/study.db`` or ``other/study.db:10``; a path that exists keeps its colon.
    """
    path, _, number = entry.rpartition(":")
    if path and number.isdecimal() and int(number) and not exists(entry):
        return path, int(number)
    return entry, None


def _names_file(entry: str) -> bool:
    return bool(entry) and entry not in DEFAULTS


def locate(location: str, folder: Path) -> str:
    """A model's location; ``path+adapter`` is taken part by part.

    A part is a path when it starts with ``.``, ``/`` or ``~``, or when it exists below ``folder``;
    anything else is a hub id (``org/name``, ``org/name@revision``) and stays as it is.
    """
    if _exists(location, folder):  # a folder may have a plus in its name
        return _absolute(location, folder)
    return "+".join(
        _absolute(part, folder)
        if part.startswith((".", "/", "~")) or _exists(part, folder)
        else part
        for part in location.split("+")
    )


def missing_folders(data: Mapping[str, Any]) -> list[Problem]:
    """A problem for every ``include_path`` that is not a folder."""
    paths = data.get("include_path")
    return [
        Problem(
            text=f"expected a folder with task files, got {shown(path)}, which is none",
            place=("include_path", at),
        )
        for at, path in enumerate(paths if isinstance(paths, list) else [])
        if isinstance(path, str) and path and not is_folder(path)
    ]


def missing_seeds(data: Mapping[str, Any]) -> list[Problem]:
    """A problem for every entry of ``search.seeds`` that is neither a file nor a folder."""
    search = data.get("search")
    seeds = search.get("seeds") if isinstance(search, Mapping) else None
    return [
        Problem(
            text=f"expected a recipe file, a folder of them or a study.db, got {shown(entry)}, "
            "which does not exist",
            place=("search", "seeds", at),
        )
        for at, entry in enumerate(seeds if isinstance(seeds, list) else [])
        if isinstance(entry, str)
        and _names_file(entry)
        and not _exists(split_top(entry)[0], Path())
    ]


def _absolute(location: str, folder: Path) -> str:
    """Absolute, with ``~`` and ``..`` resolved; links such as ``latest`` keep their name."""
    full = folder / expanded(location)
    try:
        return str(full.resolve() if ".." in full.parts else full)
    except (OSError, ValueError, RuntimeError):  # a null character, or links in a circle
        return str(full)


def _exists(location: str, folder: Path) -> bool:
    return bool(location) and exists(_absolute(location, folder))
