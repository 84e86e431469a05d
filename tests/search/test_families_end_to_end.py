"""Whole runs on models of the families that people merge today, tiny, in the layout of the hub."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.command import search
from tests.conftest import CHARACTERS, save_tokenizer
from tests.evaluators.families import save

FAMILIES = (
    "mixtral", "qwen3_moe", "qwen3_next", "deepseek_v3", "gpt_oss", "falcon_h1",
    "granitemoehybrid", "qwen2_5_vl", "gemma3", "llama4",
)  # fmt: skip


VISION = {"qwen2_5_vl": "code", "gemma3": "average"}
"""What becomes of the vision tower, where it is not merged as the rest."""


def fine_tune(base: Path, folder: Path, seed: int) -> Path:
    """A copy whose weights moved a little."""
    shutil.copytree(base, folder)
    moved = torch.Generator().manual_seed(seed)
    for file in folder.glob("*.safetensors"):
        tensors = {
            name: tensor + 0.02 * torch.randn(tensor.shape, generator=moved).to(tensor.dtype)
            if tensor.is_floating_point()
            else tensor
            for name, tensor in load_file(file).items()
        }
        save_file(tensors, file, metadata={"format": "pt"})
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_checked_searched_built_and_verified(
    family: str, project: Callable[..., Path], tmp_path: Path
) -> None:
    base = tmp_path / "base"
    save(base, family, seed=0)
    save_tokenizer(base, CHARACTERS)
    models = {
        name: str(fine_tune(base, tmp_path / name, seed))
        for seed, name in enumerate(("math", "code"), start=1)
    }
    config = project(
        base=str(base),
        models=models,
        space={"methods": ["linear", "ties", "slerp", "task_arithmetic"]},
        output={"dtype": "float32", "vision": VISION.get(family, "merge")},
        search={"trials": 6, "seed": 1, "validate": 1},
    )
    checked = search("check", config, "--quick")
    assert checked.code == 0, checked.err
    run = tmp_path / "run"
    done = search("run", config, "--out", run)
    assert done.code == 0, done.err
    frame = pd.read_parquet(run / "leaderboard.parquet")
    assert (frame["state"] == "complete").all(), frame[["state", "message"]]
    assert len(frame) == 6
    assert frame["fingerprint"].nunique() == 6
    for rank in (1, 6):
        recipe = tmp_path / f"{rank}.yaml"
        assert search("export", run / "study.db", "--rank", rank, "--out", recipe).code == 0
        built = search("build", recipe, tmp_path / f"built-{rank}")
        assert built.code == 0, built.err
        assert "The weights are those that were scored." in built.out
