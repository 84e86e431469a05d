"""A model over several devices answers as on one; main memory stands for each of them here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from evaluators.resident_models.devices.device_sharding import (
    DeviceSharding,
    device_map,
    layer_list,
)
from evaluators.resident_models.resident_model import ResidentModel
from merging.building.build import build_into
from merging.checkpoints.checkpoint import Checkpoint
from merging.planning.merge_plan import plan
from spaces.recipes.recipe import Merge, Model, Recipe, Source, parameters

CPU = torch.device("cpu")
FIRST, SECOND = torch.device("cuda", 0), torch.device("cuda", 1)


def mean(*names: str) -> Recipe:
    sources = tuple(Source(of=Model(name), parameters=parameters(weight=1.0)) for name in names)
    return Recipe(root=Merge(method="linear", sources=sources))


@pytest.mark.parametrize(
    ("family", "tied"), [("llama", False), ("llama", True), ("gpt2", True), ("gpt_neox", False)]
)
def test_same_answers_as_on_one_device(tiny_model: Any, family: str, tied: bool) -> None:
    one = tiny_model(family=family, tied=tied, layers=3)
    folders: dict[str, Path] = {"one": one, "two": tiny_model(base=one, seed=1)}
    checkpoints = {name: Checkpoint.open(str(at), name=name) for name, at in folders.items()}
    planned = plan(mean("one", "two"), checkpoints)
    answers = []
    for spread in (None, DeviceSharding(devices=(CPU, CPU), sizes=(1, 1))):
        resident = ResidentModel(device=CPU, spread=spread)
        skeleton = resident.skeleton(planned, one)
        build_into(planned, checkpoints, skeleton.targets(planned.jobs))
        skeleton.settle()
        ids = torch.tensor([[5, 6, 7, 8]])
        made = skeleton.model.generate(ids, max_new_tokens=6, do_sample=False)
        answers.append((skeleton.model(ids).logits, made))
        assert not skeleton.broken
        head = skeleton.model.get_output_embeddings().weight
        assert (head is skeleton.model.get_input_embeddings().weight) is tied
    assert spread is not None
    assert len(skeleton.model.hf_device_map) > 4
    assert torch.equal(answers[0][0], answers[1][0])
    assert torch.equal(answers[0][1], answers[1][1])


@pytest.mark.parametrize("tied", [False, True])
def test_each_part_has_its_place(tiny_model: Any, tied: bool) -> None:
    one = tiny_model(tied=tied, layers=3)
    planned = plan(mean("one"), {"one": Checkpoint.open(str(one), name="one")})
    model = ResidentModel(device=CPU).skeleton(planned, one).model
    layers = layer_list(model, "layers.", 3)
    assert layers == "model.layers"
    assert device_map(model, layers, (0, 0, 1), (FIRST, SECOND)) == {
        "model.embed_tokens": FIRST,
        "model.layers.0": FIRST,
        "model.layers.1": FIRST,
        "model.layers.2": SECOND,
        "model.norm": SECOND,
        "model.rotary_emb": FIRST,
        "lm_head": FIRST if tied else SECOND,
    }
    with pytest.raises(ValueError, match=r"one list of 4 layers named model\.layers, got 0"):
        layer_list(model, "model.layers.", 4)
