"""Models and task files that lie elsewhere now: ``--map OLD=NEW`` replaces locations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from runs.config.locations import locate
from runs.config.run_config import RunConfig
from search.inputs.input_error import InputError

Move = tuple[str, str]
"""What is replaced, a model's name or the start of a path, and what with."""

KEYS = ("base", "models", "include_path", "evaluator")
"""Keys of a config that name what may have moved."""


def read_moves(given: Iterable[str]) -> tuple[Move, ...]:
    """The values of ``--map``; a new place that is relative counts from here.

    Raises:
        InputError: With every one that is not ``OLD=NEW``.
    """
    pairs = [(text, *text.partition("=")[::2]) for text in given]
    problems = [
        f"--map {text}: expected OLD=NEW, a model's name or the start of its path, and where it is"
        for text, old, new in pairs
        if not old or not new
    ]
    if problems:
        raise InputError(problems)
    return tuple((_trimmed(old), _trimmed(locate(new, Path.cwd()))) for _, old, new in pairs)


def moved_locations(locations: Mapping[str, str], moves: Sequence[Move]) -> dict[str, str]:
    """Locations of models by name, those that moved replaced.

    Raises:
        InputError: If a move is about none of them.
    """
    _check_used(moves, locations, locations.values())
    return {name: _moved(place, moves, name=name) for name, place in locations.items()}


def moved_values(config: RunConfig, moves: Sequence[Move]) -> dict[str, Any]:
    """Values of a config that name what moved, by dotted key; none where nothing is replaced.

    Raises:
        InputError: If a move is about nothing in the config.
    """
    if not moves:
        return {}
    evaluator = [] if config.evaluator is None else [config.evaluator]
    others = [*config.include_path, *evaluator]
    _check_used(moves, config.locations, [*config.locations.values(), *others])
    found = {name: _moved(place, moves, name=name) for name, place in config.locations.items()}
    values: dict[str, Any] = {
        "models": {name: found[name] for name in config.models},
        "include_path": [_moved(folder, moves) for folder in config.include_path],
    }
    if config.base is not None:
        values["base"] = found["base"]
    if config.evaluator is not None:
        values["evaluator"] = _moved(config.evaluator, moves)
    return values


def _check_used(moves: Sequence[Move], locations: Mapping[str, str], places: Iterable[str]) -> None:
    known = list(places)
    unused = [
        old
        for old, _ in moves
        if old not in locations and all(_moved(place, [(old, "")]) == place for place in known)
    ]
    if unused:
        there = ", ".join(f"{name} at {place}" for name, place in locations.items())
        raise InputError(
            [f"--map: expected a model or the start of its path ({there}), got {old}"
             for old in unused]
        )  # fmt: skip


def _moved(place: str, moves: Sequence[Move], *, name: str | None = None) -> str:
    """Where something is now: by its name, else part by part by the start of its path."""
    for old, new in moves:
        if old == name:
            return new
    for old, new in moves:
        if place == old:  # a folder may have a plus in its name
            return new
    return "+".join(_moved_part(part, moves) for part in place.split("+"))


def _moved_part(part: str, moves: Sequence[Move]) -> str:
    for old, new in moves:
        if part == old or part.startswith(f"{old}/"):
            return new + part[len(old) :]
    return part


def _trimmed(place: str) -> str:
    return place.rstrip("/") or place
