"""Studies of strangers: what they name runs only where it was made here, or its user says so."""

from __future__ import annotations

import json
import os
import pickle
import pty
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import search
from runs.config.run_config import RunConfig
from runs.storage.store import Store
from search.inputs.stored_study import code_trust

Command = Callable[..., Any]

EVALUATOR = """
from pathlib import Path
from evaluators.protocol import Outcome, Question, TaskInfo
from evaluators.custom_evaluator import ModelEvaluator

Path(__file__).with_name("it-ran").touch()

def make(spec):
    raise SystemExit("ran")
"""


@pytest.fixture
def made(project: Callable[..., Path], command: Command, tmp_path: Path) -> Path:
    """A study made here, whose task files lie in a folder of its own."""
    done = command("run", project(search={"trials": 4, "sampler": "random"}, held_out=0.3))
    assert done.returncode == 0, done.stderr
    return tmp_path / "mix" / "study.db"


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Another user's state folder."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other-state"))


def rewritten(study: Path, old: str, new: str) -> None:
    """The study's config with a text in it replaced, as somebody else could do it."""
    with closing(sqlite3.connect(study)) as connection:
        (text,) = connection.execute(
            "select value from merge_search_run where key = 'config'"
        ).fetchone()
        assert old in text
        connection.execute(
            "update merge_search_run set value = ? where key = 'config'", (text.replace(old, new),)
        )
        connection.commit()


def test_a_study_made_here_goes_on_and_so_does_a_copy(
    made: Path, command: Command, tmp_path: Path
) -> None:
    assert command("resume", made, "--trials", 5).returncode == 0
    copy = shutil.copytree(made.parent, tmp_path / "copy")
    done = command("resume", copy, "--trials", 6)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("going_on", ["resume", "validate"])
def test_a_study_made_elsewhere_needs_the_flag_once(
    made: Path, command: Command, elsewhere: None, going_on: str, tasks_folder: Path
) -> None:
    more = ("--trials", 5) if going_on == "resume" else ()
    before = made.read_bytes()
    done = command(going_on, made, *more)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert f"functions that task files name below {tasks_folder}" in line
    assert "--trust-study" in line
    assert made.read_bytes() == before
    assert command(going_on, made, *more, "--trust-study").returncode == 0
    assert command(going_on, made, *more).returncode == 0  # remembered


def test_an_evaluator_written_into_a_study_does_not_run(
    made: Path, command: Command, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(EVALUATOR)
    rewritten(made, "evaluator: null", f"evaluator: {tmp_path / 'own.py'}:make")
    for going_on in (("resume", made, "--trials", 9), ("validate", made)):
        done = command(*going_on)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert f"the evaluator {tmp_path / 'own.py'}:make" in done.stderr
    for reading in (("status",), ("report",), ("export",)):
        assert command(*reading, made).returncode == 0
    assert not (tmp_path / "it-ran").exists()
    with pytest.raises(search.UserError, match="--trust-study"):
        search.resume(made, trials=9)
    assert not (tmp_path / "it-ran").exists()


class Nasty:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("/tmp/merge-search-it-ran",)


def test_a_pickle_that_names_something_else_is_not_loaded(
    project: Callable[..., Path], command: Command, tmp_path: Path
) -> None:
    """Even in a study made here: somebody else may have had it in hand."""
    space = {"methods": ["linear"], "order": "all-at-once"}
    config = project(search={"trials": 24, "sampler": "cmaes"}, space=space)
    assert command("run", config, "--dry-run").returncode == 0
    study = tmp_path / "mix" / "study.db"
    assert command("resume", study, "--trials", 26).returncode == 0
    with closing(sqlite3.connect(study)) as connection:
        changed = connection.execute(
            "update trial_system_attributes set value_json = ? where key = 'cma:optimizer:0'",
            (json.dumps(pickle.dumps(Nasty()).hex()),),
        )
        assert changed.rowcount
        connection.execute("delete from trial_system_attributes where key like 'cma:optimizer:1'")
        connection.commit()
    done = command("resume", study, "--trials", 28)
    assert done.returncode == 2
    assert "got a pickle that names posix.mkdir" in done.stderr
    assert not Path("/tmp/merge-search-it-ran").exists()


@pytest.mark.parametrize(
    ("changes", "dry_run", "line"),
    [
        ({"search": {"sampler": "cmaes"}}, True, "which is a pickle in the study (cmaes)"),
        ({"workers": {"runtime_env": {"pip": ["x"]}}}, True, "{pip: ['x']}"),
        ({"workers": {"ray_address": "ray://evil:1"}}, True, "the Ray cluster at ray://evil:1"),
        (
            {"harness": {"trust_remote_code": True}},
            False,
            "comes with the tasks' data and with a/b",
        ),
        ({"evaluator": "own.py:Own"}, False, "the evaluator own.py:Own"),
        ({"evaluator": "own.py:Own"}, True, None),
        ({"include_path": ["/nowhere"]}, False, "below /nowhere"),
        ({"workers": {"ray_address": "auto"}}, False, None),
        ({}, False, None),
    ],
)
def test_what_would_run(changes: dict[str, Any], dry_run: bool, line: str | None) -> None:
    config = RunConfig.model_validate({"models": {"a": "a/b"}, "tasks": ["t"]} | changes)
    named = code_trust._named(config, dry_run=dry_run)
    lines = [text for key, value in named.items() for text in code_trust._LINES[key](value)]
    assert len(lines) == (line is not None)
    assert line is None or line in lines[0]


def test_python_files_are_named(tmp_path: Path) -> None:
    for name in "abcdefg":
        (tmp_path / f"{name}.py").touch()
    assert code_trust._with_files(str(tmp_path)) == (
        f"{tmp_path} (a.py, b.py, c.py, d.py, e.py, 2 more)"
    )


def test_the_key_is_private_and_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with pytest.raises(OSError, match="No such file"):
        code_trust._key(make=False)
    key = code_trust._key(make=True)
    assert code_trust._key(make=True) == code_trust._key(make=False) == key
    file = tmp_path / "merge-search" / "key"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    file.chmod(0o644)
    with pytest.raises(OSError, match="only its user can read"):
        code_trust._key(make=True)
    file.chmod(0o600)
    file.write_text("")
    with pytest.raises(OSError, match="expected a key"):
        code_trust._key(make=True)


def test_a_key_that_cannot_be_kept_is_said(
    made: Path, command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    done = command("resume", made, "--trials", 5, "--trust-study")
    assert done.returncode == 0, done.stderr
    assert "going on with this study will need --trust-study" in done.stdout


def test_marks_of_two_machines_stand_beside_each_other(
    made: Path, command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = os.environ["XDG_STATE_HOME"]
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "there"))
    assert command("resume", made, "--trials", 5, "--trust-study").returncode == 0
    monkeypatch.setenv("XDG_STATE_HOME", here)
    assert command("resume", made, "--trials", 6).returncode == 0
    store = Store.open(str(made))
    assert len(store.facts("made here:")) == 2
    store.close()


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 2)])
def test_at_a_terminal_it_asks(made: Path, elsewhere: None, answer: str, code: int) -> None:
    leader, follower = pty.openpty()
    os.write(leader, answer.encode())
    process = subprocess.run(
        [sys.executable, "-m", "search", "resume", str(made), "--trials", "5"],
        stdin=follower, stderr=follower, stdout=subprocess.PIPE, check=False,
    )  # fmt: skip
    os.close(follower)
    said = os.read(leader, 100_000).decode()
    assert process.returncode == code, said
    assert "Do you trust all of it?" in said
    assert "functions that task files name below" in said
