"""Checkpoints: safetensors headers first, tensors mapped into memory on demand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from merging.checkpoints.embedding_rows import EmbeddingRows
from merging.checkpoints.files.content_hashes import ContentHashes, Stamp
from merging.checkpoints.files.lora_folder import AdapterError
from merging.checkpoints.files.mapped_files import MappedFiles, MappingError
from merging.checkpoints.files.model_folder import (
    check_whole,
    read_config,
    read_headers,
    stated,
    stated_depth,
)
from merging.checkpoints.files.model_layout import LayerPattern, ModelLayout, find_layers
from merging.checkpoints.files.safetensors_header import Header, TensorInfo
from merging.checkpoints.hub_layout import in_hub_layout
from merging.checkpoints.lora_adapter import LoraAdapter, LoraChange
from merging.checkpoints.model_location import LocationError, resolve
from merging.checkpoints.quantisation.packed_tensors import (
    PackedTensor,
    find_packed,
    quantisation_of,
    without_quantisation,
)
from merging.problems import Problems
from spaces.errors import UserError

WHOLE = "whole-"
"""What hashes over every byte begin with; those of earlier studies do not."""

_T = TypeVar("_T")

__all__ = ["Checkpoint", "CheckpointError", "stated", "stated_depth", "widest_dtype"]


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
        folder: Where the files lie; of a model with an adapter, the model's.
        config: Content of ``config.json``, of a quantised model as of a plain one.
        tensors: Every tensor by name, experts one by one as on the hub; of one that is stored
            quantised, or that an adapter changes, the shape and dtype it gets.
        headers: Header of each file by file name.
        stored: The same before an adapter changes it.
        packed: Those that are stored quantised.
        quantisation: What the config says of it.
        adapter: What changes the stored tensors, if anything does.
        changes: What it changes, by tensor.
        contents: Hashes of files that are known.
    """

    name: str
    location: str
    folder: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    headers: Mapping[str, Header] = field(repr=False)
    stored: Mapping[str, TensorInfo] = field(repr=False)
    packed: Mapping[str, PackedTensor] = field(default_factory=dict, repr=False)
    quantisation: Mapping[str, Any] = field(default_factory=dict, repr=False)
    adapter: LoraAdapter | None = field(default=None, repr=False)
    changes: Mapping[str, LoraChange] = field(default_factory=dict, repr=False)
    contents: ContentHashes = field(default_factory=ContentHashes, repr=False)
    _views: dict[str, _TensorView] = field(default_factory=dict, init=False, repr=False)
    _kept: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def open(cls, location: str, *, name: str, contents: ContentHashes | None = None) -> Checkpoint:
        """Read the config and the headers of a model; no weight is read.

        Args:
            location: A folder, or a hub id with an optional ``@revision``; with ``+`` and the
                location of a LoRA adapter, the model that it makes of it.
            name: Short name for recipes and messages.
            contents: Hashes of files that are known.

        Raises:
            CheckpointError: With every problem found.
        """
        try:
            place = resolve(location)
        except LocationError as error:
            raise CheckpointError([f"model {name}: {error}"]) from error
        folder = place.folder
        problems: list[str] = []
        config = read_config(folder, problems)
        headers = read_headers(folder, problems)
        tensors = {
            tensor: info for header in headers.values() for tensor, info in header.tensors.items()
        }
        packed: Mapping[str, PackedTensor] = {}
        if not problems:
            problems += check_whole(folder, headers, tensors, config)
            tensors, packed = find_packed(tensors, config, problems)
        if problems:
            raise CheckpointError([f"model {name}: {problem}" for problem in problems])
        tensors = in_hub_layout(folder, tensors) | {key: one.info for key, one in packed.items()}
        opened = cls(
            name=name, location=location, folder=folder, config=without_quantisation(config),
            tensors=tensors, headers=headers, stored=tensors, packed=packed,
            quantisation=quantisation_of(config), contents=contents or ContentHashes(),
        )  # fmt: skip
        return opened if place.adapter is None else _adapted(opened, place.adapter)

    @cached_property
    def tokenizer_folder(self) -> Path:
        """Where the tokenizer's files lie: with the adapter, if it was saved with one."""
        if self.adapter is not None and (self.adapter.folder / "tokenizer_config.json").is_file():
            return self.adapter.folder
        return self.folder

    @cached_property
    def layers(self) -> LayerPattern | None:
        """How the layers are named and how many there are; ``None`` where names show none."""
        return find_layers(self.tensors, stated_depth(self.config))

    @cached_property
    def layout(self) -> ModelLayout:
        """The tensors by place in the model."""
        return ModelLayout.of(self.tensors, self.layers)

    @cached_property
    def vision(self) -> tuple[str, ...]:
        """Parts of the names of its vision tower and projector; none in a model without one."""
        if not any("vis" in key for key in self.config):  # vision_config, visual
            return ()
        return tuple(part for part in self.layout.beside if "mtp" not in part)

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
        """Hash of the config and every byte of the weights, and of an adapter's: what it is.

        Reads all files once, unless ``contents`` knows them as they are. Starts with ``WHOLE``.

        Raises:
            CheckpointError: If a file cannot be read.
        """
        digest = hashlib.sha256(self._said)
        if self.adapter is not None:
            digest.update(json.dumps(self.adapter.config, sort_keys=True).encode())
        try:
            for file, found in zip(self.files, self.contents.hashes(self.files), strict=True):
                digest.update(f"\n{file.name} {found}".encode())
        except OSError as error:
            raise CheckpointError([f"model {self.name}: {error}"]) from error
        return WHOLE + digest.hexdigest()[:32]

    @property
    def _said(self) -> bytes:
        """The config, of a quantised model as it is stored, for hashing."""
        parts = [self.config, *([self.quantisation] if self.quantisation else [])]
        return "".join(json.dumps(part, sort_keys=True) for part in parts).encode()

    def matches(self, noted: str | None) -> bool:
        """Whether it is the model of a hash: ``input_hash``, or ``sampled_hash`` of before."""
        if noted is None or not noted.startswith(WHOLE):
            return noted == self.sampled_hash
        return noted == self.input_hash

    @property
    def files(self) -> tuple[Path, ...]:
        """The files with its weights, and its adapter's."""
        own = tuple(self.folder / name for name in sorted(self.headers))
        return own if self.adapter is None else (*own, self.adapter.file)

    @cached_property
    def identity(self) -> str:
        """What statistics of it are kept under: its content, where they outlive this process.

        Elsewhere which files it is, and a few bytes of every tensor: no more is read.
        """
        if self.contents.folder is not None:
            return self.input_hash
        stamps = " ".join(Stamp.of(file).digest for file in self.files)
        return hashlib.sha256(f"{self.sampled_hash} {stamps}".encode()).hexdigest()[:32]

    @cached_property
    def sampled_hash(self) -> str:
        """Hash of config, headers, file sizes and a few bytes of every tensor; 32 hex digits.

        Costs one small read per tensor, and misses a change between them.
        """
        digest = hashlib.sha256(self._said)
        digest.update(self._files.samples())
        if self.adapter is not None:
            digest.update(self.adapter.samples())
        return digest.hexdigest()[:32]

    def tensor(self, name: str) -> Tensor:
        """A tensor: mapped from its file without a copy, or computed; read-only.

        Raises:
            KeyError: If there is no such tensor.
            CheckpointError: If the file has changed since its header was read.
        """
        if name in self._views:
            return self._views[name].tensor()
        change = self.changes.get(name)
        try:
            if change is None or self.adapter is None:
                return self._plain(name)
            if "whole" in change.parts:
                return self.adapter.apply(change, None)
            return self.adapter.apply(change, self._plain(change.stand_in or name))
        except MappingError as error:
            raise CheckpointError([f"model {self.name}: {error}"]) from error

    def _plain(self, name: str) -> Tensor:
        """A tensor before an adapter changes it."""
        packed = self.packed.get(name)
        if packed is None:
            return self._files.tensor(self.stored[name])
        return packed.plain({role: self._files.tensor(one) for role, one in packed.parts.items()})

    @property
    def computed(self) -> frozenset[str]:
        """Tensors that are computed on every read: dequantised, or changed by an adapter."""
        return frozenset({*self.packed, *self.changes})

    def view(
        self, name: str, rows: EmbeddingRows, sources: Mapping[str, tuple[Checkpoint, str]]
    ) -> tuple[str, TensorInfo]:
        """A tensor with other rows, made when it is asked for under the name that comes back.

        Args:
            name: Tensor of this model.
            rows: Where each row comes from.
            sources: For every model in ``rows``, the checkpoint and the name of its tensor.
        """
        # The name says what is in it: statistics are kept under identity and tensor name.
        used = [(model, *sources[model]) for model in rows.models]
        others = [f"{m} {tensor} {other.identity}" for m, other, tensor in used]
        content = hashlib.sha256(f"{rows.digest} {others}".encode()).hexdigest()[:16]
        view = f"{name}@{content}"
        infos = {model: other.tensors[tensor] for model, (other, tensor) in sources.items()}
        dtype = self.tensors[name].dtype
        for model in rows.models:
            dtype = torch.promote_types(dtype, infos[model].dtype)
        # Where sums are taken, rounding them to the inputs' dtype would lose what is new in them.
        made = dtype if rows.exact else torch.promote_types(dtype, torch.float32)
        own = self.tensors[name]
        info = replace(own, shape=(rows.count, *own.shape[1:]), dtype=made)
        self._views[view] = _TensorView(rows=rows, sources=sources, info=info, stored=dtype)
        return view, info

    def kept(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """What was made of this model before under a key, or made now and kept as long as it."""
        if key not in self._kept:
            self._kept[key] = make()
        found: _T = self._kept[key]
        return found

    def stored_dtype(self, name: str) -> torch.dtype:
        """The dtype of a tensor, for a view that of the tensors it takes its rows from."""
        view = self._views.get(name)
        return self.tensors[name].dtype if view is None else view.stored

    @cached_property
    def rows(self) -> int | None:
        """Rows of the embeddings; ``None`` where there are none."""
        name = self.layout.embedding or self.layout.head
        return None if name is None else self.tensors[self.layout.outside[name]].shape[0]

    def made_of(self, name: str) -> list[tuple[Checkpoint, str]]:
        """The stored tensors behind a view, with their models; any other tensor is its own."""
        view = self._views.get(name)
        return [(self, name)] if view is None else [view.sources[m] for m in view.rows.models]

    def file_of(self, name: str) -> Path:
        """The file a tensor lies in, for messages; of a changed one, the adapter's."""
        change = self.changes.get(name)
        if change is None or self.adapter is None:
            return self.tensors[name].file
        return self.adapter.file

    @cached_property
    def _files(self) -> MappedFiles:
        return MappedFiles(self.folder, self.headers)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _TensorView:
    """A tensor with rows of others.

    Attributes:
        rows: Where each comes from.
        sources: Checkpoint and tensor by model.
        info: Shape and dtype of the result.
        stored: Dtype of what it is made of.
    """

    rows: EmbeddingRows
    sources: Mapping[str, tuple[Checkpoint, str]]
    info: TensorInfo
    stored: torch.dtype

    def tensor(self) -> Tensor:
        used = {model: self.sources[model] for model in self.rows.models}
        tensors = {model: checkpoint.tensor(name) for model, (checkpoint, name) in used.items()}
        return self.rows.gather(tensors, self.info)


def _adapted(model: Checkpoint, folder: Path) -> Checkpoint:
    """The model that an adapter makes of another.

    Raises:
        CheckpointError: If the adapter cannot be read, or does not fit.
    """
    problems = Problems()
    head, embedding = model.layout.head, model.layout.embedding
    embedding = None if embedding is None else model.layout.outside[embedding]
    try:
        adapter = LoraAdapter(folder)
    except AdapterError as error:
        raise CheckpointError([f"model {model.name}: {line}" for line in error.problems]) from error
    stand_in = embedding if head is None and model.tied else None
    changes = adapter.changes(model.tensors, stand_in=stand_in, problems=problems)
    if problems:
        raise CheckpointError([f"model {model.name}: {line}" for line in problems.lines()])
    config = dict(model.config)
    if embedding in changes and "vocab_size" in config:
        config["vocab_size"] = changes[embedding].info.shape[0]
    return replace(
        model,
        config=config,
        tensors={**model.tensors, **{name: change.info for name, change in changes.items()}},
        adapter=adapter,
        changes=changes,
    )


def widest_dtype(checkpoints: Iterable[Checkpoint]) -> str:
    """The dtype that holds every number of these models, such as ``bfloat16``.

    At most float32, in which all arithmetic is done.
    """
    found = {
        info.dtype
        for checkpoint in checkpoints
        for info in checkpoint.tensors.values()
        if info.dtype.is_floating_point
    }
    widest = found.pop() if len(found) == 1 else torch.float32  # two that differ need float32
    return "float32" if widest == torch.float64 else str(widest).removeprefix("torch.")
