"""Checkpoints: safetensors headers first, tensors mapped into memory on demand."""

from __future__ import annotations

import hashlib
import json
import mmap
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from merging.headers import Header, HeaderError, TensorInfo, read_header
from merging.layout import DEPTH_KEYS, LayerPattern, Layout, find_layers
from merging.location import LocationError, locate
from spaces.problems import UserError

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_PICKLED = ("pytorch_model*.bin", "*.pt", "*.pth", "consolidated.*.pth")
_SAMPLE = 64  # bytes of every tensor that go into the input hash


class CheckpointError(UserError, ValueError):
    """A model that cannot be read.

    Attributes:
        problems: One line each, naming the file and what to do.
    """


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """A model on disk: what its headers and config say, and its tensors when asked for.

    Attributes:
        name: Short name used in recipes.
        location: As the user gave it.
        folder: Where the files lie.
        config: Content of ``config.json``.
        tensors: Every stored tensor by name.
        headers: Header of each file by file name.
    """

    name: str
    location: str
    folder: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    headers: Mapping[str, Header] = field(repr=False)
    _maps: dict[Path, mmap.mmap] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def open(cls, location: str, *, name: str) -> Checkpoint:
        """Read the config and the headers of a model; no weight is read.

        Args:
            location: A folder, or a hub id with an optional ``@revision``.
            name: Short name for recipes and messages.

        Raises:
            CheckpointError: With every problem found.
        """
        try:
            folder = locate(location)
        except LocationError as error:
            raise CheckpointError([f"model {name}: {error}"]) from error
        problems: list[str] = []
        config = _read_config(folder, problems)
        headers = _read_headers(folder, problems)
        tensors = {
            tensor: info for header in headers.values() for tensor, info in header.tensors.items()
        }
        if not problems:
            problems += _check_whole(folder, headers, tensors, config)
        if problems:
            raise CheckpointError([f"model {name}: {problem}" for problem in problems])
        return cls(
            name=name,
            location=location,
            folder=folder,
            config=config,
            tensors=tensors,
            headers=headers,
        )

    @cached_property
    def layers(self) -> LayerPattern | None:
        """How the layers are named and how many there are; ``None`` where names show none."""
        return find_layers(self.tensors, stated_depth(self.config))

    @cached_property
    def layout(self) -> Layout:
        """The tensors by place in the model."""
        return Layout.of(self.tensors, self.layers)

    @cached_property
    def tied(self) -> bool:
        """Whether the output head is the embedding matrix.

        The config decides where no head is stored (unsaid means tied). A stored head counts as
        tied only if it has the embeddings' bits, as in transformers.
        """
        said = stated(self.config, "tie_word_embeddings")
        if said is False:
            return False
        head, embedding = self.layout.head, self.layout.embedding
        if head is None or embedding is None:
            return head is None
        first = self.tensor(self.layout.outside[head])
        second = self.tensor(self.layout.outside[embedding])
        return first.dtype == second.dtype and torch.equal(first, second)

    @cached_property
    def input_hash(self) -> str:
        """Hash of config, headers, file sizes and a few bytes of every tensor; 32 hex digits.

        Changes when the model on disk is replaced; costs one small read per tensor.
        """
        digest = hashlib.sha256(json.dumps(self.config, sort_keys=True).encode())
        for file in sorted(self.headers):
            header = self.headers[file]
            digest.update(f"\n{file} {header.size}\n".encode() + header.raw)
            with (self.folder / file).open("rb") as stream:
                for tensor in sorted(header.tensors):
                    info = header.tensors[tensor]
                    stream.seek(max(info.start, (info.start + info.end - _SAMPLE) // 2))
                    digest.update(stream.read(min(_SAMPLE, info.end - info.start)))
        return digest.hexdigest()[:32]

    def tensor(self, name: str) -> Tensor:
        """A stored tensor, mapped from its file: nothing is copied; it must not be written to.

        Raises:
            KeyError: If there is no such tensor.
            CheckpointError: If the file has changed since its header was read.
        """
        info = self.tensors[name]
        if info.numel == 0:
            return torch.empty(info.shape, dtype=info.dtype)
        with warnings.catch_warnings():  # that the map is read-only is what we want
            warnings.filterwarnings("ignore", message="The given buffer is not writable")
            if info.start % info.dtype.itemsize:
                size = info.end - info.start
                raw = torch.frombuffer(
                    self._map(info.file), dtype=torch.uint8, count=size, offset=info.start
                )
                return raw.clone().view(info.dtype).view(info.shape)
            flat = torch.frombuffer(
                self._map(info.file), dtype=info.dtype, count=info.numel, offset=info.start
            )
        return flat.view(info.shape)

    def _map(self, file: Path) -> mmap.mmap:
        if file not in self._maps:
            size = self.headers[file.name].size
            try:
                with file.open("rb") as stream:
                    mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                raise CheckpointError([f"model {self.name}: {file}: {error}"]) from error
            if len(mapped) != size:
                raise CheckpointError(
                    [f"model {self.name}: {file}: expected {size} bytes, got {len(mapped)} "
                     "(changed since it was opened)"]
                )  # fmt: skip
            self._maps[file] = mapped
        return self._maps[file]


def stated(config: Mapping[str, Any], key: str) -> Any:
    """A value of ``config.json``, looked up in ``text_config`` too; ``None`` where unsaid."""
    text = config.get("text_config")
    inner = text.get(key) if isinstance(text, Mapping) else None
    return config.get(key, inner)


def stated_depth(config: Mapping[str, Any]) -> int | None:
    """The number of layers that ``config.json`` states, if it does."""
    found = (stated(config, key) for key in DEPTH_KEYS)
    return next((depth for depth in found if isinstance(depth, int)), None)


def widest_dtype(checkpoints: Iterable[Checkpoint]) -> str:
    """The dtype that holds every number of these models, such as ``bfloat16``.

    At most float32, in which all arithmetic is done; eight-bit floats cannot be merged and do not
    count.
    """
    found = {
        info.dtype
        for checkpoint in checkpoints
        for info in checkpoint.tensors.values()
        if info.dtype.is_floating_point and info.dtype.itemsize > 1
    }
    widest = found.pop() if len(found) == 1 else torch.float32  # two that differ need float32
    return "float32" if widest == torch.float64 else str(widest).removeprefix("torch.")


def _read_config(folder: Path, problems: list[str]) -> dict[str, Any]:
    file = folder / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        problems.append(f"{file}: missing; expected the config of a transformers model")
        return {}
    except (OSError, ValueError) as error:
        problems.append(f"{file}: cannot be read ({error})")
        return {}
    if not isinstance(config, dict):
        problems.append(f"{file}: expected a JSON object, got {type(config).__name__}")
        return {}
    return config


def _read_headers(folder: Path, problems: list[str]) -> dict[str, Header]:
    headers = {}
    for file in _weight_files(folder, problems):
        try:
            headers[file.name] = read_header(file)
        except HeaderError as error:
            problems.append(str(error))
    return headers


def _weight_files(folder: Path, problems: list[str]) -> list[Path]:
    """The files the index names, or the single file; says how to convert pickled weights."""
    index = folder / _INDEX
    if index.is_file():
        names = sorted(set(_weight_map(index, problems).values()))
        missing = [name for name in names if not (folder / name).is_file()]
        problems += [f"{folder / name}: missing; {_INDEX} names it" for name in missing]
        return [folder / name for name in names if name not in missing]
    if (folder / _SINGLE).is_file():
        return [folder / _SINGLE]
    pickled = sorted(file for pattern in _PICKLED for file in folder.glob(pattern))
    if pickled:
        problems.append(
            f"{pickled[0]}: pickled weights can run code and are not read; convert them once with "
            "transformers: AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW)"
        )
    else:
        problems.append(f"{folder}: expected {_SINGLE} or {_INDEX}, got neither")
    return []


def _weight_map(index: Path, problems: list[str]) -> dict[str, str]:
    try:
        found = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        weight_map = {str(tensor): str(file) for tensor, file in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        problems.append(f"{index}: expected a weight_map, got something else ({error!r})")
        return {}
    outside = sorted({file for file in weight_map.values() if Path(file).name != file})
    problems += [f"{index}: expected plain file names, got {file!r}" for file in outside]
    return {tensor: file for tensor, file in weight_map.items() if file not in outside}


def _check_whole(
    folder: Path,
    headers: Mapping[str, Header],
    tensors: Mapping[str, TensorInfo],
    config: Mapping[str, Any],
) -> list[str]:
    """Index against files, and the layers found against the config's."""
    problems: list[str] = []
    if (folder / _INDEX).is_file():
        for tensor, file in _weight_map(folder / _INDEX, problems).items():
            if tensor not in headers[file].tensors:
                problems.append(f"{folder / file}: {tensor} missing; {_INDEX} says it is there")
    stored = sum(len(header.tensors) for header in headers.values())
    if stored != len(tensors):
        problems.append(f"{folder}: expected every tensor once, got some in two files")
    depth, found = stated_depth(config), find_layers(tensors, stated_depth(config))
    if depth is not None and found is not None and found.count < depth:
        problems.append(
            f"{folder / 'config.json'}: expected {found.count} layers as stored, got {depth}"
        )
    return problems
