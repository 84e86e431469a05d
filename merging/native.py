"""The passes as one native library for this machine's CPU: compiled once, then loaded from disk.

``native.cpp`` says once more what ``merging.passes``, ``merging.choices`` and ``merging.looks`` say
for any device, with the same bits. Compiling takes a few seconds and a C++ compiler, which is all
it needs; the library lies in ``merge-search`` in the user's cache folder, named by all it depends
on. Without a compiler everything runs without it, several times slower.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

KINDS = {
    torch.float32: 0,
    torch.bfloat16: 1,
    torch.float16: 2,
    torch.int16: 3,
    torch.int32: 4,
}
"""Dtypes that the library reads, and what it calls them."""

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
"""Those that it merges, and writes."""

_OPTIONS = (
    "-std=c++17",
    "-O2",
    "-ftree-vectorize",
    "-ffp-contract=off",  # a fused multiply-add rounds once, not twice
    "-fno-math-errno",
    "-fno-trapping-math",  # lets loops with conditions be vectorised; no result depends on it
    "-fPIC",
    "-shared",
)
_TUNED = ("-march=native", "-mcpu=native")  # as the processor's compilers call it
_COMPILERS = ("c++", "g++", "clang++")
_PATIENCE = 300  # seconds for a compiler

_log = logging.getLogger(__name__)


class NativeError(RuntimeError):
    """The library cannot be made on this machine; builds run without it then."""


class Library:
    """The loaded library.

    Args:
        file: Where it lies.

    Raises:
        OSError: If it is no library, or one of another kind of machine.
    """

    def __init__(self, file: Path) -> None:
        made = ctypes.CDLL(str(file))
        addresses = (ctypes.c_void_p,) * 3
        self._merge, self._look = made.run_merge, made.run_look
        self._merge.argtypes, self._merge.restype = (ctypes.c_int64, *addresses), None
        self._look.argtypes = (ctypes.c_int64, *addresses, ctypes.c_void_p)
        self._look.restype = None
        for place in (made.merge_of, made.look_of):
            place.argtypes, place.restype = (ctypes.c_char_p,), ctypes.c_int64
        self._place_of_merge, self._place_of_look = _places(made.merge_of), _places(made.look_of)

    def merge(
        self,
        name: str,
        inputs: Sequence[Tensor],
        base: Tensor | None,
        out: Tensor,
        *,
        floats: Sequence[float],
        ints: Sequence[int],
        ranks: Sequence[Tensor] = (),
    ) -> None:
        """Run a pass of ``merging.passes.MERGES``.

        Args:
            name: Of the pass.
            inputs: ``(n,)`` each, contiguous, of ``FLOATS``, n below 2**31.
            base: Likewise; ``None`` for passes without.
            out: Likewise, to overwrite.
            floats: The table of float32 numbers, row by row.
            ints: That of int32 numbers.
            ranks: ``(n,)`` contiguous whole numbers of ``KINDS``, one per input.
        """
        origin = inputs[0] if base is None else base
        task = _task(out.numel(), len(inputs), (origin, out, *inputs, *ranks))
        numbers, words = array("f", floats), array("i", ints)
        self._merge(self._place_of_merge(name), _at(task), _at(numbers), _at(words))

    def look(
        self,
        name: str,
        tensors: Sequence[Tensor],
        *,
        floats: Sequence[float],
        ints: Sequence[int],
        found: int,
    ) -> list[int]:
        """Run a pass of ``merging.looks.LOOKS``.

        Args:
            name: Of the pass.
            tensors: ``(n,)`` each, contiguous, of ``KINDS``, n below 2**31.
            floats: The pass's float32 numbers.
            ints: Its int32 numbers.
            found: How many numbers it finds.

        Returns:
            Sums over entries; ``seal`` finds two, then the largest exponent field.
        """
        first = tensors[0]
        task = _task(first.numel(), len(tensors), (first, first, *tensors))
        numbers, words, result = array("f", floats), array("i", ints), array("q", bytes(8 * found))
        place = self._place_of_look(name)
        self._look(place, _at(task), _at(numbers), _at(words), _at(result))
        return result.tolist()


def warm_up() -> Library:
    """Load the library, compiled now if it was not before.

    Raises:
        NativeError: If there is no compiler that makes one; nothing is lost but speed.
    """
    if not _loaded:
        _loaded.append(_found() or _made())
    return _loaded[0]


def try_warm_up() -> bool:
    """As ``warm_up``; if it fails one warning, and whether there is a library."""
    try:
        warm_up()
    except NativeError as error:
        _log.warning("%s; models are built without it, several times slower", error)
        return False
    return True


def load() -> bool:
    """Load the library if it was compiled before; whether there is one now."""
    if not _loaded and (found := _found()) is not None:
        _loaded.append(found)
    return bool(_loaded)


def cool_down() -> None:
    """Forget the library in this process; builds run without it from here on."""
    _loaded.clear()


def library() -> Library | None:
    """The library, if it was loaded."""
    return _loaded[0] if _loaded else None


_loaded: list[Library] = []  # of this process; at most one


def _places(place: Callable[[bytes], int]) -> Callable[[str], int]:
    """Where passes stand in the library, by name."""

    @cache
    def found(name: str) -> int:
        at = place(name.encode())
        if at < 0:
            raise KeyError(name)
        return at

    return found


def _task(entries: int, inputs: int, tensors: Sequence[Tensor]) -> array[int]:
    """``Task`` of native.cpp: sizes, then address and dtype of every tensor."""
    task = array("q", (entries, inputs))
    for one in tensors:
        task.append(one.data_ptr())
        task.append(KINDS[one.dtype])
    return task


def _at(numbers: array[Any]) -> int:
    return numbers.buffer_info()[0]


def _found() -> Library | None:
    """The library on disk."""
    try:
        return Library(_file())
    except OSError:  # not there, or cut off
        return None


def _made() -> Library:
    """The library compiled, by one process at a time, and kept if that is possible."""
    try:
        with _turn():
            return _found() or _compiled(_folder())
    except OSError as error:
        _log.info("%s: nothing can be kept there (%s)", _folder(), error)
    with tempfile.TemporaryDirectory() as folder:  # a loaded library needs its file no more
        return _compiled(Path(folder))


@contextlib.contextmanager
def _turn() -> Iterator[None]:
    """Wait for other processes that compile here."""
    _folder().mkdir(parents=True, exist_ok=True)
    with (_folder() / "compiling.lock").open("w") as lock:
        with contextlib.suppress(OSError):  # a file system without locks: then several compile
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _compiled(folder: Path) -> Library:
    with tempfile.TemporaryDirectory(dir=folder) as drafts:
        draft = Path(drafts) / _file().name
        _compile(draft)
        draft.replace(folder / draft.name)
    return Library(folder / draft.name)


def _compile(file: Path) -> None:
    """Compile for this very processor, if the compiler knows how to say that."""
    compiler, said = _compiler(), ""
    for tuned in (*((one,) for one in _TUNED), ()):
        command = [*compiler, *_OPTIONS, *tuned, "-x", "c++", "-", "-o", str(file)]
        try:
            done = subprocess.run(  # noqa: S603 - the user's own compiler
                command, input=_source(), capture_output=True, text=True, timeout=_PATIENCE
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NativeError(f"native.cpp: cannot be compiled here ({error})") from error
        if done.returncode == 0:
            return
        said = said or next(iter(done.stderr.splitlines()), f"{compiler[0]} failed")
    raise NativeError(f"native.cpp: cannot be compiled here ({said})")


def _compiler() -> list[str]:
    asked = shlex.split(os.environ.get("CXX", ""))
    found = next(filter(None, map(shutil.which, asked[:1] or _COMPILERS)), None)
    if found is None:
        names = asked[0] if asked else ", ".join(_COMPILERS)
        raise NativeError(f"native.cpp: expected a C++ compiler, found none ({names})")
    return [found, *asked[1:]]


@cache
def _file() -> Path:
    said = repr((_source(), _OPTIONS, os.environ.get("CXX"), _processor()))
    digest = hashlib.blake2b(said.encode(), digest_size=16).hexdigest()
    return _folder() / f"passes-{digest}.so"


@cache
def _folder() -> Path:
    kept = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(kept) if kept else Path.home() / ".cache") / "merge-search"
    except RuntimeError:  # a user without a home
        return Path(os.devnull) / "merge-search"  # where nothing can be kept


@cache
def _source() -> str:
    return (files("merging") / "native.cpp").read_text(encoding="utf-8")


def _processor() -> str:
    """What instructions there are: code is made for this very processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return f"{platform.machine()} {platform.processor()}"
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
