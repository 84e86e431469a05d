"""Which tensors of a model are parts of quantised weights, and what the weights are once plain."""

from __future__ import annotations

import json
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from merging.checkpoints.files.model_folder import stated
from merging.checkpoints.files.safetensors_header import TensorInfo
from merging.checkpoints.quantisation.storage_kinds import METHODS, Parts, Settings, StorageKind
from merging.problems import Problems

_KEY = "quantization_config"
_LEFT_OUT = (
    "input_scale", "activation_scale", "output_scale", "k_scale", "v_scale", "q_scale",
    "weight_format",
    "input_global_scale",
)  # fmt: skip
"""How tensors end that quantised models store for activations, for caches, and for no use."""

_SAYING = {"nf4", "fp4", "shape"}
"""Roles of parts that say how a weight is stored."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedTensor:
    """A weight that is stored quantised.

    Attributes:
        info: Shape and dtype of the plain one, and where the numbers of the quantised one lie.
        parts: What is stored of it, by role.
        settings: What else is said of how it is stored.
        kind: How it is stored.
    """

    info: TensorInfo
    parts: Mapping[str, TensorInfo]
    settings: Settings
    kind: StorageKind

    def plain(self, parts: Parts) -> Tensor:
        """The weight, computed in float32 and rounded once; experts in one tensor one by one."""
        first = parts["weight"]
        if first.dim() < 3:
            return self.kind.run(parts, self.settings).to(self.info.dtype).contiguous()
        alone = [{role: one[at] for role, one in parts.items()} for at in range(len(first))]
        return torch.stack([self.kind.run(one, self.settings).to(self.info.dtype) for one in alone])


def quantisation_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a config says of how weights are quantised, ``quant_method`` among it; else nothing."""
    said = stated(config, _KEY) or {}
    return {"quant_method": None, **said} if said and isinstance(said, Mapping) else {}


def without_quantisation(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of the same model with plain weights."""
    inner = config.get("text_config")
    plain = {key: value for key, value in config.items() if key != _KEY}
    return plain | ({"text_config": without_quantisation(inner)} if inner and _KEY in inner else {})


def find_packed(
    tensors: Mapping[str, TensorInfo], config: Mapping[str, Any], problems: list[str]
) -> tuple[dict[str, TensorInfo], dict[str, PackedTensor]]:
    """The tensors of a model once its weights are plain; no weight is read.

    Args:
        tensors: As stored.
        config: Content of ``config.json``.
        problems: Where it is noted what cannot be read.

    Returns:
        Tensors that are plain, and those that are stored quantised.
    """
    said = quantisation_of(config)
    method = str(said.get("quant_method") or "an unnamed method")
    if said and method not in METHODS:
        problems.append(_refusal(f"a model quantised with {method}"))
        return {}, {}
    search = _PackedSearch(tensors, config)
    for kind in METHODS[method] if said else ():
        search.take(kind)
    rest = search.tensors
    if said:
        rest = {name: info for name, info in rest.items() if not name.endswith(_LEFT_OUT)}
    unread = [name for name, info in rest.items() if _is_packed(name, info)]
    if unread and not search.problems:
        how = f"with {method} in another way" if said else "without a word in config.json"
        problems.append(_refusal(f"{unread[0]} quantised {how}"))
    problems += search.problems.lines()
    return rest, search.packed


class _PackedSearch:
    """What was found of a model's weights so far, and the tensors that are left."""

    def __init__(self, tensors: Mapping[str, TensorInfo], config: Mapping[str, Any]) -> None:
        self.tensors = dict(tensors)
        self.packed: dict[str, PackedTensor] = {}
        self.problems = Problems()
        self._settings: Settings = quantisation_of(config)
        self._dtype = _dtype(stated(config, "dtype") or stated(config, "torch_dtype"))
        self._shapes: dict[object, tuple[int, ...]] = {}

    def take(self, kind: StorageKind) -> None:
        """Find the weights that are stored in one way."""
        end = kind.parts["scale"]
        for stem in [name.removesuffix(end) for name in self.tensors if name.endswith(end)]:
            named = {role: stem + suffix for role, suffix in kind.parts.items()}
            if all(name in self.tensors for name in named.values()):
                more = {role: stem + suffix for role, suffix in kind.others.items()}
                named |= {role: name for role, name in more.items() if name in self.tensors}
                parts = {role: self.tensors.pop(name) for role, name in named.items()}
                self._add(stem + kind.result, kind, parts)

    def _add(self, name: str, kind: StorageKind, parts: dict[str, TensorInfo]) -> None:
        weight = parts["weight"]
        try:
            said = [_content(parts.pop(role)) for role in _SAYING & parts.keys()]
            own = ChainMap(*said)
            info = replace(weight, dtype=_dtype(own["dtype"]) if "dtype" in own else self._dtype)
            settings = {**self._settings, **own}
            packed = PackedTensor(info=info, parts=parts, settings=settings, kind=kind)
            self.packed[name] = replace(packed, info=replace(info, shape=self._shape(packed)))
        except (RuntimeError, ValueError, TypeError, LookupError, OSError) as error:
            shapes = ", ".join(f"{role} {list(one.shape)}" for role, one in parts.items())
            self.problems.add(
                f"{weight.file}: {name}: expected the parts of a weight, quantised as config.json "
                f"says, got {shapes} ({(str(error).splitlines() or [''])[0]})",
                group="parts",
            )

    def _shape(self, packed: PackedTensor) -> tuple[int, ...]:
        """Of the plain weight: found by its routine, once for all that are stored alike."""
        alike = tuple((one.dtype, one.shape) for one in packed.parts.values())
        key = (packed.kind.run, alike, str(packed.settings.get("shape")))
        if key not in self._shapes:
            empty = {
                role: torch.empty(one.shape, dtype=one.dtype, device="meta")
                for role, one in packed.parts.items()
            }
            self._shapes[key] = tuple(packed.plain(empty).shape)
        return self._shapes[key]


def _content(info: TensorInfo) -> dict[str, Any]:
    """What a tensor says of a weight: JSON in bytes, or its shape."""
    with info.file.open("rb") as stream:
        stream.seek(info.start)
        raw = bytearray(stream.read(info.end - info.start))
    if info.dtype != torch.uint8:
        return {"shape": torch.frombuffer(raw, dtype=info.dtype).tolist()}
    return dict(json.loads(raw))


def _refusal(got: str) -> str:
    return (
        f"expected plain weights, or such as are quantised with {', '.join(METHODS)}, got {got}; "
        "dequantise it and save it as bfloat16 first"
    )


def _is_packed(name: str, info: TensorInfo) -> bool:
    """Whether numbers are not plain: eight-bit floats, or integers that are called weights."""
    if info.dtype.is_floating_point:
        return info.dtype.itemsize == 1
    return name.endswith(("weight", "weight_packed"))


def _dtype(said: Any) -> torch.dtype:
    """The dtype of a name where weights can have it; bfloat16 for others."""
    found = getattr(torch, str(said).removeprefix("torch."), None)
    if isinstance(found, torch.dtype) and found.is_floating_point and found.itemsize > 1:
        return found
    return torch.bfloat16
