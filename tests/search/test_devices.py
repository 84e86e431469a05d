"""Whole runs with Ray on a device: killed, resumed, and the winner built again on the CPU."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from search import api
from search.commands.run_handle import Run
from tests.command import apart

TRIALS = 12


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 1] if torch.cuda.is_available() else [2])
def test_killed_resumed_and_built(
    count: int, device: torch.device, project: Callable[..., Path], tmp_path: Path
) -> None:
    workers: dict[str, Any] = {"count": count, "gpus": 1 / count, "device": "auto"}
    if device.type == "cpu":
        workers |= {"gpus": 0, "device": "cpu"}
    config = project(
        workers=workers,
        space={"methods": ["linear", "ties", "dare_ties", "slerp", "della"]},
        search={"trials": TRIALS, "seed": 1, "sampler": "random"},
    )
    study = tmp_path / "mix" / "study.db"
    checked = apart("check", config, "--seconds", 1)
    assert checked.returncode == 0, checked.stderr
    killed = apart("run", config, cwd=tmp_path, dies_after=4)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    before = Run(study).leaderboard().dropna(subset=["score"])
    assert len(before) == 4
    resumed = apart("resume", study)
    assert resumed.returncode == 0, resumed.stderr
    board = Run(study).leaderboard()
    assert board["score"].notna().sum() == len(board) == TRIALS
    merged = before.merge(board, on="key", suffixes=("", "_after"))
    assert len(merged) == len(before)
    assert (merged["score"] == merged["score_after"]).all()
    assert board["worker"].nunique() >= count
    built = api.build(tmp_path / "mix" / "best.yaml", tmp_path / "best")
    assert built.verified
    assert built.fingerprint in set(board["fingerprint"])
