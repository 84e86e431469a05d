"""A folder that is written beside its final place, and what is left of one whose writer died."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from pathlib import Path

from spaces.atomic_files import hold, sync

_MARK = ".merge-search-draft"  # locked as long as its writer lives


class StagedFolder:
    """A new folder beside ``out`` with a name that nobody looks for.

    Its mark is locked until it is done, so that what a killed writer left can be told from what
    another one is writing.

    Attributes:
        folder: Where to write.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        self.folder = out.parent / f".{out.name}.{secrets.token_hex(4)}.tmp"
        self._lock: int | None = None

    def begin(self) -> None:
        """Make the folder; remove those that dead writers left for the same ``out``.

        Raises:
            OSError: If it cannot be made.
        """
        self._out.parent.mkdir(parents=True, exist_ok=True)
        _remove_left(self._out)
        self.folder.mkdir()
        self._lock = os.open(self.folder / _MARK, os.O_RDWR | os.O_CREAT, 0o644)
        hold(self._lock)

    def put(self) -> None:
        """Give the folder its final name, once all that is in it has reached the disk.

        Raises:
            OSError: If that cannot be done.
        """
        (self.folder / _MARK).unlink()
        for place in (*self.folder.rglob("*"), self.folder):
            sync(place)
        self.folder.replace(self._out)
        sync(self._out.parent)
        self._release()

    def discard(self) -> None:
        """Remove what is left of it; nothing, after ``put``."""
        if self._lock is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self._release()

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _remove_left(out: Path) -> None:
    """Remove drafts for ``out`` that carry our mark and that no process holds."""
    name = re.compile(rf"\.{re.escape(out.name)}\.[0-9a-f]{{8}}\.tmp\Z")
    for folder in out.parent.iterdir():
        if not name.match(folder.name) or folder.is_symlink():
            continue
        with contextlib.suppress(OSError):  # no mark, or it went away: not ours to remove
            lock = os.open(folder / _MARK, os.O_RDWR)
            try:
                if hold(lock):
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
