"""Building: the same weights in a resident model, as a stream and on disk; or nothing at all."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from merging.building import model_writer
from merging.building.build import build_into, tensors, write_model
from merging.building.fingerprint import fingerprint_checkpoint, seal, seals, tensor_hash
from merging.building.output_checks import BuildError, NonFiniteError
from merging.checkpoints.checkpoint import Checkpoint
from merging.planning.merge_plan import MergePlan, plan
from spaces.recipes.recipe import Merge, Model, Recipe, Source

DARE = {
    "method": "dare_ties",
    "base": "base",
    "sources": [{"of": "math"}, {"of": "code"}],
    "parameters": {"weight": 0.7, "density": 0.5},
}
TREE = {
    "method": "slerp",
    "base": DARE,
    "sources": [{"of": DARE}, {"of": "text"}],
    "parameters": {"t": [0.2, 0.6]},
}


def opened(models: Mapping[str, Path]) -> dict[str, Checkpoint]:
    return {name: Checkpoint.open(str(path), name=name) for name, path in models.items()}


def planned(merge: Any, checkpoints: Mapping[str, Checkpoint], **recipe: Any) -> MergePlan:
    return plan(Recipe.from_dict({"merge": merge, **recipe}), checkpoints)


def empty_targets(made: MergePlan) -> dict[str, Tensor]:
    return {job.name: torch.full(job.shape, 7, dtype=job.dtype) for job in made.jobs}


@pytest.fixture
def models(tiny_family: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    """A family that a test may break."""
    return {name: shutil.copytree(at, tmp_path / name) for name, at in tiny_family.items()}


@pytest.fixture(scope="module")
def checkpoints(tiny_family: dict[str, Path]) -> dict[str, Checkpoint]:
    return opened(tiny_family)


@pytest.fixture
def threads() -> Iterator[Any]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("merge", [DARE, TREE], ids=["dare", "tree"])
def test_one_fingerprint_everywhere(
    merge: Any, dtype: str, checkpoints: dict[str, Checkpoint], tmp_path: Path, threads: Any
) -> None:
    made = planned(merge, checkpoints, dtype=dtype)
    targets = empty_targets(made)
    expected = build_into(made, checkpoints, targets)
    assert len(expected) == 32
    for chunk in (1, 4096, 10**6):
        assert build_into(made, checkpoints, empty_targets(made), chunk=chunk) == expected
    threads(2)
    assert build_into(made, checkpoints, empty_targets(made)) == expected
    out = tmp_path / "out"
    assert write_model(made, checkpoints, out, max_shard_bytes=30_000) == expected
    written = Checkpoint.open(str(out), name="out")
    assert fingerprint_checkpoint(written) == expected
    for name, tensor in tensors(made, checkpoints):
        assert torch.equal(tensor, targets[name])
        assert torch.equal(tensor, written.tensor(name))


def test_other_weights_other_fingerprint(checkpoints: dict[str, Checkpoint]) -> None:
    prints = set()
    for merge, seed in ((DARE, 0), (DARE, 1), (TREE, 0)):
        made = planned(merge, checkpoints, seed=seed)
        prints.add(build_into(made, checkpoints, empty_targets(made)))
    assert len(prints) == 3


def test_fingerprint_of_a_parent(
    checkpoints: dict[str, Checkpoint], tiny_family: dict[str, Path]
) -> None:
    made = planned({"method": "passthrough", "sources": [{"of": "math"}]}, checkpoints)
    found = build_into(made, checkpoints, empty_targets(made))
    assert found == fingerprint_checkpoint(checkpoints["math"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
@pytest.mark.parametrize("count", [0, 1, 3, 4096, 10_001])
def test_tensor_hash(dtype: torch.dtype, count: int) -> None:
    tensor = torch.randint(0, 2, (count,), generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = tensor_hash(tensor)
    assert 0 <= expected < 2**64
    assert tensor_hash(tensor, chunk=1) == expected
    assert tensor_hash(torch.stack((tensor, tensor), dim=1)[:, 0]) == expected
    for index in range(0, count, max(1, count // 5)):
        changed = tensor.clone()
        changed[index] = 1 - changed[index].to(torch.int8)
        assert tensor_hash(changed) != expected


def test_seals_together_are_those_of_each_alone() -> None:
    """In order, whatever stands beside what; a small one that is not finite is told apart."""
    noise = torch.Generator().manual_seed(0)
    made = [
        torch.randn(count, generator=noise).to(dtype)
        for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64)
        for count in (1, 3, 7, 4096, 40_000, 5)
    ]
    made[2][1], made[7][0], made[11][4] = float("nan"), float("inf"), -float("inf")
    made += [torch.arange(9), torch.empty(0), torch.zeros(4), made[3].view(64, 64).t()]
    found = seals(made)
    assert found == [seal(one) for one in made]
    assert [at for at, one in enumerate(found) if not one.finite] == [2, 7, 11]


def test_tensor_hash_sees_order() -> None:
    tensor = torch.arange(5000, dtype=torch.float32)
    assert tensor_hash(tensor) != tensor_hash(tensor.flip(0))
    swapped = tensor.clone()
    swapped[[10, 12]] = tensor[[12, 10]]
    assert tensor_hash(tensor) != tensor_hash(swapped)


@pytest.mark.parametrize("family", ["llama", "gemma", "gpt2", "gpt_neox", "qwen3"])
def test_resident_model_and_folder_compute_the_same(
    family: str, tiny_model: Any, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = tiny_model(family=family, tied=family in ("gemma", "gpt2"))
    checkpoints = opened({"base": base, "math": tiny_model(base=base, seed=1)})
    merge = DARE | {"sources": [{"of": "math"}]}
    made = planned(merge, checkpoints)
    resident = AutoModelForCausalLM.from_pretrained(base)
    places = {name: at.data_ptr() for name, at in resident.named_parameters()}
    found = build_into(made, checkpoints, dict(resident.named_parameters()))
    assert {name: at.data_ptr() for name, at in resident.named_parameters()} == places
    assert write_model(made, checkpoints, tmp_path / "out") == found
    loaded, report = AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    words = AutoTokenizer.from_pretrained(tmp_path / "out")("sort 321 =", return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(resident(words["input_ids"]).logits, loaded(words["input_ids"]).logits)


def test_stacked_model_runs(checkpoints: dict[str, Checkpoint], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    slices = [{"sources": [{"of": name, "layers": [0, 3]}]} for name in ("math", "code")]
    made = planned({"method": "passthrough", "slices": slices}, checkpoints, dtype="bfloat16")
    write_model(made, checkpoints, tmp_path / "out")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert loaded.config.num_hidden_layers == 6
    assert loaded.dtype == torch.bfloat16
    assert loaded(torch.tensor([[3, 4]])).logits.isfinite().all()


def test_folder(
    checkpoints: dict[str, Checkpoint], tiny_family: dict[str, Path], tmp_path: Path
) -> None:
    made = planned(DARE, checkpoints, dtype="bfloat16")
    seen: list[tuple[int, int]] = []
    write_model(
        made,
        checkpoints,
        tmp_path / "deep" / "out",
        max_shard_bytes=20_000,
        progress=lambda done, of: seen.append((done, of)),
        extra_files={"recipe.yaml": "é\n"},
    )
    out = tmp_path / "deep" / "out"
    assert seen == [(number + 1, len(made.jobs)) for number in range(len(made.jobs))]
    assert (out / "recipe.yaml").read_text(encoding="utf-8") == "é\n"
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (out / name).read_bytes() == (tiny_family["base"] / name).read_bytes()
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == made.size
    shards = sorted(out.glob("*.safetensors"))
    assert set(index["weight_map"].values()) == {shard.name for shard in shards}
    assert len(shards) > 2
    for shard in shards:
        with safe_open(shard, "pt") as file:
            assert file.metadata() == {"format": "pt"}
            held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        assert all(index["weight_map"][name] == shard.name for name in held)
        assert sum(t.numel() * t.element_size() for t in held.values()) <= 20_000


def test_mixed_dtypes_are_aligned(models: dict[str, Path], tmp_path: Path) -> None:
    for path in models.values():
        stored = load_file(path / "model.safetensors")
        stored["model.embed_tokens.weight"] = stored["model.embed_tokens.weight"].bfloat16()
        stored["extra.flag"] = torch.tensor([True, False, True])
        save_file(stored, path / "model.safetensors")
    checkpoints = opened(models)
    write_model(planned(DARE, checkpoints), checkpoints, tmp_path / "out")
    written = Checkpoint.open(str(tmp_path / "out"), name="out")
    assert written.tensors["model.embed_tokens.weight"].dtype == torch.bfloat16
    assert written.tensor("extra.flag").tolist() == [True, False, True]
    for info in written.tensors.values():
        assert info.start % info.dtype.itemsize == 0


def test_code_is_copied_only_where_the_config_needs_it(
    models: dict[str, Path], tmp_path: Path
) -> None:
    (models["base"] / "modeling_own.py").write_text("")
    checkpoints = opened(models)
    write_model(planned(DARE, checkpoints), checkpoints, tmp_path / "plain")
    assert not (tmp_path / "plain" / "modeling_own.py").exists()
    config = json.loads((models["base"] / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_own.Own"}
    (models["base"] / "config.json").write_text(json.dumps(config))
    checkpoints = opened(models)
    write_model(planned(DARE, checkpoints), checkpoints, tmp_path / "own")
    assert (tmp_path / "own" / "modeling_own.py").exists()


def poison(folder: Path, value: float, name: str = "model.layers.1.mlp.up_proj.weight") -> None:
    stored = load_file(folder / "model.safetensors")
    stored[name].view(-1)[5] = value
    save_file(stored, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("value", "dtype"), [(float("nan"), "bfloat16"), (float("inf"), "float32"), (1e6, "float16")]
)
def test_weights_that_are_not_finite(
    value: float, dtype: str, models: dict[str, Path], tmp_path: Path
) -> None:
    poison(models["math"], value)
    checkpoints = opened(models)
    merge = {"method": "linear", "sources": [{"of": "math"}], "parameters": {"weight": 1.0}}
    made = planned(merge, checkpoints, dtype=dtype)
    message = f"model.layers.1.mlp.up_proj.weight: expected finite weights, .* {dtype}"
    with pytest.raises(NonFiniteError, match=message) as caught:
        build_into(made, checkpoints, empty_targets(made))
    assert caught.value.tensor == "model.layers.1.mlp.up_proj.weight"
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    with pytest.raises(NonFiniteError, match=message):
        write_model(made, checkpoints, tmp_path / "result" / "out")
    assert list((tmp_path / "result").iterdir()) == []
    with pytest.raises(NonFiniteError, match=message):
        list(tensors(made, checkpoints))


@pytest.mark.parametrize("content", ["file", "folder"])
def test_output_in_use(content: str, checkpoints: dict[str, Checkpoint], tmp_path: Path) -> None:
    out = tmp_path / "out"
    if content == "file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "mine").write_text("")
    with pytest.raises(BuildError, match="out: expected a folder that is new or empty, got one"):
        write_model(planned(DARE, checkpoints), checkpoints, out)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_empty_folder_is_taken(checkpoints: dict[str, Checkpoint], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write_model(planned(DARE, checkpoints), checkpoints, tmp_path / "out")
    assert (tmp_path / "out" / "config.json").exists()


@pytest.mark.parametrize("name", ["../secret", "a/b", ".."])
def test_extra_files_stay_inside(
    name: str, checkpoints: dict[str, Checkpoint], tmp_path: Path
) -> None:
    with pytest.raises(BuildError, match="expected a plain file name"):
        write_model(planned(DARE, checkpoints), checkpoints, tmp_path / "o", extra_files={name: ""})
    assert list(tmp_path.iterdir()) == []


def test_too_little_disk(
    checkpoints: dict[str, Checkpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10**7)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(BuildError, match=r"out: expected 0.1 GB of free disk, got 0.0 GB"):
        write_model(planned(DARE, checkpoints), checkpoints, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def forbidden(*_: object, **__: object) -> None:
    raise PermissionError(errno.EACCES, "Permission denied")


@pytest.mark.parametrize(
    ("failure", "message"),
    [(full, "the disk is full; nothing was kept"), (forbidden, r"cannot be written \(Permission")],
)
def test_disk_fails_half_way(
    failure: Callable[..., None],
    message: str,
    checkpoints: dict[str, Checkpoint],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(model_writer, "copy_files", failure)
    with pytest.raises(BuildError, match=message):
        write_model(planned(DARE, checkpoints), checkpoints, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_interrupted_leaves_nothing(checkpoints: dict[str, Checkpoint], tmp_path: Path) -> None:
    def stop(done: int, _: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_model(planned(DARE, checkpoints), checkpoints, tmp_path / "out", progress=stop)
    assert list(tmp_path.iterdir()) == []


NORM = "model.norm.weight"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.pop(NORM), f"{NORM}: expected a target of that name, got none"),
        (lambda t: t.update({NORM: torch.zeros(3)}), r"target of shape \[32\], got \[3\]"),
        (lambda t: t.update({NORM: t[NORM].half()}), "target of dtype torch.float32, got"),
        (
            lambda t: t.update({"lm_head.weight": torch.zeros(32, 50).t()}),
            "target of memory contiguous, got strided",
        ),
        (lambda t: t.update(other=torch.zeros(3)), "other: expected only targets that the plan"),
    ],
)
def test_targets_that_do_not_fit(
    edit: Callable[[dict[str, Tensor]], Any], message: str, checkpoints: dict[str, Checkpoint]
) -> None:
    made = planned(DARE, checkpoints)
    targets = empty_targets(made)
    edit(targets)
    with pytest.raises(BuildError, match=message):
        build_into(made, checkpoints, targets)
    embedding = targets["model.embed_tokens.weight"]
    assert bool((embedding == 7).all()), "written to before the check"


def test_tied_target_may_be_named_twice(tiny_model: Any) -> None:
    base = tiny_model(tied=True)
    checkpoints = opened({"base": base, "math": tiny_model(base=base, seed=1)})
    made = planned(DARE | {"sources": [{"of": "math"}]}, checkpoints)
    targets = empty_targets(made)
    targets["lm_head.weight"] = targets["model.embed_tokens.weight"]
    build_into(made, checkpoints, targets)


def test_progress(checkpoints: dict[str, Checkpoint]) -> None:
    made = planned(DARE, checkpoints)
    seen: list[int] = []
    build_into(made, checkpoints, empty_targets(made), progress=lambda done, _: seen.append(done))
    assert seen == list(range(1, len(made.jobs) + 1))


def test_grad_is_left_alone(checkpoints: dict[str, Checkpoint]) -> None:
    """Resident parameters that ask for gradients can be overwritten, and streamed tensors used."""
    made = planned(DARE, checkpoints)
    targets = {name: torch.nn.Parameter(x) for name, x in empty_targets(made).items()}
    build_into(made, checkpoints, targets)
    assert all(target.requires_grad for target in targets.values())
    _, tensor = next(tensors(made, checkpoints))
    assert not tensor.is_inference()


def test_a_build_is_on_the_disk_before_it_gets_its_name(
    tiny_family: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, bool]] = []
    sync, out = os.fsync, tmp_path / "out"

    def noted(handle: int) -> None:
        sync(handle)
        synced.append((Path(f"/proc/self/fd/{handle}").readlink().name, out.exists()))

    monkeypatch.setattr(os, "fsync", noted)
    checkpoints = {"base": Checkpoint.open(str(tiny_family["base"]), name="base")}
    merge = {"method": "passthrough", "sources": [{"of": "base"}]}
    write_model(plan(Recipe.from_dict({"merge": merge}), checkpoints), checkpoints, out)
    before = {name for name, there in synced if not there}
    assert before > {file.name for file in out.iterdir()}  # the folder itself too
    assert synced[-1] == (tmp_path.name, True)


def test_files_of_sentence_transformers_come_along(tiny_model: Any, tmp_path: Path) -> None:
    one = tiny_model()
    (one / "1_Pooling").mkdir()
    (one / "1_Pooling" / "config.json").write_text('{"pooling_mode_lasttoken": true}')
    for name in ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"):
        (one / name).write_text("[]")
    checkpoints = {"one": Checkpoint.open(str(one), name="one")}
    source = Source(of=Model("one"))
    recipe = Recipe(root=Merge(method="passthrough", sources=(source,)))
    write_model(plan(recipe, checkpoints), checkpoints, tmp_path / "out")
    written = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*")}
    assert written >= {"modules.json", "1_Pooling/config.json", "sentence_bert_config.json"}
    assert "config_sentence_transformers.json" in written
