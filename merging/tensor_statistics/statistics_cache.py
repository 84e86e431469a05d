"""What is computed once per set of parents, kept in memory and in a folder.

Entries are named by the content they describe, so that one folder may serve any number of runs and
a changed model finds nothing. Files are written under a temporary name and renamed; two processes
that compute the same entry write the same bytes. A file that is cut off, altered or of another
version is computed anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from spaces.atomic_files import replacing

FORMAT = "2"
"""Version of the files' content and of how it is computed."""

SPARE_DISK = 1 << 30
"""Bytes of the folder's disk that mapped tensors leave free."""

_NUMBERS = "numbers"
_PARTS = "bits", "counts", "places"
_LARGEST = 0x7F800000  # the bits of infinity

_log = logging.getLogger(__name__)


PLACE_STEP = 16
"""Every so manieth entry of a magnitude has its place noted."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Magnitudes:
    """How often each magnitude occurs in a tensor, and where.

    Attributes:
        bits: ``(m,)`` int32: the float32 bits of magnitudes, descending; each the start of a bin.
        counts: ``(m,)`` int64: entries in this bin and those before it.
        places: ``(k,)`` int32 or int64, bin after bin: the indices of every ``PLACE_STEP``-th
            entry of the bin, ascending; none where bins are wider than 1.
        width: Bits in a bin; 1 where every magnitude has its own.
        norm: Sum of the magnitudes.
    """

    bits: Tensor
    counts: Tensor
    places: Tensor
    width: int
    norm: float

    @property
    def largest(self) -> float:
        """What no magnitude is larger than."""
        top = min(int(self.bits[0]) + self.width - 1, _LARGEST)
        return float(np.array([top], np.int32).view(np.float32)[0])

    def find(self, count: int) -> tuple[int, int, int]:
        """The bin of the ``count``-th largest: its start, entries before it, and in it."""
        at, before, here = self._bin(count)
        return int(self._bits[at]), before, here

    def place(self, count: int) -> tuple[int, int]:
        """Where to look for the ``count``-th largest; of equals, the one of the largest index.

        Returns:
            An index, and how many entries of its magnitude lie from there on up to it; 0 if it is
            the one before this index.
        """
        at, before, _ = self._bin(count)
        passed, rest = divmod(count - before, PLACE_STEP)
        if self.width > 1 or passed == 0:
            return 0, count - before
        return int(self._places[self._first[at] + passed - 1]) + 1, rest

    def _bin(self, count: int) -> tuple[int, int, int]:
        at = int(np.searchsorted(self._counts, count))
        before = int(self._counts[at - 1]) if at else 0
        return at, before, int(self._counts[at]) - before

    @cached_property
    def _bits(self) -> npt.NDArray[np.int32]:
        return self.bits.numpy()

    @cached_property
    def _counts(self) -> npt.NDArray[np.int64]:
        return self.counts.numpy()

    @cached_property
    def _places(self) -> npt.NDArray[np.signedinteger[Any]]:
        return self.places.numpy()

    @cached_property
    def _first(self) -> npt.NDArray[np.int64]:
        """Of the places of each bin."""
        noted = np.diff(self._counts, prepend=0) // PLACE_STEP
        first: npt.NDArray[np.int64] = np.cumsum(noted) - noted
        return first


class StatisticsCache:
    """A store of statistics.

    Args:
        folder: Where to keep them between processes; made with the first entry. ``None``, or one
            that cannot be written to, keeps them in memory only.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.computed = 0
        self._warned = False
        self._magnitudes: dict[str, Magnitudes] = {}
        self._mapped: dict[tuple[str, str], Tensor | None] = {}
        self._numbers: dict[str, dict[str, float]] = {}
        self._changed: set[str] = set()

    def magnitudes(self, name: str, compute: Callable[[], Magnitudes]) -> Magnitudes:
        """Those of the tensor of that name: from memory, the folder, or computed and kept."""
        found = self._magnitudes.get(name)
        if found is None:
            found = self._read(name)
        if found is None:
            found = compute()
            self.computed += 1
            self._write(name, found)
        self._magnitudes[name] = found
        return found

    def mapped(self, kind: str, name: str, compute: Callable[[], Tensor]) -> Tensor:
        """A tensor as large as a parent's: mapped from the folder, or computed and kept there.

        Memory alone is no place to keep such tensors, and of a file only its length is checked. A
        disk that would be left with less than ``SPARE_DISK`` gets none.

        Args:
            kind: Such as ``ranks``.
            name: Says by content what it is made of.
            compute: Called where it is not known.
        """
        file = self._file(kind, name, ".safetensors")
        found = self._mapped.get((kind, name))
        if found is None and file is not None:
            found = self._mapped[kind, name] = _read_mapped(file, kind, name)
        if found is None:
            found = compute()
            self.computed += 1
            if file is not None and _has_room(file.parent, found.nbytes):
                own = found.cpu().contiguous()
                self._replace(file, save({kind: own}, metadata={"name": name}))
                self._mapped[kind, name] = _read_mapped(file, kind, name)  # page cache: not ours
                found = self._mapped[kind, name]
                return own if found is None else found
        return found

    def number(self, group: str, name: str, compute: Callable[[], float]) -> float:
        """A number: from memory, the folder, or computed. ``flush`` keeps it in the folder.

        Args:
            group: Of numbers that are kept in one file, such as a pair of models.
            name: Within the group.
            compute: Called where it is not known.
        """
        numbers = self._numbers.get(group)
        if numbers is None:  # set at once: threads may ask at the same time
            numbers = self._numbers.setdefault(group, self._read_numbers(group))
        if name not in numbers:
            numbers[name] = compute()
            self.computed += 1
            self._changed.add(group)
        return numbers[name]

    def flush(self) -> None:
        """Write numbers that are new to the folder, beside those others wrote meanwhile."""
        for group in sorted(self._changed):
            merged = self._read_numbers(group) | self._numbers[group]
            self._numbers[group] = merged
            body = json.dumps({name: value.hex() for name, value in sorted(merged.items())})
            head = json.dumps([FORMAT, _NUMBERS, group, _digest(body.encode())])
            self._replace(self._file(_NUMBERS, group, ".json"), f"{head}\n{body}\n".encode())
        self._changed.clear()

    def _file(self, kind: str, name: str, suffix: str) -> Path | None:
        if self.folder is None:
            return None
        return self.folder / (_digest(f"{FORMAT} {kind} {name}".encode()) + suffix)

    def _read_numbers(self, group: str) -> dict[str, float]:
        file = self._file(_NUMBERS, group, ".json")
        if file is None:
            return {}
        try:
            head, _, body = file.read_text(encoding="utf-8").partition("\n")
            body = body.removesuffix("\n")
            if json.loads(head) != [FORMAT, _NUMBERS, group, _digest(body.encode())]:
                return {}
            found = {str(k): float.fromhex(v) for k, v in json.loads(body).items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def _read(self, name: str) -> Magnitudes | None:
        file = self._file("magnitudes", name, ".safetensors")
        if file is None or not file.is_file():
            return None
        try:
            with safe_open(file, "pt") as stored:
                said = stored.metadata() or {}
                parts = {part: stored.get_tensor(part) for part in _PARTS}
            if said.get("name") != name or said.get("sum") != _sum(parts, said):
                return None
            return Magnitudes(
                **parts,
                width=int(said["width"]),
                norm=float.fromhex(said["norm"]),
            )
        except (OSError, SafetensorError, ValueError, KeyError):
            return None

    def _write(self, name: str, found: Magnitudes) -> None:
        file = self._file("magnitudes", name, ".safetensors")
        if file is None:
            return
        said = {"name": name, "width": str(found.width), "norm": found.norm.hex()}
        parts = {part: getattr(found, part) for part in _PARTS}
        said["sum"] = _sum(parts, said)
        self._replace(file, save(parts, metadata=said))

    def _replace(self, file: Path | None, content: bytes) -> None:
        """Write a file at once; a folder that cannot be written to costs only time later."""
        if file is None:
            return
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(file, durable=False) as draft:  # it is checked when it is read
                draft.write_bytes(content)
        except OSError as error:
            if not self._warned:
                _log.warning("%s: cannot be written (%s); kept in memory", file.parent, error)
            self._warned = True


def _has_room(folder: Path, needed: int) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(folder).free - needed >= SPARE_DISK
    except OSError:
        return False


def _read_mapped(file: Path, kind: str, name: str) -> Tensor | None:
    if not file.is_file():
        return None
    try:
        with safe_open(file, "pt") as stored:
            if (stored.metadata() or {}).get("name") != name:
                return None
        return load_file(file)[kind]
    except (OSError, SafetensorError, ValueError, KeyError):
        return None


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _sum(parts: dict[str, Tensor], said: dict[str, str]) -> str:
    """Checks a file's content against accidents."""
    digest = hashlib.blake2b(f"{said.get('width')} {said.get('norm')}".encode(), digest_size=16)
    for part in _PARTS:
        digest.update(parts[part].numpy().tobytes())
    return digest.hexdigest()
