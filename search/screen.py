"""Where commands print, and how they name what they wrote."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console


def console() -> Console:
    """Where commands print; files and pipes get lines long enough for a leaderboard."""
    screen = Console(highlight=False)
    return screen if screen.is_terminal else Console(highlight=False, width=160)


def say_written(to: Console, paths: list[Path]) -> None:
    """Name the files that a command wrote."""
    names = ", ".join(str(path) for path in paths)
    to.print(f"Wrote {names}", markup=False, soft_wrap=True)
