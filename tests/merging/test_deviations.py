"""Where we differ from mergekit on purpose; docs/methods.md names every test in this file."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mergekit.merge_methods import merge_tensors
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from merging.building.build import build_into
from merging.checkpoints.checkpoint import Checkpoint
from merging.kernels.random_masks import MaskKey
from merging.methods.method_registry import Operands, combine
from merging.planning.merge_plan import PlanError, plan
from spaces.catalogue.method_catalogue import METHODS, Scope
from spaces.recipes.recipe import Recipe
from tests.tiny_configs import tiny_config

Build = Callable[..., dict[str, Tensor]]


@pytest.fixture
def models(tiny_family: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    """A family that a test may change."""
    return {name: shutil.copytree(at, tmp_path / name) for name, at in tiny_family.items()}


def change(folder: Path, edit: Callable[[dict[str, Tensor]], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


def ties(density: float, weight: float = 1.0) -> dict[str, Any]:
    return {
        "method": "ties",
        "base": "base",
        "sources": [{"of": "math"}, {"of": "code"}],
        "parameters": {"weight": weight, "density": density},
    }


def test_equal_magnitudes_keep_the_first(models: dict[str, Path], build: Build) -> None:
    """mergekit's sort is not stable: which of equal entries it keeps is chance."""
    norm = "model.norm.weight"
    change(models["base"], lambda t: t.update({norm: torch.zeros(32)}))
    for name in ("math", "code"):
        change(models[name], lambda t: t.update({norm: torch.ones(32)}))
    assert build(ties(0.25), models)[norm].tolist() == [1.0] * 8 + [0.0] * 24


def test_equal_magnitudes_agree_everywhere_else(
    tiny_model: Any, tiny_family: dict[str, Path], build: Build, mergekit: Build
) -> None:
    """In bfloat16 many deltas have one magnitude; away from the threshold we are mergekit."""
    base = tiny_model(base=tiny_family["base"], noise=0.0, dtype="bfloat16")
    models = {"base": base, "math": tiny_model(base=base, seed=1, dtype="bfloat16")}
    merge = {
        "method": "ties",
        "base": "base",
        "sources": [{"of": "math"}],
        "parameters": {"weight": 1.0, "density": 0.3},
    }
    ours, theirs = build(merge, models, dtype="float32"), mergekit(merge, models, dtype="float32")
    before, after = (load_file(models[name] / "model.safetensors") for name in ("base", "math"))
    for name, tensor in ours.items():
        delta = (after[name].float() - before[name].float()).abs()
        threshold = delta.flatten().sort(descending=True).values[int(0.3 * delta.numel()) - 1]
        differs = (tensor - theirs[name]).abs() > 1e-6
        assert bool((delta[differs] == threshold).all()), name


def test_tiny_density_keeps_one(
    tiny_family: dict[str, Path], build: Build, mergekit: Build
) -> None:
    """As mergekit since 0.1.5; before, it stopped with an assertion."""
    ours, theirs = build(ties(0.001), tiny_family), mergekit(ties(0.001), tiny_family)
    base = load_file(tiny_family["base"] / "model.safetensors")
    norm = "model.norm.weight"  # 32 entries: 0.001 of them is none
    assert 1 <= int((ours[norm] != base[norm]).sum()) <= 2
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], atol=1e-6, rtol=0)


def test_tied_output_has_no_head(tiny_model: Any, build: Build, mergekit: Build) -> None:
    """mergekit writes a head that no model with this config reads."""
    base = tiny_model(tied=True)
    untied = tiny_model(tied=False)
    merge = {
        "method": "linear",
        "sources": [{"of": "base"}, {"of": "math"}],
        "parameters": {"weight": 1.0},
    }
    models = {"base": base, "math": untied}
    assert "lm_head.weight" not in build(merge, models)
    assert "lm_head.weight" in mergekit(merge, models)
    assert "lm_head.weight" in build(merge, models, tokenizer="math")


def test_first_listed_gives_the_config(tiny_family: dict[str, Path]) -> None:
    """Without a base mergekit takes the config of any input: of a set's first."""
    checkpoints = {name: Checkpoint.open(str(at), name=name) for name, at in tiny_family.items()}
    for first, second in (("text", "code"), ("code", "text")):
        sources = [{"of": first}, {"of": second}]
        merge = {"method": "linear", "sources": sources, "parameters": {"weight": 1.0}}
        assert plan(Recipe.from_dict({"merge": merge}), checkpoints).donor == first


DARE = ties(0.5) | {"method": "dare_ties"}


def test_same_bits_in_every_process(tiny_family: dict[str, Path]) -> None:
    """Neither hash seeds nor global random state nor the number of threads have a say."""
    code = (
        "import json, random, sys, torch\n"
        "random.seed(); torch.seed()\n"
        "torch.set_num_threads(2)\n"
        "from merging.building.build import build_into\n"
        "from merging.checkpoints.checkpoint import Checkpoint\n"
        "from merging.planning.merge_plan import plan\n"
        "from spaces.recipes.recipe import Recipe\n"
        "merge, models = json.loads(sys.argv[1])\n"
        "opened = {n: Checkpoint.open(p, name=n) for n, p in models.items()}\n"
        "made = plan(Recipe.from_dict({'merge': merge}), opened)\n"
        "out = {job.name: torch.empty(job.shape, dtype=job.dtype) for job in made.jobs}\n"
        "print(build_into(made, opened, out))\n"
    )
    models = {name: str(path) for name, path in tiny_family.items()}
    run = subprocess.run(
        [sys.executable, "-c", code, json.dumps([DARE, models])],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "12345", "PATH": ""},
        cwd=Path(__file__).parents[2],
    )
    checkpoints = {name: Checkpoint.open(at, name=name) for name, at in models.items()}
    made = plan(Recipe.from_dict({"merge": DARE}), checkpoints)
    out = {job.name: torch.empty(job.shape, dtype=job.dtype) for job in made.jobs}
    assert run.stdout.strip() == build_into(made, checkpoints, out)


def test_masks_do_not_depend_on_numbers(tiny_family: dict[str, Path], build: Build) -> None:
    """Recipes that differ in numbers only drop the same entries; mergekit draws anew."""
    base = load_file(tiny_family["base"] / "model.safetensors")
    first = build(DARE, tiny_family)
    second = build(ties(0.5, weight=0.3) | {"method": "dare_ties"}, tiny_family)
    other = build(DARE, tiny_family, seed=1)
    name = "model.layers.2.mlp.up_proj.weight"
    assert torch.equal(first[name] != base[name], second[name] != base[name])
    assert not torch.equal(first[name] != base[name], other[name] != base[name])


def test_arithmetic_is_float32(tiny_model: Any, tiny_family: dict[str, Path], build: Build) -> None:
    """mergekit computes task vectors in ``dtype``; we in float32, whatever is read or written."""
    base = tiny_model(base=tiny_family["base"], noise=0.0, dtype="bfloat16")
    models = {"base": base} | {
        name: tiny_model(base=base, seed=seed, dtype="bfloat16")
        for seed, name in enumerate(("math", "code"))
    }
    made = build(ties(1.0, weight=0.3), models)
    read = {name: load_file(path / "model.safetensors") for name, path in models.items()}
    for name, tensor in made.items():
        first, second, start = (read[model][name].float() for model in ("math", "code", "base"))
        deltas = torch.stack((first - start, second - start)) * 0.3
        agree = deltas.sign() == torch.where(deltas.sum(0) >= 0, 1.0, -1.0)
        divisor = (agree * 0.3).sum(0)
        mixed = (deltas * agree).sum(0) / torch.where(divisor == 0, 1.0, divisor)
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor, (start + mixed).bfloat16())


@pytest.mark.parametrize("weights", [(0.5, -0.5), (0.1 + 0.2, -0.3), (0.0, 0.0)])
def test_linear_zero_sum_is_refused(
    weights: tuple[float, float], tiny_family: dict[str, Path]
) -> None:
    """mergekit divides by it and writes infinities."""
    checkpoints = {name: Checkpoint.open(str(at), name=name) for name, at in tiny_family.items()}
    sources = [
        {"of": name, "parameters": {"weight": [weight, 0.25]}}
        for name, weight in zip(("math", "code"), weights, strict=True)
    ]
    recipe = Recipe.from_dict({"merge": {"method": "linear", "sources": sources}})
    message = "linear: .*: expected weights that do not add up to 0"
    with pytest.raises(PlanError, match=message) as caught:
        plan(recipe, checkpoints)
    assert len(caught.value.problems) == 1


def test_recomputed_buffers_are_not_written(models: dict[str, Path], build: Build) -> None:
    """mergekit merges rotary frequencies and causal masks where a checkpoint stores them."""
    rotary = "model.layers.0.self_attn.rotary_emb.inv_freq"
    for path in models.values():
        change(path, lambda t: t.update({rotary: torch.ones(4)}))
    assert rotary not in build(ties(0.5), models)
    change(models["math"], lambda t: t.pop(rotary))  # and one that lacks them is no problem
    build(ties(0.5), models)


def test_last_slice_merges_all_its_inputs(
    tiny_family: dict[str, Path], build: Build, mergekit: Build
) -> None:
    """mergekit gives norm and head only as many inputs as the first slice has."""

    def part(*names: str, layers: list[int]) -> dict[str, Any]:
        return {"sources": [{"of": name, "layers": layers} for name in names]}

    merge = {
        "method": "linear",
        "slices": [part("math", layers=[0, 2]), part("math", "code", layers=[2, 4])],
        "parameters": {"weight": 1.0},
    }
    ours, theirs = build(merge, tiny_family), mergekit(merge, tiny_family)
    read = {name: load_file(path / "model.safetensors") for name, path in tiny_family.items()}
    norm = "model.norm.weight"
    mean = (read["math"][norm] + read["code"][norm]) / 2
    torch.testing.assert_close(ours[norm], mean)
    torch.testing.assert_close(theirs[norm], read["math"][norm])
    for name in ours.keys() - {norm, "lm_head.weight"}:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-6, rtol=0)


def test_per_layer_config_follows_the_layers(models: dict[str, Path]) -> None:
    """mergekit changes the number of layers and leaves lists such as layer_types as they were."""
    for path in models.values():
        config = json.loads((path / "config.json").read_text())
        config["layer_types"] = ["a", "b", "c", "d"]
        (path / "config.json").write_text(json.dumps(config))
    checkpoints = {name: Checkpoint.open(str(at), name=name) for name, at in models.items()}
    slices = [{"sources": [{"of": "math", "layers": at}]} for at in ([2, 4], [1, 2])]
    recipe = Recipe.from_dict({"merge": {"method": "passthrough", "slices": slices}})
    assert plan(recipe, checkpoints).config["layer_types"] == ["c", "d", "b"]


@pytest.mark.parametrize("family", ["gemma2", "smollm3"])
def test_what_follows_from_a_layers_number_moves_with_it(family: str, tmp_path: Path) -> None:
    """Of a config that states no list per layer, transformers makes one by the layers' numbers."""
    config = tiny_config(family)
    config.num_hidden_layers = 4
    kind = type(config)
    config = kind(**{**config.to_dict(), "layer_types": None, "no_rope_layers": None})
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "one")
    file = tmp_path / "one" / "config.json"
    lists = ("layer_types", "no_rope_layers")
    stated = {key: value for key, value in json.loads(file.read_text()).items() if key not in lists}
    file.write_text(json.dumps(stated))
    whole = kind(**stated).to_dict()
    key = next(key for key in lists if len(set(whole.get(key) or ())) > 1)
    checkpoints = {"one": Checkpoint.open(str(tmp_path / "one"), name="one")}
    for order, same in (([3, 1, 1], False), ([0, 1, 2, 3], True)):
        slices = [{"sources": [{"of": "one", "layers": [at, at + 1]}]} for at in order]
        recipe = Recipe.from_dict({"merge": {"method": "passthrough", "slices": slices}})
        made = plan(recipe, checkpoints).config
        assert kind(**made).to_dict()[key] == [whole[key][at] for at in order]
        assert (key not in made) is same


def test_modules_beside_the_model_may_be_missing(models: dict[str, Path], build: Build) -> None:
    """mergekit leaves such tensors out for classes it knows; we merge them over those with one."""
    change(models["base"], lambda t: t.update({"mtp.norm.weight": torch.ones(4)}))
    assert build(ties(0.5), models)["mtp.norm.weight"].tolist() == [1.0] * 4


@pytest.mark.parametrize("method", ["linear", "task_arithmetic"])
def test_experts_are_merged_one_by_one(
    method: str, tiny_model: Any, build: Build, mergekit: Build
) -> None:
    """mergekit merges all of a layer at once, by the names they have inside transformers."""
    base = tiny_model(family="mixtral")
    models = {"base": base, "math": tiny_model(base=base, seed=1)}
    head = {"base": "base"} if method == "task_arithmetic" else {}
    sources = [{"of": name} for name in models if name not in head.values()]
    merge = {"method": method, "sources": sources, "parameters": {"weight": 0.6}, **head}
    ours, theirs = build(merge, models), mergekit(merge, models)
    assert ours.keys() == load_file(base / "model.safetensors").keys()
    assert ours.keys() == theirs.keys()  # its folder, too, is read as the hub stores experts
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-6, rtol=0)


def combined(method: str, *inputs: Tensor, base: Tensor | None = None, **values: Any) -> Tensor:
    found = METHODS[method]
    given = {p.name: p.default for p in found.parameters if p.default is not None} | values
    each = {p.name for p in found.parameters if p.scope is Scope.INPUT}
    return combine(
        method,
        Operands(
            inputs=inputs,
            base=base,
            per_input={name: [given[name]] * len(inputs) for name in each},
            shared={name: value for name, value in given.items() if name not in each},
            masks=[MaskKey(seed=0, model=str(at), tensor="x") for at in range(len(inputs))],
        ),
    )


def test_opposite_inputs_do_not_pull() -> None:
    """Half a turn away any way is the shortest; mergekit's rounding errors choose one."""
    x = torch.randn(64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(combined("karcher", x, -x, x / 2), x * (1 + 1 + 0.5) / 3)
    assert torch.equal(combined("karcher", x, -x), x)


def test_no_mean_direction_is_the_weighted_sum() -> None:
    """mergekit stops with an error for three or more, as where a fine-tune left a tensor alone."""
    base = torch.ones(6)
    assert torch.equal(combined("multislerp", base, base, base, base=base, weight=0.5), base)
    with pytest.raises(ValueError, match="weighted sum of the input tensors is zero"):
        merge_tensors([base] * 4, "multislerp", parameters={"weight": 0.5}, base_index=0)


@pytest.mark.parametrize("method", ["multislerp", "linear"])
def test_multislerp_zero_sum_is_refused(method: str, tiny_family: dict[str, Path]) -> None:
    """mergekit divides by it and writes NaN."""
    checkpoints = {name: Checkpoint.open(str(at), name=name) for name, at in tiny_family.items()}
    sources = [
        {"of": name, "parameters": {"weight": weight}}
        for name, weight in (("math", 0.5), ("code", -0.5))
    ]
    recipe = Recipe.from_dict({"merge": {"method": method, "sources": sources}})
    with pytest.raises(PlanError, match=f"{method}: .*: expected weights that do not add up to 0"):
        plan(recipe, checkpoints)


def test_della_density_and_epsilon_are_checked_before(tiny_family: dict[str, Path]) -> None:
    """mergekit finds out when it comes to the tensor."""
    checkpoints = {name: Checkpoint.open(str(at), name=name) for name, at in tiny_family.items()}
    for density, legal in ((0.1, False), (0.15, False), (0.16, True), (0.86, False), (1.0, True)):
        merge = ties(density) | {"method": "della"}
        if legal:
            plan(Recipe.from_dict({"merge": merge}), checkpoints)
            continue
        with pytest.raises(PlanError, match="expected a density of 1, or between epsilon and 1 -"):
            plan(Recipe.from_dict({"merge": merge}), checkpoints)


def test_the_only_entry_of_a_row_is_kept_with_the_density() -> None:
    """mergekit divides by the number of other entries, which is 0."""
    column = torch.ones(4096, 1)
    values = {"weight": 1.0, "density": 0.7, "epsilon": 0.2, "rescale": False}
    kept = combined("della_linear", column, base=torch.zeros_like(column), **values)
    assert abs(float(kept.mean()) - 0.7) < 4 * (0.7 * 0.3 / 4096) ** 0.5
    with pytest.raises(RuntimeError):
        merge_tensors(
            [torch.zeros_like(column), column], "della_linear", parameters=values, base_index=0
        )


def test_equal_entries_rank_by_index() -> None:
    """mergekit's sort is not stable: which of equal entries ranks higher is chance."""
    row = torch.ones(1 << 16)
    values = {"weight": 1.0, "density": 0.5, "epsilon": 0.4, "rescale": False}
    kept = combined("della_linear", row, base=torch.zeros_like(row), **values)
    first, last = kept.view(2, -1).mean(dim=1).tolist()
    assert (first, last) == pytest.approx((0.3, 0.7), abs=0.01)


def test_quartiles_are_those_of_all_entries() -> None:
    """mergekit takes them from a million entries drawn at random, in arithmetic of ``dtype``."""
    noise = torch.Generator().manual_seed(0)
    base = torch.randn(1100, 1000, generator=noise)
    other = base + torch.randn(1100, 1000, generator=noise) * 0.1
    made = combined("arcee_fusion", base, other)
    p, q = (x.double().softmax(dim=1) + 1e-8 for x in (other, base))
    score = (other - base).abs().double() * (p * (p / q).log()).sum(dim=1, keepdim=True)
    ordered = score.flatten().sort().values
    low, median, high = (float(ordered[(len(ordered) - 1) * part // 4]) for part in (1, 2, 3))
    limit = median + 1.5 * (high - low)
    certain = (score / limit - 1).abs() > 1e-6
    assert torch.equal((made != base)[certain], (score >= limit)[certain])
    assert int((~certain).sum()) < 10


def test_model_stock_of_one_input_keeps_the_base(models: dict[str, Path], build: Build) -> None:
    """mergekit leaves a tensor out that the base and only one other model have."""
    name = "mtp.norm.weight"
    change(models["base"], lambda t: t.update({name: torch.zeros(4)}))
    change(models["math"], lambda t: t.update({name: torch.ones(4)}))
    sources = [{"of": "math"}, {"of": "code"}]
    merge = {"method": "model_stock", "base": "base", "sources": sources}
    assert build(merge, models)[name].tolist() == [0.0] * 4


@pytest.mark.parametrize("method", ["nuslerp", "nearswap", "arcee_fusion", "slerp"])
def test_what_one_of_two_inputs_has_is_taken(
    method: str, models: dict[str, Path], build: Build
) -> None:
    """mergekit too, but for nuslerp with a base and nearswap, where it is an error."""
    name = "mtp.norm.weight"
    for model in ("base", "math"):
        change(models[model], lambda t: t.update({name: torch.arange(4.0)}))
    values = {"nuslerp": {"weight": 1.0}, "nearswap": {"t": 0.1}, "slerp": {"t": 0.3}}
    merge = {
        "method": method,
        "base": "base" if method == "nuslerp" else "math",
        "sources": [{"of": "math"}, {"of": "code"}],
        "parameters": values.get(method, {}),
    }
    assert build(merge, models)[name].tolist() == [0.0, 1.0, 2.0, 3.0]


def test_every_deviation_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+)`", text))
    tests = {name for name in globals() if name.startswith("test_")}
    assert named == tests - {"test_every_deviation_is_documented"}
