"""Hashes over every byte of files, computed once and kept for as long as the files stay.

A hash is kept under where a file lies, its size, its times of change and its inode: whatever is
written to it, or put in its place, is read again.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock

import xxhash

THREADS = 8
"""Files read at a time."""

_CHUNK = 1 << 22
_SETTLED = 2_000_000_000  # ns after which a change gives a file another time for certain

Progress = Callable[[int, int], None]
"""Called with the bytes read and the bytes of all files that have to be read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stamp:
    """What changes when a file does, without reading it.

    Attributes:
        path: Where it lies, without links.
        size: Bytes.
        changed: Time of the last change to what is in it, ns.
        touched: Time of the last change to anything of it, ns; no program sets it.
        inode: Number of the file on its disk.
    """

    path: str
    size: int
    changed: int
    touched: int
    inode: int

    @classmethod
    def of(cls, file: Path) -> Stamp:
        """That of a file as it is now.

        Raises:
            OSError: If there is none.
        """
        found, real = file.stat(), str(file.resolve())
        return cls(
            path=real, size=found.st_size, changed=found.st_mtime_ns,
            touched=found.st_ctime_ns, inode=found.st_ino,
        )  # fmt: skip

    @property
    def digest(self) -> str:
        """A name for it, 32 hex digits."""
        return xxhash.xxh3_128_hexdigest(json.dumps(asdict(self)).encode())


class ContentHashes:
    """Hashes of files, in memory and in a folder.

    Args:
        folder: Where to keep them between processes; made with the first. ``None``, or one that
            cannot be written to, keeps them in memory only.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._known: dict[Stamp, str] = {}

    def hashes(self, files: Iterable[Path], *, progress: Progress | None = None) -> list[str]:
        """The hash of each file, 32 hex digits, in order.

        Args:
            files: What to look at; those not known are read, several at a time.
            progress: Told how much is read.

        Raises:
            OSError: If a file cannot be read, or goes on changing.
        """
        listed = list(files)
        stamps = {file: Stamp.of(file) for file in dict.fromkeys(listed)}
        new = [file for file, stamp in stamps.items() if self._kept(stamp) is None]
        total, done, lock = sum(stamps[file].size for file in new), 0, Lock()

        def read(count: int) -> None:
            nonlocal done
            if progress is not None:
                with lock:
                    done += count
                    progress(min(done, total), total)

        found: dict[Path, str] = {}
        if new:
            with ThreadPoolExecutor(min(THREADS, len(new)), "contents") as pool:
                found = dict(zip(new, pool.map(lambda file: self._read(file, read), new)))  # noqa: B905
        return [found.get(file) or self._known[stamps[file]] for file in listed]

    def _read(self, file: Path, read: Callable[[int], None]) -> str:
        for _ in range(3):
            stamp, digest = Stamp.of(file), xxhash.xxh3_128()
            buffer = memoryview(bytearray(_CHUNK))
            with file.open("rb", buffering=0) as stream:
                while count := stream.readinto(buffer):
                    digest.update(buffer[:count])
                    read(count)
            if Stamp.of(file) == stamp:
                self._keep(stamp, digest.hexdigest())
                return digest.hexdigest()
        raise OSError(f"{file}: expected a file that stays as it is, got one that changes")

    def _kept(self, stamp: Stamp) -> str | None:
        if stamp not in self._known and self.folder is not None:
            with suppress(OSError, ValueError, KeyError, TypeError):
                kept = json.loads(self._file(stamp).read_text(encoding="utf-8"))
                if kept["stamp"] == asdict(stamp) and len(bytes.fromhex(kept["hash"])) == 16:
                    self._known[stamp] = kept["hash"]
        return self._known.get(stamp)

    def _keep(self, stamp: Stamp, found: str) -> None:
        if time.time_ns() - max(stamp.changed, stamp.touched) < _SETTLED:
            return  # a change at once might leave the times as they are
        self._known[stamp] = found
        if self.folder is None:
            return
        with suppress(OSError):  # it costs only time later
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, draft = tempfile.mkstemp(dir=self.folder, suffix=".tmp")
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                json.dump({"stamp": asdict(stamp), "hash": found}, stream)
            Path(draft).replace(self._file(stamp))

    def _file(self, stamp: Stamp) -> Path:
        assert self.folder is not None
        return self.folder / f"content-{stamp.digest}.json"
