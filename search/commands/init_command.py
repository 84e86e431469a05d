"""``search init``: a config written for models and tasks.

What brings torch is imported once the request is checked: a missing file is told at once.
"""

from __future__ import annotations

import sys
from pathlib import Path

from search.monitoring.console import console, say_written
from search.setup.config_files import check_free, write_config
from search.setup.config_request import ConfigRequest, all_named


def init(wanted: ConfigRequest, out: Path, *, force: bool) -> None:
    """Write a config; see ``search init --help``."""
    check_free(out, force=force)
    asked = all_named(wanted)
    from search.setup.config_draft import drafted

    draft, remarks = drafted(asked, out)
    screen = console()
    for remark in remarks:
        screen.print(f"note: {remark}", markup=False, soft_wrap=True)
    say_written(screen, write_config(draft, out))
    screen.print(
        f"Next: `search check {out}`, then `search run {out}`.", markup=False, soft_wrap=True
    )


def asks() -> bool:
    """Whether there is somebody at a terminal to be asked for what is missing."""
    return sys.stdin.isatty() and sys.stdout.isatty()
