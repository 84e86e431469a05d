"""Compiling ``merging/cpp``, once on a machine, into the user's cache folder."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

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
_FOLDER = Path(__file__).parent / "cpp"


class NativeError(RuntimeError):
    """The library cannot be made on this machine; builds run without it then."""


@contextlib.contextmanager
def turn() -> Iterator[Path]:
    """Wait for other processes that compile here.

    Yields:
        The folder where libraries are kept.

    Raises:
        OSError: If nothing can be kept.
    """
    folder = kept().parent
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "compiling.lock").open("w") as lock:
        with contextlib.suppress(OSError):  # a file system without locks: then several compile
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def compiled(folder: Path) -> Path:
    """The library, compiled into a folder.

    Raises:
        NativeError: If there is no compiler that makes one.
        OSError: If it cannot be written there.
    """
    with tempfile.TemporaryDirectory(dir=folder) as drafts:
        draft = Path(drafts) / kept().name
        _compile(draft)
        return draft.replace(folder / draft.name)


def _compile(file: Path) -> None:
    """Compile for this very processor, if the compiler knows how to say that."""
    compiler, said = _compiler(), ""
    for tuned in (*((one,) for one in _TUNED), ()):
        command = [*compiler, *_OPTIONS, *tuned, str(_FOLDER / "library.cpp"), "-o", str(file)]
        try:
            done = subprocess.run(  # noqa: S603 - the user's own compiler
                command, capture_output=True, text=True, timeout=_PATIENCE
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NativeError(f"library.cpp: cannot be compiled here ({error})") from error
        if done.returncode == 0:
            return
        said = said or next(iter(done.stderr.splitlines()), f"{compiler[0]} failed")
    raise NativeError(f"library.cpp: cannot be compiled here ({said})")


def _compiler() -> list[str]:
    asked = shlex.split(os.environ.get("CXX", ""))
    found = next(filter(None, map(shutil.which, asked[:1] or _COMPILERS)), None)
    if found is None:
        names = asked[0] if asked else ", ".join(_COMPILERS)
        raise NativeError(f"library.cpp: expected a C++ compiler, found none ({names})")
    return [found, *asked[1:]]


def kept() -> Path:
    """Where the library lies if it was compiled before."""
    said = repr((_source(), _OPTIONS, os.environ.get("CXX"), _processor()))
    digest = hashlib.blake2b(said.encode(), digest_size=16).hexdigest()
    folder = os.environ.get("XDG_CACHE_HOME")
    try:
        place = Path(folder) if folder else Path.home() / ".cache"
    except RuntimeError:  # a user without a home
        place = Path(os.devnull)  # where nothing can be kept
    return place / "merge-search" / f"passes-{digest}.so"


def _source() -> str:
    return "".join(one.read_text(encoding="utf-8") for one in sorted(_FOLDER.glob("*.*")))


def _processor() -> str:
    """What instructions there are: code is made for this very processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return f"{platform.machine()} {platform.processor()}"
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
