"""A transformers model kept on a device and refilled for every recipe."""

from __future__ import annotations

import gc
import json
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.core_model_loading import build_glob_alternation
from transformers.initialization import no_init_weights

from evaluators.resident_models.devices.device_sharding import DeviceSharding, Fill, Wanted, empty
from evaluators.resident_models.devices.free_memory import free_bytes
from evaluators.resident_models.skeleton import OutputTensor, ResidentError, Skeleton
from merging.checkpoints.files.companion_files import GENERATION
from merging.checkpoints.weight_places import auto_class
from merging.planning.merge_plan import MergePlan

MOST_KEPT = 4
"""Most models of different depth or dtype kept at a time."""

ROOM = 0.25
"""Share of the free memory that models kept for later may take."""


class ResidentModel:
    """Skeletons for the plans of a run: one for each config, all over the same weights.

    A model of other rotary frequencies, or of more layers, takes no memory for what it has in
    common with those that are kept: what was built last is in all of them.

    Args:
        device: Where the weights live, or the first of the devices that they are spread over.
        spread: The devices, if there are several.
        trust_remote_code: Let models run code of their own.
    """

    def __init__(
        self,
        *,
        device: torch.device,
        spread: DeviceSharding | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        self.device = device
        self._spread = spread
        self._trust = trust_remote_code
        self._kept: OrderedDict[str, Skeleton] = OrderedDict()

    def skeleton(self, plan: MergePlan, folder: Path) -> Skeleton:
        """A model for this plan's output; built once per config, then used again.

        Args:
            plan: What will be built.
            folder: The donor's files: generation settings, and the model's own code if trusted.

        Raises:
            ResidentError: If transformers cannot make such a model.
        """
        generation = _generation_settings(folder)
        code = str(folder) if "auto_map" in plan.config else ""
        key = json.dumps([code, generation, plan.config], sort_keys=True, default=str)
        found = self._kept.pop(key, None)
        if found is None:
            spread = self._spread or DeviceSharding(devices=(self.device,), sizes=())
            found = Skeleton(
                _model(plan, folder, spread=spread, fill=self._fill, trust=self._trust)
            )
        self._kept[key] = found
        return found

    def close(self) -> None:
        """Let go of all models."""
        self._kept.clear()
        self.free()

    def free(self) -> None:
        """Give unused memory back to the device."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _fill(self, wanted: Sequence[Wanted]) -> list[nn.Parameter]:
        """Memory for the weights of a new model: that of models kept, where they have the same."""
        lent: dict[tuple[object, ...], nn.Parameter] = {}
        for skeleton in self._kept.values():
            for name, own in skeleton.model.named_parameters():
                lent[name, own.shape, own.dtype, own.device] = own
        keys = [(name, like.shape, like.dtype, device) for name, like, device in wanted]
        found = [lent.pop(key, None) for key in keys]
        del lent
        self._make_room({id(one) for one in found if one is not None})
        made = iter(empty([one for one, old in zip(wanted, found, strict=True) if old is None]))
        return [next(made) if one is None else one for one in found]

    def _make_room(self, lent: Collection[int]) -> None:
        """Drop the models used longest ago, but for those that take little of what is free.

        Args:
            lent: Weights, by identity, that stay with the model that comes.
        """
        allowed = ROOM * free_bytes(self.device)
        dropped = False
        while self._kept and (
            len(self._kept) >= MOST_KEPT or _only_in(self._kept.values(), lent) > allowed
        ):
            self._kept.popitem(last=False)
            dropped = True
        if dropped:
            self.free()


def choose_device(name: str) -> torch.device:
    """The device of that name; ``auto`` is a GPU where there is one.

    Raises:
        ResidentError: If there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ResidentError([f"device: expected cpu, cuda or auto, got {name!r}"]) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ResidentError(
            [f"device: expected one of this machine, got {name!r} without a GPU that torch can use"]
        )
    return device


def choose_devices(name: str, gpus: float) -> tuple[torch.device, ...]:
    """The devices of a worker: one, or as many GPUs as it is given.

    Raises:
        ResidentError: If there are not so many.
    """
    device = choose_device(name)
    count = int(gpus)
    if device.type != "cuda" or ":" in name or count < 2:
        return (device,)
    there = torch.cuda.device_count()
    if there < count:
        raise ResidentError(
            [f"workers.gpus: expected {count} GPUs that a worker sees, got {there}"]
        )
    return tuple(torch.device("cuda", at) for at in range(count))


def _only_in(skeletons: Iterable[Skeleton], besides: Collection[int]) -> int:
    """Bytes of weights that these models have, each counted once."""
    held = {id(one): one for skeleton in skeletons for one in skeleton.model.parameters()}
    return sum(one.numel() * one.element_size() for key, one in held.items() if key not in besides)


def _model(
    plan: MergePlan, folder: Path, *, spread: DeviceSharding, fill: Fill, trust: bool
) -> PreTrainedModel:
    """The model that ``from_pretrained`` would make of the plan's output, without its weights.

    It is constructed with every initialisation switched off: parameters take no memory before
    ``fill`` gives it, while buffers that no checkpoint holds (rotary frequencies) are computed.
    """

    def make() -> PreTrainedModel:
        model: PreTrainedModel = auto_class(config).from_config(
            config, dtype=dtype, trust_remote_code=trust
        )
        model.tie_weights()
        _widen(model)
        return model

    try:
        config = _config(plan, folder, trust=trust)
        dtype = config.dtype or _widest(plan.jobs)
        with torch.random.fork_rng(devices=[]):
            with no_init_weights():
                model = spread.over(make, plan, fill=fill)
            _compute_buffers(model)
    except (ValueError, KeyError, TypeError, ImportError, OSError) as error:
        raise ResidentError(
            [f"model {plan.donor}: transformers cannot make it: {_short(error)}"]
        ) from error
    model.requires_grad_(False)
    model.train(False)
    model.generation_config = _generation_config(folder, config)
    return model


def _compute_buffers(model: PreTrainedModel) -> None:
    """Compute what no checkpoint holds as on load: in float32, whatever the weights have.

    A constructor computes it in the dtype of the weights: positions in bfloat16 are far off.
    """
    for tensor in model.state_dict(keep_vars=True).values():
        tensor._is_hf_initialized = True  # transformers' own mark of what is not to be touched
    initialize: Callable[[], object] = model.initialize_weights  # it has no types
    initialize()


def _short(error: Exception) -> str:
    """Its first line: transformers lists every class it has where it lacks one."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _widen(model: PreTrainedModel) -> None:
    """Give tensors the dtype that transformers loads them in, where it is wider than the rest."""
    wider = model._get_dtype_plan(model.dtype)  # it has no public name
    if not wider:
        return
    pattern, names, _ = build_glob_alternation(list(wider))
    for name, tensor in model.state_dict(keep_vars=True).items():
        if found := pattern.search(name):
            tensor.data = tensor.data.to(wider[names[str(found.lastgroup)]])


def _config(plan: MergePlan, folder: Path, *, trust: bool) -> PretrainedConfig:
    """The config of the plan's output, read as it would be from the model that is built."""
    config_class = type(AutoConfig.from_pretrained(folder, trust_remote_code=trust))
    with tempfile.TemporaryDirectory() as made:
        file = Path(made) / "config.json"
        file.write_text(json.dumps(plan.config), encoding="utf-8")
        config: PretrainedConfig = config_class.from_pretrained(file)
    config.name_or_path = str(folder)  # where code of the model's own is looked for
    return config


def _generation_settings(folder: Path) -> str:
    """The text of a model's generation settings; empty where there are none."""
    file = folder / GENERATION
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def _generation_config(folder: Path, config: Any) -> GenerationConfig:
    try:
        return GenerationConfig.from_pretrained(folder)
    except OSError:  # no such file: the config's own values, as in transformers
        return GenerationConfig.from_model_config(config)


def _widest(jobs: Sequence[OutputTensor]) -> torch.dtype:
    dtypes = {job.dtype for job in jobs}
    result = dtypes.pop()
    for dtype in dtypes:
        result = torch.promote_types(result, dtype)
    return result
