"""Memory that nothing uses now: of a device, or of this machine and what it may take of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

_CGROUPS, _OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def free_bytes(device: torch.device, *, gpus: float = 1.0) -> int:
    """Memory of a device, or of this machine, that can be had now.

    Files that the system keeps in memory, such as mapped parents, give way and count as free; a
    container's limit counts as the end of the machine's memory.

    Args:
        device: Which.
        gpus: The share of a GPU that this process may take, if below 1; what it has counts.
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        if gpus < 1:
            free = min(free, int(gpus * total) - torch.cuda.memory_reserved(device))
        return max(0, free)
    return max(0, min([int(psutil.virtual_memory().available), *left_in_cgroups()]))


def left_in_cgroups(root: Path = _CGROUPS, own: Path = _OWN) -> list[int]:
    """What is left to this process of each limit of its control groups, in bytes.

    A group's limit holds for the groups inside it. What the group has of cached files is free; see
    the kernel's documentation of ``memory.max`` (version 2) and ``memory.limit_in_bytes`` (1).

    Args:
        root: Where control groups are mounted.
        own: The file that says which ones this process is in.
    """
    found = []
    for folder, limit, usage, cached in _groups(root, own):
        most, used = _number(folder / limit), _number(folder / usage)
        if most is not None and used is not None:
            found.append(most - used + _cached(folder / "memory.stat", cached))
    return found


def _groups(root: Path, own: Path) -> Iterator[tuple[Path, str, str, tuple[str, ...]]]:
    """Folders of the groups and of those around them, with the names of files and entries."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers:
            names = ("memory.max", "memory.current", ("inactive_file", "active_file"))
            top = root
        elif "memory" in controllers.split(","):
            names = (
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                ("total_inactive_file", "total_active_file"),
            )
            top = root / "memory"
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for count in range(len(parts), -1, -1):  # a container sees its own group as the top
            yield (top.joinpath(*parts[:count]), *names)


def _number(file: Path) -> int | None:
    """A number in a file; ``None`` without one, as where there is no limit (``max``)."""
    try:
        return int(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _cached(file: Path, names: tuple[str, ...]) -> int:
    try:
        entries = dict(line.split(" ", 1) for line in file.read_text(encoding="utf-8").splitlines())
        return sum(int(entries.get(name, 0)) for name in names)
    except (OSError, ValueError):
        return 0
