"""Whole runs with Ray on a device: killed, resumed, and the winner built again on the CPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from search import api
from search.commands.run_handle import Run
from tests.command import apart

ROOT = Path(__file__).parents[2]
TRIALS = 12


def start(*arguments: object, log: Path) -> subprocess.Popen[bytes]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    with log.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "search", *map(str, arguments)],
            env=environment, stdout=out, stderr=out, cwd=log.parent,
        )  # fmt: skip


def scored(study: Path) -> int:
    """How many recipes have a score."""
    if not study.exists():
        return 0
    board = Run(study).leaderboard()
    return int(board["score"].notna().sum())


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
    study, log = tmp_path / "mix" / "study.db", tmp_path / "log"
    checked = apart("check", config, "--seconds", 1)
    assert checked.returncode == 0, checked.stderr
    driver = start("run", config, log=log)
    end = time.monotonic() + 120
    while scored(study) < 4:
        assert driver.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.2)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    before = Run(study).leaderboard().dropna(subset=["score"])
    assert len(before) < TRIALS
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
