"""Whether something lies at a path that a person or a file gave: it may be no path at all."""

from __future__ import annotations

from pathlib import Path


def expanded(location: str) -> Path:
    """A location as a path, ``~`` replaced where there is such a user."""
    try:
        return Path(location).expanduser()
    except RuntimeError:
        return Path(location)


def exists(path: str | Path) -> bool:
    """Whether there is a file or folder; not where it cannot be looked at, or be the name of any.

    Such as a text that is longer than names of files may be.
    """
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def is_folder(path: str | Path) -> bool:
    """Whether there is a folder, likewise."""
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):
        return False
