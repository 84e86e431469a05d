"""Floors: what a recipe must not lose, by what is expected of it on the search questions.

A floor is broken by a recipe of whose task less is expected than the floor. Recipes that break none
come before all others; those that do come by how far they are from keeping all: the sum over the
floors of what is missing, each over the spread of that task between candidates, so that metrics in
different units can be added up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from evaluators.protocol import Floor, TaskInfo
from runs.records.record import Record

Array = NDArray[np.float64]


def floored(tasks: Sequence[TaskInfo]) -> tuple[TaskInfo, ...]:
    """The tasks that have a floor."""
    return tuple(task for task in tasks if task.floor is not None)


def is_moving(task: TaskInfo) -> bool:
    """Whether its floor lies where the best parent is."""
    return task.floor is not None and task.floor.below_best_parent is not None


def floor_text(floor: Floor | None) -> str:
    """Such as ``0.8`` or ``best parent less 0.02``; empty for none."""
    if floor is None or floor.value is not None:
        return "" if floor is None else f"{floor.value:g}"
    less = floor.below_best_parent
    return f"best parent less {less:g}" if less else "best parent"


def limits(tasks: Sequence[TaskInfo], parents: Iterable[Sequence[float] | Array]) -> Array:
    """What the value of each task must not fall below, turned so that larger is better.

    Args:
        tasks: Each with a floor.
        parents: What is expected of each parent in these tasks, turned likewise.

    Returns:
        ``(tasks,)``; minus infinity where the floor depends on parents and none is known.
    """
    known = [*parents]
    best = np.array(known).reshape(len(known), len(tasks)).max(axis=0, initial=-math.inf)
    found = [
        task.sign * task.floor.value
        if task.floor.value is not None
        else parent - (task.floor.below_best_parent or 0.0)
        for task, parent in zip(tasks, best.tolist(), strict=True)
        if task.floor is not None
    ]
    return np.array(found, dtype=np.float64)


def shortfalls(values: Array, least: Array) -> Array:
    """How far candidates are from keeping every floor, 0 for those that do.

    Args:
        values: ``(candidates, floors)`` expected values, larger is better.
        least: ``(floors,)``, as ``limits`` gives them.
    """
    if not len(values):
        return np.zeros(0)
    spread = values.std(axis=0)
    missing = np.maximum(least - values, 0.0) / np.where(spread > 0, spread, 1.0)
    total: Array = missing.sum(axis=1)
    return total


def broken(record: Record) -> Mapping[str, float]:
    """By how much a candidate is expected to be below each floor that it breaks, by task."""
    return {name: -margin.value for name, margin in record.margins.items() if margin.value < 0}


def broken_text(record: Record) -> str:
    """Such as ``code by 0.031, chat by 0.2``; empty where every floor is kept."""
    return ", ".join(f"{name} by {missing:.3g}" for name, missing in broken(record).items())
