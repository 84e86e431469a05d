"""Going on with a study: what was edited since, and when there is nothing to do."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from runs.storage.store import Store
from search.engine import driver
from search.inputs.stored_study.study_config import config_of

Command = Callable[..., Any]


@pytest.fixture
def made(project: Callable[..., Path], command: Command, tmp_path: Path) -> Path:
    """A finished dry run of ``mix.yaml``: 12 recipes."""
    config = project(search={"trials": 12, "sampler": "random"})
    done = command("run", config, "--dry-run")
    assert done.returncode == 0, done.stderr
    return tmp_path / "mix" / "study.db"


def test_a_study_from_before_loops_were_ended_ends_none(made: Path) -> None:
    with Store.open(str(made)) as store:
        assert config_of(store).harness.end_loops
        written = yaml.safe_load(store.manifest.config)
        del written["harness"]["end_loops"]
        old = replace(store.manifest, config=yaml.safe_dump(written))
        before = SimpleNamespace(manifest=old, name=store.name, mapping=store.mapping)
        assert not config_of(before).harness.end_loops  # type: ignore[arg-type]


def edit(config: Path, changes: dict[str, Any]) -> None:
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | changes))


def test_an_edited_config_is_said_key_by_key(made: Path, command: Command, tmp_path: Path) -> None:
    config = tmp_path / "mix.yaml"
    edit(
        config,
        {
            "search": {"trials": 30, "sampler": "tpe"},
            "space": {"density": [0.2, 0.9]},
            "workers": {"ray": False, "timeout": 99.0},
        },
    )
    for arguments in (("--trials", 13), ("--trials", 2)):  # also where there is nothing to do
        done = command("resume", made, *arguments)
        assert done.returncode == 0, done.stderr
        lines = [line.partition("  ")[2] or line for line in done.stdout.splitlines()]
        lines = [line.strip() for line in lines]
        assert f"{config} was edited since the study was made" in done.stdout
        assert any(
            "search.trials:" in line and "the file says 30; --trials changes it" in line
            for line in lines
        )
        assert "search.sampler: 'random' counts, the file says 'tpe'" in lines
        assert "space.density: [0.1, 1.0] counts, the file says [0.2, 0.9]" in lines
        assert "workers.timeout: nothing counts, the file says 99.0" in lines
        assert f"search.seeds: [defaults, {made}]" in done.stdout
        assert "search.seed:" not in done.stdout
    assert "edited" in command("validate", made).stdout


def test_what_the_command_line_follows_is_no_difference(
    made: Path, command: Command, tmp_path: Path
) -> None:
    edit(tmp_path / "mix.yaml", {"search": {"trials": 14, "sampler": "random"}})
    assert "edited" not in command("resume", made, "--trials", 14).stdout
    assert "edited" in command("resume", made, "--trials", 15).stdout


def test_values_of_the_first_command_line_are_no_edit(
    project: Callable[..., Path], command: Command, tmp_path: Path
) -> None:
    config = project(search={"trials": 12, "sampler": "random"})
    assert command("run", config, "--dry-run", "--trials", 10).returncode == 0
    assert "edited" not in command("resume", tmp_path / "mix", "--trials", 11).stdout


@pytest.mark.parametrize("text", ["models: {a: [}\n", "tasks: [x]\n"])
def test_a_config_that_is_broken_now(
    made: Path, command: Command, tmp_path: Path, text: str
) -> None:
    (tmp_path / "mix.yaml").write_text(text)
    done = command("resume", made, "--trials", 13)
    assert done.returncode == 0, done.stderr
    assert "was edited and cannot be read now" in done.stdout


def test_a_study_that_moved_alone_says_nothing(
    made: Path, command: Command, tmp_path: Path
) -> None:
    shutil.move(made.parent, tmp_path / "moved")
    (tmp_path / "mix.yaml").unlink()
    done = command("resume", tmp_path / "moved", "--trials", 13)
    assert done.returncode == 0, done.stderr
    assert "edited" not in done.stdout


@pytest.mark.parametrize("arguments", [(), ("--trials", 5), ("--trials", 12)])
def test_nothing_to_do_starts_nothing(
    made: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[object, ...],
) -> None:
    monkeypatch.setattr(driver, "make_pool", lambda _: pytest.fail("workers were started"))
    before = made.read_bytes()
    done = command("resume", made, *arguments)
    assert done.returncode == 0, done.stderr
    assert "nothing to do, the budget is spent (12 of" in done.stdout
    assert "none; the budget is spent" in command("status", made).stdout
    if 5 not in arguments:
        assert made.read_bytes() == before


def test_a_larger_budget_is_something_to_do(made: Path, command: Command) -> None:
    done = command("resume", made, "--trials", 14)
    assert "nothing to do" not in done.stdout
    assert "14 of 14 recipes" in command("status", made).stdout


def test_without_a_base_check_says_what_is_left_out(
    project: Callable[..., Path], command: Command, tiny_family: dict[str, Path], tmp_path: Path
) -> None:
    done = command("check", project(base=None), "--quick")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "for want of a base" in line]
    assert line.startswith("note: ")
    assert "ties" in line
    assert "task_arithmetic" in line
    assert "set `base` to the model that all were fine-tuned from." in line
    assert "for want of a base" not in command("check", project(), "--quick").stdout
    bounds = {"methods": ["linear"]}  # as asked for
    assert (
        "for want of a base"
        not in command("check", project(base=None, space=bounds), "--quick").stdout
    )


def test_the_base_that_the_cards_name_is_offered(
    project: Callable[..., Path], command: Command, tiny_family: dict[str, Path], tmp_path: Path
) -> None:
    models = {}
    for name in ("math", "code"):
        models[name] = str(shutil.copytree(tiny_family[name], tmp_path / name))
        card = tmp_path / name / "README.md"
        card.write_text("---\nbase_model: org/base\n---\n# Card\n")
    done = command("check", project(base=None, models=models), "--quick")
    assert "(their model cards name org/base)" in done.stdout
