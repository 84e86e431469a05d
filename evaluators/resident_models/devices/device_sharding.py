"""A model over several devices: each layer on one of them, activations moved between."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from accelerate import dispatch_model, init_empty_weights
from torch import nn
from transformers import PreTrainedModel

from merging.checkpoints.files.model_layout import find_layers
from merging.planning.memory_plan import split
from merging.planning.merge_plan import MergePlan

DeviceMap = dict[str, torch.device]
"""Device of every module or parameter that is not part of another entry."""


Wanted = tuple[str, nn.Parameter, torch.device]
"""Name of a parameter, what it is like, and where it is to be."""

Fill = Callable[[Sequence[Wanted]], Sequence[nn.Parameter]]
"""Gives memory for the weights of a model, in order."""


def empty(wanted: Sequence[Wanted]) -> list[nn.Parameter]:
    """New memory for the weights of a model; what is in it is anything."""
    return [
        nn.Parameter(torch.empty_like(like, device=device), requires_grad=False)
        for _, like, device in wanted
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceSharding:
    """Devices that models are spread over, layer by layer.

    Attributes:
        devices: In the order of the layers.
        sizes: Bytes of each that a worker may take.
    """

    devices: tuple[torch.device, ...]
    sizes: tuple[int, ...]

    def over(
        self, make: Callable[[], PreTrainedModel], plan: MergePlan, *, fill: Fill = empty
    ) -> PreTrainedModel:
        """The model of a plan, made over the devices; its weights are still to be built.

        Raises:
            ValueError: If its layers cannot be told.
        """
        if len(self.devices) == 1:
            with self.devices[0]:
                return _filled(_without_weights(make), {"": self.devices[0]}, fill)
        pattern = find_layers((job.name for job in plan.jobs), plan.layers)
        if pattern is None:
            raise ValueError("expected a list of layers to spread over GPUs, got none")
        sizes = [0] * pattern.count
        for job in plan.jobs:
            if (found := pattern.split(job.name)) is not None:
                sizes[found[0]] += job.size

        def mapping(model: PreTrainedModel) -> DeviceMap:
            layers = layer_list(model, pattern.prefix, pattern.count)
            return device_map(model, layers, split(sizes, self.sizes), self.devices)

        return made_over(make, mapping, fill=fill)


def device_map(
    model: nn.Module, layers: str, owners: Sequence[int], devices: Sequence[torch.device]
) -> DeviceMap:
    """Where each part of a model lives.

    Embeddings, parts without weights, and a head tied to the embeddings live on the first device;
    what comes after the layers on the last one.

    Args:
        model: Its modules in the order of the forward pass, as transformers has them.
        layers: Full name of the list of layers.
        owners: Index of each layer's device.
        devices: In the order of the layers.
    """
    tied = {id(one) for one in _outside_first(model, layers)}
    after = False
    found: DeviceMap = {}

    def walk(module: nn.Module, prefix: str) -> None:
        nonlocal after
        for name, _ in module.named_parameters(recurse=False):
            found[prefix + name] = devices[0]
        for name, child in module.named_children():
            path = prefix + name
            if path == layers:
                for at, owner in enumerate(owners):
                    found[f"{path}.{at}"] = devices[owner]
                after = True
            elif layers.startswith(path + "."):
                walk(child, path + ".")
            else:
                own = [id(one) for one in child.parameters()]
                late = after and bool(own) and not tied.issuperset(own)
                found[path] = devices[-1 if late else 0]

    walk(model, "")
    return found


def layer_list(model: nn.Module, prefix: str, count: int) -> str:
    """Full name of a model's list of layers.

    Args:
        model: The model.
        prefix: What a checkpoint puts before a layer's number: ``model.layers.``, or ``h.``.
        count: Number of layers.

    Raises:
        ValueError: If there is no such list, or more than one.
    """
    wanted = prefix.rstrip(".")
    found: list[str] = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and len(module) == count
        and (name == wanted or name.endswith("." + wanted))
    ]
    if len(found) != 1:
        raise ValueError(f"expected one list of {count} layers named {wanted}, got {len(found)}")
    return found[0]


def made_over(
    make: Callable[[], PreTrainedModel],
    mapping: Callable[[PreTrainedModel], DeviceMap],
    *,
    fill: Fill = empty,
) -> PreTrainedModel:
    """A model with empty weights on the devices it belongs to; no device ever holds all of it."""
    model = _without_weights(make)
    places = mapping(model)
    _filled(model, places, fill)
    # Hooks move what a module gets to where it lives, and the logits back to the first device.
    dispatched: PreTrainedModel = dispatch_model(
        model,
        device_map={name: _named(device) for name, device in places.items()},
        main_device=_named(next(iter(places.values()))),
        skip_keys=["past_key_values"],  # every layer's part of the cache lives with the layer
        force_hooks=True,
    )
    return dispatched


def _without_weights(make: Callable[[], PreTrainedModel]) -> PreTrainedModel:
    """A model whose parameters take no memory; its buffers are computed."""
    with init_empty_weights(include_buffers=False):
        model = make()
    model.tie_weights()  # constructing them apart has untied them
    return model


def _filled(model: PreTrainedModel, places: DeviceMap, fill: Fill) -> PreTrainedModel:
    """The same model with memory for its weights; tied ones stay one."""
    wanted = [(name, one, _place(places, name)) for name, one in model.named_parameters()]
    made = {id(old): new for (_, old, _), new in zip(wanted, fill(wanted), strict=True)}
    for path, module in model.named_modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, made[id(parameter)])
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, buffer.to(_place(places, f"{path}.{name}".lstrip("."))))
    return model


def _named(device: torch.device) -> str | torch.device:
    """A device as accelerate compares it: main memory by name."""
    return "cpu" if device.type == "cpu" else device


def _place(places: DeviceMap, name: str) -> torch.device:
    """The device of a parameter or buffer: that of the longest entry it is part of."""
    entries = [one for one in places if one in ("", name) or name.startswith(one + ".")]
    if not entries:  # a buffer of a module that is itself spread
        return next(iter(places.values()))
    return places[max(entries, key=len)]


def _outside_first(model: nn.Module, layers: str) -> Iterator[nn.Parameter]:
    """The parameters outside the layers that come before them."""
    for name, module in model.named_modules():
        if name == layers:
            return
        if not layers.startswith(name + ".") and name:
            yield from module.parameters(recurse=False)
