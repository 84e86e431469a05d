"""Every method with every feature of a mergekit file: the weights are mergekit's.

Whole models, from one YAML file that both read. The random methods are compared given the same
masks: mergekit's draws are replaced by the numbers that ours are made of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from mergekit.merge_methods import ParameterScope, generalized_task_arithmetic, get
from safetensors.torch import load_file
from torch import Tensor

from merging.kernels import random_masks
from merging.kernels.random_masks import MaskKey
from spaces.catalogue.method_catalogue import METHODS, Scope
from spaces.recipes.recipe import RecipeError
from tests.merging.documents import CELLS, FILES, document, make_folders

BuildYaml = Callable[[str], dict[str, Tensor]]


@pytest.fixture(scope="module")
def folders(tiny_model: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_folders(tiny_model, tmp_path_factory.mktemp)


def use_our_masks(folder: Path, feature: str, patch: pytest.MonkeyPatch) -> None:
    """mergekit draws our numbers; which tensor it thins is known by the content of its delta."""
    stored = {name: load_file(folder / name / "model.safetensors") for name in FILES}
    keys: dict[tuple[float, ...], MaskKey] = {}
    for name, base in stored["base"].items():
        for model in FILES[1:]:
            tensor = stored[model].get(name, stored[model]["model.embed_tokens.weight"])
            if tensor.shape == base.shape:
                key = MaskKey(seed=0, model=model, tensor=written_as(name, feature))
                keys[mark(tensor - base)] = key
    current: list[MaskKey] = []
    original = generalized_task_arithmetic.sparsify

    def sparsify(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        current[:] = [keys[mark(tensor)]]
        return original(tensor, *args, **kwargs)

    def bernoulli(probabilities: Tensor) -> Tensor:
        drawn = random_masks.uniform(current[0], start=0, stop=probabilities.numel())
        uniform = drawn.double().view(probabilities.shape) / 2**24
        return (uniform < probabilities.double()).to(probabilities.dtype)

    patch.setattr(generalized_task_arithmetic, "sparsify", sparsify)
    patch.setattr(torch, "bernoulli", bernoulli)


def mark(delta: Tensor) -> tuple[float, ...]:
    return tuple(delta.flatten()[:6].tolist())


def written_as(name: str, feature: str) -> str:
    """The output's name of a stored tensor: the slices begin with the last two layers."""
    if feature != "slices" or ".layers." not in name:
        return name
    head, _, rest = name.partition(".layers.")
    layer, _, tail = rest.partition(".")
    return f"{head}.layers.{(int(layer) - 1) % 3}.{tail}"


def same(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], limit: float) -> None:
    assert sorted(ours) == sorted(theirs)
    for name, tensor in ours.items():
        assert (tensor.dtype, tensor.shape) == (theirs[name].dtype, theirs[name].shape), name
        difference = (tensor - theirs[name]).abs().max().item()
        assert difference <= limit, f"{name}: {difference}"


@pytest.mark.parametrize(
    ("name", "feature"), [cell for cell in CELLS if METHODS[cell[0]].in_mergekit]
)
def test_cell(
    name: str,
    feature: str,
    folders: dict[str, Path],
    build_yaml: BuildYaml,
    mergekit_yaml: BuildYaml,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    method = METHODS[name]
    folder = folders.get(feature, folders["untied"])
    text = yaml.safe_dump(document(method, feature, folder))
    ours = build_yaml(text)
    if method.random and feature != "other tokenizer":
        use_our_masks(folder, feature, monkeypatch)
    # entries at arcee_fusion's threshold fall on either side of it, as its sums are rounded
    same(ours, mergekit_yaml(text), 0.2 if name == "arcee_fusion" else 1e-6)


def test_no_base_beside_the_only_input(
    folders: dict[str, Path], build_yaml: BuildYaml, mergekit_yaml: BuildYaml
) -> None:
    text = yaml.safe_dump(document(METHODS["passthrough"], "unlisted base", folders["untied"]))
    with pytest.raises(RecipeError, match="passthrough: expected exactly 1 inputs, got 2"):
        build_yaml(text)
    with pytest.raises(ValueError, match="exactly 1 inputs"):
        mergekit_yaml(text)


@pytest.mark.parametrize("name", [one for one in METHODS if METHODS[one].in_mergekit])
def test_what_a_method_lacks_it_lacks_in_mergekit(name: str) -> None:
    """Else a cell of the table above would be left out that mergekit has."""
    theirs = {p.name: p.scope is not ParameterScope.SHARED for p in get(name).spec.parameters}
    ours = {p.name: p.scope is Scope.INPUT for p in METHODS[name].parameters}
    assert ours == theirs
