"""The resident model is the one that transformers would load from disk, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from evaluators.resident_models.resident_model import ResidentModel, choose_device
from evaluators.resident_models.skeleton import ResidentError, Skeleton
from merging.building.build import build_into, write_model
from merging.checkpoints.checkpoint import Checkpoint
from merging.planning.merge_plan import MergePlan, plan
from spaces.recipes.recipe import Merge, Model, Recipe, Slice, Source, parameters

CPU = torch.device("cpu")


def mixed(dtype: str | None = None) -> Recipe:
    sources = tuple(
        Source(of=Model(name), parameters=parameters(weight=weight))
        for name, weight in (("one", 0.3), ("two", 0.7))
    )
    return Recipe(root=Merge(method="linear", sources=sources), dtype=dtype)


def opened(**folders: Path) -> dict[str, Checkpoint]:
    return {name: Checkpoint.open(str(folder), name=name) for name, folder in folders.items()}


def fill(
    resident: ResidentModel, planned: MergePlan, checkpoints: dict[str, Checkpoint]
) -> Skeleton:
    skeleton = resident.skeleton(planned, checkpoints[planned.donor].folder)
    build_into(planned, checkpoints, skeleton.targets(planned.jobs))
    skeleton.settle()
    return skeleton


def logits(model: Any) -> torch.Tensor:
    ids = torch.randint(0, 20, (3, 17), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        return torch.as_tensor(model(ids).logits)


FAMILIES = [
    ("llama", False), ("llama", True), ("qwen2", False), ("qwen3", True), ("mistral", False),
    ("gemma", True), ("gpt_neox", False), ("gpt2", True),
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("family", "tied"), FAMILIES)
def test_same_as_from_pretrained(
    tiny_model: Any, tmp_path: Path, family: str, tied: bool, dtype: str
) -> None:
    one = tiny_model(family=family, tied=tied, dtype=dtype)
    checkpoints = opened(one=one, two=tiny_model(base=one, seed=3, noise=0.3, dtype=dtype))
    planned = plan(mixed(), checkpoints)
    write_model(planned, checkpoints, tmp_path / "out")
    expected = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    before = torch.get_rng_state()
    model = fill(ResidentModel(device=CPU), planned, checkpoints).model
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(logits(model), logits(expected))
    assert model.dtype == expected.dtype == getattr(torch, dtype)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    ids = torch.tensor([[5, 6, 7]])
    settings = {"max_new_tokens": 8, "do_sample": False, "attention_mask": torch.ones_like(ids)}
    assert torch.equal(model.generate(ids, **settings), expected.generate(ids, **settings))
    tied_now = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert tied_now is tied


def test_depth_and_dtype_get_skeletons_of_their_own(tiny_model: Any, tmp_path: Path) -> None:
    one = tiny_model(layers=4)
    checkpoints = opened(one=one, two=tiny_model(base=one, seed=1))
    slices = tuple(
        Slice(sources=(Source(of=Model(name), layers=layers),))
        for name, layers in (("one", (0, 3)), ("two", (1, 4)))
    )
    deep = Recipe(root=Merge(method="passthrough", slices=slices))
    resident = ResidentModel(device=CPU)
    plans = [plan(recipe, checkpoints) for recipe in (mixed(), deep, mixed("float16"))]
    skeletons = [fill(resident, planned, checkpoints) for planned in plans]
    assert len({id(skeleton) for skeleton in skeletons}) == 3
    assert [s.model.config.num_hidden_layers for s in skeletons] == [4, 6, 4]
    for number, planned in enumerate(plans):
        write_model(planned, checkpoints, tmp_path / str(number))
        expected = AutoModelForCausalLM.from_pretrained(tmp_path / str(number), dtype="auto")
        skeleton = fill(resident, planned, checkpoints)
        assert skeleton is skeletons[number]
        assert torch.equal(logits(skeleton.model), logits(expected))


def test_other_configs_share_the_weights(tiny_model: Any) -> None:
    one = tiny_model(layers=3)
    two = tiny_model(base=one, seed=1)
    config = json.loads((two / "config.json").read_text())
    config["rope_parameters"]["rope_theta"] = 5.0
    (two / "config.json").write_text(json.dumps(config))
    checkpoints = opened(one=one, two=two)
    resident = ResidentModel(device=CPU)

    def alone(name: str) -> Skeleton:
        sources = (Source(of=Model(name), parameters=parameters(weight=1.0)),)
        recipe = Recipe(root=Merge(method="linear", sources=sources))
        return fill(resident, plan(recipe, checkpoints), checkpoints)

    def places(skeleton: Skeleton) -> list[int]:
        return [one.data_ptr() for one in skeleton.model.parameters()]

    first = alone("one")
    second = alone("two")
    assert second is not first
    assert places(second) == places(first)  # no memory of its own
    for name, folder in (("one", one), ("two", two), ("one", one)):
        expected = AutoModelForCausalLM.from_pretrained(folder)
        assert torch.equal(logits(alone(name).model), logits(expected))
    assert alone("one") is first


def test_only_a_few_are_kept(tiny_model: Any) -> None:
    one = tiny_model(layers=6)
    checkpoints = opened(one=one)
    resident = ResidentModel(device=CPU)

    def layers(count: int) -> MergePlan:
        part = Slice(sources=(Source(of=Model("one"), layers=(0, count)),))
        return plan(Recipe(root=Merge(method="passthrough", slices=(part,))), checkpoints)

    first = resident.skeleton(layers(1), one)
    for count in (2, 3, 4):
        resident.skeleton(layers(count), one)
    assert resident.skeleton(layers(1), one) is first  # the fourth, and now the newest
    for count in (5, 6, 2):
        resident.skeleton(layers(count), one)
    assert resident.skeleton(layers(1), one) is first
    for count in (3, 4, 5, 6):
        resident.skeleton(layers(count), one)
    assert resident.skeleton(layers(1), one) is not first
    resident.close()
    resident.close()


def test_checkpoint_with_other_dtypes_inside(tiny_model: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    one = tiny_model(dtype="bfloat16")
    tensors = load_file(one / "model.safetensors")
    tensors = {k: v.float() + 1e-4 if "norm" in k else v for k, v in tensors.items()}
    save_file(tensors, one / "model.safetensors", metadata={"format": "pt"})
    checkpoints = opened(one=one, two=one)
    planned = plan(mixed(), checkpoints)
    write_model(planned, checkpoints, tmp_path / "out")
    expected = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    model = fill(ResidentModel(device=CPU), planned, checkpoints).model
    assert torch.equal(logits(model), logits(expected))


def test_broken_logits_are_noticed(tiny_model: Any) -> None:
    one = tiny_model()
    checkpoints = opened(one=one, two=one)
    planned = plan(mixed(), checkpoints)
    resident = ResidentModel(device=CPU)
    skeleton = fill(resident, planned, checkpoints)
    logits(skeleton.model)
    assert not skeleton.broken
    skeleton.model.get_output_embeddings().weight.fill_(float("nan"))
    logits(skeleton.model)
    assert skeleton.broken
    assert not fill(resident, planned, checkpoints).broken


def test_config_that_does_not_match_the_tensors(tiny_model: Any) -> None:
    one = tiny_model(family="gpt2")
    config = json.loads((one / "config.json").read_text())
    (one / "config.json").write_text(json.dumps(config | {"n_inner": 24}))
    checkpoints = opened(one=one, two=one)
    planned = plan(mixed(), checkpoints)
    skeleton = ResidentModel(device=CPU).skeleton(planned, one)
    with pytest.raises(ResidentError, match=r"mlp\.c_fc\.weight: expected the shape \(32, 24\)"):
        skeleton.targets(planned.jobs)


def test_unknown_architecture(tiny_model: Any) -> None:
    one = tiny_model()
    config = json.loads((one / "config.json").read_text())
    (one / "config.json").write_text(json.dumps(config | {"model_type": "abacus"}))
    checkpoints = opened(one=one, two=one)
    with pytest.raises(ResidentError, match=r"model one: transformers cannot make it: .*abacus"):
        ResidentModel(device=CPU).skeleton(plan(mixed(), checkpoints), one)


def test_devices() -> None:
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ResidentError, match="device: expected cpu, cuda or auto, got 'abacus'"):
        choose_device("abacus")
    if not torch.cuda.is_available():
        with pytest.raises(ResidentError, match="got 'cuda' without a GPU"):
            choose_device("cuda")


def test_depths_in_turn_read_no_weights_and_generate_as_if_loaded(
    tiny_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Merged and stacked candidates of one space: the layers, their caches and the config fit."""
    one = tiny_model(layers=4)
    checkpoints = opened(one=one, two=tiny_model(base=one, seed=1, noise=0.3))

    def stacked(*parts: tuple[str, int, int]) -> MergePlan:
        slices = tuple(
            Slice(sources=(Source(of=Model(name), layers=(first, stop)),))
            for name, first, stop in parts
        )
        return plan(Recipe(root=Merge(method="passthrough", slices=slices)), checkpoints)

    plans = [
        plan(mixed(), checkpoints),
        stacked(("one", 0, 3), ("two", 1, 4)),
        stacked(("two", 0, 1), ("one", 3, 4)),
    ]
    ids = torch.tensor([[5, 6, 7, 8]])
    settings = {"max_new_tokens": 10, "do_sample": False, "attention_mask": torch.ones_like(ids)}
    expected = []
    for number, planned in enumerate(plans):
        write_model(planned, checkpoints, tmp_path / str(number))
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path / str(number), dtype="auto")
        expected.append(loaded.generate(ids, **settings))

    def refused(*args: Any, **options: Any) -> Any:
        raise AssertionError("a model was loaded from disk")

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", refused)
    resident = ResidentModel(device=CPU)
    for number in (0, 1, 2, 1, 0, 2):
        skeleton = fill(resident, plans[number], checkpoints)
        assert torch.equal(skeleton.model.generate(ids, **settings), expected[number])
        layers = skeleton.model.model.layers
        assert [layer.self_attn.layer_idx for layer in layers] == list(range(len(layers)))
