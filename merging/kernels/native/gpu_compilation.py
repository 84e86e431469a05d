"""Compiling the passes of ``merging/kernels/native/cpp`` for a GPU, in this process, by NVRTC.

NVRTC is a library that comes with torch's builds for CUDA. It needs neither a GPU nor headers: what
the sources include of C++'s own is a few lines, and given here.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from merging.kernels.native.compilation import SOURCES
from merging.kernels.table_rows import cpp_header

MOST_INPUTS = 32
"""Inputs of a pass at most: a kernel's parameters have 4096 bytes."""

SOURCE = '#include "pass_list.h"'

_OPTIONS = (
    "--std=c++17",
    "--fmad=false",  # a fused multiply-add rounds once, not twice
    "--ftz=false",
    "--prec-div=true",
    "--device-as-default-execution-space",
    "-DON_GPU",
    f"-DMOST_INPUTS={MOST_INPUTS}",
    "-D__builtin_fabsf=fabsf",
)
_STANDARD = {
    "cstdint": (
        "using int16_t = short; using uint16_t = unsigned short; using int32_t = int;"
        " using uint32_t = unsigned int; using int64_t = long long;"
    ),
    "cstring": "namespace std { using ::memcpy; }",
}
_FINE = 0


class GpuCompilationError(RuntimeError):
    """The passes cannot be compiled for a GPU here; torch's calls run then."""


def headers() -> Mapping[str, str]:
    """What ``SOURCE`` includes of this program, by name."""
    found = {one.name: one.read_text(encoding="utf-8") for one in sorted(SOURCES.glob("*.h"))}
    return {**found, "table_rows.h": cpp_header()}


def compiled(architecture: str) -> bytes:
    """The kernels for a GPU.

    Args:
        architecture: As NVRTC names it: ``sm_90`` gives machine code, ``compute_90`` PTX.

    Raises:
        GpuCompilationError: If NVRTC is not there, or does not compile them.
    """
    nvrtc, program = _nvrtc(), ctypes.c_void_p()
    included = {
        **{name: f"#pragma once\n{text}\n" for name, text in _STANDARD.items()},
        **headers(),
    }
    options = [*_OPTIONS, f"--gpu-architecture={architecture}"]
    _check(
        nvrtc,
        nvrtc.nvrtcCreateProgram(
            ctypes.byref(program),
            SOURCE.encode(),
            b"passes.cu",
            len(included),
            _texts(included.values()),
            _texts(included),
        ),
    )
    try:
        ended = nvrtc.nvrtcCompileProgram(program, len(options), _texts(options))
        if ended != _FINE:
            said = _bytes_of(nvrtc, program, "ProgramLog").decode(errors="replace")
            first = next((line for line in said.splitlines() if "error" in line), "no reason given")
            raise GpuCompilationError(f"NVRTC: cannot compile for {architecture} ({first.strip()})")
        return _bytes_of(nvrtc, program, "CUBIN" if architecture.startswith("sm_") else "PTX")
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _nvrtc() -> Any:
    """The library: one that is loaded or installed, or one of the packages torch depends on."""
    for place in _places():
        with suppress(OSError):
            return ctypes.CDLL(str(place))
    raise GpuCompilationError("NVRTC: expected libnvrtc.so of torch or of CUDA, found none")


def _places() -> Iterator[str | Path]:
    import torch

    major = (torch.version.cuda or "").split(".")[0]
    yield from (f"libnvrtc.so.{major}", "libnvrtc.so")
    packages = importlib.util.find_spec("nvidia")
    folders = [Path(one) for one in (packages and packages.submodule_search_locations) or ()]
    for folder in folders:
        yield from sorted(folder.glob(f"*/lib/libnvrtc.so.{major}*"))
    yield from sorted(Path(torch.__file__).parent.glob("lib/libnvrtc*.so*"))
    yield Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "lib64" / "libnvrtc.so"


def _bytes_of(nvrtc: Any, program: ctypes.c_void_p, what: str) -> bytes:
    """What NVRTC made of a program, without the zero at the end of a text."""
    size = ctypes.c_size_t()
    _check(nvrtc, getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    found = ctypes.create_string_buffer(size.value)
    _check(nvrtc, getattr(nvrtc, f"nvrtcGet{what}")(program, found))
    return found.raw if what == "CUBIN" else found.value


def _check(nvrtc: Any, ended: int) -> None:
    if ended != _FINE:
        nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
        raise GpuCompilationError(f"NVRTC: {nvrtc.nvrtcGetErrorString(ended).decode()}")


def _texts(texts: Any) -> Any:
    encoded = [one.encode() for one in texts]
    return (ctypes.c_char_p * len(encoded))(*encoded)
