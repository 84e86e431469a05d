"""Tensors of safetensors files mapped into memory: nothing is read before it is used."""

from __future__ import annotations

import mmap
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from merging.checkpoints.files.safetensors_header import Header, TensorInfo

_SAMPLE = 64  # bytes of every tensor that go into a hash


class MappingError(ValueError):
    """A file that changed since its header was read, or cannot be mapped; one line."""


class MappedFiles:
    """Files mapped on first use."""

    def __init__(self, folder: Path, headers: Mapping[str, Header]) -> None:
        self._folder = folder
        self._headers = headers
        self._maps: dict[Path, mmap.mmap] = {}
        self._views: dict[TensorInfo, Tensor] = {}

    def tensor(self, info: TensorInfo) -> Tensor:
        """A stored tensor: a view of its file; it must not be written to.

        Raises:
            MappingError: If the file has changed since its header was read.
        """
        found = self._views.get(info)
        if found is not None:
            return found
        if info.numel == 0:
            return torch.empty(info.shape, dtype=info.dtype)
        mapped = self._map(info.file)
        with warnings.catch_warnings():  # that the map is read-only is what we want
            warnings.filterwarnings("ignore", message="The given buffer is not writable")
            if info.start % info.dtype.itemsize:
                size = info.end - info.start
                raw = torch.frombuffer(mapped, dtype=torch.uint8, count=size, offset=info.start)
                return raw.clone().view(info.dtype).view(info.shape)
            flat = torch.frombuffer(mapped, dtype=info.dtype, count=info.numel, offset=info.start)
        self._views[info] = flat.view(info.shape)
        return self._views[info]

    def samples(self) -> bytes:
        """Names, sizes and headers of the files, and a few bytes of every tensor, for hashing."""
        parts = []
        for file in sorted(self._headers):
            header = self._headers[file]
            parts.append(f"\n{file} {header.size}\n".encode() + header.raw)
            with (self._folder / file).open("rb") as stream:
                for tensor in sorted(header.tensors):
                    info = header.tensors[tensor]
                    stream.seek(max(info.start, (info.start + info.end - _SAMPLE) // 2))
                    parts.append(stream.read(min(_SAMPLE, info.end - info.start)))
        return b"".join(parts)

    def _map(self, file: Path) -> mmap.mmap:
        if file not in self._maps:
            size = self._headers[file.name].size
            try:
                with file.open("rb") as stream:
                    mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                raise MappingError(f"{file}: {error}") from error
            if len(mapped) != size:
                raise MappingError(
                    f"{file}: expected {size} bytes, got {len(mapped)} (changed since it was "
                    "opened)"
                )
            self._maps[file] = mapped
        return self._maps[file]
