"""Writing a model folder: sharded safetensors streamed tensor by tensor, config, tokenizer."""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import torch
from torch import Tensor

from merging.building.staged_folder import StagedFolder
from merging.checkpoints.files.companion_files import CODE, OTHERS, TOKENIZER, copy_files
from merging.checkpoints.files.safetensors_header import DTYPE_CODES
from merging.planning.merge_plan import MergePlan, TensorJob

_SPARE = 64 * 1024**2  # bytes for everything that is not weights


class ModelWriteError(RuntimeError):
    """A folder that cannot be written; the message says why.

    Attributes:
        full: The disk has no room for it; otherwise the place is wrong.
    """

    def __init__(self, message: str, *, full: bool = False) -> None:
        super().__init__(message)
        self.full = full


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shard:
    file: str
    jobs: tuple[TensorJob, ...]

    @property
    def header(self) -> bytes:
        """Length and JSON, padded so that the data begins at a multiple of eight bytes."""
        entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
        at = 0
        for job in self.jobs:
            entries[job.name] = {
                "dtype": DTYPE_CODES[job.dtype],
                "shape": list(job.shape),
                "data_offsets": [at, at + job.size],
            }
            at += job.size
        text = json.dumps(entries, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text


class ModelWriter:
    """Writes a model beside its final place; leaving the block early removes what was begun.

    Attributes:
        order: The jobs in the order in which ``add`` expects them.
    """

    def __init__(self, plan: MergePlan, out: Path, *, max_shard_bytes: int) -> None:
        self._plan = plan
        self._out = out
        self._shards = _shards(plan.jobs, max_shard_bytes)
        self.order = tuple(job for shard in self._shards for job in shard.jobs)
        self._waiting = list(self._shards)
        self._left = 0
        self._stream: BinaryIO | None = None
        self._place = StagedFolder(out)
        self._draft = self._place.folder

    def __enter__(self) -> Self:
        out = self._out
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ModelWriteError(f"{out}: expected a folder that is new or empty, got one in use")
        try:
            self._place.begin()
            free = shutil.disk_usage(out.parent).free
            if free < self._plan.size + _SPARE:
                self._place.discard()
                raise ModelWriteError(
                    f"{out}: expected {_gigabytes(self._plan.size + _SPARE)} of free disk, "
                    f"got {_gigabytes(free)}",
                    full=True,
                )
        except OSError as error:
            self._place.discard()
            raise _translated(out, error) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._stream is not None:
            with contextlib.suppress(OSError):  # what could not be written is removed anyway
                self._stream.close()
        self._place.discard()

    def add(self, tensor: Tensor) -> None:
        """Write the next tensor of ``order``."""
        try:
            if self._stream is None:
                shard = self._waiting.pop(0)
                self._left = len(shard.jobs)
                self._stream = (self._draft / shard.file).open("wb")
                self._stream.write(shard.header)
            raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            self._stream.write(raw.numpy().data)
            self._left -= 1
            if self._left == 0:
                self._stream.close()
                self._stream = None
        except OSError as error:
            raise _translated(self._out, error) from error

    def finish(self, extra_files: Mapping[str, str]) -> None:
        """Write all other files and put the folder in its place."""
        for name in extra_files:
            if Path(name).name != name or name in ("", ".", ".."):
                raise ModelWriteError(f"extra file: expected a plain file name, got {name!r}")
        try:
            if len(self._shards) > 1:
                self._write_json("model.safetensors.index.json", self._index())
            self._write_json("config.json", self._plan.config)
            code = CODE if "auto_map" in self._plan.config else ()
            copy_files(self._plan.folder, self._draft, (*TOKENIZER, *OTHERS, *code))
            for name, text in extra_files.items():
                (self._draft / name).write_text(text, encoding="utf-8")
            self._place.put()
        except OSError as error:
            raise _translated(self._out, error) from error

    def _index(self) -> dict[str, object]:
        files = {job.name: shard.file for shard in self._shards for job in shard.jobs}
        return {
            "metadata": {"total_size": self._plan.size},
            "weight_map": dict(sorted(files.items())),
        }

    def _write_json(self, name: str, content: Mapping[str, object]) -> None:
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        (self._draft / name).write_text(text, encoding="utf-8")


def _shards(jobs: Sequence[TensorJob], limit: int) -> list[_Shard]:
    """Jobs in order, as many per file as fit; within a file wide dtypes first, so all align."""
    groups: list[list[TensorJob]] = [[]]
    size = 0
    for job in jobs:
        if groups[-1] and size + job.size > limit:
            groups.append([])
            size = 0
        groups[-1].append(job)
        size += job.size
    count = len(groups)
    return [
        _Shard(
            file="model.safetensors"
            if count == 1
            else f"model-{number:05d}-of-{count:05d}.safetensors",
            jobs=tuple(sorted(group, key=lambda job: -job.dtype.itemsize)),
        )
        for number, group in enumerate(groups, start=1)
    ]


def _translated(out: Path, error: OSError) -> ModelWriteError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ModelWriteError(f"{out}: the disk is full; nothing was kept", full=True)
    if error.errno == errno.EFBIG:
        text = "a file would be larger than is allowed here; nothing was kept (smaller shards?)"
        return ModelWriteError(f"{out}: {text}", full=True)
    return ModelWriteError(f"{out}: cannot be written ({error.strerror or error})")


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
