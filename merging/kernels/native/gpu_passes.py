"""The passes as kernels of a GPU, a pass over memory each: compiled when a worker starts.

They are made of the sources of the native library, with the same bits. Before they are used, each
is held against torch's calls on the GPU: where one cannot be had, or has other bits, torch's calls
run and the reason is logged.
"""

from __future__ import annotations

import ctypes
import logging
from array import array
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from merging.kernels.native.abi import at, task_of
from merging.kernels.native.gpu_compilation import MOST_INPUTS, compiled
from merging.kernels.native.native_library import NativeLibrary, library
from merging.kernels.table_rows import FLOAT_ROWS, INT_ROWS
from merging.kernels.torch_kernels.merge_kernels import MERGES
from merging.kernels.torch_kernels.reduction_kernels import BLOCK, LOOKS

_log = logging.getLogger(__name__)

_FOUND = {"kept_norm": 2, "ranked_norm": 2, "seal": 3}
"""Passes without an output that there are, and how many numbers each finds."""

_THREADS = 256  # of a block
_BLOCKS = 8  # of each multiprocessor: as many as it runs at a time

Launch = Callable[[str, int, Sequence["array[Any]"]], None]
"""Runs the kernel of a pass, over so many entries, with its parameters."""


class GpuPasses:
    """The passes on one GPU; called as those of ``NativeLibrary``.

    Args:
        launch: Runs a kernel there, on the stream that torch's calls use.
    """

    def __init__(self, launch: Launch) -> None:
        self._launch = launch

    def has(self, name: str) -> bool:
        """Whether there is a pass of that name that writes an output."""
        return name in MERGES

    def takes(self, name: str, inputs: int) -> bool:
        """Whether there is a pass of that name for so many inputs."""
        return (name in MERGES or name in _FOUND) and inputs <= MOST_INPUTS

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
        """Run a pass that writes an output; all tensors are on the GPU."""
        origin = inputs[0] if base is None else base
        task = task_of(out.numel(), len(inputs), (origin, out, *inputs, *ranks))
        self._launch(name, out.numel(), _parameters(task, floats, ints))

    def look(
        self,
        name: str,
        tensors: Sequence[Tensor],
        *,
        floats: Sequence[float],
        ints: Sequence[int],
    ) -> list[int]:
        """Run a pass without an output, and wait for what it finds."""
        first = tensors[0]
        found = torch.zeros(_FOUND[name], dtype=torch.int64, device=first.device)
        task = task_of(first.numel(), len(tensors), (first, first, *tensors))
        parameters = _parameters(task, floats, ints)
        self._launch(name, first.numel(), [*parameters, array("q", [found.data_ptr()])])
        return found.tolist()


def _parameters(task: array[int], floats: Sequence[float], ints: Sequence[int]) -> list[array[Any]]:
    """``Task``, ``Floats`` and ``Ints`` of cpp/pass_list.h, in their whole size."""
    sizes = (6 + 4 * MOST_INPUTS, FLOAT_ROWS * MOST_INPUTS, INT_ROWS * MOST_INPUTS)
    given: tuple[array[Any], ...] = (task, array("f", floats), array("i", ints))
    return [
        one + array(one.typecode, bytes(one.itemsize * (size - len(one))))
        for one, size in zip(given, sizes, strict=True)
    ]


class _Kernels:
    """Kernels loaded onto a GPU by CUDA's driver.

    Args:
        device: The GPU, by index.
        code: What NVRTC compiled.
    """

    def __init__(self, device: torch.device, code: bytes) -> None:
        self._device, self._driver = device, ctypes.CDLL("libcuda.so.1")
        self._blocks = _BLOCKS * torch.cuda.get_device_properties(device).multi_processor_count
        self._functions: dict[str, ctypes.c_void_p] = {}
        self._context, self._module = ctypes.c_void_p(), ctypes.c_void_p()
        torch.empty(0, device=device)  # torch's context, which is the GPU's primary one
        gpu = ctypes.c_int()
        self._call("cuDeviceGet", ctypes.byref(gpu), device.index)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), gpu)
        self._call("cuCtxPushCurrent_v2", self._context)
        try:
            self._call("cuModuleLoadData", ctypes.byref(self._module), code)
        finally:
            self._call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))

    def launch(self, name: str, entries: int, parameters: Sequence[array[Any]]) -> None:
        """Run a kernel on torch's stream; see ``Launch``."""
        blocks = min(self._blocks, -(-entries // _THREADS))
        addresses = (ctypes.c_void_p * len(parameters))(*map(at, parameters))
        stream = ctypes.c_void_p(torch.cuda.current_stream(self._device).cuda_stream)
        self._call("cuCtxPushCurrent_v2", self._context)
        try:
            if name not in self._functions:
                found, kernel = ctypes.c_void_p(), f"{name}_kernel".encode()
                self._call("cuModuleGetFunction", ctypes.byref(found), self._module, kernel)
                self._functions[name] = found
            sizes = (blocks, 1, 1, _THREADS, 1, 1, 0)
            self._call("cuLaunchKernel", self._functions[name], *sizes, stream, addresses, None)
        finally:
            self._call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))

    def _call(self, name: str, *given: Any) -> None:
        ended = getattr(self._driver, name)(*given)
        if ended:
            said = ctypes.c_char_p()
            self._driver.cuGetErrorString(ended, ctypes.byref(said))
            raise RuntimeError(f"{name}: {(said.value or b'unknown error').decode()}")


def try_warm_up_on(device: torch.device) -> bool:
    """Compile the passes for a GPU, unless they were; if it fails one warning.

    Returns:
        Whether they are there.
    """
    device = torch.device("cuda", torch.cuda.current_device()) if device.index is None else device
    if device.index in _loaded:
        return True
    try:
        passes = _made(device)
        if wrong := differing(passes, device):
            raise RuntimeError(f"other bits than torch's calls have: {', '.join(wrong)}")
    except (OSError, RuntimeError) as error:
        _log.warning("%s; on %s passes run as torch's calls, several times slower", error, device)
        return False
    _loaded[device.index] = passes
    return True


def cool_down_gpus() -> None:
    """Forget the passes in this process; torch's calls run from here on."""
    _loaded.clear()


def passes_on(device: torch.device) -> NativeLibrary | GpuPasses | None:
    """What runs passes in one go on a device, if it was loaded."""
    if device.type == "cpu":
        return library()
    if device.type != "cuda" or not _loaded:
        return None
    return _loaded.get(torch.cuda.current_device() if device.index is None else device.index)


_loaded: dict[int, GpuPasses] = {}  # of this process, by the GPU's index


def _made(device: torch.device) -> GpuPasses:
    if torch.version.cuda is None:
        raise RuntimeError("kernels: expected a GPU by CUDA, got another")
    major, minor = torch.cuda.get_device_capability(device)
    return GpuPasses(_Kernels(device, compiled(f"sm_{major}{minor}")).launch)


def differing(passes: GpuPasses, device: torch.device) -> list[str]:
    """Names of the passes that give noise other bits than torch's calls do."""
    source = torch.Generator().manual_seed(0)
    noise = torch.randn(3, 3 * BLOCK, generator=source).to(device, torch.bfloat16)
    *inputs, base = noise.unbind()
    places = torch.arange(base.numel(), dtype=torch.int32, device=device)
    ranks = [(places * step % 77).to(torch.int16) for step in (7, 5)]
    rows = torch.rand(FLOAT_ROWS, 2, generator=source).to(device)
    words = torch.randint(1, BLOCK, (INT_ROWS, 2), generator=source, dtype=torch.int32).to(device)
    wholes, found = words.flatten().tolist(), []
    for name, run in MERGES.items():
        stored = ranks if name.startswith("ranked") else []
        scaled = rows * 2**20 if stored else rows  # as random numbers that ranks are compared with
        ours, theirs = torch.empty_like(base), torch.empty_like(base)
        numbers = scaled.flatten().tolist()
        passes.merge(name, inputs, base, ours, floats=numbers, ints=wholes, ranks=stored)
        run([*inputs, *(one.float() for one in stored)], base, theirs, places, scaled, words)
        found += [] if torch.equal(ours.view(torch.int16), theirs.view(torch.int16)) else [name]
    norms = torch.tensor([100.0, 2e6, 1e5], device=device)
    for name in _FOUND:
        looked = [base.view(torch.int32)] if name == "seal" else [*inputs, ranks[0]]
        sums = LOOKS[name](looked, places[: looked[0].numel()], norms, words[:, 0])
        got = passes.look(name, looked, floats=norms.tolist(), ints=words[:, 0].tolist())
        found += [] if got == [int(one.double().sum()) for one in sums] else [name]
    return found
