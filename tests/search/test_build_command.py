"""``search build``: any recipe file to a model folder, and what happens when it cannot be."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from merging.building.build import write_model
from merging.building.fingerprint import fingerprint_checkpoint
from merging.building.output_checks import NoSpaceError
from merging.checkpoints.checkpoint import Checkpoint
from merging.kernels.native import native_library
from merging.planning.merge_plan import plan
from search.commands.build_command import build
from search.inputs import recipe_models
from search.inputs.input_error import InputError, RunFailed
from spaces.mergekit import from_yaml
from tests.command import apart
from tests.tiny_configs import tiny_config

ROOT = Path(__file__).parents[2]
LINEAR = """
merge_method: linear
models:
  - {model: BASE, parameters: {weight: 0.5}}
  - {model: MATH, parameters: {weight: 0.5}}
dtype: float32
"""


@pytest.fixture
def family(tiny_family: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    """Copies beside the recipe, so that tests may break them."""
    return {
        name: shutil.copytree(tiny_family[name], tmp_path / name)
        for name in ("base", "math", "code")
    }


@pytest.fixture
def recipe(family: dict[str, Path], tmp_path: Path) -> Path:
    return written(tmp_path, LINEAR, family)


def written(folder: Path, text: str, family: dict[str, Path]) -> Path:
    for name, path in family.items():
        text = text.replace(name.upper(), str(path))
    file = folder / "recipe.yaml"
    file.write_text(text)
    return file


def made(recipe: Path, out: Path, **settings: Any) -> Path:
    build(recipe, out, **{"shard_bytes": 10**9, **settings})
    return out


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def start(*arguments: object, before: str = "pass") -> subprocess.Popen[str]:
    """Run a build in a process of its own, after some statements."""
    code = (
        # a test run in the background of a shell has Ctrl-C switched off, and hands that on
        "import signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from search.cli.app import main\n"
        f"sys.argv = ['search', 'build', *{list(map(str, arguments))!r}]\n{before}\nmain()\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def slow(gate: Path) -> str:
    """Statements for ``start``: it says that it has written three tensors, and waits for a file."""
    return f"""
import merging.building.model_writer as w, os, time
add, written = w.ModelWriter.add, []
def slow(self, tensor):
    add(self, tensor)
    written.append(tensor)
    if len(written) == 3:
        print('three', flush=True)
        while not os.path.exists({str(gate)!r}):
            time.sleep(0.1)
    time.sleep(0.1)
w.ModelWriter.add = slow
"""


def test_everything_is_there(recipe: Path, tmp_path: Path, family: dict[str, Path]) -> None:
    (family["base"] / "generation_config.json").write_text('{"max_new_tokens": 3}')
    out = made(recipe, tmp_path / "out")
    wanted = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert names(out) >= wanted | {"README.md", "generation_config.json"}
    assert not [name for name in names(tmp_path) if name.endswith(".tmp")]
    assert not [name for name in names(out) if name.startswith(".")]
    fingerprint = fingerprint_checkpoint(Checkpoint.open(str(out), name="x"))
    assert f"fingerprint `{fingerprint}`" in (out / "README.md").read_text()


def test_as_mergekit_multi(family: dict[str, Path], tmp_path: Path) -> None:
    """Several documents in any order; the final one has no name."""
    text = """
merge_method: slerp
base_model: inner
models: [{model: inner}, {model: CODE}]
parameters: {t: 0.25}
dtype: float32
---
name: inner
merge_method: task_arithmetic
base_model: BASE
models: [{model: MATH, parameters: {weight: 0.7}}]
dtype: float32
"""
    from mergekit.graph import Executor
    from mergekit.options import MergeOptions
    from mergekit.scripts.multimerge import load_config, make_tasks

    file = written(tmp_path, text, family)
    out = made(file, tmp_path / "out", shard_bytes=20_000)
    assert (out / "model.safetensors.index.json").is_file()
    (tmp_path / "inner").mkdir()
    configs, needs = load_config(file.read_text(), str(tmp_path / "inner"))
    options = MergeOptions(quiet=True, device="cpu", write_model_card=False)
    folders = (str(tmp_path / "inner"), str(tmp_path / "theirs"))
    tasks = make_tasks(configs, needs, options, *folders, True)
    Executor(tasks, math_device="cpu", storage_device="cpu").execute(desc="")
    ours = Checkpoint.open(str(out), name="ours")
    expected = load_file(tmp_path / "theirs" / "model.safetensors")
    assert ours.tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(ours.tensor(name), tensor, rtol=1e-6, atol=1e-6)


def test_scores_of_the_file_are_in_the_card(recipe: Path, tmp_path: Path) -> None:
    key = from_yaml(recipe.read_text()).recipe.key
    noted = {
        "key": key,
        "score": {"value": 0.75, "stderr": 0.05, "questions": 40, "tasks": {"sort": 0.8}},
        "held_out": {"value": 0.5, "stderr": None, "questions": 10, "tasks": {"sort": 0.5}},
    }
    recipe.write_text(recipe.read_text() + f"merge_search: {json.dumps(noted)}\n")
    card = (made(recipe, tmp_path / "out") / "README.md").read_text()
    assert "| task | search questions | held-out questions |" in card
    assert "| sort | 0.800 | 0.500 |" in card
    assert "| **score** | 0.750 ± 0.050 | 0.500 |" in card
    assert "| questions | 40 | 10 |" in card
    plain = json.dumps({"key": key, "score": 0.25})
    text = recipe.read_text().partition("merge_search")[0]
    recipe.write_text(f"{text}merge_search: {plain}\n")
    assert "| **score** | 0.250 |" in (made(recipe, tmp_path / "two") / "README.md").read_text()
    recipe.write_text(recipe.read_text().replace("0.5}", "0.4}"))  # edited: no longer its scores
    assert "## Scores" not in (made(recipe, tmp_path / "three") / "README.md").read_text()


def test_another_fingerprint_than_promised(recipe: Path, tmp_path: Path) -> None:
    key = from_yaml(recipe.read_text()).recipe.key
    block = f"merge_search: {{key: {key}, fingerprint: '{'0' * 32}'}}\n"
    recipe.write_text(recipe.read_text() + block)
    with pytest.raises(RunFailed, match="expected the weights that were scored"):
        made(recipe, tmp_path / "out")


def test_adapters_and_vocabularies(
    family: dict[str, Path], tiny_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All at once, from a YAML file with paths relative to it."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(family["base"])
    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    get_peft_model(model, config).save_pretrained(str(tmp_path / "lora"))
    tiny_model(tmp_path / "other", layers=4, vocab="xyz!")
    text = """
merge_method: linear
models:
  - {model: base+lora, parameters: {weight: 0.5}}
  - {model: ./other, parameters: {weight: 0.5}}
tokenizer_source: union
out_dtype: bfloat16
"""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    out = made(written(tmp_path, text, {}), tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer.decode(tokenizer.encode("1!z")) == "1!z"
    loaded = AutoModelForCausalLM.from_pretrained(out)
    assert loaded.get_input_embeddings().num_embeddings == len(tokenizer)
    assert {t.dtype for t in load_file(out / "model.safetensors").values()} == {torch.bfloat16}
    card = (out / "README.md").read_text()
    assert "../base+../lora" in card
    assert "tokenizer_source: union" in card


def test_nan_names_file_and_tensor(recipe: Path, family: dict[str, Path], tmp_path: Path) -> None:
    file = family["math"] / "model.safetensors"
    stored = load_file(file)
    stored["model.norm.weight"][:2] = float("nan")
    stored["model.norm.weight"][2] = float("inf")
    save_file(stored, file)
    with pytest.raises(InputError, match=rf"model math: {file}: model\.norm\.weight has one"):
        made(recipe, tmp_path / "out")
    assert not [name for name in names(tmp_path) if "out" in name]


def test_truncated_names_file_and_tensor(
    recipe: Path, family: dict[str, Path], tmp_path: Path
) -> None:
    file = family["math"] / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    last = max(Checkpoint.open(str(family["base"]), name="x").tensors.values(),
               key=lambda info: info.end)  # fmt: skip
    tensors = Checkpoint.open(str(family["base"]), name="x").tensors
    (name,) = (name for name, info in tensors.items() if info.end == last.end and info.numel)
    with pytest.raises(InputError, match=rf"{file}: .*cut off.*: {name} is the first tensor"):
        made(recipe, tmp_path / "out")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 1), (signal.SIGTERM, 1), (signal.SIGKILL, -9)]
)
def test_stopped_half_way(number: signal.Signals, code: int, recipe: Path, tmp_path: Path) -> None:
    """Nothing under the final name; what SIGKILL leaves, the next build removes."""
    out = tmp_path / "place" / "out"
    process = start(recipe, out, before=slow(tmp_path / "gate"))
    assert process.stdout is not None
    assert process.stdout.readline() == "three\n"
    process.send_signal(number)
    (tmp_path / "gate").touch()
    error = process.communicate()[1]
    assert process.returncode == code, error
    left = names(out.parent)
    if number is signal.SIGKILL:
        assert len(left) == 1
        assert out.name not in left
    else:
        assert left == set()
        assert error == f"search: error: {out}: stopped; nothing was kept\n"
    made(recipe, out)
    assert names(out.parent) == {"out"}


def test_drafts_of_others_stay(recipe: Path, tmp_path: Path) -> None:
    """One that is being written by another process, or that only looks like ours, is left alone."""
    out = tmp_path / "place" / "out"
    other = out.parent / ".out.0123abcd.tmp"
    other.mkdir(parents=True)
    process = start(recipe, out, before=slow(tmp_path / "gate"))
    assert process.stdout is not None
    assert process.stdout.readline() == "three\n"
    made(recipe, tmp_path / "place" / "another")
    made(recipe, tmp_path / "first")
    before = names(out.parent)
    assert len(before) == 3
    shutil.copytree(tmp_path / "first", out)  # finished first: the slower one must give way
    (tmp_path / "gate").touch()
    _, error = process.communicate()
    assert process.returncode == 2, error
    assert names(out.parent) == {"out", "another", other.name}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 80 MB, where this user may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", str(place)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    yield place
    for _ in range(50):
        if subprocess.run(["umount", str(place)], capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.1)


def test_disk_that_fills_up(recipe: Path, small_disk: Path) -> None:
    document = from_yaml(recipe.read_text())
    checkpoints = {
        name: Checkpoint.open(place, name=name) for name, place in document.locations.items()
    }

    def fill(done: int, total: int) -> None:
        del total
        if done == 3:
            with (small_disk / "filler").open("wb", buffering=0) as stream:
                for size in (1 << 20, 1 << 12, 1):
                    try:
                        while True:
                            stream.write(b"\0" * size)
                    except OSError:
                        continue

    planned = plan(document.recipe, checkpoints)
    with pytest.raises(NoSpaceError, match="out: the disk is full; nothing was kept"):
        write_model(planned, checkpoints, small_disk / "out", progress=fill)
    assert names(small_disk) == {"filler"}
    with pytest.raises(RunFailed, match=r"expected 0\.1 GB of free disk, got"):
        made(recipe, small_disk / "out")
    assert names(small_disk) == {"filler"}


def test_files_that_may_not_grow(recipe: Path, tmp_path: Path) -> None:
    """Exit code 1, as for a full disk: the input was fine."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))"
    process = start(recipe, tmp_path / "place" / "out", before=limit)
    _, error = process.communicate()
    assert process.returncode == 1
    assert "out: a file would be larger than is allowed here; nothing was kept" in error
    assert error.count("\n") == 1
    assert names(tmp_path / "place") == set()


def test_bad_input_is_exit_code_2(recipe: Path, family: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").write_text("mine")
    process = start(recipe, tmp_path / "used")
    assert "used: expected a folder that is new or empty" in process.communicate()[1]
    assert process.returncode == 2
    assert names(tmp_path / "used") == {"file"}
    shutil.rmtree(family["math"])
    process = start(recipe, tmp_path / "out")
    assert "math: no such model folder" in process.communicate()[1]
    assert process.returncode == 2


@pytest.mark.slow
def test_search_over_adapters_and_vocabularies(
    project: Any, tiny_family: dict[str, Path], tiny_model: Any, tmp_path: Path
) -> None:
    """A run over a LoRA and a model of other tokens: what is built is what was scored."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_family["base"])
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    get_peft_model(model, config).save_pretrained(str(tmp_path / "lora"))
    tiny_model(tmp_path / "other", layers=4, vocab="=abcdefghijklmnopqrstuvwxyz0123456789!")
    models = {"lora": f"{tiny_family['base']}+./lora", "other": "./other"}
    output = {"dtype": "float32", "vocabulary": "union"}
    file = project(models=models, output=output, search={"trials": 4, "seed": 1})
    done = apart("run", file, cwd=tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    # A parent alone keeps its own tokens; the best of those that are merged has all of them.
    recipe, rank = tmp_path / "merge.yaml", 0
    while "tokenizer_source: union" not in (recipe.read_text() if recipe.exists() else ""):
        rank += 1
        study = tmp_path / "mix" / "study.db"
        exported = apart("export", study, "--rank", rank, "--out", recipe, cwd=tmp_path)
        assert exported.returncode == 0, exported.stderr
    built = apart("build", recipe, tmp_path / "merged", cwd=tmp_path)
    assert built.returncode == 0, built.stderr
    assert "The weights are those that were scored." in built.stdout
    assert "## Scores" in (tmp_path / "merged" / "README.md").read_text()
    strict = project(models=models)
    refused = apart("run", strict, "--out", tmp_path / "no", cwd=tmp_path)
    assert refused.returncode == 2
    assert "of different vocabularies can only be merged" in refused.stderr


def test_passes_that_were_compiled_are_used(
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Compiled where it pays, loaded where they are, and the same weights as without."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    native_library.cool_down()
    try:
        plain = fingerprint_checkpoint(Checkpoint.open(str(made(recipe, tmp_path / "a")), name="a"))
        assert native_library.library() is None  # a small model: compiling would take longer
        monkeypatch.setattr(recipe_models, "_GAINS", 1)
        for name in ("b", "c"):
            native_library.cool_down()
            found = made(recipe, tmp_path / name)
            assert fingerprint_checkpoint(Checkpoint.open(str(found), name=name)) == plain
            said = "Compiling, once on this machine" in capsys.readouterr().out
            assert said == (name == "b")
            assert native_library.library() is not None
    finally:
        native_library.cool_down()


def test_a_stack_that_its_config_cannot_say_is_refused(tmp_path: Path) -> None:
    """A dense first layer twice: the config counts dense layers from the start."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config("deepseek_v3"))
    model.save_pretrained(tmp_path / "base")
    file = tmp_path / "recipe.yaml"
    stack = "merge_method: passthrough\nslices:\n"
    part = "  - sources: [{{model: {}, layer_range: [{}, {}]}}]\n"
    file.write_text(stack + part.format(tmp_path / "base", 0, 2) * 2)
    with pytest.raises(InputError, match=r"the stacked model would not load: tensor .*experts"):
        build(file, tmp_path / "out", shard_bytes=10**9)
    assert not (tmp_path / "out").exists()
    file.write_text(
        stack + part.format(tmp_path / "base", 0, 2) + part.format(tmp_path / "base", 1, 2)
    )
    build(file, tmp_path / "out", shard_bytes=10**9)
    loaded, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert loaded.config.num_hidden_layers == 3
    assert not any(info.values())
