"""What configs say of how weights are meant, compared between models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from evaluators.protocol import EvaluatorError
from evaluators.resident_models.devices.build_preparation import read_config
from merging.checkpoints.checkpoint import Checkpoint

_SILENT = frozenset(
    {
        "_attn_implementation_autoset", "_commit_hash", "_name_or_path", "architectures",
        "auto_map", "chunk_size_feed_forward", "dtype", "finetuning_task", "id2label",
        "initializer_range", "is_decoder", "label2id", "model_type", "name_or_path",
        "output_attentions", "output_hidden_states", "pretraining_tp", "problem_type",
        "pruned_heads", "quantization_config", "return_dict", "router_aux_loss_coef",
        "task_specific_params", "tie_word_embeddings", "tokenizer_class", "torch_dtype",
        "torchscript", "transformers_version", "use_cache", "vocab_size",
    }
)  # fmt: skip
"""Keys that say nothing of it, or are compared where rows, heads and architectures are."""

_ENDINGS = ("_token_id", "dropout", "_pdrop", "_init_range")
"""Ends of more such keys."""

_LONGEST = 60  # characters of a value that are shown


def differences(checkpoints: Mapping[str, Checkpoint], *, trust: bool) -> list[str]:
    """In what the configs of models differ that changes what their weights mean.

    Args:
        checkpoints: The models by name; the first is the one the others are compared with.
        trust: Let configs run code of their own.

    Returns:
        A sentence per key, with the values and whose they are.
    """
    configs = {name: dict(_flat(_values(one, trust))) for name, one in checkpoints.items()}
    found = []
    for key in dict.fromkeys(key for config in configs.values() for key in config):
        groups: dict[str, list[str]] = {}
        for name, config in configs.items():
            groups.setdefault(_shown(config.get(key)), []).append(name)
        if len(groups) > 1:
            text = " / ".join(f"{', '.join(names)}: {value}" for value, names in groups.items())
            found.append(
                f"the configs differ in {key} ({text}): the same weights mean something else then; "
                "each model alone is scored with its own, a merge with the one it gets"
            )
    return found


def _values(checkpoint: Checkpoint, trust: bool) -> Mapping[str, Any]:
    """A config with the defaults of its class; as it stands in its file for an unknown class."""
    try:
        read: dict[str, Any] = read_config(checkpoint, trust=trust).to_dict()
    except EvaluatorError:
        return checkpoint.config
    return read


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if key in _SILENT or key.endswith(_ENDINGS):
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _shown(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
