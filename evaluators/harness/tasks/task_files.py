"""Which file defines which lm-eval task, read off the text.

lm-eval finds a task by parsing every task file it ships, some 14 000, which takes 10 to 20 s. Names
can be had from the text in one; only the file wanted is then parsed, by lm-eval itself.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

_NAME = re.compile(
    rb"^[\"']?task[\"']?[ \t]*:[ \t]*[\"']?([^\s\"'#\[{][^\"'#\r\n]*?)[\"']?[ \t]*(?:#.*)?\r?$",
    re.MULTILINE,
)
_IGNORED = {"__pycache__", ".ipynb_checkpoints"}


@cache
def task_files(folder: Path) -> dict[str, Path]:
    """Task names and the files below ``folder`` that define them.

    Of several files with one name that nearest to ``folder`` wins, then the first in path order: a
    copy in a folder of old things does not hide it. Files whose name is not given literally (made
    by an include) are not found.
    """
    found: dict[str, Path] = {}
    files = (path for path in folder.rglob("*.yaml") if not _IGNORED.intersection(path.parts))
    for path in sorted(files, key=lambda path: (len(path.parts), path.as_posix())):
        name = task_name(path)
        if name is not None:
            found.setdefault(name, path)
    return found


def task_file(name: str, folders: Sequence[Path]) -> Path | None:
    """The file that defines a task, in the first folder that has one."""
    found = (task_files(folder).get(name) for folder in folders)
    return next((path for path in found if path is not None), None)


def shipped_tasks() -> Path:
    """Folder of the task files that come with lm-eval, which is not imported for it."""
    spec = importlib.util.find_spec("lm_eval")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "tasks"


def task_name(path: Path) -> str | None:
    """The name of the task that a file defines; ``None`` if it defines none."""
    match = _NAME.search(path.read_bytes())
    return match[1].decode("utf-8", errors="replace").strip() if match else None
