"""The passes as one native library for this machine's CPU: compiled once, then loaded from disk.

``merging/cpp`` says once more what ``merging.passes``, ``merging.choices``, ``merging.looks`` and
the statistics say for any device, with the same bits. Compiling takes seconds and a C++ compiler,
which is all it needs; the library lies in ``merge-search`` in the user's cache folder, named by all
it depends on. Without a compiler everything runs without it, several times slower.
"""

from __future__ import annotations

import ctypes
import logging
import tempfile
from array import array
from collections.abc import Callable, Container, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from merging.compiling import NativeError, compiled, kept, turn
from merging.looks import BLOCK

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

_log = logging.getLogger(__name__)


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
        for sums in (made.run_products, made.run_magnitudes, made.run_high_bits):
            sums.argtypes, sums.restype = addresses[:2], None
        made.run_distinct.argtypes = (ctypes.c_void_p, *(ctypes.c_int64,) * 2, *addresses)
        made.run_distinct.restype = ctypes.c_int64
        made.run_ranked_bits.argtypes = (ctypes.c_void_p, *(ctypes.c_int64,) * 3, ctypes.c_void_p)
        made.run_ranked_bits.restype = None
        self._made = made

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

    def products(self, tensors: Sequence[Tensor], minus: Tensor | None) -> array[float]:
        """Sums over blocks of ``looks.BLOCK`` products of any two tensors, in float64.

        Args:
            tensors: k of ``(n,)``, contiguous, of ``FLOATS``.
            minus: What is subtracted from each first, likewise.

        Returns:
            Those of the first with itself, with the second and so on; then of the second with
            itself: k (k + 1) / 2 times the number of blocks.
        """
        pairs = len(tensors) * (len(tensors) + 1) // 2
        return self._sums(self._made.run_products, tensors, minus, pairs)

    def magnitudes(self, tensor: Tensor, minus: Tensor | None) -> array[float]:
        """Sums over blocks of magnitudes, in float64, then the largest magnitude of each block."""
        return self._sums(self._made.run_magnitudes, [tensor], minus, 2)

    def distinct(
        self, tensor: Tensor, minus: Tensor | None, *, most: int, step: int
    ) -> tuple[Tensor, Tensor, Tensor] | None:
        """The magnitudes that occur, unless there are too many different ones.

        Args:
            tensor: ``(n,)``, contiguous, of ``FLOATS``.
            minus: What is subtracted first, likewise.
            most: Different magnitudes there may be.
            step: Which entries of a magnitude have their index noted.

        Returns:
            The magnitudes' bits, descending, int32; how often each occurs, int64; and the indices
            of every so manieth entry of each, int64.
        """
        count, most = tensor.numel(), min(most, tensor.numel())
        bits, counts = torch.empty(most, dtype=torch.int32), torch.empty(most, dtype=torch.int64)
        places = torch.empty(count // step, dtype=torch.int64)
        task = _series([tensor], minus)
        addresses = (one.data_ptr() for one in (bits, counts, places))
        found = self._made.run_distinct(_at(task), most, step, *addresses)
        if found < 0:
            return None
        noted = int((counts[:found] // step).sum())
        return bits[:found].clone(), counts[:found].clone(), places[:noted].clone()

    def high_bits(self, tensor: Tensor, minus: Tensor | None) -> Tensor:
        """How often each value of magnitudes' 15 highest bits occurs: ``(2**15,)`` int64."""
        counts = torch.zeros(1 << 15, dtype=torch.int64)
        task = _series([tensor], minus)
        self._made.run_high_bits(_at(task), counts.data_ptr())
        return counts

    def ranked_bits(
        self, tensor: Tensor, minus: Tensor | None, *, low: int, high: int, count: int
    ) -> tuple[int, int, int]:
        """Of magnitudes whose bits lie between two: those of the ``count``-th largest, how many are
        larger, and how many equal.

        Args:
            tensor: ``(n,)``, contiguous, of ``FLOATS``.
            minus: What is subtracted first, likewise.
            low: The least bits.
            high: The most bits, these included.
            count: 1 to the number of such magnitudes.
        """
        task, found = _series([tensor], minus), array("q", bytes(8 * 3))
        self._made.run_ranked_bits(_at(task), low, high, count, _at(found))
        bits, larger, equal = found
        return bits, larger, equal

    def _sums(
        self,
        run: Callable[[int, int], None],
        tensors: Sequence[Tensor],
        minus: Tensor | None,
        rows: int,
    ) -> array[float]:
        task, blocks = _series(tensors, minus), -(-tensors[0].numel() // BLOCK)
        found = array("d", bytes(8 * rows * blocks))
        run(_at(task), _at(found))
        return found


def readable(flat: Tensor, start: int, stop: int, kinds: Container[torch.dtype]) -> Tensor:
    """Contiguous entries on the CPU, as float32 where the library does not read their dtype."""
    part = flat if stop - start == flat.numel() else flat[start:stop]
    if part.dtype not in kinds or part.device.type != "cpu":
        part = part.to("cpu", torch.float32)
    return part.contiguous()


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
    """``Task`` of cpp/entries.h: sizes, then address and dtype of every tensor."""
    task = array("q", (entries, inputs))
    for one in tensors:
        task.append(one.data_ptr())
        task.append(KINDS[one.dtype])
    return task


def _series(tensors: Sequence[Tensor], minus: Tensor | None) -> array[int]:
    """A task of tensors, or of their differences from one; its base has no address otherwise."""
    task = _task(tensors[0].numel(), len(tensors), (tensors[0] if minus is None else minus,) * 2)
    if minus is None:
        task[2] = 0
    for one in tensors:
        task.extend((one.data_ptr(), KINDS[one.dtype]))
    return task


def _at(numbers: array[Any]) -> int:
    return numbers.buffer_info()[0]


def _found() -> Library | None:
    """The library on disk."""
    try:
        return Library(kept())
    except OSError:  # not there, or cut off
        return None


def _made() -> Library:
    """The library compiled, by one process at a time, and kept if that is possible."""
    try:
        with turn() as folder:
            return _found() or Library(compiled(folder))
    except OSError as error:
        _log.info("nothing can be kept: %s", error)
    with tempfile.TemporaryDirectory() as own:  # a loaded library needs its file no more
        return Library(compiled(Path(own)))
