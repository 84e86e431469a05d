"""Encoder-decoders: values over depth reach both stacks, slices choose layers of the decoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM

from merging.building.build import write_model
from merging.checkpoints.checkpoint import Checkpoint
from merging.planning.expressions import Combine
from merging.planning.merge_plan import plan
from spaces.recipes.recipe import Recipe
from tests.tiny_configs import tiny_config

Models = Mapping[str, Checkpoint]

ENCODER, DECODER = 3, 2
"""Layers of the two stacks; the layers of a model are those of its decoder."""


@pytest.fixture(scope="module", params=["t5", "bart"])
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp(request.param)
    config = tiny_config(request.param)
    for key in ("num_layers", "encoder_layers"):
        if hasattr(config, key):
            setattr(config, key, ENCODER)
    for key in ("num_decoder_layers", "decoder_layers"):
        if hasattr(config, key):
            setattr(config, key, DECODER)
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        AutoModelForSeq2SeqLM.from_config(config).save_pretrained(folder / name)
    return {name: Checkpoint.open(str(folder / name), name=name) for name in ("one", "two")}


def test_values_over_depth_reach_both_stacks(models: Models) -> None:
    weight = [0.0, 1.0]
    sources = [{"of": name, "parameters": {"weight": weight}} for name in models]
    merge = {"method": "linear", "sources": sources, "parameters": {"normalize": False}}
    found = {
        job.name: job.expression.per_input["weight"][0]
        for job in plan(Recipe.from_dict({"merge": merge}), models).jobs
        if isinstance(job.expression, Combine)
    }
    for stack, layers in (("encoder", ENCODER), ("decoder", DECODER)):
        for layer in range(layers):
            part = f"{stack}.block.{layer}."
            own = {
                value
                for name, value in found.items()
                if part in name.replace(f"{stack}.layers.", f"{stack}.block.")
            }
            assert own == {layer / (layers - 1)}, (stack, layer)
    assert {value for name, value in found.items() if "embed" in name or "shared" in name} == {0.0}


def test_slices_choose_layers_of_the_decoder(models: Models, tmp_path: Path) -> None:
    slices = [
        {"sources": [{"of": "one", "layers": [0, 2]}]},
        {"sources": [{"of": "two", "layers": [1, 2]}]},
    ]
    made = plan(Recipe.from_dict({"merge": {"method": "passthrough", "slices": slices}}), models)
    write_model(made, models, tmp_path / "out")
    model, loading = AutoModelForSeq2SeqLM.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    assert not loading["mismatched_keys"]
    own = {name: AutoModelForSeq2SeqLM.from_pretrained(models[name].folder) for name in models}
    for name, value in model.get_encoder().state_dict().items():
        assert torch.equal(value, own["one"].get_encoder().state_dict()[name]), name
    ids = torch.arange(3, 11).reshape(1, -1)
    assert model(input_ids=ids, decoder_input_ids=ids).logits.isfinite().all()
