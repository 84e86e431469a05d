"""Model families of random weights: what the benchmarks merge."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """The shape of a llama model.

    Attributes:
        vocabulary: Tokens.
        hidden: Width.
        inner: Width of the feed-forward part.
        layers: Depth.
        heads: Attention heads.
        key_heads: Heads of keys and values.
    """

    vocabulary: int
    hidden: int
    inner: int
    layers: int
    heads: int
    key_heads: int


SHAPES: Mapping[str, Shape] = {
    "tiny": Shape(vocabulary=512, hidden=64, inner=192, layers=2, heads=4, key_heads=2),
    "25M": Shape(vocabulary=8192, hidden=512, inner=1408, layers=7, heads=8, key_heads=4),
    "135M": Shape(vocabulary=49152, hidden=576, inner=1536, layers=30, heads=9, key_heads=3),
    "360M": Shape(vocabulary=49152, hidden=960, inner=2560, layers=32, heads=15, key_heads=5),
    "1B": Shape(vocabulary=128256, hidden=2048, inner=8192, layers=16, heads=32, key_heads=8),
    "3B": Shape(vocabulary=128256, hidden=3072, inner=8192, layers=28, heads=24, key_heads=8),
}
"""By about how many parameters they have."""


CPU = torch.device("cpu")


def make_family(
    folder: Path, size: str, *, parents: int, device: torch.device = CPU
) -> dict[str, Path]:
    """Write a base and fine-tunes of it in bfloat16, unless they are there.

    Args:
        folder: Where.
        size: One of ``SHAPES``.
        parents: Number of fine-tunes.
        device: Where weights are drawn; other devices draw others.

    Returns:
        Folders by name: ``base``, ``parent1``, …
    """
    names = ["base", *(f"parent{number}" for number in range(1, parents + 1))]
    folders = {name: folder / f"{size}-{name}" for name in names}
    for number, at in enumerate(folders.values()):
        if not (at / "model.safetensors").is_file():
            at.mkdir(parents=True, exist_ok=True)
            (at / "config.json").write_text(json.dumps(_config(SHAPES[size])), encoding="utf-8")
            weights = _weights(SHAPES[size], number, device)
            save_file(weights, at / "draft", metadata={"format": "pt"})
            (at / "draft").replace(at / "model.safetensors")
    return folders


def _weights(shape: Shape, number: int, device: torch.device) -> dict[str, Tensor]:
    """Number 0 is the base; the others add noise of a tenth of its size."""
    first = torch.Generator(device).manual_seed(0)
    noise = torch.Generator(device).manual_seed(number)
    made = {}
    for name, lengths in _tensors(shape).items():
        weights = torch.randn(lengths, generator=first, device=device).mul_(0.02).bfloat16()
        if number:
            added = torch.randn(lengths, generator=noise, device=device) * 0.002
            weights = (weights.float() + added).bfloat16()
        made[name] = weights.cpu()
    return made


def _tensors(shape: Shape) -> dict[str, tuple[int, ...]]:
    width, inner = shape.hidden, shape.inner
    narrow = width // shape.heads * shape.key_heads
    layer = {
        "input_layernorm": (width,),
        "mlp.down_proj": (width, inner),
        "mlp.gate_proj": (inner, width),
        "mlp.up_proj": (inner, width),
        "post_attention_layernorm": (width,),
        "self_attn.k_proj": (narrow, width),
        "self_attn.o_proj": (width, width),
        "self_attn.q_proj": (width, width),
        "self_attn.v_proj": (narrow, width),
    }
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (shape.vocabulary, width),
        "model.norm.weight": (width,),
    }
    for at in range(shape.layers):
        found |= {f"model.layers.{at}.{name}.weight": size for name, size in layer.items()}
    return found


def _config(shape: Shape) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.key_heads,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
    }
