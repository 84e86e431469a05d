"""Models that moved, and files that others can use: relative places, hub ids, ``--map``."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

import search
from runs.config.locations import portable
from runs.storage.tables import EVALUATIONS
from search.inputs.input_error import InputError
from search.inputs.moved_locations import moved_locations, read_moves

Command = Callable[..., Any]


@pytest.fixture
def made(
    project: Callable[..., Path],
    command: Command,
    tiny_family: dict[str, Path],
    tasks_folder: Path,
    tmp_path: Path,
) -> Path:
    """A study of models and task files below ``tmp_path/here``."""
    here = tmp_path / "here"
    models = {name: str(shutil.copytree(path, here / name)) for name, path in tiny_family.items()}
    shutil.copytree(tasks_folder, here / "tasks")
    config = project(
        base=models.pop("base"),
        models=models,
        include_path=str(here / "tasks"),
        search={"trials": 6, "sampler": "random", "seed": 1},
    )
    done = command("run", config, "--out", "runs/one")
    assert done.returncode == 0, done.stderr
    return tmp_path / "runs" / "one"


def test_models_and_tasks_that_moved(made: Path, command: Command, tmp_path: Path) -> None:
    (tmp_path / "here").rename(tmp_path / "there")
    done = command("resume", made, "--trials", 7)
    assert done.returncode == 2
    assert "--map OLD=NEW" in done.stderr
    there = f"{tmp_path / 'here'}=there"
    done = command("resume", made, "--trials", 7, "--map", there)
    assert done.returncode == 0, done.stderr
    assert command("resume", made, "--trials", 8).returncode == 0  # remembered
    best = yaml.safe_load((made / "best.yaml").read_text())
    assert set(best["merge_search"]["models"].values()) <= {
        f"../../there/{name}" for name in ("base", "math", "code", "text")
    }


def test_other_models_are_refused_by_their_hash(
    made: Path, command: Command, tmp_path: Path
) -> None:
    shutil.copytree(tmp_path / "here" / "code", tmp_path / "other")
    before = (made / "study.db").read_bytes()
    for going_on in (("resume", "--trials", 7), ("validate",)):
        name, *more = going_on
        done = command(name, made, *more, "--map", "math=./other")
        assert done.returncode == 2
        assert "model 'math'" in done.stderr
        assert "expected the files that the study was made with, got others" in done.stderr
    assert (made / "study.db").read_bytes() == before


def test_build_and_export_of_models_that_moved(
    made: Path, command: Command, tmp_path: Path
) -> None:
    (tmp_path / "here").rename(tmp_path / "there")
    moved = ("--map", f"{tmp_path / 'here'}={tmp_path / 'there'}")
    out = tmp_path / "elsewhere" / "out.yaml"
    assert command("export", made, "--out", out, *moved).returncode == 0
    assert "../there/" in out.read_text()
    done = command("build", out, tmp_path / "one")
    assert done.returncode == 0, done.stderr
    assert "The weights are those that were scored." in done.stdout
    old = made / "best.yaml"
    assert command("build", old, tmp_path / "two").returncode == 2
    done = command("build", old, tmp_path / "two", "--map", "../../here=there")
    assert done.returncode == 0, done.stderr
    assert "The weights are those that were scored." in done.stdout
    # Python has the same
    again = search.build(old, tmp_path / "three", moved={"../../here": str(tmp_path / "there")})
    assert again.verified


def test_files_for_others_hold_no_absolute_path(
    made: Path, command: Command, tmp_path: Path
) -> None:
    assert command("report", made).returncode == 0
    assert command("build", made / "best.yaml", tmp_path / "merged").returncode == 0
    card = tmp_path / "merged" / "README.md"
    for file in (*made.iterdir(), card):
        if file.suffix in (".md", ".html", ".json", ".csv", ".yaml"):
            assert str(tmp_path) not in file.read_text(), file
    # the recipe in the card builds beside it, and the config in the report runs in the run's folder
    recipe = tmp_path / "merged" / "recipe.yaml"
    recipe.write_text(card.read_text().split("```yaml\n")[1].split("\n```")[0])
    assert "in this folder" in card.read_text()
    assert command("build", recipe, tmp_path / "again").returncode == 0
    text = (made / "leaderboard.md").read_text().split("config.yaml:\n\n```yaml\n")[1]
    (made / "config.yaml").write_text(text.split("\n```")[0])
    done = command("check", made / "config.yaml", "--quick")
    assert done.returncode == 0, done.stderr


def test_reports_and_cards_name_no_far_folder_either(
    project: Callable[..., Path], command: Command, tmp_path: Path, tiny_family: dict[str, Path]
) -> None:
    """Models and tasks have no folder in common with the run but the root."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as far:
        folder = Path(far)
        for name in ("base", "math", "code"):
            shutil.copytree(tiny_family[name], folder / name)
        places = {name: str(folder / name) for name in ("math", "code")}
        config = project(models=places, base=str(folder / "base"))
        assert command("run", config, "--dry-run", "--trials", 8).returncode == 0
        made = tmp_path / "mix"
        command("build", made / "best.yaml", tmp_path / "merged")  # not what a dry run "scored"
        for file in (*made.glob("*.html"), *made.glob("*.md"), *made.glob("*.json"),
                     *made.glob("*.csv"), tmp_path / "merged" / "README.md"):  # fmt: skip
            assert far not in file.read_text(), file
        assert "./math" in (made / "leaderboard.md").read_text()
        assert far in (made / "best.yaml").read_text()  # or it could not be built here


def test_home_folders_in_messages_read_as_such(
    project: Callable[..., Path], command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "somebody"))
    config = project(search={"trials": 8, "sampler": "random", "seed": 1})
    assert command("run", config, "--dry-run").returncode == 0
    study = tmp_path / "mix" / "study.db"
    with closing(sqlite3.connect(study)) as connection:
        table = EVALUATIONS.name
        connection.execute(
            f"update {table} set state = 'failed', failure_kind = 'task', failure_message = ? "
            "where candidate = 7",
            (f"{tmp_path}/somebody/tasks/x.yaml: broken",),
        )
        connection.commit()
    assert command("report", study).returncode == 0
    for name in ("leaderboard.md", "leaderboard.csv", "leaderboard.json"):
        text = (tmp_path / "mix" / name).read_text()
        assert "somebody" not in text
        assert "/tasks/x.yaml: broken" in text


def test_relative_places_count_from_the_files_folder(
    made: Path, command: Command, tmp_path: Path
) -> None:
    """Also where the same relative path leads to something else from here."""
    trap = tmp_path.parent / "here"
    assert not trap.exists()
    text = (made / "best.yaml").read_text()
    assert "# Relative paths count from this file's folder" in text
    deep = tmp_path / "runs" / "two"
    shutil.copytree(made, deep)
    shutil.copytree(tmp_path / "here" / "base", tmp_path / "runs" / "here" / "math")
    found = search.load_recipe(deep / "best.yaml")
    from search.inputs.recipe_models import open_models

    opened = open_models(found, deep / "best.yaml")
    for name, checkpoint in opened.items():
        assert checkpoint.folder.resolve() == tmp_path / "here" / name


def test_absolute_places_where_asked_for(made: Path, command: Command, tmp_path: Path) -> None:
    assert command("export", made, "--absolute").returncode == 0
    text = (made / "best.yaml").read_text()
    assert str(tmp_path / "here") in text
    assert "# Relative" not in text


def test_mergekit_reads_it_from_there(
    made: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = pytest.importorskip("mergekit.config")
    monkeypatch.chdir(made)
    text = (made / "best.yaml").read_text()
    if "\n---" in text:
        pytest.skip("a tree")
    read = config.MergeConfiguration.model_validate(yaml.safe_load(text))
    for model in read.referenced_models():
        assert Path(model.model.path).is_dir()


@pytest.mark.parametrize(
    ("location", "folder", "expected"),
    [
        ("org/model@v1", "/home/me/run", "org/model@v1"),
        ("/home/me/models/a", "/home/me/run", "../models/a"),
        ("/home/me/run/models/a", "/home/me/run", "./models/a"),
        ("/data/models/a", "/home/me/run", "/data/models/a"),
        ("/home/me/a+org/lora", "/home/me/run", "../a+org/lora"),
        ("/home/me/a+/home/me/b", "/home/me/run", "../a+../b"),
        ("models/a", "/home/me/run", "models/a"),
        ("/c/hub/models--org--name/snapshots/0a1b", "/home/me", "org/name@0a1b"),
        ("/other/models--org--name/snapshots/0a1b", "/home/me",
         "/other/models--org--name/snapshots/0a1b"),
    ],
)  # fmt: skip
def test_portable(
    location: str, folder: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "/c/hub")
    assert portable(location, Path(folder)) == expected


PLACES = {"base": "/m/base", "math": "/m/math+/m/lora", "code": "org/code", "plus": "/n/a"}


@pytest.mark.parametrize(
    ("moves", "expected"),
    [
        (["/m=/k"], {"base": "/k/base", "math": "/k/math+/k/lora"}),
        (["/m/=/k/"], {"base": "/k/base", "math": "/k/math+/k/lora"}),
        (["math=/x"], {"math": "/x"}),
        (["org/code=/x/code"], {"code": "/x/code"}),
        (["/m/base=org/base", "/m=/k"], {"base": "org/base", "math": "/k/math+/k/lora"}),
    ],
)
def test_moves(moves: list[str], expected: dict[str, str]) -> None:
    assert moved_locations(PLACES, read_moves(moves)) == PLACES | expected


@pytest.mark.parametrize("text", ["x", "=x", "x=", ""])
def test_a_move_has_two_sides(text: str) -> None:
    with pytest.raises(InputError, match="expected OLD=NEW"):
        read_moves([text])


@pytest.mark.parametrize("old", ["/mm", "/m/mat", "bas", "or"])
def test_a_move_of_nothing_is_refused(old: str) -> None:
    with pytest.raises(InputError, match=r"--map: expected a model or the start of its path"):
        moved_locations(PLACES, read_moves([f"{old}=/x"]))
