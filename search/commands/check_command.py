"""``search check``: the pre-flight, with progress, as tables, HTML or JSON.

What brings torch is imported when the config was read: a mistyped key is told at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from runs.config.run_config import RunConfig
from runs.output_files import write_text
from search.inputs.given_config import read
from search.inputs.input_error import InputError
from search.inputs.overrides import Overrides
from search.monitoring.console import console, say_written
from search.preflight.preflight_depth import PreflightDepth
from search.preflight.preflight_depth import Progress as Told

if TYPE_CHECKING:
    from search.preflight.preflight_result import Preflight


def check(
    config: Path, *, overrides: Overrides, depth: PreflightDepth, html: Path | None, as_json: bool
) -> None:
    """Check a config and show what was found; see ``search check --help``."""
    if html is not None and html.is_dir():
        raise InputError(f"{html}: expected a file to write, got a folder")
    if html is not None and html.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--html {html}: expected a name that ends in .html")
    found = preflight(config, overrides=overrides, depth=depth)
    from search.preflight.rendering.preflight_html import page
    from search.preflight.rendering.preflight_tables import show

    screen = console()
    if as_json:
        text = json.dumps(found.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
        screen.out(text, highlight=False)
    else:
        show(found, screen)
    if html is not None:
        write_text(html, page(found))
        if not as_json:
            say_written(screen, [html])


def preflight(
    config: Path | RunConfig, *, overrides: Overrides, depth: PreflightDepth
) -> Preflight:
    """The pre-flight of a config, with progress on stderr where that is a terminal."""
    given = read(config, overrides)
    from search.preflight.inspection import check as look

    with _progress() as told:
        return look(given, depth=depth, progress=told)


@contextmanager
def _progress() -> Iterator[Told]:
    screen = console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def told(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total or None)

        yield told
