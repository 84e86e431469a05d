"""What a GPU merges has the bits of what the CPU merges, in whatever chunks and from wherever.

Without a GPU it is the CPU that is held against itself: small chunks, parents that are streamed and
statistics of earlier builds against whole tensors read where they lie.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

from merging.building.build import build_into, tensors, write_model
from merging.building.output_checks import NonFiniteError
from merging.building.tensor_sources import (
    MappedTensors,
    PinnedCarrier,
    ResidentTensors,
    StreamedTensors,
    TensorSource,
)
from merging.checkpoints.checkpoint import Checkpoint
from merging.kernels.native.gpu_passes import cool_down_gpus, try_warm_up_on
from merging.kernels.random_masks import MaskKey, keep
from merging.kernels.torch_kernels.merge_kernels import MERGES
from merging.kernels.torch_kernels.reduction_kernels import BLOCK
from merging.planning.expressions import Combine
from merging.planning.merge_plan import MergePlan, plan
from merging.tensor_statistics.statistics_cache import StatisticsCache
from spaces.catalogue.method_catalogue import METHODS, BaseRule
from spaces.mergekit import from_yaml
from spaces.recipes.recipe import Recipe
from tests.merging.copying_carrier import CopyingCarrier
from tests.merging.documents import CELLS, FILES, document, make_folders
from tests.merging.test_dispatch import CPU, SIZES, merged

Checkpoints = Mapping[str, Checkpoint]
DTYPES = ("bfloat16", "float16", "float32")


@pytest.fixture(
    scope="module",
    autouse=True,
    params=["calls", *(["kernels"] if torch.cuda.is_available() else [])],
)
def passes(request: pytest.FixtureRequest) -> Iterator[None]:
    """On a GPU once as torch's calls, and once as its kernels."""
    if request.param == "kernels":
        assert try_warm_up_on(torch.device("cuda"))
    yield
    cool_down_gpus()


@pytest.fixture(scope="module")
def folders(tiny_model: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_folders(tiny_model, tmp_path_factory.mktemp)


@pytest.fixture(scope="module")
def wide(tiny_model: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Families by dtype whose matrices have several blocks."""
    made = {dtype: tmp_path_factory.mktemp(dtype) for dtype in DTYPES}
    for dtype, root in made.items():
        base = tiny_model(root / "base", hidden=96, layers=1, tied=True, dtype=dtype)
        for seed, name in enumerate(FILES[1:], start=1):
            tiny_model(root / name, base=base, seed=seed, dtype=dtype)
    return made


def planned(*wanted: Mapping[str, Any]) -> tuple[MergePlan, Checkpoints]:
    """The plan of a mergekit file of one or more documents, and its models."""
    read = from_yaml(yaml.safe_dump_all(map(dict, wanted)))
    checkpoints = {
        name: Checkpoint.open(read.locations[name], name=name) for name in read.recipe.needed
    }
    return plan(read.recipe, checkpoints), checkpoints


def differences(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """Where two models do not have the same bits, in words."""
    assert found.keys() == expected.keys()
    said = []
    for name, one in expected.items():
        other = found[name].cpu()
        assert (other.shape, other.dtype) == (one.shape, one.dtype), name
        unequal = int((other.view(-1).view(torch.uint8) != one.view(-1).view(torch.uint8)).sum())
        if unequal:
            most = float((other.double() - one.double()).abs().max())
            said.append(f"{name}: {unequal} bytes of {one.nbytes}, differences up to {most:.3g}")
    return said


def built(made: MergePlan, checkpoints: Checkpoints, device: torch.device, **options: Any) -> Any:
    """Tensors by name, and their fingerprint."""
    targets = {
        job.name: torch.empty(job.shape, dtype=job.dtype, device=device) for job in made.jobs
    }
    return targets, build_into(made, checkpoints, targets, **options)


@pytest.mark.parametrize(("name", "feature"), CELLS)
def test_every_method_with_every_feature(
    name: str, feature: str, folders: dict[str, Path], device: torch.device
) -> None:
    folder = folders.get(feature, folders["untied"])
    made, checkpoints = planned(document(METHODS[name], feature, folder))
    expected = dict(tensors(made, checkpoints))
    found = dict(tensors(made, checkpoints, device=device, chunk=1))
    assert {one.device.type for one in found.values()} == {device.type}
    assert not differences(found, expected)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_in_a_tree(name: str, wide: dict[str, Path], device: torch.device) -> None:
    """Merged from merges, and merged further."""
    folder = wide["bfloat16"]
    first = document(METHODS["linear"], "none", folder) | {"name": "first"}
    middle = document(METHODS[name], "none", folder) | {"name": "middle"}
    middle["models"] = [{**middle["models"][0], "model": "first"}, *middle["models"][1:]]
    if METHODS[name].base is BaseRule.ENDPOINT:
        middle["base_model"] = "first"
    last = document(METHODS["linear"], "none", folder)
    last["models"] = [{**last["models"][0], "model": "middle"}, *last["models"][1:]]
    made, checkpoints = planned(first, middle, last)
    roots = [job.expression for job in made.jobs]
    assert all(isinstance(one, Combine) for root in roots for one in root.inputs[:1])
    expected = dict(tensors(made, checkpoints))
    found = dict(tensors(made, checkpoints, device=device, chunk=BLOCK))
    assert not differences(found, expected)


def supplies(checkpoints: Checkpoints, device: torch.device) -> dict[str, TensorSource]:
    """Ways for parents to come to a device."""
    source = MappedTensors()
    places = {one: dict.fromkeys(one.tensors, device) for one in checkpoints.values()}
    carrier = PinnedCarrier() if device.type == "cuda" else CopyingCarrier()
    return {
        "mapped": source,
        "resident": ResidentTensors(source, places),
        "streamed": StreamedTensors(source, carrier),
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", METHODS)
def test_every_way_and_every_chunk(
    name: str, dtype: str, wide: dict[str, Path], device: torch.device, tmp_path: Path
) -> None:
    wanted = document(METHODS[name], "none", wide[dtype]) | {"dtype": dtype}
    made, checkpoints = planned(wanted)
    expected, fingerprint = built(made, checkpoints, CPU)
    for way, supply in supplies(checkpoints, device).items():
        for chunk in (None, BLOCK):
            found, seen = built(made, checkpoints, device, supply=supply, chunk=chunk)
            assert not differences(found, expected), (way, chunk)
            assert seen == fingerprint
    for kept in (None, tmp_path / "kept", tmp_path / "kept"):
        found, seen = built(made, checkpoints, device, statistics=StatisticsCache(kept))
        assert not differences(found, expected), kept
        assert seen == fingerprint
    assert write_model(made, checkpoints, tmp_path / "out", device=device) == fingerprint


@pytest.mark.parametrize("dtype", DTYPES)
def test_statistics_are_the_same(
    dtype: str, wide: dict[str, Path], device: torch.device, tmp_path: Path
) -> None:
    """So that a run may begin on one kind of machine and go on on another."""
    for place, folder in ((CPU, tmp_path / "cpu"), (device, tmp_path / "device")):
        known = StatisticsCache(folder)
        for method in METHODS.values():
            made, checkpoints = planned(document(method, "none", wide[dtype]))
            built(made, checkpoints, place, statistics=known)
    files = sorted(file.name for file in (tmp_path / "cpu").iterdir())
    assert files == sorted(file.name for file in (tmp_path / "device").iterdir())
    for name in files:
        one, other = tmp_path / "cpu" / name, tmp_path / "device" / name
        if one.suffix == ".safetensors":
            assert not differences(load_file(other), load_file(one)), name
        else:
            assert other.read_text() == one.read_text()
    assert {file.rpartition(".")[2] for file in files} == {"json", "safetensors"}


TIES = {
    "method": "ties",
    "base": "base",
    "sources": [{"of": "math"}, {"of": "code"}],
    "parameters": {"weight": 0.7, "density": 0.4},
}
RECIPES: dict[str, Any] = {
    "tree": {
        "method": "slerp",
        "base": TIES,
        "sources": [{"of": TIES}, {"of": "text"}],
        "parameters": {"t": 0.4},
    },
    "random tree": {
        "method": "dare_ties",
        "base": "base",
        "sources": [{"of": TIES | {"method": "della"}}, {"of": "text"}],
        "parameters": {"weight": 0.7, "density": 0.4, "rescale": True},
    },
    "stack": {
        "method": "passthrough",
        "slices": [
            {"sources": [{"of": "math", "layers": [0, 3]}]},
            {"sources": [{"of": "code", "layers": [1, 4]}], "parameters": {"scale": 0.9}},
        ],
    },
    "adapter": TIES | {"sources": [{"of": "tuned"}, {"of": "code"}]},
}


@pytest.mark.parametrize("merge", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_other_recipes(
    merge: Any, dtype: str, tiny_family: dict[str, Path], device: torch.device, tmp_path: Path
) -> None:
    _write_adapter(tmp_path / "lora", tiny_family["base"])
    located = {**tiny_family, "tuned": f"{tiny_family['base']}+{tmp_path / 'lora'}"}
    checkpoints = {name: Checkpoint.open(str(at), name=name) for name, at in located.items()}
    made = plan(Recipe.from_dict({"merge": merge, "dtype": dtype}), checkpoints)
    expected, fingerprint = built(made, checkpoints, CPU)
    for supply in supplies(checkpoints, device).values():
        for statistics in (None, StatisticsCache(), StatisticsCache(tmp_path / "kept")):
            found, seen = built(
                made, checkpoints, device, supply=supply, statistics=statistics, chunk=1
            )
            assert not differences(found, expected)
            assert seen == fingerprint


def _write_adapter(folder: Path, base: Path) -> None:
    """A LoRA of rank 4 for all queries."""
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}
    stored, factors = load_file(base / "model.safetensors"), {}
    for number, name in enumerate(sorted(name for name in stored if "q_proj" in name)):
        source = torch.Generator().manual_seed(number)
        rows, columns = stored[name].shape
        module = f"base_model.model.{name.removesuffix('.weight')}"
        factors[f"{module}.lora_A.weight"] = torch.randn((4, columns), generator=source) * 0.1
        factors[f"{module}.lora_B.weight"] = torch.randn((rows, 4), generator=source) * 0.1
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(factors, folder / "adapter_model.safetensors")


@pytest.mark.parametrize("factor", [1.0, 2.0**-136, 2.0**100])
@pytest.mark.parametrize("name", list(MERGES))
def test_passes_over_small_and_large_numbers(
    name: str, factor: float, device: torch.device
) -> None:
    """Down to numbers that some processors take for zero."""
    for count in SIZES:
        for dtype in (torch.float32, torch.bfloat16):
            expected = merged(name, count, dtype, 1 << 20, factor=factor)
            found = merged(name, count, dtype, BLOCK, factor=factor, device=device)
            assert torch.equal(found.view(torch.uint8), expected.view(torch.uint8)), count


@pytest.mark.parametrize("start", [0, (1 << 32) - 1000, 5 * (1 << 32) - 1, (1 << 31) - 7])
def test_random_masks(start: int, device: torch.device) -> None:
    key = MaskKey(seed=3, model="math", tensor="x")
    stop = start + 20_000
    expected = keep(key, density=0.3, start=start, stop=stop)
    found = [
        keep(key, density=0.3, start=at, stop=min(stop, at + 777), device=device)
        for at in range(start, stop, 777)
    ]
    assert torch.equal(torch.cat(found).cpu(), expected)
    assert 0.27 < float(expected.mean()) < 0.33


@pytest.mark.parametrize("way", ["mapped", "resident", "streamed"])
def test_numbers_that_are_not_finite(tiny_model: Any, way: str, device: torch.device) -> None:
    folder = tiny_model()
    stored = load_file(folder / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    stored[name].view(-1)[3] = float("nan")
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    checkpoints = {"one": Checkpoint.open(str(folder), name="one")}
    merge = {"method": "passthrough", "sources": [{"of": "one"}]}
    made = plan(Recipe.from_dict({"merge": merge}), checkpoints)
    with pytest.raises(NonFiniteError, match=f"{name} has one"):
        built(made, checkpoints, device, supply=supplies(checkpoints, device)[way])
