"""What names tell, for families that nobody listed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from merging.checkpoints.files.model_layout import (
    LayerPattern,
    ModelLayout,
    find_layers,
    is_buffer,
    is_head,
    is_late,
)
from merging.checkpoints.files.safetensors_header import TensorInfo


@pytest.mark.parametrize(
    ("names", "depth", "expected"),
    [
        (["model.layers.0.q.weight", "model.layers.1.q.weight"], None, ("model.layers.", 2)),
        (["h.0.ln_1.weight", "h.1.ln_1.weight", "wte.weight"], 2, ("h.", 2)),
        (["transformer.h.0.a", "transformer.h.0.b", "transformer.h.1.a"], 2, ("transformer.h.", 2)),
        (["gpt_neox.layers.0.a.b"], None, ("gpt_neox.layers.", 1)),
        # the experts' numbers are inside a layer
        (
            [f"model.layers.{i}.mlp.experts.{j}.w" for i in range(2) for j in range(8)],
            2,
            ("model.layers.", 2),
        ),
        # two lists: the config's depth decides, else the larger
        (
            [f"visual.blocks.{i}.{x}" for i in range(3) for x in "abc"]
            + [f"model.layers.{i}.a" for i in range(4)],
            4,
            ("model.layers.", 4),
        ),
        (
            [
                "enc.layers.0.a",
                "enc.layers.1.a",
                "dec.layers.0.a",
                "dec.layers.0.b",
                "dec.layers.0.c",
            ],
            None,
            ("dec.layers.", 1),
        ),
        # a vision tower of as many layers, and more tensors
        (
            [f"visual.blocks.{i}.{x}" for i in range(2) for x in "abc"]
            + [f"model.layers.{i}.a" for i in range(2)]
            + ["model.embed_tokens.weight"],
            2,
            ("model.layers.", 2),
        ),
        # appended prediction layers are not layers
        ([f"model.layers.{i}.a" for i in range(5)], 4, ("model.layers.", 4)),
        (["a.weight", "b.weight"], None, None),
        (["model.layers.1.a", "model.layers.2.a"], None, None),
    ],
)
def test_find_layers(names: list[str], depth: int | None, expected: tuple[str, int] | None) -> None:
    found = find_layers(names, depth)
    assert (found and (found.prefix, found.count)) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.layers.3.mlp.experts.7.w", (3, "mlp.experts.7.w")),
        ("model.layers.4.a", None),
        ("model.norm.weight", None),
        ("model.layers.x.a", None),
    ],
)
def test_split(name: str, expected: tuple[int, str] | None) -> None:
    assert LayerPattern(prefix="model.layers.", count=4).split(name) == expected


@pytest.mark.parametrize(("prefix", "root"), [("model.layers.", "model."), ("h.", "")])
def test_root(prefix: str, root: str) -> None:
    assert LayerPattern(prefix=prefix, count=1).root == root


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("model.layers.0.self_attn.rotary_emb.inv_freq", (32,), True),
        ("transformer.h.0.attn.bias", (1, 1, 8, 8), True),
        ("transformer.h.0.attn.bias", (96,), False),
        ("gpt_neox.layers.0.attention.masked_bias", (), True),
        ("transformer.h.0.attn.c_attn.bias", (96,), False),
    ],
)
def test_buffers(name: str, shape: tuple[int, ...], expected: bool) -> None:
    assert is_buffer(name, shape) is expected


@pytest.mark.parametrize(
    ("key", "late"),
    [
        ("embed_tokens.weight", False),
        ("wte.weight", False),
        ("word_embeddings_layernorm.weight", False),
        ("norm.weight", True),
        ("ln_f.bias", True),
        ("final_layer_norm.weight", True),
        ("lm_head.weight", True),
        ("embed_out.weight", True),
        ("visual.patch.weight", False),
    ],
)
def test_order(key: str, late: bool) -> None:
    assert is_late(key) is late


def test_head_or_not() -> None:
    assert is_head("lm_head.weight")
    assert is_head("language_model.lm_head.weight")
    assert is_head("head.weight")  # RWKV, DeepSeek-V4
    assert is_head("cls.predictions.decoder.weight")  # RemBERT
    assert not is_head("vision.head.weight")
    assert not is_head("lm_head.bias")


def layout(names: list[str]) -> ModelLayout:
    info = TensorInfo(dtype=torch.float32, shape=(2,), file=Path("x"), start=0, end=8)
    return ModelLayout.of(dict.fromkeys(names, info), find_layers(names))


def test_names_with_and_without_root_match() -> None:
    plain = layout(["h.0.ln.weight", "wte.weight", "ln_f.weight"])
    rooted = layout(
        ["transformer.h.0.ln.weight", "transformer.wte.weight", "transformer.ln_f.weight"]
    )
    assert plain.outside.keys() == rooted.outside.keys()
    assert plain.layers[0].keys() == rooted.layers[0].keys()


def test_what_a_model_cannot_do_without() -> None:
    found = layout(["model.layers.0.a", "model.norm.weight", "lm_head.weight", "mtp.norm.weight"])
    assert found.is_required("norm.weight")
    assert not found.is_required("mtp.norm.weight")
    assert found.has_module("mtp.other")
    assert not found.has_module("visual.x")


@pytest.mark.parametrize(
    ("names", "beside"),
    [
        (
            ["model.layers.0.a", "model.layers.0.b", "model.norm.weight", "lm_head.weight",
             "visual.b.0.c"],
            ("visual.",),
        ),
        (
            ["model.language_model.layers.0.a", "model.language_model.layers.0.b",
             "model.visual.b.0.c", "lm_head.weight"],
            ("model.visual.",),
        ),
        (
            ["language_model.model.layers.0.a", "language_model.model.layers.1.a",
             "language_model.model.norm.weight", "language_model.lm_head.weight",
             "image_newline", "vision_tower.x.layers.0.c"],
            ("image_newline", "vision_tower."),
        ),
        (["h.0.ln.weight", "wte.weight"], ()),
    ],
)  # fmt: skip
def test_modules_beside_the_language_model(names: list[str], beside: tuple[str, ...]) -> None:
    assert layout(names).beside == beside


def test_depth_within_an_encoder() -> None:
    decoder = [f"decoder.block.{at}.{part}" for at in range(2) for part in ("a", "b")]
    encoder = [f"encoder.block.{at}.a" for at in range(3)]
    found = layout([*decoder, *encoder, "encoder.norm.weight", "shared.weight"])
    assert found.encoder == LayerPattern(prefix="encoder.block.", count=3)
    assert [found.encoder_depth(name) for name in encoder] == [0.0, 0.5, 1.0]
    assert found.encoder_depth("encoder.norm.weight") == 0.0
    assert found.encoder_depth("shared.weight") is None
    assert layout(["model.layers.0.a", "encoder.layers.0.a"]).encoder is None
