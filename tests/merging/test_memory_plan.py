"""Plans of device memory, and tensors that come to where they are merged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from merging.building.build import build_into
from merging.building.output_checks import NonFiniteError
from merging.building.tensor_sources import (
    MappedTensors,
    ResidentTensors,
    StreamedTensors,
    TensorSource,
    Want,
)
from merging.checkpoints.checkpoint import Checkpoint
from merging.planning.memory_plan import (
    Capacity,
    Demand,
    Home,
    MemoryPlan,
    Weights,
    homes,
    mapped,
    place,
    split,
)
from merging.planning.merge_plan import plan
from merging.tensor_statistics.statistics_cache import StatisticsCache
from spaces.recipes.recipe import Recipe
from tests.merging.copying_carrier import CopyingCarrier

CPU = torch.device("cpu")
GB = 10**9
LLAMA_7B = Weights(first=262_000_000, layers=(404_800_000,) * 32, last=262_000_000)
"""Llama 2 7B in bfloat16: 13.5 GB, an embedding and a head of 0.26 GB each."""


def family(**changes: Any) -> Demand:
    """A 7B base with three fine-tunes, answering one sequence of 2048 tokens."""
    values = {
        "model": LLAMA_7B,
        "parents": (LLAMA_7B,) * 4,
        "largest": 32000 * 4096,
        "activations": 2 * GB,
        "itemsize": 2,
    }
    return Demand(**(values | changes))


def gpus(*sizes: float) -> list[Capacity]:
    return [Capacity(device=f"cuda:{at}", nbytes=int(n * GB)) for at, n in enumerate(sizes)]


def test_7b_family_on_two_gpus_of_24_gb_is_streamed() -> None:
    made = place(family(), gpus(24, 24), parents_share=0.5)
    assert made.home is Home.PINNED
    assert [share.layers for share in made.shares] == [(0, 16), (16, 32)]
    assert sum(share.model for share in made.shares) == LLAMA_7B.total
    assert all(share.parents == 0 and share.free > 0 for share in made.shares)
    assert not made.problems()
    first, _, where = made.lines()
    assert first.startswith("cuda:0: model 6.7 GB (layers 0 to 15), merging ")
    assert where == "parents are streamed through pinned memory for every candidate"


def test_parents_stay_where_they_fit_their_share() -> None:
    kept = place(family(), gpus(141), parents_share=0.5)
    assert kept.home is Home.RESIDENT
    assert kept.shares[0].parents == 4 * LLAMA_7B.total
    assert place(family(), gpus(141), parents_share=0.3).home is Home.PINNED
    assert place(family(), gpus(141), parents_share=0.0).home is Home.PINNED
    # within their share, but then nothing is left for the model
    assert place(family(), gpus(60), parents_share=1.0).home is Home.PINNED


def test_two_devices_share_the_parents_too() -> None:
    made = place(family(), gpus(80, 80), parents_share=0.5)
    assert made.home is Home.RESIDENT
    assert sum(share.parents for share in made.shares) == 4 * LLAMA_7B.total


def test_a_model_too_large_says_what_to_do() -> None:
    (problem,) = place(family(), gpus(12), parents_share=0.5).problems()
    assert problem.startswith("cuda:0: expected at least ")
    assert "got 12.0 GB" in problem
    assert "workers.gpus" in problem


def test_on_a_cpu_parents_do_not_count() -> None:
    made = mapped(family(), Capacity(device="cpu", nbytes=20 * GB))
    assert made.home is Home.MAPPED
    assert made.shares[0].parents == 0
    assert made.shares[0].workspace < place(family(), gpus(24), parents_share=0).shares[0].workspace


def test_trees_ranks_and_depth_take_more() -> None:
    plain = family()
    assert family(trees=True).workspace == plain.workspace + 3 * 4 * plain.largest
    assert family(whole_inputs=True).workspace == plain.workspace + 4 * 4 * plain.largest
    assert LLAMA_7B.deepened(48).total == LLAMA_7B.total + 16 * LLAMA_7B.layers[0]


@given(
    layers=st.lists(st.integers(1, 1000), min_size=1, max_size=60),
    sizes=st.lists(st.integers(1, 1000), min_size=1, max_size=8),
)
def test_layers_are_split_into_runs_that_follow_the_sizes(
    layers: list[int], sizes: list[int]
) -> None:
    owners = split(layers, sizes)
    assert len(owners) == len(layers)
    assert list(owners) == sorted(owners)
    for at, size in enumerate(sizes):
        held = sum(n for n, owner in zip(layers, owners, strict=True) if owner == at)
        assert abs(held - sum(layers) * size / sum(sizes)) <= max(layers) * (1 + 1e-9)


@given(
    layers=st.lists(st.integers(0, 10**9), min_size=1, max_size=20),
    sizes=st.lists(st.integers(1, 10**11), min_size=1, max_size=4),
    share=st.floats(0, 1),
)
def test_nothing_is_lost_between_devices(layers: list[int], sizes: list[int], share: float) -> None:
    model = Weights(first=7, layers=tuple(layers), last=5)
    demand = Demand(model=model, parents=(model, model), largest=100, activations=10)
    devices = [Capacity(device=f"cuda:{at}", nbytes=size) for at, size in enumerate(sizes)]
    made: MemoryPlan = place(demand, devices, parents_share=share)
    assert sum(one.model for one in made.shares) == model.total
    if made.home is Home.RESIDENT:
        assert sum(one.parents for one in made.shares) == 2 * model.total
        assert all(one.parents <= share * one.capacity.nbytes for one in made.shares)
        assert not made.problems()


@pytest.mark.parametrize("tied", [False, True])
def test_weights_and_homes_of_a_checkpoint(tiny_model: Any, tied: bool) -> None:
    checkpoint = Checkpoint.open(str(tiny_model(layers=3, tied=tied)), name="one")
    weights = Weights.of(checkpoint)
    assert weights.total == sum(info.end - info.start for info in checkpoint.tensors.values())
    assert Weights.of(checkpoint, torch.float16).total * 2 == weights.total
    places = homes(checkpoint, [2, 1])
    assert places.keys() == checkpoint.tensors.keys()
    assert places["model.embed_tokens.weight"] == 0
    assert places["model.norm.weight"] == 1
    assert [places[f"model.layers.{n}.mlp.up_proj.weight"] for n in range(3)] == [0, 0, 1]
    assert places.get("lm_head.weight", 1) == 1
    norm = checkpoint.tensors["model.norm.weight"].numel * 4
    assert (weights.last == norm) is tied


TIES = {
    "method": "ties",
    "base": "base",
    "sources": [{"of": "math"}, {"of": "code"}],
    "parameters": {"weight": 0.7, "density": 0.4},
}


def supplies(checkpoints: dict[str, Checkpoint]) -> list[TensorSource]:
    source = MappedTensors()
    places = {one: dict.fromkeys(one.tensors, CPU) for one in checkpoints.values()}
    return [
        source,
        ResidentTensors(source, places),
        *(StreamedTensors(source, CopyingCarrier(), ahead=ahead) for ahead in (0, 1, 1000)),
    ]


def test_every_way_gives_the_same_bits(tiny_family: dict[str, Path]) -> None:
    checkpoints = {n: Checkpoint.open(str(at), name=n) for n, at in tiny_family.items()}
    planned = plan(Recipe.from_dict({"merge": TIES}), checkpoints)
    found = set()
    for supply in supplies(checkpoints):
        targets = {job.name: torch.empty(job.shape, dtype=job.dtype) for job in planned.jobs}
        for statistics in (None, StatisticsCache()):
            found.add(
                build_into(planned, checkpoints, targets, statistics=statistics, supply=supply)
            )
    assert len(found) == 1


def test_streams_run_ahead_no_further_than_asked(tiny_family: dict[str, Path]) -> None:
    checkpoint = Checkpoint.open(str(tiny_family["base"]), name="base")
    begun: list[str] = []

    class Noting(MappedTensors):
        def read(self, checkpoint: Checkpoint, name: str) -> torch.Tensor:
            begun.append(name)
            return super().read(checkpoint, name)

    names = list(checkpoint.tensors)
    wants = [Want(stored={("base", name): (checkpoint, name)}, device=CPU) for name in names]
    stream = StreamedTensors(Noting(), CopyingCarrier(), ahead=2).stream(wants)
    for at, name in enumerate(names):
        assert torch.equal(next(stream)["base", name], checkpoint.tensor(name))
        assert len(begun) <= at + 3
        if at == 3:
            break
    stream.close()
    assert len(begun) <= 6
    assert begun == names[: len(begun)]


def test_a_parent_with_nan_ends_a_stream(tiny_model: Any) -> None:
    from safetensors.torch import load_file, save_file

    folder = tiny_model()
    stored = load_file(folder / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    stored[name].view(-1)[3] = float("nan")
    save_file(stored, folder / "model.safetensors")
    checkpoints = {"one": Checkpoint.open(str(folder), name="one")}
    planned = plan(
        Recipe.from_dict({"merge": {"method": "passthrough", "sources": [{"of": "one"}]}}),
        checkpoints,
    )
    for supply in supplies(checkpoints):
        targets = {job.name: torch.empty(job.shape, dtype=job.dtype) for job in planned.jobs}
        with pytest.raises(NonFiniteError, match=f"{name} has one"):
            build_into(planned, checkpoints, targets, supply=supply)
