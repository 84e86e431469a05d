"""How many sequences go through the model at a time when the user leaves it open."""

from __future__ import annotations

from typing import Any

import torch

from evaluators.resident_models.devices.free_memory import free_bytes

CPU_BATCH = 32
"""On a CPU larger batches gain nothing and pad more."""

LARGEST = 256

SHARE = 0.6
"""Of the free memory of a GPU; the rest is for what the estimate does not see."""

ACTIVATIONS = 24
"""Vectors of the hidden size alive per token within a layer: attention, gated MLP, residuals."""


def auto_batch_size(
    device: torch.device, *, gpus: float = 1.0, config: Any, dtype: torch.dtype, tokens: int
) -> int:
    """Sequences per forward pass, a power of two.

    Args:
        device: Where the model lives, its weights included.
        gpus: The share of a GPU that this process may take, if below 1.
        config: The model's transformers config.
        dtype: Of the weights.
        tokens: Longest sequence that will be asked, prompt and answer.
    """
    if device.type != "cuda":
        return CPU_BATCH
    room = int(free_bytes(device, gpus=gpus) * SHARE)
    return fitting_batch(room, sequence_bytes(config, dtype=dtype, tokens=tokens))


def sequence_bytes(config: Any, *, dtype: torch.dtype, tokens: int) -> int:
    """Memory that one sequence needs at the peak: logits twice and once in float32, keys and
    values of all layers, activations of one.
    """
    text = config.get_text_config()
    vocabulary, hidden = int(text.vocab_size), int(text.hidden_size)
    logits = vocabulary * (2 * dtype.itemsize + 4)
    cache = 2 * int(text.num_hidden_layers) * hidden * dtype.itemsize
    return max(1, tokens) * (logits + cache + ACTIVATIONS * hidden * dtype.itemsize)


def cache_bytes(config: Any, *, dtype: torch.dtype, tokens: int) -> int:
    """Memory of the keys and values of so many tokens."""
    text = config.get_text_config()
    heads = int(text.num_attention_heads)
    size = getattr(text, "head_dim", None) or int(text.hidden_size) // heads
    kept = getattr(text, "num_key_value_heads", None) or heads
    return 2 * tokens * int(text.num_hidden_layers) * int(kept) * int(size) * dtype.itemsize


def fitting_batch(room: int, each: int) -> int:
    """The largest power of two up to ``LARGEST`` such that so many of ``each`` fit; at least 1."""
    fit = max(1, min(LARGEST, room // max(1, each)))
    return 1 << (fit.bit_length() - 1)
