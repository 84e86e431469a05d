"""Where commands print, and how they name what they wrote."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from spaces.text.terminal_text import stripped


class Screen(Console):
    """A console on which names and messages cannot do what the terminal would do of itself.

    Escape sequences in them lose the character that makes them one; colours and cursor movements
    of Rich's own are not text and stay.
    """

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            safe = segment.control or segment.text.isprintable()
            yield segment if safe else segment._replace(text=stripped(segment.text))


def console(*, stderr: bool = False) -> Console:
    """Where commands print; files and pipes get lines long enough for a leaderboard."""
    screen = Screen(highlight=False, stderr=stderr)
    return screen if screen.is_terminal else Screen(highlight=False, stderr=stderr, width=160)


def say_written(to: Console, paths: list[Path]) -> None:
    """Name the files that a command wrote."""
    names = ", ".join(str(path) for path in paths)
    to.print(f"Wrote {names}", markup=False, soft_wrap=True)
