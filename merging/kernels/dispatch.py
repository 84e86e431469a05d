"""Running passes: natively on a CPU or GPU that they were compiled for, as torch's calls elsewhere.

Nothing is ever compiled in the middle of a build: what was not compiled runs eagerly, on a CPU over
chunks that stay in the cache. Both ways give the same bits, so which one runs is a matter of speed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from merging.kernels.chunks import NATIVE_CHUNK, in_order, shares, signed, spans
from merging.kernels.native.abi import FLOATS, KINDS, readable
from merging.kernels.native.gpu_passes import GpuPasses, passes_on
from merging.kernels.native.native_library import NativeLibrary
from merging.kernels.table_rows import FLOAT_ROWS, INT_ROWS
from merging.kernels.torch_kernels.merge_kernels import AT_ONCE, MERGES
from merging.kernels.torch_kernels.reduction_kernels import LOOKS

_EAGER_CHUNK = 1 << 16  # temporaries stay in the cache
_DEVICE_CHUNK = 1 << 24
_FEW = 1 << 17  # entries of all inputs up to which calls take more time than what they compute

Ints = Callable[[int], Sequence[Sequence[int]]]
"""Rows of whole numbers, as of an index."""
LookInts = Callable[[int], Sequence[int]]
"""Whole numbers as of an index."""

_Number = TypeVar("_Number", bound=float)
_Found = TypeVar("_Found")


def no_ints(start: int) -> Sequence[Sequence[int]]:  # noqa: ARG001 - as all of this kind
    """For passes that read none."""
    return ()


def merge(
    name: str,
    inputs: Sequence[Tensor],
    base: Tensor | None,
    out: Tensor,
    *,
    floats: Sequence[Sequence[float]],
    ints: Ints = no_ints,
    ranks: Sequence[Tensor] = (),
    chunk: int | None = None,
) -> None:
    """Run a pass over flat tensors.

    Args:
        name: In ``merging.kernels.torch_kernels.merge_kernels.MERGES``.
        inputs: ``(n,)`` each, any float dtype and device.
        base: ``(n,)``, or ``None`` for passes without.
        out: ``(n,)`` to overwrite; computing happens on its device.
        floats: Rows of the pass's numbers: one per input, or one for all.
        ints: Rows of its whole numbers, as int32 values.
        ranks: ``(n,)`` whole numbers, one per input, for passes that read them.
        chunk: Elements at a time; ``None`` suits the device. Changes nothing but speed.
    """
    device = out.device
    found = _passes(name, len(inputs), device)
    if found is None:
        _merge_eagerly(name, inputs, base, out, floats, ints, ranks, chunk)
        return
    numbers = _in_columns(floats, len(inputs))

    def run(first: int, last: int) -> None:
        origin = None if base is None else readable(base, first, last, FLOATS, device)
        target = out[first:last]
        made = target if target.dtype in FLOATS else torch.empty(last - first, device=device)
        found.merge(
            name,
            [readable(one, first, last, FLOATS, device) for one in inputs],
            origin,
            made,
            floats=numbers,
            ints=_in_columns(ints(first), len(inputs)),
            ranks=[readable(one, first, last, KINDS, device) for one in ranks],
        )
        if made is not target:
            target.copy_(made)

    for _ in _in_ranges(run, out.numel(), chunk, device):
        pass


def has_native(name: str, device: torch.device) -> bool:
    """Whether passes were compiled for a device, and there is one of that name."""
    found = passes_on(device)
    return found is not None and found.has(name)


def total(
    name: str,
    tensors: Sequence[Tensor],
    *,
    device: torch.device,
    floats: Sequence[float] = (),
    ints: LookInts = lambda _: (),
    chunk: int | None = None,
) -> list[float]:
    """What a pass without output finds in flat tensors: sums over their entries, exact.

    Args:
        name: In ``merging.kernels.torch_kernels.reduction_kernels.LOOKS``.
        tensors: ``(n,)`` each: of floats, or of whole numbers: words alone, and ranks after floats.
        device: Where to compute.
        floats: The pass's numbers.
        ints: Its whole numbers, as int32 values.
        chunk: Elements at a time; ``None`` suits the device.
    """
    sums: list[float] = []
    for found in _looks(name, tensors, device, floats, ints, chunk):
        sums = [before + more for before, more in zip(sums or [0] * len(found), found, strict=True)]
    return sums


def seal(words: Tensor, masks: tuple[int, int], *, chunk: int | None = None) -> tuple[int, int]:
    """The hash of words as an unsigned 64-bit number, and their largest exponent field.

    Args:
        words: ``(n,)`` int32.
        masks: Of the exponents in the low and high half of a word.
        chunk: Words at a time; the result does not depend on it.
    """
    low = high = largest = 0

    def ints(first: int) -> Sequence[int]:
        return signed(first), *masks

    for found in _looks("seal", [words], words.device, (), ints, chunk):
        first, second, exponent = map(int, found)
        low, high, largest = low + first, high + second, max(largest, exponent)
    return hash_of(low, high), largest


def hash_of(low: int, high: int) -> int:
    """The hash whose two sums these are."""
    return (low + (high << 32)) % (1 << 64)


def are_few(tensors: Sequence[Tensor]) -> bool:
    """Whether calls for so few entries in all take more time than what they compute."""
    return sum(one.numel() for one in tensors) <= _FEW


def _passes(name: str, inputs: int, device: torch.device) -> NativeLibrary | GpuPasses | None:
    """What runs a pass in one go there, if anything does."""
    found = passes_on(device)
    return None if isinstance(found, GpuPasses) and not found.takes(name, inputs) else found


def _in_ranges(
    run: Callable[[int, int], _Found], count: int, chunk: int | None, device: torch.device
) -> Iterator[_Found]:
    """Run over ranges: on a CPU several at a time, on a GPU one after the other."""
    if device.type == "cpu":
        yield from in_order(run, shares(count, chunk or NATIVE_CHUNK))
        return
    for first, last in spans(count, _chunk(chunk, device)):
        yield run(first, last)


def _merge_eagerly(
    name: str,
    inputs: Sequence[Tensor],
    base: Tensor | None,
    out: Tensor,
    floats: Sequence[Sequence[float]],
    ints: Ints,
    ranks: Sequence[Tensor],
    chunk: int | None,
) -> None:
    """``merge`` by torch's calls."""
    device, count = out.device, len(inputs)
    run = AT_ONCE[name] if name in AT_ONCE and are_few(inputs) else MERGES[name]
    read = _read_as([*inputs, *([] if base is None else [base])])
    numbers = _table(_in_columns(floats, count), FLOAT_ROWS, count, torch.float32, device)
    for first, last in spans(out.numel(), _chunk(chunk, device)):
        parts = [_part(one, first, last, device, read) for one in inputs]
        origin = parts[0] if base is None else _part(base, first, last, device, read)
        parts += [_part(one, first, last, device, torch.float32) for one in ranks]
        words = _in_columns(ints(first), count)
        run(
            parts,
            origin,
            out[first:last],
            torch.arange(last - first, dtype=torch.int32, device=device),
            numbers,
            _table(words, INT_ROWS, count, torch.int32, device),
        )


def _looks(
    name: str,
    tensors: Sequence[Tensor],
    device: torch.device,
    floats: Sequence[float],
    ints: LookInts,
    chunk: int | None,
) -> Iterator[Sequence[float]]:
    """What a pass finds in each chunk, in order."""
    found, length = _passes(name, len(tensors), device), tensors[0].numel()
    if found is None:
        for first, last in spans(length, _chunk(chunk, device), whole=True):
            yield _look_eagerly(name, tensors, first, last, device, floats, ints(first))
        return

    def run(first: int, last: int) -> Sequence[float]:
        return found.look(
            name,
            [readable(one, first, last, KINDS, device) for one in tensors],
            floats=floats,
            ints=ints(first),
        )

    yield from _in_ranges(run, length, chunk, device)


def _look_eagerly(
    name: str,
    tensors: Sequence[Tensor],
    first: int,
    last: int,
    device: torch.device,
    floats: Sequence[float],
    ints: Sequence[int],
) -> list[float]:
    words = not tensors[0].dtype.is_floating_point
    inputs = [one for one in tensors if one.dtype.is_floating_point]
    read, ranks = (torch.int32, torch.int32) if words else (_read_as(inputs), torch.float32)
    parts = [
        _part(one, first, last, device, read if one.dtype.is_floating_point else ranks)
        for one in tensors
    ]
    at = torch.arange(last - first, dtype=torch.int32, device=device)
    numbers = _table(floats, FLOAT_ROWS, 1, torch.float32, device)[:, 0]
    found = LOOKS[name](parts, at, numbers, _table(ints, INT_ROWS, 1, torch.int32, device)[:, 0])
    return [(one.double() if one.is_floating_point() else one).sum().item() for one in found]


def _read_as(tensors: Sequence[Tensor]) -> torch.dtype:
    """The dtype that tensors are brought to their device in: their own, if it is one of few."""
    first = tensors[0].dtype
    same = first in FLOATS and all(tensor.dtype == first for tensor in tensors)
    return first if same else torch.float32


def _part(flat: Tensor, start: int, stop: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Contiguous elements on a device and in a dtype; a view where they are."""
    part = flat[start:stop]
    if part.device != device:
        part = part.to(device, non_blocking=True)
    if part.dtype != dtype:
        part = part.to(dtype)
    return part.contiguous()


def _chunk(asked: int | None, device: torch.device) -> int:
    return asked or (_EAGER_CHUNK if device.type == "cpu" else _DEVICE_CHUNK)


def _in_columns(rows: Sequence[Sequence[_Number]], count: int) -> list[_Number]:
    """Rows one after the other; one that has a single number for all inputs has it for each."""
    return [number for row in rows for number in (row if len(row) == count else [row[0]] * count)]


def _table(
    numbers: Sequence[float], height: int, width: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """``(height, width)``; what is left out is 0."""
    filled = [*numbers, *[0] * (height * width - len(numbers))]
    return torch.tensor(filled, dtype=dtype, device=device).view(height, width)
