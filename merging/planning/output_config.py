"""The config of a merged model: the donor's, with what the merge changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from merging.checkpoints.checkpoint import Checkpoint, stated
from merging.checkpoints.files.model_folder import stated_depth
from merging.checkpoints.files.model_layout import depth_keys


def output_config(
    donor: Checkpoint,
    checkpoints: Mapping[str, Checkpoint],
    origins: Sequence[tuple[str, int]],
    dtypes: Sequence[torch.dtype],
) -> dict[str, Any]:
    """The donor's config with what the merge changes: depth, per-layer lists, dtype, tying.

    Args:
        donor: The model that gives it.
        checkpoints: All models by name.
        origins: Of each output layer, the model and the layer of it that it is taken to be.
        dtypes: Of the output's tensors.
    """
    moved = [layer for _, layer in origins] != list(range(len(donor.layout.layers)))
    known = {name: _per_layer(checkpoints[name], derived=moved) for name, _ in origins}
    lists = {
        key: [known[model][key][layer] for model, layer in origins]
        for key in _per_layer(donor, derived=moved)
        if all(key in found for found in known.values())
    }
    config = _with_depth(donor.config, len(origins), lists)
    floats = [dtype for dtype in dtypes if dtype.is_floating_point]
    if floats:
        text = str(max(set(floats), key=floats.count)).removeprefix("torch.")
        keys = [key for key in ("dtype", "torch_dtype") if key in config] or ["dtype"]
        config.update(dict.fromkeys(keys, text))
    said = stated(donor.config, "tie_word_embeddings")
    if donor.layout.head is not None and said is not False:
        config["tie_word_embeddings"] = donor.tied
    config.pop("_name_or_path", None)
    return config


def with_rows(config: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """A copy with the size of the vocabulary replaced wherever it occurs."""
    result = dict(config)
    if "vocab_size" in result or not isinstance(result.get("text_config"), Mapping):
        result["vocab_size"] = rows
    if isinstance(result.get("text_config"), Mapping):
        result["text_config"] = with_rows(result["text_config"], rows)
    return result


def _with_depth(
    config: Mapping[str, Any], layers: int, lists: Mapping[str, list[Any]]
) -> dict[str, Any]:
    """A copy with another number of layers, and the per-layer lists beside it."""
    result = dict(config)
    # A looped model counts its passes too: as many times the layers as before.
    depth = stated_depth(config)
    counts = {
        key: result[key] * layers // depth
        for key in depth_keys(config)
        if depth and isinstance(result.get(key), int)
    }
    result |= counts
    result |= {key: value for key, value in lists.items() if counts or key in result}
    if isinstance(result.get("text_config"), Mapping):
        result["text_config"] = _with_depth(result["text_config"], layers, lists)
    return result


def _per_layer(checkpoint: Checkpoint, *, derived: bool) -> dict[str, list[Any]]:
    """A config's lists with one entry per layer.

    Args:
        checkpoint: Whose.
        derived: Those too that the config does not state and transformers makes of the layers'
            numbers: every other one is of a kind, say, which ends with the order of the layers.
    """
    text = checkpoint.config.get("text_config")
    said = {**(text if isinstance(text, Mapping) else {}), **checkpoint.config}
    if derived:
        said = {**checkpoint.kept("derived", lambda: _derived(checkpoint.config)), **said}
    depth = len(checkpoint.layout.layers)
    return {
        key: value
        for key, value in said.items()
        if "layer" in key and isinstance(value, list) and len(value) == depth
    }


def _derived(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of the language model with all that transformers adds; empty if it has none."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    given = {key: value for key, value in config.items() if key != "model_type"}
    try:
        made = AutoConfig.for_model(str(config.get("model_type")), **given)
        return dict(made.get_text_config().to_dict())
    except (ValueError, KeyError, TypeError, AttributeError, ImportError, StrictDataclassError):
        return {}
