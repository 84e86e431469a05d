"""What tensor names tell: the layers, the embeddings, the output head, recomputed buffers.

Everything is found from names and shapes, so that a checkpoint of a class nobody listed works too.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from merging.checkpoints.files.safetensors_header import TensorInfo

DEPTH_KEYS = (
    "num_layers_per_stack", "num_hidden_layers", "n_layer", "num_layers", "n_layers",
)  # fmt: skip
"""Names that ``config.json`` files use for the number of layers; of stored ones before passes."""

_DECODER_KEYS = ("num_decoder_layers", "decoder_layers")
"""Likewise for those of the decoder, where there is an encoder too."""

_HEADS = (
    "lm_head.weight",
    "embed_out.weight",
    "output.weight",
    "head.weight",
    "cls.predictions.decoder.weight",
)
_EMBEDDINGS = (
    "embed_tokens.weight",
    "wte.weight",
    "embed_in.weight",
    "word_embeddings.weight",
    "tok_embeddings.weight",
    "embeddings.weight",
    "embed.weight",
)
_FIRST_INDEX = re.compile(r"((?:[^.]*[^.\d][^.]*\.)+)(\d+)\.")
_EARLY = ("embed", "wte", "wpe")  # before the layers
_LATE = ("norm", "ln_f")  # after the layers


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerPattern:
    """How the layers are named.

    Attributes:
        prefix: What stands before the layer's number, with the dot: ``model.layers.``.
        count: Number of layers; they are numbered from 0.
    """

    prefix: str
    count: int

    @property
    def root(self) -> str:
        """The part of ``prefix`` shared with embeddings and norms: ``model.``; may be empty."""
        return self.prefix[: self.prefix.rstrip(".").rfind(".") + 1]

    def split(self, name: str) -> tuple[int, str] | None:
        """Layer number and the rest of the name; ``None`` for a tensor outside the layers."""
        if not name.startswith(self.prefix):
            return None
        number, dot, suffix = name[len(self.prefix) :].partition(".")
        if not dot or not number.isdecimal() or int(number) >= self.count:
            return None
        return int(number), suffix


def depth_keys(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Names that a config has for the number of layers, of an encoder-decoder of its decoder's."""
    named = tuple(key for key in _DECODER_KEYS if key in config)
    return named if named and config.get("is_encoder_decoder") else DEPTH_KEYS


def find_layers(names: Iterable[str], depth: int | None = None) -> LayerPattern | None:
    """The list of layers among tensor names.

    The number after a prefix that other numbers (of experts, say) come after is the layer's. Of
    several lists the one as long as ``depth`` is taken, then the one that stands beside embeddings
    of tokens (a vision tower has none), then the one with most tensors. Layers beyond ``depth``
    (prediction modules that some models append) are not counted.

    Args:
        names: All tensor names of a checkpoint.
        depth: Number of layers its config states, if it does.
    """
    numbers: dict[str, list[int]] = defaultdict(list)
    embedded: set[str] = set()
    for name in names:
        embedded.update(name.removesuffix(one) for one in _EMBEDDINGS if name.endswith(one))
        if match := _FIRST_INDEX.match(name):
            numbers[match[1]].append(int(match[2]))
    runs = {
        prefix: len(set(found))
        for prefix, found in numbers.items()
        if set(found) == set(range(max(found) + 1))
    }
    if not runs:
        return None

    def likely(prefix: str) -> tuple[bool, bool, bool, int, str]:
        count, root = runs[prefix], LayerPattern(prefix=prefix, count=0).root
        deeper = depth is not None and count > depth
        return count == depth, deeper, root in embedded, len(numbers[prefix]), prefix

    prefix = max(runs, key=likely)
    count = runs[prefix] if depth is None else min(runs[prefix], depth)
    return LayerPattern(prefix=prefix, count=count)


def is_buffer(name: str, shape: Sequence[int]) -> bool:
    """Whether it is a constant that old checkpoints store and every current loader recomputes.

    Causal masks (``attn.bias`` with four axes), their fill values and rotary frequencies.
    """
    if name.endswith("rotary_emb.inv_freq"):
        return True
    if name.endswith((".attn.masked_bias", ".attention.masked_bias")):
        return all(size == 1 for size in shape)
    return name.endswith((".attn.bias", ".attention.bias")) and len(shape) == 4


@dataclass(frozen=True, kw_only=True)
class ModelLayout:
    """The tensors of a checkpoint by their place in the model.

    Names outside the layers are kept without the root (``model.``), so that checkpoints saved
    with and without it (GPT-2 on the hub: ``h.0``; fine-tuned: ``transformer.h.0``) match.

    Attributes:
        pattern: The layers; ``None`` where there are none.
        layers: Per layer, what follows the layer's number -> full name.
        outside: Name without the root -> full name.
    """

    pattern: LayerPattern | None
    layers: tuple[Mapping[str, str], ...]
    outside: Mapping[str, str]

    @classmethod
    def of(cls, tensors: Mapping[str, TensorInfo], pattern: LayerPattern | None) -> ModelLayout:
        """Sort tensors by place; recomputed buffers are left out."""
        layers: list[dict[str, str]] = [{} for _ in range(pattern.count if pattern else 0)]
        outside: dict[str, str] = {}
        root = pattern.root if pattern else ""
        for name in sorted(tensors):
            if is_buffer(name, tensors[name].shape):
                continue
            if pattern is not None and (place := pattern.split(name)) is not None:
                layers[place[0]][place[1]] = name
            else:
                outside[name.removeprefix(root)] = name
        return cls(pattern=pattern, layers=tuple(layers), outside=outside)

    @cached_property
    def head(self) -> str | None:
        """The stored output head among ``outside``; ``None`` where none is stored."""
        return next((key for key in self.outside if is_head(key)), None)

    @cached_property
    def embedding(self) -> str | None:
        """The token embeddings among ``outside``."""
        for ending in _EMBEDDINGS:
            for key in self.outside:
                if key == ending or key.endswith("." + ending):
                    return key
        return None

    @cached_property
    def encoder(self) -> LayerPattern | None:
        """The encoder's layers, where ``layers`` are those of the decoder beside it."""
        if self.pattern is None or "decoder." not in self.pattern.prefix:
            return None
        found = LayerPattern(prefix=self.pattern.prefix.replace("decoder.", "encoder."), count=0)
        endings = (
            name.removeprefix(found.prefix)
            for name in self.outside.values()
            if name.startswith(found.prefix)
        )
        count = len({ending.partition(".")[0] for ending in endings})
        return replace(found, count=count) if count else None

    def encoder_depth(self, key: str) -> float | None:
        """Depth in [0, 1] of a tensor within the encoder, 0 outside its layers.

        Args:
            key: Of the tensor, among ``outside``.

        Returns:
            ``None`` for a tensor that is not the encoder's.
        """
        name = self.outside.get(key, key)
        if self.encoder is None or not name.startswith(self.encoder.root):
            return None
        place = self.encoder.split(name)
        if place is None:
            return 0.0
        return place[0] / (self.encoder.count - 1) if self.encoder.count > 1 else 1.0

    @cached_property
    def beside(self) -> tuple[str, ...]:
        """Beginnings of the names of all modules beside the language model, but its heads.

        A vision tower and its projector: ``visual.``; ``model.vision_tower.`` where the language
        model is ``model.language_model.``.
        """
        root = self.pattern.root.split(".")[:-1] if self.pattern else []
        if self.embedding is not None:  # the language model holds its embeddings, too
            own = self.outside[self.embedding].split(".")
            shared = (n for n, one in enumerate(root) if own[n : n + 1] != [one])
            root = root[: next(shared, len(root))]
        found: dict[str, None] = {}
        for key, name in self.outside.items():
            parts = name.split(".")
            same = next((n for n, one in enumerate(root) if parts[n : n + 1] != [one]), len(root))
            if same < len(root) and not is_head_part(key) and len(parts) > same:
                found[".".join(parts[: same + 1]) + ("." if len(parts) > same + 1 else "")] = None
        return tuple(found)

    def layer_name(self, index: int, suffix: str) -> str:
        """Full name of a layer's tensor, also for a layer number the checkpoint does not have."""
        return f"{self.pattern.prefix if self.pattern else ''}{index}.{suffix}"

    def has_module(self, key: str) -> bool:
        """Whether any tensor outside the layers lies in the same top-level module as ``key``."""
        top = key.partition(".")[0]
        return any(other.partition(".")[0] == top for other in self.outside)

    def is_required(self, key: str) -> bool:
        """Whether a model of this shape cannot do without ``outside[key]``.

        True for what shares the root with the layers. Modules beside it (a head's bias, a vision
        tower, a prediction module) may be missing from an input as a whole.
        """
        if self.pattern is None:
            return True
        name = self.outside[key]
        return name.startswith(self.pattern.root) and not name.startswith(self.pattern.prefix)


def is_head(key: str) -> bool:
    """Whether it is the output head that may be tied to the embeddings."""
    return key in _HEADS or key.endswith((".lm_head.weight", ".embed_out.weight"))


def is_head_part(key: str) -> bool:
    """Whether it is an output head, or the bias of one: a row per token."""
    return is_head(key) or is_head(key.removesuffix("bias") + "weight")


def is_late(key: str) -> bool:
    """Whether a tensor outside the layers comes after them (final norm, head)."""
    if is_head(key):
        return True
    return not any(part in key for part in _EARLY) and any(part in key for part in _LATE)
