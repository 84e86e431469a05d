"""Groups and tags of lm-eval's tasks: their members, and what each counts in the group's value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """What a name stands for.

    Attributes:
        tasks: lm-eval's: one, or all members of a group and of the groups in it, or of a tag.
        group: The group's or tag's name; empty for a single task.
        metrics: The group's own: name, answer filters (``None`` for any), and whether a member
            counts by its number of questions, in the group's order.
    """

    tasks: tuple[Any, ...]
    group: str = ""
    metrics: tuple[tuple[str, tuple[str, ...] | None, bool], ...] = ()

    def metric(self, wanted: str | None) -> str | None:
        """The metric to take of the members: the one wanted, else the group's first."""
        if wanted is not None or not self.metrics:
            return wanted
        name, filters, _ = self.metrics[0]
        return f"{name},{filters[0]}" if filters is not None and len(filters) == 1 else name

    def weights(self, weight: float, wanted: str | None, sizes: Sequence[int]) -> list[float]:
        """The weight of each task, as lm-eval weighs the members of the group; they sum to one's.

        lm-eval gives a tag, and a group that does not aggregate, no value; their members count
        alike.

        Args:
            weight: Of the group.
            wanted: The metric, if one is wanted.
            sizes: Number of questions of each task.
        """
        name = (wanted or "").partition(",")[0]
        by_size = [by for metric, _, by in self.metrics if metric == name or wanted is None]
        shares = list(map(float, sizes)) if by_size and by_size[0] else [1.0] * len(sizes)
        return [weight * share / sum(shares) for share in shares] if self.group else [weight]


def loaded(name: str, found: Any) -> Loaded:
    """What a task manager of lm-eval loaded under a name."""
    own = found.get("groups", {}).get(name)
    metrics = getattr(own, "aggregate_metric_list", None) or ()
    return Loaded(
        tasks=tuple(found["tasks"].values()),
        group=name,
        metrics=tuple(
            (
                str(one.metric),
                None if one.filter_list is None else tuple(map(str, one.filter_list)),
                bool(one.weight_by_size),
            )
            for one in metrics
        ),
    )


def strangers(manager: Any, name: str) -> list[str]:
    """Members of a group, and of the groups in it, that a task manager does not know."""
    below = _below(manager, name)
    return [m for m, defined in below.items() if m not in manager.task_index and not defined]


def folders(manager: Any, name: str) -> list[Path]:
    """Folders of the task files below a group or tag, each once."""
    index = manager.task_index
    files = [index[one].yaml_path for one in (name, *_below(manager, name)) if one in index]
    return list(dict.fromkeys(Path(file).parent for file in files if file is not None))


def _below(manager: Any, name: str) -> dict[str, bool]:
    """All that a group or tag leads to, by name, and whether a group defines it itself."""
    index, found, waiting = manager.task_index, dict[str, bool](), [name]
    while waiting:
        entry = index[waiting.pop()]
        tagged = ((task, False) for task in sorted(entry.tags) if entry.yaml_path is None)
        for member, defined in (*_members(entry.cfg), *tagged):
            if member not in found and member in index:
                waiting.append(member)
            found.setdefault(member, defined)
    return found


def _members(config: Any) -> Iterator[tuple[str, bool]]:
    """Names that a group lists, and whether it defines what they stand for itself."""
    listed = config.get("task") if isinstance(config, dict) else None
    for item in listed if isinstance(listed, list) else ():
        if isinstance(item, str):
            yield item, False
        elif isinstance(item, dict) and "group" in item:
            yield str(item["group"]), "task" in item
            yield from _members(item)
        elif isinstance(item, dict) and "task" in item:
            yield str(item["task"]), "dataset_path" in item
