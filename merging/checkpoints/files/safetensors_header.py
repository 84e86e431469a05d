"""Headers of safetensors files: what tensors a file holds and where, without reading a weight.

Format: eight bytes with the header's length N (little endian), N bytes of JSON, then the data.
See https://huggingface.co/docs/safetensors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""safetensors' names of the dtypes a checkpoint may hold."""

DTYPE_CODES: Mapping[torch.dtype, str] = {dtype: code for code, dtype in DTYPES.items()}
"""The inverse of ``DTYPES``."""

_MAX_HEADER = 100_000_000  # the limit of the reference implementation, in bytes


class HeaderError(ValueError):
    """A file that is no whole safetensors file; the message names it and says what is wrong."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorInfo:
    """One stored tensor.

    Attributes:
        dtype: As stored.
        shape: As stored; empty for a scalar.
        file: Where it lies.
        start: First byte, counted from the start of the file.
        end: Byte after the last.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    file: Path
    start: int
    end: int

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """The header of one file.

    Attributes:
        tensors: By name, in the file's order.
        raw: The header's bytes, for hashing.
        size: Length of the whole file in bytes.
    """

    tensors: Mapping[str, TensorInfo]
    raw: bytes
    size: int


def read_header(file: Path) -> Header:
    """Read and check the header of a safetensors file.

    Raises:
        HeaderError: If the file cannot be read, is cut off, or its header is not consistent.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            raw = stream.read(length) if size >= 8 and length <= _MAX_HEADER else b""
    except OSError as error:
        raise HeaderError(f"{file}: cannot be read ({error.strerror or error})") from error
    if size < 8 or length > _MAX_HEADER:
        raise HeaderError(f"{file}: expected a safetensors file, got something else (no header)")
    if len(raw) < length:
        raise HeaderError(f"{file}: expected a header of {length} bytes, got {len(raw)} (cut off)")
    entries = _parse(file, raw)
    tensors = {
        name: _tensor(file, name, entry, 8 + length)
        for name, entry in entries.items()
        if name != "__metadata__"
    }
    _check_layout(file, tensors, 8 + length, size)
    return Header(tensors=tensors, raw=raw, size=size)


def _parse(file: Path, raw: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        if len(set(names)) != len(names):
            raise ValueError("a name occurs twice")
        for name in names:
            name.encode("utf-8")  # half a character, which JSON can spell, is no name
        return dict(pairs)

    def constant(text: str) -> None:
        raise ValueError(f"{text} is no JSON")

    try:
        entries = json.loads(raw.decode("utf-8"), object_pairs_hook=unique, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        raise HeaderError(
            f"{file}: expected a JSON header, got something else ({error})"
        ) from error
    if not isinstance(entries, dict):
        raise HeaderError(f"{file}: expected a JSON object as header, got {type(entries).__name__}")
    notes = entries.get("__metadata__", {})
    if not isinstance(notes, dict) or not all(isinstance(note, str) for note in notes.values()):
        raise HeaderError(f"{file}: __metadata__: expected texts by name, got {notes!r:.80}")
    return entries


def _tensor(file: Path, name: str, entry: Any, data: int) -> TensorInfo:
    """One entry of the header; ``data`` is where the file's data begins."""
    try:
        code, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (TypeError, KeyError, ValueError) as error:
        raise HeaderError(
            f"{file}: {name}: expected dtype, shape and data_offsets, got {entry!r}"
        ) from error
    numbers = (*shape, start, end)
    if any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in numbers):
        raise HeaderError(f"{file}: {name}: expected whole numbers from 0, got {list(numbers)}")
    if not isinstance(code, str) or code not in DTYPES:
        raise HeaderError(f"{file}: {name}: expected dtype {', '.join(DTYPES)}, got {code!r}")
    info = TensorInfo(
        dtype=DTYPES[code], shape=shape, file=file, start=data + start, end=data + end
    )
    needed = info.numel * info.dtype.itemsize
    if end - start != needed:
        raise HeaderError(
            f"{file}: {name}: expected {needed} bytes for {code} {list(shape)}, got {end - start}"
        )
    return info


def _check_layout(file: Path, tensors: Mapping[str, TensorInfo], data: int, size: int) -> None:
    """The tensors must fill the file's data without gap or overlap."""
    at = data
    cut = ""  # the first tensor that is not whole
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if info.start != at:
            raise HeaderError(
                f"{file}: {name}: expected its data at byte {at}, got {info.start} (gap or overlap)"
            )
        at = info.end
        if at > size and not cut:
            cut = name
    if at != size:
        if cut:
            raise HeaderError(
                f"{file}: expected {at} bytes, got {size} (cut off; fetch it again): {cut} is the "
                "first tensor that is not whole"
            )
        raise HeaderError(f"{file}: expected {at} bytes, got {size} (bytes after the last tensor)")
