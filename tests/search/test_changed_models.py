"""Models that change while they are searched: an error and no verdict, never numbers of two."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from merging.checkpoints.checkpoint import WHOLE, Checkpoint
from runs.storage.store import Store
from search.commands import run_command
from search.inputs.input_error import InputError, RunFailed
from search.inputs.overrides import Overrides
from search.monitoring.callbacks import Resulted

Project = Callable[..., Path]


@pytest.fixture
def models(tiny_family: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    return {
        name: shutil.copytree(folder, tmp_path / "models" / name)
        for name, folder in tiny_family.items()
    }


@pytest.fixture
def config(project: Project, models: dict[str, Path]) -> Path:
    others = {name: str(at) for name, at in models.items() if name != "base"}
    return project(base=str(models["base"]), models=others, tasks=["pick"])


def retrain(folder: Path) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors["model.embed_tokens.weight"][3] += 0.5
    save_file(tensors, file, metadata={"format": "pt"})


class Retraining:
    """Changes a model when a result comes back."""

    def __init__(self, folder: Path, *, after: int) -> None:
        self._folder, self._after = folder, after

    def on_start(self, event: Any) -> None:
        pass

    def on_result(self, event: Resulted) -> None:
        if event.step == self._after:
            retrain(self._folder)

    def on_finish(self, event: Any) -> None:
        self.verdict = event.verdict


def run(config: Path, out: Path, *callbacks: Any, trials: int = 6) -> None:
    overrides = Overrides(trials=trials)
    run_command.run(config, out=out, overrides=overrides, dry_run=False, callbacks=callbacks)


def test_a_model_retrained_during_a_run_gives_no_verdict(
    config: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    out, before = tmp_path / "run", (models["math"] / "model.safetensors").read_bytes()
    with pytest.raises(RunFailed, match=r"models changed during the run.*'math'"):
        run(config, out, Retraining(models["math"], after=4))
    assert json.loads((out / "leaderboard.json").read_text())["verdict"] is None
    assert "No verdict: the models changed during the run" in (out / "report.html").read_text()
    study = str(out / "study.db")
    with pytest.raises(InputError, match=r"'math' at .*expected the files that the study was made"):
        run_command.resume(study, overrides=Overrides(), consent=bool, callbacks=())
    (models["math"] / "model.safetensors").write_bytes(before)  # scores of others are still in it
    run_command.resume(study, overrides=Overrides(), consent=bool, callbacks=())
    assert json.loads((out / "leaderboard.json").read_text())["verdict"] is None


def test_a_study_of_before_goes_on(config: Path, models: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(config, out)
    study = out / "study.db"
    with closing(Store.open(str(study))) as store:
        inputs = store.manifest.inputs
    assert all(one.startswith(WHOLE) for one in inputs.values())
    sampled = {n: Checkpoint.open(str(at), name=n).sampled_hash for n, at in models.items()}
    with closing(sqlite3.connect(study)) as database, database:
        database.execute(
            "UPDATE merge_search_run SET value = ? WHERE key = 'inputs'", [json.dumps(sampled)]
        )
    run_command.resume(str(study), overrides=Overrides(trials=8), consent=bool, callbacks=())
    (models["code"] / "config.json").write_text("{}")
    with pytest.raises(InputError, match="code"):
        run_command.resume(str(study), overrides=Overrides(trials=9), consent=bool, callbacks=())


def test_a_touched_model_is_the_same(config: Path, models: dict[str, Path], tmp_path: Path) -> None:
    class Touching(Retraining):
        def on_result(self, event: Resulted) -> None:
            (models["math"] / "model.safetensors").touch()

    callback = Touching(models["math"], after=0)
    run(config, tmp_path / "run", callback)
    assert callback.verdict


def test_a_check_reads_no_model_in_full(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from search.inputs.given_config import read
    from search.preflight.inspection import check as look
    from search.preflight.preflight_depth import PreflightDepth

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("read in full")

    monkeypatch.setattr("merging.checkpoints.files.content_hashes.ContentHashes.hashes", fail)
    depth = PreflightDepth(weights=False, smoke=False)
    assert look(read(config, Overrides()), depth=depth, progress=lambda what, done, total: None)
