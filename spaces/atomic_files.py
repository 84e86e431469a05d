"""Writing files so that a reader, or a crash, never meets half of one.

Whatever is written under another name first goes through here or, where it is a whole folder,
through ``merging.building.staged_folder``.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform != "win32":  # drafts that were left are not recognised there
    import fcntl

_UNSYNCED = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EROFS)
"""What systems say that cannot be told to wait for the disk."""


@contextmanager
def replacing(path: Path, *, durable: bool = True, new: bool = False) -> Iterator[Path]:
    """A draft beside ``path`` to write to; it takes the place of ``path`` when the block ends well.

    The draft is there already, empty, under a name that nobody can foresee: no link that lies in
    wait is followed. It is locked as long as its writer lives, and drafts for the same ``path``
    that killed writers left are removed. After an exception ``path`` is as before.

    Args:
        path: In a folder that is there.
        durable: Whether the content is on the disk before the draft takes its place.
        new: Whether there must be no such file yet when the block ends.

    Raises:
        OSError: If nothing can be written there; ``FileExistsError`` if it had to be new.
    """
    _remove_left(path)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(8)}.tmp")
    lock = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | _NO_LINKS, 0o666)
    try:
        hold(lock)
        yield draft
        if durable:
            sync(draft)
        if new:
            _name_new(draft, path)
        else:
            draft.replace(path)
        if durable:
            sync(path.parent)
    finally:
        os.close(lock)
        _remove(draft)


def sync(place: Path) -> None:
    """Have a file, or the names in a folder, on the disk; where a system cannot, do without.

    Raises:
        OSError: If the disk is full or broken.
    """
    try:
        handle = os.open(place, os.O_RDONLY)
    except OSError:  # a folder that may not be read, or none can be: not on Windows
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _UNSYNCED:
            raise
    finally:
        os.close(handle)


def hold(lock: int) -> bool:
    """Lock an open file for this process, until it is closed; whether it worked."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)


def _name_new(draft: Path, path: Path) -> None:
    try:
        os.link(draft, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        draft.replace(path)


def _remove(draft: Path) -> None:
    """Remove a draft, and the journal that SQLite keeps beside it."""
    for left in (draft, draft.with_name(draft.name + "-journal")):
        with suppress(OSError):  # where nothing can be written nothing can be removed either
            left.unlink(missing_ok=True)


def _remove_left(path: Path) -> None:
    """Remove drafts for ``path`` of this user whose writers live no more."""
    name = re.compile(rf"\.{re.escape(path.name)}\.(\d+)\.[0-9a-f]{{16}}\.tmp\Z")
    with suppress(OSError):
        names = os.listdir(path.parent)  # noqa: PTH208 - of thousands of files no paths are made
        for found in filter(None, map(name.match, names)):
            draft = path.parent / found[0]
            if not _runs(int(found[1])) and _is_ours(draft):
                _remove(draft)


def _runs(process: int) -> bool:
    """Whether there is a process of that number here."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    return True


def _is_ours(draft: Path) -> bool:
    """Whether it is a file of this user that nobody holds: a writer elsewhere holds its own."""
    if sys.platform == "win32":
        return False
    try:
        lock = os.open(draft, os.O_RDWR | _NO_LINKS | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        about = os.fstat(lock)
        return stat.S_ISREG(about.st_mode) and about.st_uid == os.geteuid() and hold(lock)
    finally:
        os.close(lock)
