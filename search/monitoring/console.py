"""Where commands print, and how they name what they wrote."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from spaces.text.terminal_text import stripped

_QUIET: ContextVar[bool] = ContextVar("quiet", default=False)
_RESULT: ContextVar[dict[str, Any] | None] = ContextVar("result", default=None)
_PROGRESS: ContextVar[bool] = ContextVar("progress", default=True)
_SHOWN: ContextVar[bool] = ContextVar("shown", default=False)


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
    quiet = _QUIET.get()
    screen = Screen(highlight=False, stderr=stderr, quiet=quiet)
    if screen.is_terminal:
        return screen
    width = 100 if in_notebook() else 160
    return Screen(highlight=False, stderr=stderr, width=width, quiet=quiet, force_jupyter=False)


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    return Console().is_jupyter


def shows_progress() -> bool:
    """Whether progress is shown to people."""
    return _PROGRESS.get() and not _QUIET.get()


@contextmanager
def printing(
    *, quiet: bool = False, progress: bool = True, shown: bool = False
) -> Iterator[dict[str, Any]]:
    """What is told within the block, for programs.

    Args:
        quiet: Whether nothing is printed for people meanwhile.
        progress: Whether they see how far a run is, beside its steps and its result.
        shown: Whether a program gets to see what is told.
    """
    result: dict[str, Any] = {}
    tokens = _QUIET.set(quiet), _PROGRESS.set(progress), _RESULT.set(result), _SHOWN.set(shown)
    try:
        yield result
    finally:
        _QUIET.reset(tokens[0])
        _PROGRESS.reset(tokens[1])
        _RESULT.reset(tokens[2])
        _SHOWN.reset(tokens[3])


def tell(more: Callable[[], Mapping[str, Any]] | None = None, /, **values: Any) -> None:
    """Part of what the command came to, for programs: plain values by name.

    What ``more`` gives takes time: it is only asked where a program gets to see it.
    """
    result = _RESULT.get()
    if result is not None:
        result.update(values)
        if more is not None and _SHOWN.get():
            result.update(more())


def step(text: str) -> None:
    """What is begun now, with the time: between two of these nothing else may be told for long."""
    say_line(console(), f"{time.strftime('%H:%M:%S')}  {text} ...")


def say_line(to: Console, text: str) -> None:
    """A text as it is, on one line however long: such as one with paths, to be copied."""
    to.print(text, markup=False, highlight=False, soft_wrap=True)


def say_lines(to: Console, texts: Iterable[str]) -> None:
    """Several texts, a line each."""
    for text in texts:
        say_line(to, text)


def say(to: Console, text: str, *, style: str = "") -> None:
    """A sentence: wrapped between words on a terminal, on one line in a file or a pipe."""
    to.print(Text(text, style=style), soft_wrap=not to.is_terminal)


def say_facts(to: Console, facts: Iterable[tuple[str, str]]) -> None:
    """A line per fact, its name in front; on a terminal a long one goes on below its beginning."""
    if not to.is_terminal:
        for name, text in facts:
            below = text.replace("\n", "\n" + 13 * " ")
            say_line(to, f"{name:<12} {below}")
        return
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True, min_width=12)
    grid.add_column(overflow="fold")
    for name, text in facts:
        grid.add_row(Text(name), Text(text))
    to.print(grid)


def say_written(to: Console, paths: list[Path]) -> None:
    """Name the files that a command wrote."""
    tell(written=[str(path) for path in paths])
    say_line(to, f"Wrote {', '.join(str(path) for path in paths)}")


@contextmanager
def progress_bar(
    to: Console | None, text: str, *columns: ProgressColumn, total: int | None = None
) -> Iterator[Callable[[int, int], None]]:
    """A bar that is told how much is done, and of how much; it is gone in the end.

    Nothing is shown where there is no terminal, or no console at all.
    """
    shown = to is not None and to.is_terminal
    every = (TextColumn("{task.description}"), BarColumn(), *columns)
    with Progress(*every, console=to, transient=True, disable=not shown) as bar:
        task = bar.add_task(text, total=total)
        yield lambda done, total: bar.update(task, completed=done, total=total)
