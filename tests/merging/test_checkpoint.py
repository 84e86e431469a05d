"""Opening models: what is found in headers, and one clear line for each thing that is wrong."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from merging.checkpoints.checkpoint import WHOLE, Checkpoint, CheckpointError, widest_dtype
from merging.checkpoints.files.model_layout import LayerPattern


@pytest.fixture
def model(tiny_family: dict[str, Path], tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return shutil.copytree(tiny_family["math"], tmp_path / "model")


@pytest.fixture
def sharded(tiny_model: Any, tiny_family: dict[str, Path], tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "sharded", base=tiny_family["math"], noise=0.0, sharded=True)


def broken(folder: Path) -> str:
    """The problems of a folder, one a line."""
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.open(str(folder), name="math")
    assert all(problem.startswith("model math: ") for problem in caught.value.problems)
    assert all("\n" not in problem for problem in caught.value.problems)
    return str(caught.value)


def edit(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a JSON file."""
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def edit_header(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the header of a safetensors file, keeping its data."""
    raw = file.read_bytes()
    end = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:end])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + raw[end:])


def test_same_tensors_as_safetensors(model: Path, sharded: Path) -> None:
    expected = load_file(model / "model.safetensors")
    for folder in (model, sharded):
        checkpoint = Checkpoint.open(str(folder), name="math")
        assert checkpoint.tensors.keys() == expected.keys()
        for name, tensor in expected.items():
            assert torch.equal(checkpoint.tensor(name), tensor)
            assert checkpoint.tensors[name].shape == tuple(tensor.shape)


def test_what_is_known(model: Path) -> None:
    checkpoint = Checkpoint.open(str(model), name="math")
    assert checkpoint.layers == LayerPattern(prefix="model.layers.", count=4)
    assert checkpoint.config["hidden_size"] == 32
    assert checkpoint.folder == model
    assert not checkpoint.tied


def test_tensors_are_mapped_not_copied(model: Path) -> None:
    checkpoint = Checkpoint.open(str(model), name="math")
    first = checkpoint.tensor("model.norm.weight")
    assert first.data_ptr() == checkpoint.tensor("model.norm.weight").data_ptr()
    with pytest.raises(KeyError, match=r"model\.none"):
        checkpoint.tensor("model.none")


def test_odd_dtypes_and_places(model: Path) -> None:
    """A file may hold tensors of any dtype, in any order and at odd places."""
    tensors = {
        "a": torch.tensor([True, False, True]),
        "b": torch.arange(3, dtype=torch.float32),
        "c": torch.tensor(7),
        "d": torch.zeros(0, 3),
    }
    header, data = {}, b""
    for name, tensor in tensors.items():
        code = {torch.bool: "BOOL", torch.float32: "F32", torch.int64: "I64"}[tensor.dtype]
        raw = tensor.numpy().tobytes()
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": code, "shape": list(tensor.shape), "data_offsets": offsets}
        data += raw
    text = json.dumps(header).encode()
    file = model / "model.safetensors"
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)
    checkpoint = Checkpoint.open(str(model), name="x")
    for name, tensor in tensors.items():
        assert torch.equal(checkpoint.tensor(name), tensor)
        assert checkpoint.tensor(name).dtype == tensor.dtype


def cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def cut_in_header(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:50])


def edited(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    return lambda folder: edit_header(folder / "model.safetensors", change)


def gguf(folder: Path) -> None:
    for name in ("model.safetensors", "config.json"):
        (folder / name).unlink()
    (folder / "model-Q4_K_M.gguf").write_bytes(b"GGUF")


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")


NORM = "model.norm.weight"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, r"model\.safetensors: expected \d+ bytes, got \d+ \(cut off; fetch it again\)"),
        (cut_in_header, r"model\.safetensors: expected a header of \d+ bytes, got 42 \(cut off\)"),
        (lambda f: (f / "model.safetensors").write_bytes(b"abc"), "got something else"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 99), "got something else"),
        (
            lambda f: (f / "model.safetensors").write_bytes((4).to_bytes(8, "little") + b"{{{{"),
            "expected a JSON header",
        ),
        (
            lambda f: (f / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"[]"),
            "expected a JSON object as header, got list",
        ),
        (
            lambda f: (f / "model.safetensors").write_bytes(
                (15).to_bytes(8, "little") + b'{"a": 1, "a":2}'
            ),
            "a name occurs twice",
        ),
        (edited(lambda h: h[NORM].update(dtype="F3")), r"model\.norm\.weight: expected dtype F64"),
        (edited(lambda h: h[NORM].update(dtype=["F32"])), r"expected dtype F64.*got \['F32'\]"),
        (edited(lambda h: h[NORM].pop("shape")), "expected dtype, shape and data_offsets"),
        (edited(lambda h: h[NORM].update(shape=[-32])), "expected whole numbers from 0"),
        (edited(lambda h: h[NORM].update(shape=[31])), r"expected 124 bytes for F32 \[31\]"),
        (
            edited(lambda h: h[NORM].update(data_offsets=[0, 128])),
            r"expected its data at byte \d+, got \d+ \(gap or overlap\)",
        ),
        (gguf, r"^model \w+: \S*model-Q4_K_M\.gguf: GGUF is not read; .*gguf_file=NAME[^\n]*$"),
        (pickled, r"pytorch_model\.bin: pickled weights can run code.*save_pretrained"),
        (lambda f: (f / "model.safetensors").unlink(), "expected model.safetensors or"),
        (lambda f: (f / "config.json").unlink(), r"config\.json: missing"),
        (lambda f: (f / "config.json").write_text("{"), r"config\.json: cannot be read"),
        (lambda f: (f / "config.json").write_text("[]"), "expected a JSON object, got list"),
        (
            lambda f: edit(f / "config.json", lambda c: c.update(num_hidden_layers=6)),
            "expected 4 layers as stored, got 6",
        ),
    ],
)
def test_broken_files(model: Path, damage: Callable[[Path], Any], message: str) -> None:
    damage(model)
    with pytest.raises(CheckpointError, match=message):
        Checkpoint.open(str(model), name="math")
    broken(model)


def test_several_problems_at_once(model: Path) -> None:
    (model / "config.json").unlink()
    cut(model)
    assert len(broken(model).splitlines()) == 2


def test_missing_shard(sharded: Path) -> None:
    (sharded / "model-00002-of-00003.safetensors").unlink()
    assert "model-00002-of-00003.safetensors: missing; model.safetensors.index" in broken(sharded)


def test_index_that_promises_too_much(sharded: Path) -> None:
    def promise(index: dict[str, Any]) -> None:
        index["weight_map"]["model.extra"] = "model-00001-of-00003.safetensors"

    edit(sharded / "model.safetensors.index.json", promise)
    assert "model.extra missing; model.safetensors.index.json says it is there" in broken(sharded)


@pytest.mark.parametrize("content", ["{", "{}", '{"weight_map": [1]}'])
def test_bad_index(sharded: Path, content: str) -> None:
    (sharded / "model.safetensors.index.json").write_text(content)
    assert "expected a weight_map" in broken(sharded)


def test_index_cannot_point_outside(sharded: Path) -> None:
    def escape(index: dict[str, Any]) -> None:
        index["weight_map"]["model.norm.weight"] = "../secret.safetensors"

    edit(sharded / "model.safetensors.index.json", escape)
    assert "expected plain file names, got '../secret.safetensors'" in broken(sharded)


def test_tensor_in_two_files(sharded: Path) -> None:
    first, second = sharded / "model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors"
    save_file(load_file(first) | load_file(sharded / second), sharded / second)
    assert "expected every tensor once, got some in two files" in broken(sharded)


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("/no/such/folder", "/no/such/folder: no such model folder$"),
        ("./nothing", "no such model folder$"),
        ("someone/unknown-model", "not in the hub's cache"),
        ("someone/unknown-model@abc", "not in the hub's cache"),
        ("some one/x", "no such model folder$"),
        ("models/math+adapters/lora", "models/math: no such model folder"),
    ],
)
def test_unknown_location(location: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        Checkpoint.open(location, name="math")


def test_file_is_no_folder(model: Path) -> None:
    assert "expected a model folder, got a file" in broken(model / "config.json")


@pytest.fixture
def cache(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A hub cache that holds one model, as the hub's client lays it out."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    entry = tmp_path / "cache" / "models--someone--tiny"
    commit = "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(model, entry / "snapshots" / commit)
    (entry / "refs").mkdir()
    (entry / "refs" / "main").write_text(commit)
    return commit


@pytest.mark.parametrize("revision", ["", "@main", "@commit"])
def test_hub_id_from_the_cache(cache: str, revision: str) -> None:
    location = "someone/tiny" + revision.replace("commit", cache)
    checkpoint = Checkpoint.open(location, name="math")
    assert checkpoint.folder.name == cache
    assert checkpoint.location == location


def test_revision_not_in_the_cache(cache: str) -> None:
    with pytest.raises(CheckpointError, match="not in the hub's cache"):
        Checkpoint.open("someone/tiny@v2", name="math")


def test_input_hash(model: Path, tmp_path: Path) -> None:
    def hashed(folder: Path) -> str:
        return Checkpoint.open(str(folder), name="any").input_hash

    first = hashed(model)
    assert first.startswith(WHOLE)
    assert first == hashed(shutil.copytree(model, tmp_path / "moved"))
    tensors = load_file(model / "model.safetensors")
    save_file(
        {name: tensor * 1.01 for name, tensor in tensors.items()}, model / "model.safetensors"
    )
    second = hashed(model)
    edit(model / "config.json", lambda config: config.update(rope_theta=1.0))
    assert len({first, second, hashed(model)}) == 3


def test_changed_after_opening(model: Path) -> None:
    checkpoint = Checkpoint.open(str(model), name="math")
    cut(model)
    with pytest.raises(CheckpointError, match="changed since it was opened"):
        checkpoint.tensor("model.norm.weight")


def test_error_travels_between_processes() -> None:
    error = pickle.loads(pickle.dumps(CheckpointError(["one", "two"])))
    assert error.problems == ("one", "two")


@pytest.mark.parametrize(
    ("said", "head", "tied"),
    [
        (True, None, True),
        (None, None, True),
        (False, None, False),
        (None, "other", False),
        (None, "same", True),
        (True, "same", True),
        (True, "other", False),
        (False, "same", False),
    ],
)
def test_tied(model: Path, said: bool | None, head: str | None, tied: bool) -> None:
    """As transformers: a stored head with other bits is a head, whatever the config says."""
    tensors = load_file(model / "model.safetensors")
    embedding = tensors["model.embed_tokens.weight"]
    del tensors["lm_head.weight"]
    if head is not None:
        tensors["lm_head.weight"] = embedding.clone() if head == "same" else embedding + 1
    save_file(tensors, model / "model.safetensors")
    edit(model / "config.json", lambda config: config.update(tie_word_embeddings=said))
    if said is None:
        edit(model / "config.json", lambda config: config.pop("tie_word_embeddings"))
    assert Checkpoint.open(str(model), name="x").tied is tied


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        (["bfloat16", "bfloat16"], "bfloat16"),
        (["float16"], "float16"),
        (["bfloat16", "float16"], "float32"),
        (["bfloat16", "float32"], "float32"),
        (["float64"], "float32"),
    ],
)
def test_widest_dtype(dtypes: list[str], expected: str, tiny_model: Any) -> None:
    base = tiny_model(layers=1)
    models = [tiny_model(base=base, dtype=dtype) for dtype in dtypes]
    assert widest_dtype(Checkpoint.open(str(at), name="x") for at in models) == expected
