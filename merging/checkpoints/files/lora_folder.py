"""The files of a LoRA adapter, and which adapters can be merged tensor by tensor."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from merging.checkpoints.files.safetensors_header import Header, HeaderError, read_header

CONFIG = "adapter_config.json"
"""The file that makes a folder an adapter."""

WEIGHTS = "adapter_model.safetensors"
"""The file with its tensors."""

_CANNOT = (
    "target_parameters",
    "layer_replication",
    "alora_invocation_tokens",
    "use_qalora",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "velora_config",
    "monteclora_config",
)
"""Settings whose adapters are not a sum with the stored weights."""

_CHANGES_BASE = ("pissa", "olora", "loftq", "corda", "lora_ga", "mica")
"""Initialisations that take something out of the base's weights, which the adapter then lacks."""


class AdapterError(ValueError):
    """An adapter that cannot be read; one line per problem in ``problems``."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


def base_of(folder: Path) -> str:
    """The model that an adapter says it was trained on; ``BASE`` where it says none."""
    try:
        return str(read_config(folder).get("base_model_name_or_path") or "BASE")
    except AdapterError:
        return "BASE"


def read_config(folder: Path) -> dict[str, Any]:
    """Content of ``adapter_config.json``.

    Raises:
        AdapterError: If there is none, or it cannot be read.
    """
    file = folder / CONFIG
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise AdapterError([f"{file}: missing; expected the config of a peft adapter"]) from error
    except (OSError, ValueError) as error:
        raise AdapterError([f"{file}: cannot be read ({error})"]) from error
    if not isinstance(config, dict):
        raise AdapterError([f"{file}: expected a JSON object, got {type(config).__name__}"])
    return config


def read_weights(folder: Path) -> Header:
    """Header of the file with the tensors.

    Raises:
        AdapterError: If there is none, or it is not whole.
    """
    pickled = folder / "adapter_model.bin"
    if pickled.is_file() and not (folder / WEIGHTS).is_file():
        raise AdapterError(
            [f"{pickled}: pickled weights can run code and are not read; load the adapter once "
             "with peft and save it again (save_pretrained)"]
        )  # fmt: skip
    try:
        return read_header(folder / WEIGHTS)
    except HeaderError as error:
        raise AdapterError([str(error)]) from error


def unsupported(config: Mapping[str, Any], file: Path) -> list[str]:
    """Why an adapter cannot be merged, one line each."""
    kind = config.get("peft_type")
    if kind != "LORA":
        return [f"{file}: peft_type: expected LORA, got {kind!r}"]
    found = [
        f"{file}: {key}: expected none (such adapters cannot be merged tensor by tensor), got "
        f"{config[key]!r}; merge it with peft (merge_and_unload) and give that folder"
        for key in _CANNOT
        if config.get(key)
    ]
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        found.append(
            f"{file}: init_lora_weights: expected an adapter of the base's own weights, got "
            f"{start!r}, which changes them; convert it with peft "
            "(path_initial_model_for_weight_conversion)"
        )
    return found
