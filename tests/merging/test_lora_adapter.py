"""LoRA adapters as parents, held against what ``peft`` itself makes of them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

from merging.building.build import tensors, write_model
from merging.building.fingerprint import fingerprint_checkpoint
from merging.checkpoints.checkpoint import Checkpoint, CheckpointError
from merging.planning.merge_plan import plan
from merging.tensor_statistics.statistics_cache import StatisticsCache
from spaces.mergekit import from_yaml, to_yaml
from spaces.recipes.recipe import Recipe

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")

LLAMA = ["q_proj", "v_proj", "down_proj"]
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("llama", {"target_modules": LLAMA}),
    "rslora": ("llama", {"target_modules": LLAMA, "use_rslora": True, "lora_alpha": 5}),
    "patterns": (
        "llama",
        {
            "target_modules": LLAMA,
            "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.down_proj": 6},
            "alpha_pattern": {r"layers\.0\.self_attn\.v_proj": 3, "down_proj": 20},
        },
    ),
    "head whole": ("llama", {"target_modules": LLAMA, "modules_to_save": ["lm_head"]}),
    "embeddings": ("llama", {"target_modules": ["q_proj", "embed_tokens", "lm_head"]}),
    "dora": ("llama", {"target_modules": LLAMA, "use_dora": True}),
    "dora embeddings": ("llama", {"target_modules": ["embed_tokens"], "use_dora": True}),
    "qwen biases": ("qwen2", {"target_modules": LLAMA, "bias": "lora_only"}),
    "qwen all biases": ("qwen2", {"target_modules": ["o_proj"], "bias": "all"}),
    "conv1d": ("gpt2", {"target_modules": ["c_attn", "c_proj", "wte"]}),
    "conv1d dora": ("gpt2", {"target_modules": ["c_attn", "c_proj"], "use_dora": True}),
    "conv1d bias": ("gpt2", {"target_modules": ["c_fc"], "lora_bias": True}),
}


def train(base: Path, folder: Path, **config: Any) -> dict[str, Tensor]:
    """Save an adapter with random weights; what peft merges it to comes back, by tensor name."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base)
    torch.manual_seed(3)
    settings = {"r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM", **config}
    peft = get_peft_model(model, LoraConfig(**settings))
    with torch.no_grad():  # the second factor starts at zero; biases and copies as they were
        for parameter in peft.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    peft.save_pretrained(str(folder))
    return dict(peft.merge_and_unload().state_dict())


def opened(base: Path, adapter: Path) -> Checkpoint:
    return Checkpoint.open(f"{base}+{adapter}", name="tuned")


@pytest.mark.parametrize("case", CASES)
def test_as_peft_merges_it(case: str, tiny_model: Any, tmp_path: Path) -> None:
    family, config = CASES[case]
    base = tiny_model(family=family)
    expected = train(base, tmp_path / "lora", **config)
    checkpoint = opened(base, tmp_path / "lora")
    plain = Checkpoint.open(str(base), name="base")
    assert checkpoint.changes
    changed = set()
    for name in checkpoint.tensors:
        got = checkpoint.tensor(name)
        info = checkpoint.tensors[name]
        assert (got.dtype, tuple(got.shape)) == (info.dtype, info.shape)
        torch.testing.assert_close(got, expected[name], rtol=1e-6, atol=1e-6)
        if not torch.equal(got, plain.tensor(name)):
            changed.add(name)
    assert changed == set(checkpoint.changes)


def test_a_root_that_the_model_is_stored_without(tiny_model: Any, tmp_path: Path) -> None:
    """GPT-2 on the hub stores ``h.0``; an adapter for it says ``transformer.h.0``."""
    base = tiny_model(family="gpt2")
    expected = train(base, tmp_path / "lora", target_modules=["c_attn"])
    stored = load_file(base / "model.safetensors")
    short = {name.removeprefix("transformer."): tensor for name, tensor in stored.items()}
    save_file(short, base / "model.safetensors")
    checkpoint = opened(base, tmp_path / "lora")
    name = "h.0.attn.c_attn.weight"
    torch.testing.assert_close(checkpoint.tensor(name), expected[f"transformer.{name}"])


def test_dtype_is_the_models(tiny_model: Any, tmp_path: Path) -> None:
    """float32 factors on bfloat16 weights: computed in float32, rounded once."""
    base = tiny_model(dtype="bfloat16")
    train(base, tmp_path / "lora", target_modules=LLAMA, modules_to_save=["lm_head"])
    checkpoint = opened(base, tmp_path / "lora")
    assert {checkpoint.tensor(name).dtype for name in checkpoint.tensors} == {torch.bfloat16}
    name = "model.layers.0.self_attn.q_proj"
    low = load_file(tmp_path / "lora" / "adapter_model.safetensors")
    a, b = (low[f"base_model.model.{name}.lora_{side}.weight"].float() for side in "AB")
    plain = Checkpoint.open(str(base), name="base").tensor(f"{name}.weight")
    exact = (plain.float() + 2.0 * (b @ a)).bfloat16()
    assert torch.equal(checkpoint.tensor(f"{name}.weight"), exact)


def test_head_of_its_own_on_a_tied_model(tiny_model: Any, tmp_path: Path) -> None:
    """Training the head alone unties it: the embeddings stay."""
    base = tiny_model(tied=True)
    untied = tiny_model(tmp_path / "untied", base=base, noise=0.0)
    config = json.loads((untied / "config.json").read_text())
    (untied / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    weights = load_file(untied / "model.safetensors")
    embedding = weights["model.embed_tokens.weight"]
    save_file(weights | {"lm_head.weight": embedding.clone()}, untied / "model.safetensors")
    expected = train(untied, tmp_path / "lora", target_modules=["lm_head"])
    checkpoint = opened(base, tmp_path / "lora")
    assert not checkpoint.tied
    torch.testing.assert_close(checkpoint.tensor("lm_head.weight"), expected["lm_head.weight"])
    assert torch.equal(checkpoint.tensor("model.embed_tokens.weight"), embedding)
    made = plan(Recipe.from_dict(alone("tuned")), {"tuned": checkpoint})
    assert made.config["tie_word_embeddings"] is False
    assert "lm_head.weight" in {job.name for job in made.jobs}


def test_grown_vocabulary(tiny_model: Any, tmp_path: Path) -> None:
    """Embeddings saved whole may have more rows than the model's; the config follows."""
    base = tiny_model()
    train(
        base, tmp_path / "lora", modules_to_save=["embed_tokens", "lm_head"], target_modules=LLAMA
    )
    file = tmp_path / "lora" / "adapter_model.safetensors"
    stored = load_file(file)
    for name, tensor in stored.items():
        if "lora_" not in name:
            stored[name] = torch.cat([tensor, tensor[:2]])
    save_file(stored, file)
    checkpoint = opened(base, tmp_path / "lora")
    rows = Checkpoint.open(str(base), name="base").config["vocab_size"] + 2
    assert checkpoint.config["vocab_size"] == rows
    assert checkpoint.tensor("lm_head.weight").shape[0] == rows


LIVE: dict[str, tuple[bool, int, dict[str, Any]]] = {
    "saved, two tokens more": (False, 2, {"modules_to_save": ["embed_tokens", "lm_head"]}),
    "saved, tied, two tokens more": (True, 2, {"modules_to_save": ["embed_tokens"]}),
    "saved, tied": (True, 0, {"modules_to_save": ["embed_tokens"]}),
    "both saved, tied": (True, 0, {"modules_to_save": ["embed_tokens", "lm_head"]}),
    "low rank, tied": (True, 0, {"target_modules": ["q_proj", "embed_tokens"]}),
    "rows": (False, 0, {"trainable_token_indices": [3, 7]}),
    "rows by name": (False, 0, {"trainable_token_indices": {"embed_tokens": [7, 3, 5]}}),
    "rows, tied": (True, 0, {"trainable_token_indices": [3, 7]}),
    "rows, two tokens more": (False, 2, {"trainable_token_indices": [3, -2]}),
    "rows, tied, two tokens more": (True, 2, {"trainable_token_indices": [3, -2]}),
}
"""Whether the head is tied, tokens more than the base has, and the adapter's config."""


@pytest.mark.parametrize("case", LIVE)
def test_as_the_adapter_says_it(case: str, tiny_model: Any, tmp_path: Path) -> None:
    """Held against the live adapter: what was trained, and what peft loads."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    tied, more, config = LIVE[case]
    base = tiny_model(tied=tied)
    model = AutoModelForCausalLM.from_pretrained(base)
    rows = model.get_input_embeddings().weight.shape[0] + more
    if isinstance(indices := config.get("trainable_token_indices"), list):
        config = config | {"trainable_token_indices": [n % rows for n in indices]}
    torch.manual_seed(3)
    if more:
        model.resize_token_embeddings(rows, mean_resizing=False)
    live = get_peft_model(model, LoraConfig(r=4, **{"target_modules": ["q_proj"], **config}))
    with torch.no_grad():
        for parameter in live.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    live.save_pretrained(str(tmp_path / "lora"))
    models = {"tuned": opened(base, tmp_path / "lora")}
    write_model(plan(Recipe.from_dict(alone("tuned")), models), models, tmp_path / "out")
    built = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    ids = torch.tensor([[3, 5, 7, 9, rows - 1, rows - 2]])
    with torch.no_grad():
        expected, got = live.eval()(ids).logits, built(ids).logits
    assert got.shape == expected.shape == (1, 6, rows)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    assert built.config.tie_word_embeddings is (tied and case.startswith("rows, tied"))


def test_rows_that_do_not_fit(tiny_model: Any, tmp_path: Path) -> None:
    base = tiny_model()
    train(base, tmp_path / "lora", target_modules=LLAMA, trainable_token_indices=[1, 2])
    file = tmp_path / "lora" / "adapter_config.json"
    config = json.loads(file.read_text())
    for indices in ([1], [1, 9999]):
        file.write_text(json.dumps(config | {"trainable_token_indices": indices}))
        found = problem_of(base, tmp_path / "lora")
        assert "trainable_tokens_delta: expected rows for the" in found


def alone(name: str) -> dict[str, Any]:
    return {"merge": {"method": "passthrough", "sources": [{"of": name}]}}


def test_merged_with_others_as_if_saved_first(tiny_model: Any, tmp_path: Path) -> None:
    """``base+adapter`` in a recipe gives the weights that its merged copy on disk gives."""
    base = tiny_model()
    other = tiny_model(base=base, seed=4)
    train(base, tmp_path / "lora", target_modules=LLAMA)
    tuned = opened(base, tmp_path / "lora")
    write_model(
        plan(Recipe.from_dict(alone("tuned")), {"tuned": tuned}), {"tuned": tuned}, tmp_path / "one"
    )
    sources = [{"of": n, "parameters": {"weight": 0.5, "density": 0.6}} for n in ("tuned", "other")]
    recipe = Recipe.from_dict({"merge": {"method": "ties", "sources": sources, "base": "base"}})
    prints = []
    for number, location in enumerate((f"{base}+{tmp_path / 'lora'}", str(tmp_path / "one"))):
        models = {
            "base": Checkpoint.open(str(base), name="base"),
            "other": Checkpoint.open(str(other), name="other"),
            "tuned": Checkpoint.open(location, name="tuned"),
        }
        out = tmp_path / f"out{number}"
        prints.append(write_model(plan(recipe, models), models, out))
        assert fingerprint_checkpoint(Checkpoint.open(str(out), name="x")) == prints[-1]
    assert prints[0] == prints[1]


def test_as_mergekit(tiny_model: Any, tmp_path: Path) -> None:
    """Through the YAML that we export: mergekit merges the adapter to disk first."""
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    base = tiny_model()
    places = {"base": str(base), "other": str(tiny_model(base=base, seed=4))}
    train(base, tmp_path / "lora", target_modules=LLAMA, use_rslora=True)
    places["tuned"] = f"{base}+{tmp_path / 'lora'}"
    sources = [{"of": n, "parameters": {"weight": 0.7, "density": 0.6}} for n in ("tuned", "other")]
    recipe = Recipe.from_dict({"merge": {"method": "ties", "sources": sources, "base": "base"}})
    text = to_yaml(recipe, places)
    assert from_yaml(text).locations == places
    options = MergeOptions(quiet=True, device="cpu", lora_merge_cache=str(tmp_path / "cache"))
    config = MergeConfiguration.model_validate(yaml.safe_load(text))
    run_merge(config, str(tmp_path / "theirs"), options)
    models = {name: Checkpoint.open(place, name=name) for name, place in places.items()}
    expected = load_file(tmp_path / "theirs" / "model.safetensors")
    made = dict(tensors(plan(recipe, models), models))
    assert made.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(made[name], tensor, rtol=1e-6, atol=1e-6)


def test_input_hash_covers_the_adapter(tiny_model: Any, tmp_path: Path) -> None:
    base = tiny_model()
    train(base, tmp_path / "lora", target_modules=LLAMA)
    hashes = {
        Checkpoint.open(str(base), name="x").input_hash,
        opened(base, tmp_path / "lora").input_hash,
    }
    config = tmp_path / "lora" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"lora_alpha": 1}))
    hashes.add(opened(base, tmp_path / "lora").input_hash)
    file = tmp_path / "lora" / "adapter_model.safetensors"
    save_file({name: 2 * tensor for name, tensor in load_file(file).items()}, file)
    hashes.add(opened(base, tmp_path / "lora").input_hash)
    assert len(hashes) == 4


def test_tokenizer_of_the_adapter(tiny_model: Any, tmp_path: Path) -> None:
    base = tiny_model()
    train(base, tmp_path / "lora", target_modules=LLAMA)
    assert opened(base, tmp_path / "lora").tokenizer_folder == base
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(base / file, tmp_path / "lora")
    assert opened(base, tmp_path / "lora").tokenizer_folder == tmp_path / "lora"


@pytest.fixture(scope="module")
def small(tiny_model: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    base = tiny_model()
    folder = tmp_path_factory.mktemp("adapter") / "lora"
    train(base, folder, target_modules=LLAMA)
    return base, folder


def problem_of(base: Path, adapter: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        opened(base, adapter)
    assert len(caught.value.problems) == 1, caught.value.problems
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "LOHA"}, "peft_type: expected LORA, got 'LOHA'"),
        ({"peft_type": None}, "peft_type: expected LORA, got None"),
        ({"target_parameters": ["w"]}, r"target_parameters: expected none.*got \['w'\]"),
        ({"layer_replication": [[0, 2]]}, "layer_replication: expected none"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights: expected.*'pissa_niter_4'"),
    ],
)
def test_refused_configs(
    change: dict[str, Any], message: str, small: tuple[Path, Path], tmp_path: Path
) -> None:
    adapter = shutil.copytree(small[1], tmp_path / "lora")
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    found = problem_of(small[0], adapter)
    assert re.search(f"adapter_config.json: {message}", found), found


def test_refused_weights(small: tuple[Path, Path], tiny_model: Any, tmp_path: Path) -> None:
    base, lora = small
    wide = problem_of(tiny_model(hidden=64), lora)
    assert re.search(r"lora_A.weight: expected factors for \[64, 128\].*, got \[32, 64\]", wide)
    assert "and 5 more tensors" in wide
    other = problem_of(tiny_model(family="gpt2"), lora)
    assert re.search("lora_A.weight: expected a tensor of the model, got another name", other)
    half = shutil.copytree(lora, tmp_path / "half")
    stored = load_file(half / "adapter_model.safetensors")
    save_file({k: v for k, v in stored.items() if "0.self_attn.q_proj.lora_B" not in k},
              half / "adapter_model.safetensors")  # fmt: skip
    assert "expected lora_A and lora_B, got one without the other" in problem_of(base, half)
    file = half / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    assert "cut off" in problem_of(base, half)
    file.unlink()
    assert "adapter_model.safetensors: cannot be read (No such file" in problem_of(base, half)
    (half / "adapter_model.bin").write_bytes(b"")
    assert "pickled weights can run code" in problem_of(base, half)


def test_refused_locations(small: tuple[Path, Path], tmp_path: Path) -> None:
    base, lora = small
    with pytest.raises(CheckpointError, match=rf"got an adapter alone; give {base}\+{lora}"):
        Checkpoint.open(str(lora), name="x")
    with pytest.raises(CheckpointError, match=r"adapter_config\.json: missing"):
        opened(base, base)
    with pytest.raises(CheckpointError, match="expected one adapter, got 2"):
        Checkpoint.open(f"{base}+a/b+c/d", name="x")
    with pytest.raises(CheckpointError, match=r"expected a model and an adapter around the \+"):
        Checkpoint.open(f"{base}+", name="x")
    plus = shutil.copytree(base, tmp_path / "a+b")
    assert Checkpoint.open(str(plus), name="x").adapter is None
    assert Checkpoint.open(f"{plus}+{lora}", name="x").adapter is not None


def test_both_from_the_hubs_cache(
    small: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    commit = "0123456789abcdef0123456789abcdef01234567"
    for name, folder in zip(("tiny", "lora"), small, strict=True):
        entry = tmp_path / "cache" / f"models--someone--{name}"
        shutil.copytree(folder, entry / "snapshots" / commit)
        (entry / "refs").mkdir()
        (entry / "refs" / "main").write_text(commit)
    checkpoint = Checkpoint.open(f"someone/tiny@main+someone/lora@{commit}", name="x")
    assert checkpoint.input_hash == opened(*small).input_hash
    with pytest.raises(CheckpointError, match=r"someone/nothing: .* not in the hub's cache"):
        Checkpoint.open("someone/tiny+someone/nothing", name="x")


def test_changed_tensors_are_kept_in_the_folder(tiny_model: Any, tmp_path: Path) -> None:
    base = tiny_model(dtype="bfloat16")
    train(base, tmp_path / "lora", target_modules=LLAMA)
    checkpoints = {"tuned": opened(base, tmp_path / "lora")}
    merge = {"method": "passthrough", "sources": [{"of": "tuned"}]}
    planned = plan(Recipe.from_dict({"merge": merge}), checkpoints)
    expected = dict(tensors(planned, checkpoints))
    for again in (False, True):
        store = StatisticsCache(tmp_path / "statistics")
        found = dict(tensors(planned, checkpoints, statistics=store))
        assert store.computed == (0 if again else len(checkpoints["tuned"].changes))
        for name, tensor in expected.items():
            assert torch.equal(found[name], tensor), name
