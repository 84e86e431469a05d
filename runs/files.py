"""Writing files so that a reader, or a crash, never meets half of one."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from spaces.problems import RunFailed, UserError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class PlaceError(UserError, RuntimeError):
    """A file that cannot be written where it was asked for."""


class DiskError(RunFailed, RuntimeError):
    """A file that could be written there, but for a disk that is full or broken."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A draft beside ``path`` to write to; it takes the place of ``path`` when the block ends well.

    Folders on the way are made. After an exception the draft is removed and ``path`` is as before.

    Raises:
        PlaceError: If nothing can be written there.
        DiskError: If the disk is full or broken.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        draft.replace(path)
    except OSError as error:
        text = f"{path}: cannot be written: {error.strerror or error}"
        raise (DiskError if error.errno in _FULL else PlaceError)(text) from error
    finally:
        with suppress(OSError):  # where nothing can be written nothing can be removed either
            draft.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text at once; line ends are kept as they are."""
    with replacing(path) as draft:
        # A lone surrogate in a message of another program must not cost the whole report.
        draft.write_bytes(text.encode("utf-8", errors="backslashreplace"))
