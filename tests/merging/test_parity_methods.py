"""Whole models by every further method are mergekit's, from the YAML we export."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from spaces.catalogue.method_catalogue import METHODS

Build = Callable[..., dict[str, Tensor]]

FILTERS = [{"filter": "self_attn", "value": 0.2}, {"filter": "mlp", "value": [0.9, 0.1]}]
OTHERWISE = [*FILTERS, {"value": 0.6}]


def merge(method: str, *names: str, base: str | None = "base", **values: Any) -> dict[str, Any]:
    """A merge of whole models with the same values for all; a mapping gives a value by name."""
    by_name = {key: value for key, value in values.items() if isinstance(value, dict)}
    shared = {key.rstrip("_"): value for key, value in values.items() if key not in by_name}
    sources = [
        {"of": name, "parameters": {key: table[name] for key, table in by_name.items()}}
        for name in names
    ]
    head = {} if base is None else {"base": base}
    return {"method": method, "sources": sources, "parameters": shared, **head}


def sliced(method: str, *names: str, base: str | None = "base", **values: Any) -> dict[str, Any]:
    """Two runs of layers, the second one with its sources the other way round."""
    listed = [*names, *([base] if base is not None and base not in names else [])]
    slices = [
        {"sources": [{"of": name, "layers": [0, 3]} for name in listed]},
        {"sources": [{"of": name, "layers": [1, 4]} for name in reversed(listed)]},
    ]
    head = {} if base is None else {"base": base}
    return {"method": method, "slices": slices, "parameters": values, **head}


TWO, ALL = ("math", "code"), ("math", "code", "text")
BY_NAME = {"math": 0.8, "code": -0.3, "text": 0.0}
THINNED = {"density": {"math": 0.3, "code": [0.9, 0.2], "text": 1.0}}

CASES: dict[str, Any] = {
    "nuslerp": merge("nuslerp", *TWO, base=None, weight={"math": 0.3, "code": 0.6}),
    "nuslerp deltas": merge("nuslerp", *TWO, weight={"math": OTHERWISE, "code": [0.2, 1.4]}),
    "nuslerp negative": merge("nuslerp", *TWO, weight={"math": 1.2, "code": -0.4}),
    "nuslerp zero sum": merge("nuslerp", *TWO, weight={"math": 0.5, "code": -0.5}),
    "nuslerp rows": merge("nuslerp", *TWO, weight=0.7, nuslerp_flatten=False),
    "nuslerp columns": merge(
        "nuslerp", *TWO, base=None, weight=BY_NAME, nuslerp_flatten=False, nuslerp_row_wise=True
    ),
    "nuslerp slices": sliced("nuslerp", *TWO, weight=[0.2, 0.9]),
    "multislerp": merge("multislerp", *ALL, base=None, weight={**BY_NAME, "text": 0.4}),
    "multislerp deltas": merge("multislerp", *ALL, weight=OTHERWISE),
    "multislerp negative": merge("multislerp", *ALL, weight=BY_NAME, eps=1e-6),
    "multislerp unnormalised": merge(
        "multislerp", *ALL, weight={**BY_NAME, "code": [0.1, 2.0]}, normalize_weights=False
    ),
    "multislerp alone": merge("multislerp", "math", weight=0.3),
    "multislerp slices": sliced("multislerp", *ALL, weight=[0.2, 0.9]),
    "karcher": merge("karcher", *ALL, base=None),
    "karcher with base": merge("karcher", "math", "base", "text", base=None, max_iter=3, tol=1e-6),
    "karcher slices": sliced("karcher", *ALL, base=None, max_iter=20),
    "model_stock": merge("model_stock", *ALL),
    "model_stock two": merge("model_stock", *TWO),
    "model_stock rows": merge("model_stock", *ALL, filter_wise=True),
    "model_stock slices": sliced("model_stock", *ALL),
    "nearswap": merge("nearswap", "base", "math", t=0.003),
    "nearswap base second": merge("nearswap", "math", "code", base="code", t=OTHERWISE),
    "nearswap gradient": merge("nearswap", "math", "code", base="math", t=[0.0, 0.01]),
    "nearswap slices": sliced("nearswap", *TWO, base="math", t=[0.0, 0.01]),
    "breadcrumbs": merge("breadcrumbs", *ALL, weight=BY_NAME, density=0.6, gamma=0.1),
    "breadcrumbs default": merge("breadcrumbs", *ALL, weight=0.4, density=0.9),
    "breadcrumbs normalised": merge(
        "breadcrumbs", *ALL, weight=OTHERWISE, **THINNED, lambda_=0.7, normalize=True
    ),
    "breadcrumbs rescaled": merge(
        "breadcrumbs", *TWO, weight=0.5, density=[0.2, 0.8], gamma=OTHERWISE, rescale=True
    ),
    "breadcrumbs all outliers": merge("breadcrumbs", *TWO, weight=1, density=0.3, gamma=1.0),
    "breadcrumbs slices": sliced("breadcrumbs", *ALL, weight=[0.1, 0.9], density=0.5, gamma=0.2),
    "breadcrumbs_ties": merge("breadcrumbs_ties", *ALL, weight=BY_NAME, density=0.6, gamma=0.1),
    "breadcrumbs_ties normalised": merge(
        "breadcrumbs_ties", *ALL, weight=0.5, **THINNED, lambda_=1.3, normalize=True, rescale=True
    ),
    "della full": merge("della", *ALL, weight=BY_NAME, epsilon=0.2, lambda_=0.8),
    "della full unnormalised": merge("della", *TWO, weight=0.4, normalize=False),
    "della_linear full": merge("della_linear", *ALL, weight=OTHERWISE, normalize=True),
    "sce": merge("sce", *ALL),
    "sce selected": merge("sce", *ALL, select_topk=0.3, int8_mask=True),
    "sce filters": merge("sce", *TWO, select_topk=OTHERWISE),
    "sce nothing": merge("sce", *ALL, select_topk=0.0),
    "sce alone": merge("sce", "math", select_topk=0.5),
    "sce slices": sliced("sce", *ALL, select_topk=[0.2, 0.9]),
    "ram": merge("ram", *ALL, epsilon=0.004),
    "ram slices": sliced("ram", *ALL, epsilon=[0.001, 0.02]),
    "ramplus_tl": merge("ramplus_tl", *ALL, epsilon=0.01),
    "ramplus_tl strong": merge("ramplus_tl", *ALL, epsilon=OTHERWISE, r=-0.7, alpha=3.0),
    "ramplus_tl defaults": merge("ramplus_tl", *TWO),
    "passthrough scaled": merge("passthrough", "math", base=None, scale=[0.5, 1.5]),
    "tree": {
        "method": "karcher",
        "sources": [
            {"of": merge("model_stock", *TWO)},
            {"of": merge("nearswap", "math", "text", base="math", t=0.01)},
        ],
    },
    "tree with merged base": {
        **merge("sce", "text", "math", select_topk=0.5),
        "base": merge("multislerp", *TWO, weight=1.0),
    },
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


def test_every_method_has_a_case() -> None:
    first = {"linear", "slerp", "task_arithmetic", "ties", "dare_linear", "dare_ties"}
    compared_apart = {"arcee_fusion"}
    theirs = {name for name, method in METHODS.items() if method.in_mergekit}
    assert {case["method"] for case in CASES.values()} | first | compared_apart == theirs


def test_arcee_fusion_but_for_entries_at_the_threshold(
    tiny_family: dict[str, Path], build: Build, mergekit: Build
) -> None:
    """Rounding of the importance in float32 decides on few entries; all others are the same."""
    recipe = merge("arcee_fusion", "base", "math")
    ours, theirs = build(recipe, tiny_family), mergekit(recipe, tiny_family)
    count = differing = taken = 0
    base = load_file(tiny_family["base"] / "model.safetensors")
    for name, tensor in ours.items():
        differing += int(((tensor - theirs[name]).abs() > 1e-6).sum())
        taken += int((tensor != base[name]).sum())
        count += tensor.numel()
    assert differing <= 1e-3 * count
    assert 0.02 * count < taken < 0.4 * count


@pytest.mark.parametrize("case", ["karcher", "model_stock", "multislerp deltas", "nuslerp deltas"])
def test_bfloat16_inputs(
    case: str, tiny_model: Any, tiny_family: dict[str, Path], build: Build, mergekit: Build
) -> None:
    base = tiny_model(base=tiny_family["base"], noise=0.0, dtype="bfloat16")
    models = {"base": base} | {
        name: tiny_model(base=base, seed=seed, dtype="bfloat16") for seed, name in enumerate(ALL)
    }
    ours = build(CASES[case], models, dtype="bfloat16")
    theirs = mergekit(CASES[case], models, dtype="bfloat16")
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype == torch.bfloat16
        torch.testing.assert_close(tensor, theirs[name], atol=1e-8, rtol=2**-7)
