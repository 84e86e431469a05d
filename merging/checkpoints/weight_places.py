"""Where each tensor of a checkpoint goes in a model: the whole of one, a slice, or rearranged.

Transformers declares per class how tensors are renamed and rearranged on load, and what undoes it
on save. Undone on tensors without memory, its declaration shows which part of which of the model's
tensors a stored tensor is: the experts of a layer are slices of one tensor, and are built in place.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    dot_natural_key,
    rename_source_key,
    revert_weight_conversion,
)

_Saved = tuple[str, str, str | None]
"""A stored tensor, the first of the model's that it goes into, the pattern it is converted by."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """What a stored tensor is in a model: one of the model's tensors, or a part of it.

    Attributes:
        tensor: Name of the model's tensor.
        size: Lengths of its axes.
        stride: Steps of its axes.
        offset: Its first element.
    """

    tensor: str
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    @classmethod
    def seen(cls, part: Tensor, name: str) -> Place:
        """That of a view of the model's tensor of a name."""
        offset = int(part.storage_offset())
        return cls(tensor=name, size=tuple(part.shape), stride=part.stride(), offset=offset)

    def of(self, whole: Tensor) -> Tensor:
        """This part of the model's tensor, or of one like it."""
        return whole.as_strided(self.size, self.stride, whole.storage_offset() + self.offset)


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """Stored tensors that are no part of the model's as they are: transformers rearranges them.

    Attributes:
        rule: As transformers declares it.
        target: Name of the first tensor of the model that it fills.
        sources: Names of the stored tensors by pattern, in order.
    """

    rule: WeightConverter
    target: str
    sources: Mapping[str, Sequence[str]]

    @property
    def targets(self) -> list[str]:
        """The model's tensors that it fills."""
        first, *_ = patterns = self.rule.target_patterns
        return [self.target.replace(first, one) for one in patterns]

    def run(self, model: PreTrainedModel, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What it makes of the stored tensors, by the names of the model's."""
        rule = deepcopy(self.rule)
        for pattern, names in self.sources.items():
            for name in names:
                rule.add_tensor(self.target, name, pattern, stored[name])  # type: ignore[arg-type]
        made = rule.convert(self.target, model=model, config=model.config)
        return {name: one[0] if isinstance(one, list) else one for name, one in made.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightPlaces:
    """Where the tensors of a checkpoint go.

    Attributes:
        places: Of those that are a part of the model's, by name; transformers ignores the rest.
        conversions: The others.
        problems: A line for each tensor of the model that gets too few or too many.
    """

    places: Mapping[str, Place]
    conversions: Sequence[Conversion]
    problems: Sequence[str]

    @classmethod
    def of(cls, model: PreTrainedModel, names: Sequence[str]) -> WeightPlaces:
        """Find them the way transformers does on load."""
        rules = _Rules(model)
        places: dict[str, Place] = {}
        converted: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for name in sorted(names, key=dot_natural_key):
            inner, pattern = rules.renamed(name)
            if inner not in rules.state:
                continue
            if pattern is None:
                places[name] = Place.seen(rules.state[inner], inner)
            else:
                converted[inner][pattern].append(name)
        saved: dict[str, dict[str, list[Place | None]]] = defaultdict(lambda: defaultdict(list))
        for (_, target, pattern), place in rules.saved().items() if converted else ():
            if pattern is not None:
                saved[target][pattern].append(place)
        conversions: list[Conversion] = []
        problems: list[str] = []
        for target, sources in converted.items():
            stored = [name for found in sources.values() for name in found]
            whole = saved[target]
            parts = [one for pattern in sources for one in whole[pattern]]
            alike = {p: len(n) for p, n in sources.items()} == {p: len(n) for p, n in whole.items()}
            if parts and len(parts) != len(stored):
                problems.append(
                    f"tensor {target}: expected {len(parts)} tensors for it in the checkpoints, "
                    f"as the config says, got {len(stored)}, the last is {stored[-1]}"
                )
            elif alike and all(parts):
                places |= zip(stored, (one for one in parts if one), strict=True)
            else:
                rule = rules.by_pattern[next(iter(sources))]
                conversions.append(Conversion(rule=rule, target=target, sources=dict(sources)))
        return cls(places=places, conversions=conversions, problems=problems)


class _Rules:
    """What transformers declares for a model."""

    def __init__(self, model: PreTrainedModel) -> None:
        declared = get_model_conversion_mapping(model)
        # without memory, each from its own first element
        self.state = {
            name: torch.empty_like(one, device="meta") for name, one in model.state_dict().items()
        }
        self._model = model
        self._renamings = [one for one in declared if isinstance(one, WeightRenaming)]
        self._converters = [one for one in declared if isinstance(one, WeightConverter)]
        self.by_pattern = {
            pattern: one for one in self._converters for pattern in one.source_patterns
        }

    def renamed(self, name: str) -> tuple[str, str | None]:
        """The model's tensor that a stored one goes into, and the pattern if it is converted."""
        root = self._model.base_model_prefix
        inner, pattern = rename_source_key(
            name, self._renamings, self._converters, root, self.state
        )
        if inner not in self.state and name in self.state:
            inner, pattern = rename_source_key(name, [], [], root, self.state)
        return inner, pattern

    def saved(self) -> dict[_Saved, Place | None]:
        """What transformers would save, in order; ``None`` for what is no part of the model's."""
        owners = {one.untyped_storage(): name for name, one in self.state.items()}
        with _Views(), torch.no_grad():
            stored = revert_weight_conversion(self._model, self.state)
        found = {}
        for name in sorted(stored, key=dot_natural_key):
            target, pattern = self.renamed(name)
            found[name, target, pattern] = _part(stored[name], owners)
        return found


class _Views(TorchFunctionMode):
    """Within it tensors stay views of what they are taken from."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any | None = None
    ) -> Any:
        if func is Tensor.contiguous:
            return args[0]
        return func(*args, **(kwargs or {}))


def _part(one: Tensor, owners: Mapping[torch.UntypedStorage, str]) -> Place | None:
    """Which part of the model's tensor this is, if it is one that lies together."""
    owner = owners.get(one.untyped_storage())
    if owner is None or not one.is_contiguous():
        return None
    return Place.seen(one, owner)


def auto_class(config: PretrainedConfig) -> Any:
    """What makes a model that answers text: a causal one, else one that is given images too."""
    causal = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING
    seeing = type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    return AutoModelForImageTextToText if seeing and not causal else AutoModelForCausalLM


def saved_places(folder: Path) -> dict[str, Place]:
    """Which parts of a model's tensors the tensors are that transformers would save of it.

    Those that it would rearrange are left out; all are, where it has no class for the config.

    Args:
        folder: With the config; code of its own is not run.
    """
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        with torch.device("meta"):
            model = auto_class(config).from_config(config, trust_remote_code=False)
    except (ValueError, KeyError, TypeError, ImportError, OSError):
        return {}
    return {name: place for (name, *_), place in _Rules(model).saved().items() if place is not None}
