"""The passes as one native library for this machine's CPU: compiled once, then loaded from disk.

``merging/kernels/native/cpp`` says once more what ``merge_kernels``, ``entrywise_kernels``,
``reduction_kernels`` and the statistics say for any device, with the same bits. Compiling takes
seconds and a C++ compiler, which is all it needs; the library lies in ``merge-search`` in the
user's cache folder, named by all it depends on. Without a compiler everything runs without it,
several times slower.
"""

from __future__ import annotations

import ctypes
import logging
import tempfile
from array import array
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from merging.kernels.native.abi import at, task_of
from merging.kernels.native.compilation import (
    NativeError,
    UntrustedError,
    check,
    compiled,
    kept,
    turn,
)
from merging.kernels.native.native_sums import NativeSums

_log = logging.getLogger(__name__)


class NativeLibrary:
    """The loaded library.

    Raises:
        OSError: If it is no library, or one of another kind of machine.

    Attributes:
        sums: What it sums up and counts for statistics.
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
        self._found_by = made.found_by
        self._found_by.argtypes, self._found_by.restype = (ctypes.c_int64,) * 2, ctypes.c_int64
        self._place_of_merge, self._place_of_look = _places(made.merge_of), _places(made.look_of)
        self.sums = NativeSums(made)

    def has(self, name: str) -> bool:
        """Whether there is a pass of that name that writes an output."""
        try:
            return self._place_of_merge(name) >= 0
        except KeyError:
            return False

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
        """Run a pass of ``merging.kernels.torch_kernels.merge_kernels.MERGES``.

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
        task = task_of(out.numel(), len(inputs), (origin, out, *inputs, *ranks))
        numbers, words = array("f", floats), array("i", ints)
        self._merge(self._place_of_merge(name), at(task), at(numbers), at(words))

    def look(
        self,
        name: str,
        tensors: Sequence[Tensor],
        *,
        floats: Sequence[float],
        ints: Sequence[int],
    ) -> list[int]:
        """Run a pass of ``merging.kernels.torch_kernels.reduction_kernels.LOOKS``.

        Args:
            name: Of the pass.
            tensors: ``(n,)`` each, contiguous, of ``KINDS``, n below 2**31.
            floats: The pass's float32 numbers.
            ints: Its int32 numbers.

        Returns:
            Sums over entries; ``seal`` finds two, then the largest exponent field.
        """
        first = tensors[0]
        task = task_of(first.numel(), len(tensors), (first, first, *tensors))
        place, numbers, words = self._place_of_look(name), array("f", floats), array("i", ints)
        result = array("q", bytes(8 * self._found_by(place, len(tensors))))
        self._look(place, at(task), at(numbers), at(words), at(result))
        return result.tolist()


def warm_up() -> NativeLibrary:
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


def library() -> NativeLibrary | None:
    """The library, if it was loaded."""
    return _loaded[0] if _loaded else None


def library_on(device: torch.device) -> NativeLibrary | None:
    """The library, if it was loaded and computes there."""
    return library() if device.type == "cpu" else None


_loaded: list[NativeLibrary] = []  # of this process; at most one


def _places(place: Callable[[bytes], int]) -> Callable[[str], int]:
    """Where passes stand in the library, by name."""

    @cache
    def found(name: str) -> int:
        at = place(name.encode())
        if at < 0:
            raise KeyError(name)
        return at

    return found


def _found() -> NativeLibrary | None:
    """The library on disk, if it is whole and nobody else's."""
    file = kept()
    try:
        check(file)
        return NativeLibrary(file)
    except FileNotFoundError:
        return None
    except OSError as error:
        _log.info("compiled anew: %s", error)
        return None


def _made() -> NativeLibrary:
    """The library compiled, by one process at a time, and kept if that is possible."""
    try:
        with turn() as folder:
            return _found() or NativeLibrary(compiled(folder))
    except UntrustedError as error:
        _log.warning("the compiled library is not kept: %s", error)
    except OSError as error:
        _log.info("nothing can be kept: %s", error)
    with tempfile.TemporaryDirectory() as own:  # a loaded library needs its file no more
        return NativeLibrary(compiled(Path(own)))
