"""What programs get of commands: JSON, silence, exit codes; and examples for people."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import typer.main

from search.cli.app import app
from search.cli.command_output import EXAMPLES, OWN_OUTPUT
from search.engine.session import Session
from tests.command import search

CONFIG = """
base: ./base
models: {math: ./math, code: ./code}
tasks: [one]
space: {methods: [linear, ties]}
search: {trials: 8, sampler: random, seed: 1}
workers: {ray: false}
"""
COMMANDS = typer.main.get_command(app).commands


@pytest.fixture
def config(tmp_path: Path, tiny_family: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, path in tiny_family.items():
        (tmp_path / name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mix.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_examples_that_are_understood(name: str) -> None:
    said = search(name, "-h")
    assert said.code == 0
    options = said.out.split("Options:")[1]
    assert not re.search(r"--\S+ <", options), "a type stands where a word belongs"
    assert EXAMPLES[name]
    for line in EXAMPLES[name]:
        assert f"  {line}\n" in said.out
        program, command, *arguments = shlex.split(line)
        assert (program, command) == ("search", name)
        COMMANDS[name].make_context(name, arguments)
    assert ("--quiet" in said.out) == ("--json" in said.out) == (name not in OWN_OUTPUT)


def test_a_run_and_what_follows_tell_programs(config: Path) -> None:
    done = search("run", config, "--dry-run", "--json")
    assert done.code == 0
    found = json.loads(done.out)
    assert (found["format"], found["command"], found["stopped"]) == (1, "run", False)
    assert Path(found["study"]).samefile("mix/study.db")
    assert all(Path(path).exists() for path in found["written"])
    status = json.loads(search("status", "mix", "--json").out)
    assert status["best"] == found["best"]
    assert status["verdict"] == found["verdict"]
    assert status["verdict"]["sentence"]
    assert (status["complete"], status["driver"], status["dry_run"]) == (True, None, True)
    assert status["candidates"] == {
        "done": 8, "failed": {}, "under_way": 0, "held_out": status["candidates"]["held_out"],
    }  # fmt: skip
    assert status["budget"] == {"trials": {"spent": 8, "limit": 8}}
    for command in (("report", "mix", "--format", "csv"), ("export", "mix")):
        written = json.loads(search(*command, "--json").out)["written"]
        assert len(written) == 1
        assert Path(written[0]).exists()


def test_quiet_prints_nothing_but_errors(config: Path) -> None:
    for command in (("run", config, "--dry-run"), ("status", "mix"), ("report", "mix")):
        done = search(*command, "--quiet")
        assert (done.code, done.out, done.err) == (0, "", "")
    failed = search("status", "nowhere", "-q")
    assert failed.code == 2
    assert failed.err.startswith("search: error: nowhere")


def test_a_stopped_run_has_an_exit_code_of_its_own(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = Session.run
    monkeypatch.setattr(Session, "run", lambda self: False)
    stopped = search("run", config, "--dry-run", "--json")
    assert stopped.code == 3
    assert json.loads(stopped.out)["stopped"] is True

    def interrupted(self: Session) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(Session, "run", interrupted)
    at_once = search("resume", "mix")
    assert at_once.code == 3
    assert "`search resume mix/study.db`" in at_once.err
    monkeypatch.setattr(Session, "run", go_on)
    assert search("resume", "mix").code == 0


def test_each_step_before_the_first_candidate_is_told(config: Path) -> None:
    said = search("run", config, "--dry-run").out
    steps = re.findall(r"^\d\d:\d\d:\d\d  (.*) \.\.\.$", said, re.MULTILINE)
    assert steps == [
        "loading the libraries",
        "reading the models' headers",
        "loading the tasks",
        "starting the worker",
        "preparing statistics of the models",
        "asking the first questions",
    ]
    assert said.index(steps[-1]) < said.index("search 1/8")
    again = search("resume", "mix", "--trials", 9).out
    assert "  reading the models ...\n" in again
