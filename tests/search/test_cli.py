"""The command line as a user meets it: real models, real lm-eval, exit codes, files."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import load_file, save_file

from tests.command import apart as search

Project = Callable[..., Path]


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.slow
def test_from_config_to_model(project: Project, tmp_path: Path) -> None:
    config = project()
    done = search("run", config, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Verdict:" in done.stdout
    run = tmp_path / "mix"
    assert files(run) == {
        "study.db",
        "statistics",
        "report.html",
        "leaderboard.md",
        "leaderboard.csv",
        "leaderboard.json",
        "leaderboard.parquet",
        "best.yaml",
    }
    frame = pd.read_parquet(run / "leaderboard.parquet")
    assert len(frame) == 8
    assert list(frame["rank"]) == list(range(1, 9))

    status = search("status", run / "study.db")
    assert "8 of 8 recipes" in status.stdout
    assert "the budget is spent" in status.stdout

    built = search("build", run / "best.yaml", tmp_path / "merged")
    assert built.returncode == 0, built.stderr
    assert "The weights are those that were scored." in built.stdout
    assert frame["fingerprint"][0] in built.stdout
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md"} <= files(
        tmp_path / "merged"
    )
    again = search("build", run / "best.yaml", tmp_path / "merged")
    assert again.returncode == 2
    assert "merged" in again.stderr

    second = search("export", run / "study.db", "--rank", 2, "--out", tmp_path / "second.yaml")
    assert second.returncode == 0, second.stderr
    assert f"key: {frame['key'][1]}" in (tmp_path / "second.yaml").read_text()

    more = search("resume", run / "study.db", "--trials", 10)
    assert more.returncode == 0, more.stderr
    longer = pd.read_csv(run / "leaderboard.csv")
    assert len(longer) == 10
    assert set(frame["key"]) <= set(longer["key"])
    assert "10 of 10 recipes" in search("status", run / "study.db").stdout

    validated = search("validate", run / "study.db", "--top", 10)
    assert validated.returncode == 0, validated.stderr
    report = search("report", run / "study.db", "--format", "json", "--out", tmp_path / "out")
    assert report.returncode == 0
    data = json.loads((tmp_path / "out" / "leaderboard.json").read_text())
    assert all(row["held_out"] is not None for row in data["candidates"])


@pytest.mark.slow
def test_workers_as_ray_actors(project: Project, tmp_path: Path) -> None:
    config = project(workers={"count": 2, "gpus": 0}, search={"trials": 6})
    done = search("run", config, "--out", tmp_path / "here")
    assert done.returncode == 0, done.stderr
    frame = pd.read_csv(tmp_path / "here" / "leaderboard.csv")
    assert len(frame) == 6
    assert (frame["state"] == "complete").all()


@pytest.mark.slow
def test_the_built_model_scores_what_the_leaderboard_says(
    project: Project, tmp_path: Path, tasks_folder: Path
) -> None:
    done = search("run", project(search={"trials": 9, "seed": 3}), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    frame = pd.read_parquet(tmp_path / "mix" / "leaderboard.parquet")
    assert search("build", tmp_path / "mix" / "best.yaml", tmp_path / "merged").returncode == 0
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from runs.storage.store import Store

    store = Store.open(str(tmp_path / "mix" / "study.db"))
    wanted = set(store.manifest.questions.search)
    samples: dict[str, list[int]] = {}
    for question in store.manifest.catalogue.questions:
        if question.id in wanted:
            samples.setdefault(question.task, []).append(question.position)
    store.close()
    result = lm_eval.simple_evaluate(
        model=HFLM(pretrained=str(tmp_path / "merged"), device="cpu", batch_size=8),
        tasks=["pick", "write"],
        task_manager=TaskManager(include_path=str(tasks_folder), include_defaults=False),
        samples=samples,
        bootstrap_iters=0,
    )
    assert frame["task:pick"][0] == result["results"]["pick"]["acc,none"]
    assert frame["task:write"][0] == result["results"]["write"]["exact_match,none"]


@pytest.mark.slow
def test_a_run_in_which_everything_fails_says_why_and_keeps_the_failures(
    project: Project, tmp_path: Path, tiny_model: Callable[..., Path]
) -> None:
    models = {}
    for name in ("left", "right"):
        folder = tiny_model(tmp_path / name)
        weights = load_file(folder / "model.safetensors")
        weights["model.norm.weight"][3] = float("nan")
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        models[name] = str(folder)
    config = project(base=None, models=models, search={"trials": 5})
    done = search("run", config, cwd=tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert "no candidate could be scored; most often: non_finite: " in line
    assert "model.norm.weight" in line
    frame = pd.read_csv(tmp_path / "mix" / "leaderboard.csv")
    assert list(frame["failure"]) == ["non_finite"] * 5
    assert not (tmp_path / "mix" / "best.yaml").exists()


def test_dry_run_needs_no_weights(project: Project, tmp_path: Path) -> None:
    done = search("run", project(search={"trials": 12}), "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "dry run" in done.stdout
    assert "dry run" in (tmp_path / "mix" / "report.html").read_text()


def refused(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    """One line per problem on stderr, exit code 2, no traceback."""
    assert done.returncode == 2, (done.stdout, done.stderr)
    lines = done.stderr.strip().splitlines()
    assert all(line.startswith("search: error: ") for line in lines), done.stderr
    for part in parts:
        assert any(part in line for line in lines), (part, done.stderr)


def test_all_problems_of_config_models_and_tasks_at_once(project: Project, tmp_path: Path) -> None:
    config = project(
        models={"math": str(tmp_path / "nowhere"), "code": str(tmp_path / "pickle")},
        tasks=["pikc", {"name": "write", "metric": "f1"}],
    )
    (tmp_path / "pickle").mkdir()
    (tmp_path / "pickle" / "config.json").write_text("{}")
    (tmp_path / "pickle" / "pytorch_model.bin").write_bytes(b"x")
    done = search("run", config, cwd=tmp_path)
    refused(done, "nowhere", "pytorch_model.bin", "pikc", "f1")
    assert not (tmp_path / "mix").exists()


def test_bad_keys_and_ranges(project: Project, tmp_path: Path) -> None:
    config = project(space={"wieght": [0, 1], "density": [1.0, 0.1], "methods": ["tise"]})
    refused(search("run", config, cwd=tmp_path), "wieght", "density", "tise")
    assert not (tmp_path / "mix").exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("run", "none.yaml"), "no such file"),
        (("resume", "none.db"), "no such file"),
        (("status", "text.db"), "another kind of file"),
        (("report", "text.db"), "another kind of file"),
        (("export", "."), "expected a run's folder with study.db"),
        (("build", "none.yaml", "out"), "expected a recipe file"),
        (("build", "text.db", "out"), "text.db"),
    ],
)
def test_wrong_files(tmp_path: Path, command: tuple[str, ...], message: str) -> None:
    (tmp_path / "text.db").write_text("just: text\n")
    refused(search(*command, cwd=tmp_path), message)
    assert files(tmp_path) == {"text.db"}


def test_models_or_tasks_that_changed_are_refused(
    project: Project, tmp_path: Path, tiny_model: Callable[..., Path], tiny_family: dict[str, Path]
) -> None:
    mine = tiny_model(tmp_path / "mine", base=tiny_family["base"], seed=9)
    config = project(models={"math": str(tiny_family["math"]), "mine": str(mine)})
    assert search("run", config, "--dry-run", "--trials", 6, cwd=tmp_path).returncode == 0
    study = tmp_path / "mix" / "study.db"
    before = study.read_bytes()
    refused(search("run", config, cwd=tmp_path), "search resume")
    tiny_model(mine, base=tiny_family["base"], seed=10)
    refused(search("resume", study, "--trials", 9), "model 'mine'", "expected the files")
    (mine / "model.safetensors").unlink()
    refused(search("resume", study, "--trials", 9), "mine", "--map OLD=NEW")
    assert study.read_bytes() == before


def test_usage_errors_are_code_2(tmp_path: Path) -> None:
    assert search("run", cwd=tmp_path).returncode == 2
    assert search("frobnicate").returncode == 2
    assert search("run", "x.yaml", "--trials", "0").returncode == 2


def test_version_and_help() -> None:
    assert search("--version").stdout.startswith("merge-search ")
    text = search("--help").stdout
    for command in ("demo", "run", "resume", "status", "report", "export", "build", "validate"):
        assert f"  {command} " in text
    assert not re.search(r"\w\.\.\.$", text, re.M)  # no summary is cut


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = {"COMP_WORDS": "search stat", "COMP_CWORD": "1", "_TYPER_COMPLETE_ARGS": "search stat"}
    words["_TYPER_COMPLETE_FISH_ACTION"] = "get-args"
    for name, value in (words | {"_SEARCH_COMPLETE": f"complete_{shell}"}).items():
        monkeypatch.setenv(name, value)
    assert "status" in search().stdout


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = search("--debug", "status", tmp_path / "none.db")
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert "Traceback" not in search("status", tmp_path / "none.db").stderr


def test_too_few_held_out_questions_are_refused(project: Project, tmp_path: Path) -> None:
    done = search("run", project(held_out=0.1), cwd=tmp_path)
    refused(done, "held_out: expected at least 20 questions of a task, got 7 of 70 from 'pick'")
    assert "hold out 0.29 or more" in done.stderr
    assert not (tmp_path / "mix").exists()


def test_a_budget_that_the_final_check_would_eat_up_is_refused(
    project: Project, tmp_path: Path
) -> None:
    done = search("run", project(search={"questions": 300}), cwd=tmp_path)
    refused(done, "search.questions: expected at least", "are for the final check", "got 300")
    done = search("run", project(search={"questions": 0, "validate": 0}), cwd=tmp_path)
    refused(done, "search.questions", "search.validate")
    assert not (tmp_path / "mix").exists()
