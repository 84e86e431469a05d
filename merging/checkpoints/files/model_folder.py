"""The files of a model folder: config, index and headers, and whether they are whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from merging.checkpoints.files.lora_folder import CONFIG as ADAPTER_CONFIG
from merging.checkpoints.files.lora_folder import base_of
from merging.checkpoints.files.model_layout import depth_keys, find_layers
from merging.checkpoints.files.safetensors_header import (
    Header,
    HeaderError,
    TensorInfo,
    read_header,
)

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_PICKLED = ("pytorch_model*.bin", "*.pt", "*.pth", "consolidated.*.pth")


def stated(config: Mapping[str, Any], key: str) -> Any:
    """A value of ``config.json``, looked up in ``text_config`` too; ``None`` where unsaid."""
    text = config.get("text_config")
    inner = text.get(key) if isinstance(text, Mapping) else None
    return config.get(key, inner)


def stated_depth(config: Mapping[str, Any]) -> int | None:
    """The number of layers that ``config.json`` states, if it does."""
    found = (stated(config, key) for key in depth_keys(config))
    return next((depth for depth in found if isinstance(depth, int)), None)


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no model."""
    return (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file()


def read_config(folder: Path, problems: list[str]) -> dict[str, Any]:
    """Content of ``config.json``; what is wrong with it is noted, as in all that follows."""
    file = folder / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if _gguf(folder):  # said once, of the weights
            return {}
        problems.append(f"{file}: missing; expected the config of a transformers model")
        if is_adapter(folder):
            problems[-1] = (
                f"{folder}: expected a model, got an adapter alone; give {base_of(folder)}+{folder}"
            )
        return {}
    except (OSError, ValueError) as error:
        problems.append(f"{file}: cannot be read ({error})")
        return {}
    if not isinstance(config, dict):
        problems.append(f"{file}: expected a JSON object, got {type(config).__name__}")
        return {}
    return config


def read_headers(folder: Path, problems: list[str]) -> dict[str, Header]:
    """Header of every weight file, by file name."""
    headers: dict[str, Header] = {}
    if is_adapter(folder):  # said already
        return headers
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
    if packed := _gguf(folder):
        problems.append(
            f"{packed[0]}: GGUF is not read; make plain weights of it once, with transformers and "
            "gguf: AutoModelForCausalLM.from_pretrained(FOLDER, gguf_file=NAME)"
            ".save_pretrained(NEW), and AutoTokenizer likewise"
        )
        return []
    pickled = sorted(file for pattern in _PICKLED for file in folder.glob(pattern))
    if pickled:
        problems.append(
            f"{pickled[0]}: pickled weights can run code and are not read; convert them once with "
            "transformers: AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW)"
        )
    else:
        problems.append(f"{folder}: expected {_SINGLE} or {_INDEX}, got neither")
    return []


def _gguf(folder: Path) -> list[Path]:
    """The files of a folder that holds a model as GGUF alone."""
    return [] if any(folder.glob("*.safetensors")) else sorted(folder.glob("*.gguf"))


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


def check_whole(
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
