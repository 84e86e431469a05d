"""Where models, tasks and seeds lie: a config's relative paths made absolute, hub ids left."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runs.config.yaml_document import YamlProblem, shown
from spaces.paths import exists, expanded, is_folder

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


def resolved(location: str) -> str:
    """A location without links; hub ids as they are."""
    if exists(location):
        return str(Path(location).resolve())
    parts = location.split("+")
    return "+".join(str(Path(part).resolve()) if exists(part) else part for part in parts)


def twin(locations: Mapping[str, str], name: str) -> str | None:
    """Another model at the same location as one; ``None`` without, or if that one is not there."""
    if name not in locations:
        return None
    place = resolved(locations[name])
    others = (other for other, at in locations.items() if other != name and resolved(at) == place)
    return next(others, None)


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


def portable(location: str, folder: Path) -> str:
    """A location as a file in ``folder`` can name it for others: without private absolute paths.

    Where a model is in the hub's cache its hub id and revision do. A path that has a folder in
    common with ``folder``, other than the root, is relative to that, with ``.`` or ``..`` in front.
    Anything else stays; of ``path+adapter`` each part counts for itself.
    """
    if exists(location):  # a folder may have a plus in its name
        return _portable(location, folder)
    return "+".join(_portable(part, folder) for part in location.split("+"))


def _portable(part: str, folder: Path) -> str:
    path = expanded(part)
    if not path.is_absolute():
        return part
    cached = _CACHED.search(path.as_posix())
    if cached is not None and _is_cache(path.parents[2]):
        return f"{cached['id'].replace('--', '/')}@{cached['revision']}"
    home = folder.resolve()
    if Path(os.path.commonpath([path, home])) == Path(path.anchor):
        return part
    found = Path(os.path.relpath(path, home)).as_posix()
    return found if found == "." or found.startswith("..") else f"./{found}"


def published(location: str, name: str) -> str:
    """A location as something that is published names it: never by an absolute path.

    Args:
        location: As ``portable`` gives it.
        name: What an absolute path is called instead: ``./name``, its adapter ``./name-adapter``.
    """
    parts = [location] if exists(location) else location.split("+")
    called = (f"./{name}", f"./{name}-adapter")
    return "+".join(
        new if expanded(part).is_absolute() else part
        for part, new in zip(parts, called, strict=False)
    )


_CACHED = re.compile(r"/models--(?P<id>[\w.\-]+)/snapshots/(?P<revision>[\w.\-]+)\Z")


def _is_cache(folder: Path) -> bool:
    """Whether a folder is the hub's cache, from which its ids are read here."""
    from huggingface_hub import constants

    return folder == Path(constants.HF_HUB_CACHE)


def portable_values(data: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A config's values, absolute as ``located`` makes them, as a published config has them."""

    def public(place: str, name: str | None = None) -> str:
        return published(portable(place, folder), name or Path(place).name)

    evaluator, seeds = data["evaluator"], data["search"]["seeds"]
    if evaluator is not None and ".py:" in evaluator:
        file, _, name = evaluator.rpartition(":")
        evaluator = f"{public(file)}:{name}"
    if not isinstance(seeds, str):
        seeds = [public(entry) for entry in seeds]
    return {
        "base": None if data["base"] is None else public(data["base"], "base"),
        "models": {name: public(place, name) for name, place in data["models"].items()},
        "include_path": [public(path) for path in data["include_path"]],
        "evaluator": evaluator,
        "search.seeds": seeds,
    }


def missing_folders(data: Mapping[str, Any]) -> list[YamlProblem]:
    """A problem for every ``include_path`` that is not a folder."""
    paths = data.get("include_path")
    return [
        YamlProblem(
            text=f"expected a folder with task files, got {shown(path)}, which is none",
            place=("include_path", at),
        )
        for at, path in enumerate(paths if isinstance(paths, list) else [])
        if isinstance(path, str) and path and not is_folder(path)
    ]


def missing_seeds(data: Mapping[str, Any]) -> list[YamlProblem]:
    """A problem for every entry of ``search.seeds`` that is neither a file nor a folder."""
    search = data.get("search")
    seeds = search.get("seeds") if isinstance(search, Mapping) else None
    return [
        YamlProblem(
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
