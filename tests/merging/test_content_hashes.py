"""Hashes of files: every byte counts, and nothing is read twice that did not change."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from merging.building.build import tensors
from merging.checkpoints.checkpoint import WHOLE, Checkpoint
from merging.checkpoints.files.content_hashes import ContentHashes
from merging.planning.merge_plan import plan
from merging.tensor_statistics.statistics_cache import StatisticsCache
from spaces.recipes.recipe import Merge, Model, Recipe, Source, parameters

LONG_AGO = 1_500_000_000_000_000_000  # ns


class Reading:
    """Counts the bytes that are read."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []

    def __call__(self, done: int, total: int) -> None:
        self.told.append((done, total))


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files need not be old to be known."""
    monkeypatch.setattr("merging.checkpoints.files.content_hashes._SETTLED", 0)


def flip(file: Path, at: int) -> None:
    """Change one byte, and leave size and time as they are."""
    before = file.stat()
    with file.open("r+b") as stream:
        stream.seek(at)
        byte = stream.read(1)[0]
        stream.seek(at)
        stream.write(bytes([byte ^ 1]))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.usefixtures("settled")
def test_every_byte_counts_and_nothing_is_read_twice(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a", "b", "c")]
    for number, file in enumerate(files):
        file.write_bytes(bytes([number]) * 9_000_000)
    kept = ContentHashes(tmp_path / "kept")
    reading = Reading()
    first = kept.hashes(files, progress=reading)
    assert len(set(first)) == 3
    assert reading.told[-1] == (27_000_000, 27_000_000)
    later, again = ContentHashes(tmp_path / "kept"), Reading()
    assert later.hashes(files, progress=again) == first
    assert kept.hashes(files, progress=again) == first
    assert again.told == []
    flip(files[1], 4_500_001)
    changed = later.hashes(files, progress=again)
    assert again.told[-1] == (9_000_000, 9_000_000)  # only the one
    assert [one == other for one, other in zip(first, changed, strict=True)] == [True, False, True]


def test_what_changed_just_now_is_not_taken_for_known(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"1" * 1000)
    kept, reading = ContentHashes(tmp_path / "kept"), Reading()
    assert kept.hashes([file], progress=reading) == kept.hashes([file], progress=reading)
    assert len(reading.told) == 2  # the clock of a disk is coarse
    assert not (tmp_path / "kept").exists()


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("text", ["", "{}", "[]", '{"stamp": 1, "hash": "ff"}', "\x00"])
def test_a_damaged_note_is_read_over(tmp_path: Path, text: str) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"1" * 1000)
    expected = ContentHashes(tmp_path / "kept").hashes([file])
    (note,) = (tmp_path / "kept").iterdir()
    note.write_text(text)
    assert ContentHashes(tmp_path / "kept").hashes([file]) == expected


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"1" * 1000)
    os.utime(file, ns=(LONG_AGO, LONG_AGO))
    assert ContentHashes(file / "below").hashes([file]) == ContentHashes().hashes([file])


def retrain_row(folder: Path) -> None:
    """Change a row of the embeddings in place, away from where samples are taken."""
    info = Checkpoint.open(str(folder), name="m").tensors["model.embed_tokens.weight"]
    row = info.shape[1] * info.dtype.itemsize
    flip(folder / "model.safetensors", info.start + 3 * row + 3)


def test_a_retrained_row_is_another_model(tiny_model: Any, tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "m")
    before = Checkpoint.open(str(folder), name="m")
    hashes = before.input_hash, before.sampled_hash, before.identity
    copied = Checkpoint.open(str(shutil.copytree(folder, tmp_path / "copy")), name="m")
    retrain_row(folder)
    after = Checkpoint.open(str(folder), name="m")
    assert hashes[0].startswith(WHOLE)
    assert after.input_hash != hashes[0]
    assert after.identity != hashes[2]
    assert after.sampled_hash == hashes[1]  # why it is not enough
    assert after.matches(after.input_hash)
    assert not after.matches(hashes[0])
    assert after.matches(hashes[1])  # as studies of before noted it
    assert copied.input_hash == hashes[0]
    assert not copied.matches(None)


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("kept", [True, False])
def test_statistics_of_a_changed_model_are_not_used(
    tiny_model: Any, tmp_path: Path, kept: bool
) -> None:
    base = tiny_model(tmp_path / "base")
    tuned = tiny_model(tmp_path / "tuned", base=base, seed=1)
    folder = tmp_path / "statistics" if kept else None
    statistics = StatisticsCache(folder)
    source = Source(of=Model("tuned"), parameters=parameters(weight=1.0, density=0.3))
    recipe = Recipe(root=Merge(method="ties", sources=(source,), base=Model("base")))

    def made(used: StatisticsCache | None) -> dict[str, torch.Tensor]:
        models = {
            name: Checkpoint.open(str(at), name=name, contents=ContentHashes(folder))
            for name, at in (("base", base), ("tuned", tuned))
        }
        return dict(tensors(plan(recipe, models), models, statistics=used))

    made(statistics)
    name = "model.embed_tokens.weight"
    info = Checkpoint.open(str(tuned), name="m").tensors[name]
    with (tuned / "model.safetensors").open("r+b") as stream:  # a row that now leads all others
        stream.seek(info.start + 3 * info.shape[1] * 4)
        stream.write(torch.full((info.shape[1],), 9.0).numpy().tobytes())
    expected = made(None)
    for used in (statistics, StatisticsCache(folder)):
        found = made(used)
        assert all(torch.equal(found[one], expected[one]) for one in expected)
