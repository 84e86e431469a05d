"""The weights are mergekit's, for every deterministic method, from the YAML we export."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Build = Callable[..., dict[str, Tensor]]


def of(model: Any, layers: list[int] | None = None, **values: Any) -> dict[str, Any]:
    """An input of a recipe."""
    values = {name.rstrip("_"): value for name, value in values.items()}
    place = {} if layers is None else {"layers": layers}
    return {"of": model, "parameters": values, **place}


def task(method: str, *sources: Any, base: Any = "base", **values: Any) -> dict[str, Any]:
    """A merge of whole models."""
    values = {name.rstrip("_"): value for name, value in values.items()}
    head = {} if base is None else {"base": base}
    return {"method": method, "sources": list(sources), "parameters": values, **head}


def stack(method: str, *slices: Any, base: Any = None, **values: Any) -> dict[str, Any]:
    """A merge of layer ranges."""
    head = {} if base is None else {"base": base}
    return {"method": method, "slices": list(slices), "parameters": values, **head}


def run(*sources: Any, **values: Any) -> dict[str, Any]:
    """A slice."""
    return {"sources": list(sources), "parameters": values}


FILTERS = [{"filter": "self_attn", "value": 0.2}, {"filter": "mlp", "value": [0.9, 0.1]}]
OTHERWISE = [*FILTERS, {"value": 0.6}]

CASES: dict[str, Any] = {
    "linear": task("linear", of("math", weight=0.7), of("code", weight=0.5), base=None),
    "linear unnormalised": task(
        "linear", of("math", weight=0.7), of("code", weight=-0.5), base=None, normalize=False
    ),
    "linear gradient": task(
        "linear",
        of("math", weight=[0.0, 1.0]),
        of("code", weight=[1.0, 0.3, 0.2]),
        of("text", weight=0.4),
        base=None,
    ),
    "linear filters": task("linear", of("math", weight=OTHERWISE), of("code"), base=None, weight=1),
    "linear negative": task(
        "linear", of("math", weight=1.5), of("code", weight=-0.4), of("base", weight=0.0), base=None
    ),
    "linear slices": stack(
        "linear",
        run(of("math", [0, 2], weight=0.3), of("code", [1, 3], weight=0.7)),
        run(of("text", [2, 4], weight=[0.2, 0.9]), of("code", [2, 4], weight=0.7), normalize=False),
    ),
    "slerp": task("slerp", of("base"), of("math"), t=0.35),
    "slerp base second": task("slerp", of("math"), of("base"), t=0.35),
    "slerp gradient": task("slerp", of("math"), of("code"), base="math", t=[0.0, 0.5, 1.0]),
    "slerp filters": task("slerp", of("math"), of("code"), base="code", t=OTHERWISE),
    "slerp beyond": task("slerp", of("math"), of("code"), base="code", t=1.3),
    "slerp slices": stack(
        "slerp",
        run(of("math", [0, 3]), of("code", [0, 3]), t=[0.1, 0.6]),
        run(of("code", [2, 4]), of("math", [2, 4]), t=0.8),
        base="math",
    ),
    "task arithmetic": task("task_arithmetic", of("math", weight=0.8), of("code", weight=0.6)),
    "task arithmetic lambda": task(
        "task_arithmetic", of("math", weight=1.2), of("code", weight=-0.6), lambda_=0.7
    ),
    "task arithmetic normalised": task(
        "task_arithmetic", of("math", weight=1.2), of("code", weight=0.6), normalize=True
    ),
    "task arithmetic zero sum": task(
        "task_arithmetic", of("math", weight=0.5), of("code", weight=-0.5), normalize=True
    ),
    "task arithmetic filters": task(
        "task_arithmetic", of("math", weight=FILTERS), of("code"), of("text"), weight=OTHERWISE
    ),
    "ties": task("ties", of("math"), of("code"), of("text"), weight=0.5, density=0.4),
    "ties full": task("ties", of("math", weight=0.2), of("code", weight=0.8), density=1.0),
    "ties negative": task(
        "ties", of("math", weight=1.0, density=0.3), of("code", weight=-0.7, density=0.9)
    ),
    "ties lambda": task(
        "ties", of("math"), of("code"), weight=0.5, density=0.5, lambda_=1.4, normalize=False
    ),
    "ties rescaled": task("ties", of("math"), of("code"), weight=0.5, density=0.3, rescale=True),
    "ties gradients": task(
        "ties",
        of("math", weight=[0.1, 1.0], density=[0.9, 0.2]),
        of("code", weight=OTHERWISE),
        of("text", weight=0.3),
        density=0.5,
        int8_mask=True,
    ),
    "ties slices": stack(
        "ties",
        run(of("base", [0, 3]), of("math", [0, 3], weight=0.6), of("code", [0, 3], weight=0.3)),
        run(of("math", [1, 4], weight=[0.3, 0.6]), of("base", [1, 4]), density=0.5),
        base="base",
        density=0.8,
    ),
    "dare_linear full": task("dare_linear", of("math", weight=0.6), of("code", weight=0.7)),
    "dare_ties full": task(
        "dare_ties", of("math", weight=0.6), of("code", weight=0.7), lambda_=0.8
    ),
    "dare_ties normalised": task(
        "dare_ties", of("math", weight=0.6), of("code", weight=-0.7), normalize=True
    ),
    "passthrough": task("passthrough", of("math"), base=None),
    "passthrough scaled": task(
        "passthrough", of("math", scale=[{"filter": "down_proj", "value": 0.0}]), base=None
    ),
    "passthrough stacked": stack(
        "passthrough", run(of("math", [0, 3])), run(of("code", [1, 4])), run(of("text", [3, 4]))
    ),
    "empty slice": stack(
        "passthrough", run(of("math", [0, 4])), run(of("code", [4, 4], scale=0.5))
    ),
    "tree": task(
        "slerp",
        of(task("ties", of("math"), of("code"), weight=0.6, density=0.5)),
        of("text"),
        base="text",
        t=[0.2, 0.7],
    ),
    "tree of trees": task(
        "linear",
        of(task("slerp", of("math"), of("code"), base="math", t=0.4), weight=0.6),
        of(task("task_arithmetic", of("text"), weight=0.7), weight=0.4),
        base=None,
    ),
    "tree with merged base": task(
        "task_arithmetic",
        of("text"),
        weight=0.7,
        base=task("linear", of("math"), of("code"), weight=1.0, base=None),
    ),
    "tree of slices": stack(
        "passthrough",
        run(of(task("linear", of("math"), of("code"), base=None, weight=[0.2, 1.0]), [0, 3])),
        run(of(task("linear", of("math"), of("code"), base=None, weight=[0.2, 1.0]), [2, 4])),
    ),
}


def same(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], limit: float = 1e-6) -> None:
    """Names, shapes and dtypes are equal; values differ by no more than ``limit``."""
    assert sorted(ours) == sorted(theirs)
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype, name
        assert tensor.shape == theirs[name].shape, name
        difference = (tensor.float() - theirs[name].float()).abs().max().item()
        assert difference <= limit, f"{name}: {difference}"


@pytest.mark.parametrize("case", CASES)
def test_same_weights(
    case: str, tiny_family: dict[str, Path], build: Build, mergekit: Build
) -> None:
    same(build(CASES[case], tiny_family), mergekit(CASES[case], tiny_family))


FAMILY_CASES = ("ties", "slerp gradient", "linear slices", "task arithmetic filters")


FAMILIES = (
    "qwen2", "qwen3", "mistral", "gemma", "gemma2", "phi3", "olmo2", "starcoder2", "gpt2",
    "gpt_neox",
)  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_families(family: str, tiny_model: Any, tmp_path: Path, request: Any) -> None:
    base = tiny_model(family=family, layers=4, tied=family in ("gemma", "gemma2", "gpt2"))
    models = {"base": base} | {
        name: tiny_model(base=base, seed=seed) for seed, name in enumerate(("math", "code", "text"))
    }
    if family == "gpt_neox":
        for path in models.values():
            _add_old_buffers(path)
    for case in FAMILY_CASES:
        mergekit = request.getfixturevalue("mergekit")
        ours = request.getfixturevalue("build")(CASES[case], models)
        theirs = mergekit(CASES[case], models)
        shutil.rmtree(tmp_path / "mergekit")
        same(ours, {name: x for name, x in theirs.items() if not _is_old_buffer(name)})


def _add_old_buffers(folder: Path) -> None:
    """What checkpoints of this family held once; mergekit insists on it."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    for layer in range(4):
        attention = f"gpt_neox.layers.{layer}.attention"
        tensors[f"{attention}.bias"] = torch.ones(1, 1, 8, 8, dtype=torch.bool).tril()
        tensors[f"{attention}.masked_bias"] = torch.tensor(-1e9)
        tensors[f"{attention}.rotary_emb.inv_freq"] = torch.rand(
            4, generator=torch.Generator().manual_seed(0)
        )
    save_file(tensors, file, metadata={"format": "pt"})


def _is_old_buffer(name: str) -> bool:
    return name.endswith((".attention.bias", ".masked_bias", ".inv_freq"))


@pytest.mark.parametrize("case", ["linear gradient", "slerp", "task arithmetic", "ties full"])
def test_one_step_in_bfloat16(
    case: str, tiny_model: Any, tiny_family: dict[str, Path], build: Build, mergekit: Build
) -> None:
    base = tiny_model(base=tiny_family["base"], noise=0.0, dtype="bfloat16")
    models = {"base": base} | {
        name: tiny_model(base=base, seed=seed, dtype="bfloat16")
        for seed, name in enumerate(("math", "code", "text"))
    }
    ours = build(CASES[case], models, dtype="bfloat16")
    theirs = mergekit(CASES[case], models, dtype="bfloat16")
    assert sorted(ours) == sorted(theirs)
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype == torch.bfloat16
        assert _steps(tensor, theirs[name]) <= 1, name


def _steps(first: Tensor, second: Tensor) -> int:
    """How many bfloat16 numbers lie between, at most: their bits, as integers in value order.

    Differences below 1e-8 are float32 rounding where inputs cancel; near 0 they span many numbers.
    """

    def order(tensor: Tensor) -> Tensor:
        bits = tensor.view(torch.int16).int()
        return torch.where(bits < 0, -(bits & 0x7FFF), bits)

    steps = (order(first) - order(second)).abs()
    apart = (first.float() - second.float()).abs() > 1e-8
    return int(steps.where(apart, 0).max())


@pytest.mark.parametrize("case", ["ties", "slerp", "linear"])
def test_tied(case: str, tiny_model: Any, build: Build, mergekit: Build) -> None:
    base = tiny_model(family="llama", layers=2, tied=True)
    models = {"base": base} | {
        name: tiny_model(base=base, seed=seed) for seed, name in enumerate(("math", "code", "text"))
    }
    ours = build(CASES[case], models)
    assert "lm_head.weight" not in ours
    same(ours, mergekit(CASES[case], models))


@pytest.mark.parametrize("case", ["linear", "slerp", "ties", "tree"])
def test_missing_head_is_the_embeddings(
    case: str, tiny_model: Any, tmp_path: Path, build: Build, mergekit: Build
) -> None:
    """An untied base, and an input that is tied: its embeddings take the head's place."""
    base = tiny_model(layers=2)
    models = {"base": base} | {
        name: tiny_model(base=base, seed=seed) for seed, name in enumerate(("math", "code", "text"))
    }
    _tie(models["code"])
    if case == "slerp":
        _tie(models["math"])
    same(build(CASES[case], models), mergekit(CASES[case], models))


def _tie(folder: Path) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    del tensors["lm_head.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
