"""Compiling ``merging/kernels/native/cpp``, once on a machine, into the user's cache folder."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from merging.kernels.table_rows import cpp_header
from spaces.atomic_files import replacing

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
SOURCES = Path(__file__).parent / "cpp"
"""Where the C++ lies."""

_SUM_BYTES = 32
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class NativeError(RuntimeError):
    """The library cannot be made on this machine; builds run without it then."""


class UntrustedError(OSError):
    """Others could have put code where the library is kept."""


@contextlib.contextmanager
def turn() -> Iterator[Path]:
    """Wait for other processes that compile here.

    Yields:
        The folder where libraries are kept.

    Raises:
        OSError: If nothing can be kept, or others could put code there.
    """
    folder = kept().parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    about = folder.stat()
    if about.st_uid == os.geteuid() and about.st_mode & _OTHERS_WRITE:
        folder.chmod(stat.S_IMODE(about.st_mode) & ~_OTHERS_WRITE)  # as older versions made it
    _check_trusted(folder.stat(), folder)
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
    file = folder / kept().name
    with tempfile.TemporaryDirectory() as drafts:
        made = Path(drafts) / file.name
        _compile(made)
        code = made.read_bytes()
    with replacing(file) as draft:
        draft.write_bytes(code + _sum(code))
        draft.chmod(0o600)
    return file


def check(file: Path) -> None:
    """Make sure that a library is what was compiled, whole, and nobody else's.

    One that was cut off would end the process when its missing pages are looked at.

    Raises:
        OSError: If it is not there, not whole, or others may write it or its folder.
    """
    _check_trusted(file.parent.stat(), file.parent)
    with file.open("rb") as opened:
        _check_trusted(os.fstat(opened.fileno()), file)
        content = opened.read()
    code, said = content[:-_SUM_BYTES], content[-_SUM_BYTES:]
    if _sum(code) != said:
        raise OSError(f"{file}: expected what was compiled, got other bytes")


def _check_trusted(about: os.stat_result, place: Path) -> None:
    """Make sure that nobody but this user, and who may do everything, can put code there."""
    if about.st_uid not in (0, os.geteuid()):
        raise UntrustedError(f"{place}: expected an owner that is this user, got another one")
    if about.st_mode & _OTHERS_WRITE:
        raise UntrustedError(
            f"{place}: expected that no one else may write it, got mode "
            f"{stat.S_IMODE(about.st_mode):o}"
        )


def _sum(code: bytes) -> bytes:
    """What stands behind the code, where loaders do not look: its checksum."""
    return hashlib.blake2b(code, digest_size=_SUM_BYTES).digest()


def _compile(file: Path) -> None:
    """Compile for this very processor, if the compiler knows how to say that."""
    compiler, said = _compiler(), ""
    (file.parent / "table_rows.h").write_text(cpp_header(), encoding="ascii")
    for tuned in (*((one,) for one in _TUNED), ()):
        command = [*compiler, *_OPTIONS, *tuned, f"-I{file.parent}"]
        command += [str(SOURCES / "library.cpp"), "-o", str(file)]
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
    return cpp_header() + "".join(
        one.read_text(encoding="utf-8") for one in sorted(SOURCES.glob("*.*"))
    )


def _processor() -> str:
    """What instructions there are: code is made for this very processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return f"{platform.machine()} {platform.processor()}"
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
