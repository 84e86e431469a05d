"""LoRA adapters: which tensors of a model they change, and how, one tensor at a time.

``W + s B A`` with ``s = alpha / r`` (Hu et al. 2021), ``alpha / sqrt(r)`` for rank-stabilised LoRA
(Kalajdzievski 2023); DoRA scales the result to stored norms (Liu et al. 2024, equation 5). The file
format is that of the ``peft`` package: ``adapter_config.json`` and ``adapter_model.safetensors``.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from merging.checkpoints.files.lora_folder import (
    CONFIG,
    WEIGHTS,
    AdapterError,
    read_config,
    read_weights,
    unsupported,
)
from merging.checkpoints.files.mapped_files import MappedFiles
from merging.checkpoints.files.safetensors_header import TensorInfo
from merging.problems import Problems

_PREFIX = "base_model.model."
_ROLES = (
    (re.compile(r"(.+)\.lora_A\.weight\Z"), "A"),
    (re.compile(r"(.+)\.lora_B\.weight\Z"), "B"),
    (re.compile(r"(.+)\.lora_B\.bias\Z"), "bias"),
    (re.compile(r"(.+)\.lora_embedding_A\Z"), "A"),
    (re.compile(r"(.+)\.lora_embedding_B\Z"), "B"),
    (re.compile(r"(.+)\.trainable_tokens_delta\Z"), "rows"),
    (re.compile(r"(.+)\.lora_magnitude_vector(?:\.weight)?\Z"), "magnitude"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraChange:
    """What an adapter makes of one tensor of a model.

    Attributes:
        info: Shape and dtype of the result, and the file that decides on them.
        parts: The adapter's tensors by role: ``whole`` (instead of the stored one), ``A``, ``B``,
            ``magnitude``, ``bias`` (added to a bias), ``rows`` (instead of some rows); none for a
            head that stays as it was.
        scaling: What ``B A`` is multiplied with.
        flipped: The stored tensor has inputs first (GPT-2's Conv1D, embeddings).
        stand_in: Stored tensor to start from, where the model has none of this name.
        tokens: Which rows those of the adapter stand for.
    """

    info: TensorInfo
    parts: Mapping[str, str]
    scaling: float = 1.0
    flipped: bool = False
    stand_in: str | None = None
    tokens: tuple[int, ...] = ()


class LoraAdapter:
    """An adapter on disk: what its header and config say, and its tensors when asked for.

    Attributes:
        folder: Where the files lie.
        config: Content of ``adapter_config.json``.
    """

    def __init__(self, folder: Path) -> None:
        """Read config and header; no weight is read.

        Raises:
            AdapterError: If it is no adapter that is a sum with the stored weights.
        """
        self.folder = folder
        self.config = read_config(folder)
        problems = unsupported(self.config, folder / CONFIG)
        if problems:
            raise AdapterError(problems)
        self._header = read_weights(folder)
        self._files = MappedFiles(folder, {WEIGHTS: self._header})
        self._modules, self._whole = _sorted_by_module(self._header.tensors)

    def changes(
        self, tensors: Mapping[str, TensorInfo], *, stand_in: str | None, problems: Problems
    ) -> dict[str, LoraChange]:
        """What becomes of a model's tensors, by name; those left alone are not in it.

        Args:
            tensors: The model's.
            stand_in: Its embeddings, if they serve as output head too.
            problems: Where it is noted that the adapter does not fit.
        """
        fit = _Fit(tensors=tensors, stand_in=stand_in, problems=problems)
        for own, name in self._whole.items():
            found = fit.find(own)
            if found is None:
                self._note(fit, name, "expected a tensor of the model, got another name")
                continue
            like = tensors.get(found) or tensors[stand_in or ""]
            info = replace(self._header.tensors[name], dtype=like.dtype)
            fit.changes[found] = LoraChange(info=info, parts={"whole": name})
        for module, parts in self._modules.items():
            (self._add_rows if "rows" in parts else self._add_low_rank)(module, parts, fit)
        self._untie(fit)
        return fit.changes

    def apply(self, change: LoraChange, stored: Tensor | None) -> Tensor:
        """The changed tensor: computed in float32, in the dtype of the stored one.

        Args:
            change: From ``changes``.
            stored: The model's tensor; only ``None`` where the adapter holds it whole.
        """
        parts = {role: self._files.tensor(self._header.tensors[name])
                 for role, name in change.parts.items()}  # fmt: skip
        start = parts.get("whole", stored)
        assert start is not None
        if parts.keys() <= {"whole"}:
            return start.to(change.info.dtype)
        if "rows" in parts:
            return (
                start.float()
                .index_copy(0, torch.tensor(change.tokens), parts["rows"].float())
                .to(change.info.dtype)
            )
        wide = start.float()
        if "bias" in parts:
            wide = wide + change.scaling * parts["bias"].float()
        if "A" in parts:
            delta = parts["B"].float() @ parts["A"].float()
            wide = wide + change.scaling * (delta.T if change.flipped else delta)
        if "magnitude" in parts:
            inputs = 0 if change.flipped else 1
            norms = torch.linalg.vector_norm(wide, dim=inputs)
            wide = wide * (parts["magnitude"].float() / norms).unsqueeze(inputs)
        return wide.to(change.info.dtype)

    def samples(self) -> bytes:
        """What an input hash covers: the config, the header and a few bytes of every tensor."""
        return json.dumps(self.config, sort_keys=True).encode() + self._files.samples()

    @property
    def file(self) -> Path:
        """The file with its tensors."""
        return self.folder / WEIGHTS

    def _add_low_rank(self, module: str, parts: Mapping[str, str], fit: _Fit) -> None:
        """Note the change of one module's weight, and of its bias if that is changed too."""
        name = parts.get("A") or next(iter(parts.values()))
        found = fit.find(f"{module}.weight")
        if not {"A", "B"} <= parts.keys():
            self._note(fit, name, "expected lora_A and lora_B, got one without the other")
            return
        if found is None:
            self._note(fit, name, "expected a tensor of the model, got another name")
            return
        first, second = (self._header.tensors[parts[role]].shape for role in "AB")
        info, shape = fit.info(found), (second[0], first[1])
        flipped = "lora_embedding" in parts["A"] or bool(self.config.get("fan_in_fan_out"))
        if shape != info.shape and shape[::-1] != info.shape:
            wanted = f"expected factors for {list(info.shape)} ({found}), got {list(shape)}"
            self._note(fit, name, wanted)
            return
        if (shape[::-1] if flipped else shape) != info.shape:
            flipped = not flipped  # an adapter may hold both kinds; the config tells the usual one
        scaling = self._scaling(module, first[0])
        weight = {role: part for role, part in parts.items() if role != "bias"}
        fit.changes[found] = LoraChange(
            info=info,
            parts={**fit.parts(found), **weight},
            scaling=scaling,
            flipped=flipped,
            stand_in=None if found in fit.tensors else fit.stand_in,
        )
        if "bias" in parts:
            self._add_bias(f"{module}.bias", parts["bias"], scaling, fit)

    def _add_rows(self, module: str, parts: Mapping[str, str], fit: _Fit) -> None:
        """Note the change of some rows of the embeddings, or of a head tied to them."""
        name, found = parts["rows"], fit.find(f"{module}.weight")
        if found is None or len(parts) > 1:
            wanted = "a tensor of the model" if found is None else "rows alone"
            self._note(fit, name, f"expected {wanted}, got {found and 'a low rank too'}")
            return
        tokens = _tokens(self.config.get("trainable_token_indices"), module)
        info, shape = fit.info(found), self._header.tensors[name].shape
        if shape != (len(tokens), *info.shape[1:]) or not all(
            0 <= n < info.shape[0] for n in tokens
        ):
            wanted = f"expected rows for the {len(tokens)} trainable_token_indices of {found}"
            self._note(fit, name, f"{wanted} {list(info.shape)}, got {list(shape)}")
            return
        fit.changes[found] = LoraChange(
            info=info,
            parts={**fit.parts(found), "rows": name},
            stand_in=None if found in fit.tensors else fit.stand_in,
            tokens=tokens,
        )

    def _untie(self, fit: _Fit) -> None:
        """Keep the head of a tied model, where only the embeddings are trained, as it was.

        So it is while an adapter is trained, and as long as it is loaded; trained rows of
        embeddings are the head's too, and more rows are a head's as well.
        """
        change = fit.changes.get(fit.stand_in or "")
        if fit.stand_in is None or change is None or self.config.get("ensure_weight_tying"):
            return
        stored, head = fit.tensors[fit.stand_in], _head_beside(fit.stand_in)
        if head in fit.changes or "rows" in change.parts or change.info.shape != stored.shape:
            return
        fit.changes[head] = LoraChange(info=stored, parts={}, stand_in=fit.stand_in)

    def _add_bias(self, name: str, part: str, scaling: float, fit: _Fit) -> None:
        bias = fit.find(name)
        if bias is None:
            self._note(fit, part, "expected a bias in the model, got none")
            return
        parts = {**fit.parts(bias), "bias": part}
        fit.changes[bias] = LoraChange(info=fit.tensors[bias], parts=parts, scaling=scaling)

    def _scaling(self, module: str, rank: int) -> float:
        alpha = _by_pattern(self.config.get("alpha_pattern"), module)
        if alpha is None:
            alpha = self.config.get("lora_alpha", 8)
        root = rank**0.5 if self.config.get("use_rslora") else rank
        return float(alpha) / root

    def _note(self, fit: _Fit, tensor: str, text: str) -> None:
        line = f"{self.file}: {tensor}: {text}"
        fit.problems.add(line, group=text.partition(" for ")[0])


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Fit:
    """An adapter on its way to a model.

    Attributes:
        tensors: The model's.
        stand_in: Its embeddings, if they serve as output head too.
        problems: Where it is noted that something does not fit.
        changes: What was found so far.
    """

    tensors: Mapping[str, TensorInfo]
    stand_in: str | None
    problems: Problems
    changes: dict[str, LoraChange] = field(default_factory=dict)

    def parts(self, name: str) -> Mapping[str, str]:
        """What is known to change a tensor."""
        return self.changes[name].parts if name in self.changes else {}

    def info(self, name: str) -> TensorInfo:
        """A tensor as the adapter leaves it so far."""
        if name in self.changes:
            return self.changes[name].info
        return self.tensors.get(name) or self.tensors[self.stand_in or ""]

    def find(self, own: str) -> str | None:
        """The model's name of a tensor: that of the adapter, or one with or without a root."""
        short = own.partition(".")[2]
        for name in (own, short):
            if name in self.tensors:
                return name
        longer = [name for name in self.tensors if name.endswith("." + own)]
        if len(longer) == 1:
            return longer[0]
        if self.stand_in is not None and own.endswith(("lm_head.weight", "embed_out.weight")):
            return own  # a head of its own for a model that had the embeddings for it
        return None


def _sorted_by_module(
    tensors: Mapping[str, TensorInfo],
) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """Tensors by module and role, and those that stand for a tensor of the model as a whole."""
    modules: dict[str, dict[str, str]] = defaultdict(dict)
    whole: dict[str, str] = {}
    for name in tensors:
        inner = name.removeprefix(_PREFIX).replace(".token_adapter.", ".")
        inner = inner.replace(".base_layer.", ".")
        if ".original_module." in inner:  # as it was before training
            continue
        if ".modules_to_save." in inner:  # peft writes it once more under the module's own name
            inner = inner.replace(".modules_to_save.", ".")
            if _PREFIX + inner in tensors:
                continue
        for pattern, role in _ROLES:
            if match := pattern.match(inner):
                modules[match[1]][role] = name
                break
        else:
            whole[inner] = name
    return dict(modules), whole


def _tokens(indices: Any, module: str) -> tuple[int, ...]:
    """The rows that are trained in a module: one list for all, or lists by a module's last name.

    A head that is tied to the embeddings has theirs.
    """
    if isinstance(indices, Mapping):
        own = [value for key, value in indices.items() if f".{module}".endswith(f".{key}")]
        indices = next(iter(own or indices.values()), ())
    return tuple(int(index) for index in indices or ())


def _head_beside(embedding: str) -> str:
    """What transformers calls the output head of a model with these embeddings."""
    return "embed_out.weight" if embedding.endswith("embed_in.weight") else "lm_head.weight"


def _by_pattern(patterns: Any, module: str) -> float | None:
    """The value of the first pattern that ends a module's name at a dot, as in peft."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})\Z", module):
            return float(value)
    return None
