"""Writing files so that a reader, or a crash, never meets half of one."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spaces import atomic_files
from spaces.errors import RunFailed, UserError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class PlaceError(UserError, RuntimeError):
    """A file that cannot be written where it was asked for."""


class DiskError(RunFailed, RuntimeError):
    """A file that could be written there, but for a disk that is full or broken."""


@contextmanager
def replacing(path: Path, *, new: bool = False) -> Iterator[Path]:
    """As ``spaces.atomic_files.replacing``; folders on the way are made, and errors are for people.

    Raises:
        PlaceError: If nothing can be written there.
        DiskError: If the disk is full or broken.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_files.replacing(path, new=new) as draft:
            yield draft
    except OSError as error:
        text = f"{path}: cannot be written: {error.strerror or error}"
        raise (DiskError if error.errno in _FULL else PlaceError)(text) from error


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text at once; line ends are kept as they are."""
    with replacing(path) as draft:
        # A lone surrogate in a message of another program must not cost the whole report.
        draft.write_bytes(text.encode("utf-8", errors="backslashreplace"))
