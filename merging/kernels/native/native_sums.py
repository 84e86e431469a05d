"""What the native library sums up and counts: for statistics, and for intermediate results."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from merging.kernels.native.abi import at, series_task
from merging.kernels.torch_kernels.reduction_kernels import BLOCK


class NativeSums:
    """Functions of the loaded library."""

    def __init__(self, made: ctypes.CDLL) -> None:
        addresses = (ctypes.c_void_p,) * 3
        for sums in (made.run_products, made.run_magnitudes, made.run_high_bits):
            sums.argtypes, sums.restype = addresses[:2], None
        made.run_distinct.argtypes = (ctypes.c_void_p, *(ctypes.c_int64,) * 2, *addresses)
        made.run_distinct.restype = ctypes.c_int64
        made.run_ranked_bits.argtypes = (ctypes.c_void_p, *(ctypes.c_int64,) * 3, ctypes.c_void_p)
        made.run_ranked_bits.restype = None
        made.run_position.argtypes = (ctypes.c_void_p, *(ctypes.c_int64,) * 3)
        made.run_position.restype = ctypes.c_int64
        self._made = made

    def products(self, tensors: Sequence[Tensor], minus: Tensor | None) -> array[float]:
        """Sums over blocks of ``reduction_kernels.BLOCK`` products of any two tensors, in float64.

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
        task = series_task([tensor], minus)
        addresses = (one.data_ptr() for one in (bits, counts, places))
        found = self._made.run_distinct(at(task), most, step, *addresses)
        if found < 0:
            return None
        noted = int((counts[:found] // step).sum())
        return bits[:found].clone(), counts[:found].clone(), places[:noted].clone()

    def high_bits(self, tensor: Tensor, minus: Tensor | None) -> Tensor:
        """How often each value of magnitudes' 15 highest bits occurs: ``(2**15,)`` int64."""
        counts = torch.zeros(1 << 15, dtype=torch.int64)
        task = series_task([tensor], minus)
        self._made.run_high_bits(at(task), counts.data_ptr())
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
        task, found = series_task([tensor], minus), array("q", bytes(8 * 3))
        self._made.run_ranked_bits(at(task), low, high, count, at(found))
        bits, larger, equal = found
        return bits, larger, equal

    def position(
        self, tensor: Tensor, minus: Tensor | None, *, bits: int, wanted: int, begin: int
    ) -> int:
        """The index of the ``wanted``-th entry from ``begin`` on whose magnitude has these bits.

        Args:
            tensor: ``(n,)``, contiguous, of ``FLOATS``.
            minus: What is subtracted first, likewise.
            bits: Of the magnitude.
            wanted: At least 1.
            begin: The first index looked at.

        Returns:
            -1 if there are not so many.
        """
        task = series_task([tensor], minus)
        found: int = self._made.run_position(at(task), begin, bits, wanted)
        return found

    def _sums(
        self,
        run: Callable[[int, int], None],
        tensors: Sequence[Tensor],
        minus: Tensor | None,
        rows: int,
    ) -> array[float]:
        task, blocks = series_task(tensors, minus), -(-tensors[0].numel() // BLOCK)
        found = array("d", bytes(8 * rows * blocks))
        run(at(task), at(found))
        return found
