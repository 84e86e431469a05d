"""``search build`` on broken parents and full disks: one line, its exit code, and nothing left."""

from __future__ import annotations

import errno
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from merging.building import model_writer
from search.cli.app import main

LINEAR = """
merge_method: linear
models:
  - {model: base, parameters: {weight: 0.5}}
  - {model: math, parameters: {weight: 0.5}}
dtype: float32
"""
UP = "model.layers.1.mlp.up_proj.weight"
NORM = "model.norm.weight"
FILE = "model.safetensors"


@pytest.fixture
def place(tiny_family: dict[str, Path], tmp_path: Path) -> Path:
    """A recipe with its models beside it."""
    for name in ("base", "math"):
        shutil.copytree(tiny_family[name], tmp_path / name)
    (tmp_path / "recipe.yaml").write_text(LINEAR)
    return tmp_path


def edit(place: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    tensors = load_file(place / "math" / FILE)
    change(tensors)
    save_file(tensors, place / "math" / FILE)


def rewrite(place: Path, change: Callable[[bytes], bytes]) -> None:
    file = place / "math" / FILE
    file.write_bytes(change(file.read_bytes()))


def nan(tensors: dict[str, Tensor], name: str = UP) -> None:
    tensors[name].view(-1)[3] = float("nan")


DAMAGE: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "a length that is no length": (
        lambda at: rewrite(at, lambda raw: b"\xff" * 8 + raw[8:]),
        [FILE],
    ),
    "a header that is no JSON": (
        lambda at: rewrite(at, lambda raw: raw[:8] + b"#" + raw[9:]),
        [FILE],
    ),
    "cut off in the header": (lambda at: rewrite(at, lambda raw: raw[:200]), [FILE]),
    "cut off in the weights": (
        lambda at: rewrite(at, lambda raw: raw[: len(raw) // 2]),
        [FILE, "cut off", "is the first tensor"],
    ),
    "empty": (lambda at: rewrite(at, lambda _: b""), [FILE]),
    "NaN": (lambda at: edit(at, nan), [FILE, UP]),
    "infinity": (lambda at: edit(at, lambda t: t[NORM].fill_(torch.inf)), [FILE, NORM]),
    "a tensor is missing": (lambda at: edit(at, lambda t: t.pop(UP)), ["math", UP]),
    "a tensor outside the layers is missing": (
        lambda at: edit(at, lambda t: t.pop(NORM)),
        ["math", NORM],
    ),
    "another shape": (
        lambda at: edit(at, lambda t: t.update({UP: torch.zeros(3, 3)})),
        ["math", UP, "[3, 3]"],
    ),
    "no weights": (lambda at: (at / "math" / FILE).unlink(), ["math"]),
    "no config": (lambda at: (at / "math" / "config.json").unlink(), ["math", "config.json"]),
    "no model": (lambda at: shutil.rmtree(at / "math"), ["math"]),
}


def run(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, list[str]]:
    """Exit code and lines of error of ``search build``, which must leave the folder as it was."""
    before = {path.name for path in place.iterdir()}
    command = ["search", "build", str(place / "recipe.yaml"), str(place / "out")]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as left:
        main()
    assert {path.name for path in place.iterdir()} == before
    assert isinstance(left.value.code, int)
    return left.value.code, capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("damage", DAMAGE)
def test_broken_parent(
    damage: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    break_it, named = DAMAGE[damage]
    break_it(place)
    code, lines = run(place, monkeypatch, capsys)
    assert code == 2
    assert len(lines) == 1, lines
    assert lines[0].startswith("search: error: ")
    assert all(part in lines[0] for part in named), lines


@pytest.mark.parametrize("location", ["./" + "9" * 400, "~nobody-of-that-name/model", "a" * 5000])
def test_a_location_that_can_be_no_folder(
    location: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (place / "recipe.yaml").write_text(LINEAR.replace("model: math", f'model: "{location}"'))
    code, (line,) = run(place, monkeypatch, capsys)
    assert code == 2
    assert location in line


@pytest.mark.parametrize("step", ["add", "finish"])
def test_full_disk(
    step: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The system's own error, raised as weights or the last files are written."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def opened(path: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        return full() if mode == "wb" else usual(path, mode, *rest, **more)

    usual = Path.open
    if step == "finish":
        monkeypatch.setattr(model_writer, "copy_files", full)
    else:
        monkeypatch.setattr(Path, "open", opened)
    code, lines = run(place, monkeypatch, capsys)
    assert code == 1
    assert lines == [f"search: error: {place / 'out'}: the disk is full; nothing was kept"]
