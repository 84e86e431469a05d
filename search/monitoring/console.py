"""Where commands print, and how they name what they wrote."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

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


def say(to: Console, text: str, *, style: str = "") -> None:
    """A sentence: wrapped between words on a terminal, on one line in a file or a pipe."""
    to.print(Text(text, style=style), soft_wrap=not to.is_terminal)


def say_facts(to: Console, facts: Iterable[tuple[str, str]]) -> None:
    """A line per fact, its name in front; on a terminal a long one goes on below its beginning."""
    if not to.is_terminal:
        for name, text in facts:
            to.print(f"{name:<12} {text}", markup=False, soft_wrap=True)
        return
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True, min_width=12)
    grid.add_column(overflow="fold")
    for name, text in facts:
        grid.add_row(Text(name), Text(text))
    to.print(grid)


def say_written(to: Console, paths: list[Path]) -> None:
    """Name the files that a command wrote."""
    names = ", ".join(str(path) for path in paths)
    to.print(f"Wrote {names}", markup=False, soft_wrap=True)
