"""A study's file under other names and as a copy: whether its write-ahead log is beside it."""

from __future__ import annotations

import shutil
from pathlib import Path

from runs.output_files import replacing
from runs.storage.database.connection import log_of

_MODES = slice(18, 20)
_LOGGED = b"\2\2"
"""File format versions in the header of a database with a write-ahead log: section 1.3.3 of
https://sqlite.org/fileformat2.html"""


def identity(path: Path) -> str:
    """What tells a file from its copies and its other names: its number, and where it lies."""
    full = path.resolve()
    return f"{full.stat().st_ino}@{full}"


def lacks_log(path: Path) -> bool:
    """Whether a file says that it has a write-ahead log, and none lies beside it."""
    try:
        with path.open("rb") as file:
            start = file.read(100)
    except OSError:
        return False
    return start[_MODES] == _LOGGED and not log_of(path).exists()


def missing_log(name: str) -> str:
    """What to tell the user of such a file that is not where its driver wrote it."""
    return (
        f"{name}: a copy, a link or a moved file of a study that was being written, without its "
        f"write-ahead log ({name}-wal): what was recorded last may be missing, and is asked again. "
        "If that file still lies beside the study it comes from, take both"
    )


def made_its_own(path: Path, name: str) -> tuple[str, ...]:
    """Give a file without its log contents of its own, if it has other names too.

    Under the other name there may be the log, which must not come over what is written by this one.

    Returns:
        Lines for the user; none where nothing was done.
    """
    full = path.resolve()
    if full.stat().st_nlink < 2:
        return ()
    with replacing(full) as draft:
        shutil.copyfile(full, draft)
    return (f"{name}: was a hard link to a study elsewhere; it is a separate copy from now on",)
