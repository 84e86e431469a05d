"""Where a study lies, through the command line: servers, full disks, places that are read-only."""

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
import sqlalchemy as sa

from runs.records.record import Split, State
from runs.storage import run_database
from runs.storage.store import Store
from spaces.text.redaction import hidden
from tests.command import apart, search

Project = Callable[..., Path]

DRY = {"trials": 14, "sampler": "random", "seed": 1}


def everything(url: str) -> str:
    """All that a database holds, as text."""
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        text = "\n".join(
            str(tuple(row))
            for table in sa.inspect(engine).get_table_names()
            for row in connection.exec_driver_sql(f'SELECT * FROM "{table}"')
        )
    engine.dispose()
    return text


def test_a_run_in_a_database_server(project: Project, tmp_path: Path, postgres) -> None:
    """From run to export, and the password nowhere: not shown, not stored, not in a file."""
    url, folder = postgres.database(), tmp_path / "here"
    config = project(search=DRY)
    done = search("run", config, "--dry-run", "--storage", url, "--out", folder)
    assert done.code == 0, done.err
    said = [done.out + done.err]
    for command in (
        ("status", url),
        ("resume", url, "--trials", 16),
        ("report", url),
        ("export", url, "--rank", 2),
        ("validate", url, "--top", 4),
        ("--debug", "export", url, "--rank", 1000),
        ("--debug", "resume", url, "--trials", "many"),
        ("run", config, "--storage", url),
    ):
        done = search(*command)
        assert done.code == (2 if "--debug" in command or command[0] == "run" else 0), done.err
        said.append(done.out + done.err)
    assert "search resume" in said[-1]
    assert "16 of 16 recipes" in search("status", url).out
    assert {path.name for path in folder.iterdir()} >= {"report.html", "best.yaml", "rank-2.yaml"}
    assert not (folder / "study.db").exists()
    said.append(everything(url))
    said += [path.read_bytes().decode("utf-8", "replace") for path in folder.iterdir()]
    for text in said:
        assert postgres.PASSWORD not in text
        assert quote(postgres.PASSWORD, safe="") not in text


def test_servers_that_do_not_answer_and_wrong_passwords(postgres) -> None:
    wrong = postgres.url("postgres", password="falsch")
    done = search("--debug", "status", wrong)
    assert done.code == 2
    assert "cannot be reached" in done.lines[-1]
    assert "authentication failed" in done.lines[-1]
    assert "falsch" not in done.err
    for url, expected in (
        ("postgresql://me:geheim@127.0.0.1:1/x", "Connection refused"),
        (postgres.url("nowhere"), "does not exist"),
        (postgres.url("postgres"), "expected a study made by `search run`"),
        ("mysql://me:geheim@127.0.0.1/x", "got no Python package MySQLdb"),
        ("nosuch://me:geheim@127.0.0.1/x", "expected a path or a database URL"),
        ("://me:geheim@", "expected a path or a database URL"),
    ):
        done = search("status", url)
        assert (done.code, len(done.lines)) == (2, 1), done.err
        assert expected in done.err
        assert "geheim" not in done.err


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:pw@host/db", "postgresql://me:***@host/db"),
        ("postgresql+psycopg://me:p:w/@host:5/db?x=1", "postgresql+psycopg://me:***@host:5/db?x=1"),
        ("at postgresql://me:p@w@host/db: no", "at postgresql://me:***@host/db: no"),
        ("postgresql://host/db?user=me&password=pw&x=1",
         "postgresql://host/db?user=me&password=***&x=1"),
        ("host=h password='p w' user=me", "host=h password=*** user=me"),
        ("sslpassword=pw: no", "sslpassword=*** no"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("http://host:80/path", "http://host:80/path"),
        ("max_tokens=3, tokenizer=base", "max_tokens=3, tokenizer=base"),
    ],
)  # fmt: skip
def test_passwords_are_hidden(text: str, shown: str) -> None:
    assert hidden(text) == shown
    assert hidden(hidden(text)) == shown


def test_a_server_that_goes_away_ends_the_run_and_loses_nothing(
    project: Project, tmp_path: Path, postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_database, "SERVER_SECONDS", 1.0)
    url, folder = postgres.database(), tmp_path / "here"
    finish, results = Store.finish, []

    def finish_and_pull_the_plug(store: Store, *arguments: object, **named: object) -> None:
        finish(store, *arguments, **named)
        results.append(arguments[0])
        if len(results) == 5:
            postgres.stop()

    monkeypatch.setattr(Store, "finish", finish_and_pull_the_plug)
    try:
        config = project(search=DRY)
        done = search("run", config, "--dry-run", "--storage", url, "--out", folder)
    finally:
        postgres.start()
    assert (done.code, len(done.lines)) == (1, 1), done.err
    assert "`search resume postgresql://searcher:***@127.0.0.1" in done.err
    monkeypatch.undo()
    store = Store.open(url)
    with store._engine.begin() as connection:  # of this process, which has not ended as others do
        connection.exec_driver_sql("DELETE FROM merge_search_lock")
    complete = [r for r in store.records() if r.evaluations[Split.SEARCH].state is State.COMPLETE]
    assert len(complete) == 5
    store.close()
    done = search("resume", url)
    assert done.code == 0, done.err
    store = Store.open(url)
    attempts = [record.evaluations[Split.SEARCH].attempts for record in store.records()]
    assert attempts == [1] * 14
    store.close()


def test_a_server_that_is_started_anew_costs_nothing(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres
) -> None:
    """Twice, with connections open: the driver waits, goes on, and writes everything once."""
    url, folder, expected = postgres.database(), tmp_path / "here", tmp_path / "expected"
    config = project(search=DRY)
    assert search("run", config, "--dry-run", "--out", expected).code == 0
    finish, results, restarts = Store.finish, [], []

    def finish_and_restart(store: Store, *arguments: object, **named: object) -> None:
        if len(results) in (4, 9):
            postgres.stop()
            restarts.append(threading.Timer(0.5, postgres.start))
            restarts[-1].start()
        results.append(arguments[0])
        finish(store, *arguments, **named)

    monkeypatch.setattr(Store, "finish", finish_and_restart)
    try:
        done = search("run", config, "--dry-run", "--storage", url, "--out", folder)
    finally:
        for restart in restarts:
            restart.join()
    monkeypatch.undo()
    assert done.code == 0, done.err
    assert len(restarts) == 2
    here, there = (Store.open(place) for place in (url, str(expected / "study.db")))
    mine, plain = here.records(), there.records()
    assert [r.recipe.key for r in mine] == [r.recipe.key for r in plain]
    for record, like in zip(mine, plain, strict=True):
        for split, evaluation in record.evaluations.items():
            assert evaluation.attempts == 1
            assert evaluation.value == like.evaluations[split].value
            assert here.outcomes(record.id, split) == there.outcomes(record.id, split)
    assert [t.values for t in here.study.trials] == [t.values for t in there.study.trials]
    here.close()
    there.close()


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 1.5 MB of its own."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(place)]
    if os.getuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("needs to be root where it may mount a file system")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.slow
def test_a_run_on_a_disk_that_fills_up(project: Project, small_disk: Path) -> None:
    config = project(search={"trials": 400, "sampler": "random", "seed": 1})
    run = small_disk / "run"
    done = apart("run", config, "--dry-run", "--out", run)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "full" in done.stderr
    assert "`search resume" in done.stderr
    store = Store.open(str(run / "study.db"))
    before = {
        record.id: (record, store.outcomes(record.id, Split.SEARCH))
        for record in store.records()
        if record.evaluations[Split.SEARCH].state is State.COMPLETE
    }
    store.close()
    assert 5 < len(before) < 400
    again = apart("resume", run / "study.db")
    assert (again.returncode, again.stderr.count("\n")) == (1, 1), again.stderr
    subprocess.run(["mount", "-o", "remount,size=50m", str(small_disk)], check=True)
    more = len(before) + 20
    done = search("resume", run / "study.db", "--trials", more)
    assert done.code == 0, done.err
    store = Store.open(str(run / "study.db"))
    records = store.records()
    assert len(records) == more
    for number, (record, outcomes) in before.items():
        assert (
            records[number].evaluations[Split.SEARCH].value
            == record.evaluations[Split.SEARCH].value
        )
        assert store.outcomes(number, Split.SEARCH) == outcomes
    store.hold()  # which checks the file
    store.close()


def test_a_study_on_a_disk_that_cannot_be_written(project: Project, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=50m", str(small_disk)], check=True)
    run = small_disk / "run"
    done = search("run", project(search=DRY), "--dry-run", "--out", run)
    assert done.code == 0, done.err
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    study = run / "study.db"
    before = study.read_bytes()
    assert "14 of 14 recipes" in search("status", study).out
    assert search("report", study, "--out", small_disk.parent / "out").code == 0
    for command in (
        ("resume", study, "--trials", 20),
        ("validate", study),
        ("report", study),
        ("export", study),
        ("run", project(search=DRY), "--dry-run", "--out", small_disk / "other"),
    ):
        done = search(*command)
        assert (done.code, len(done.lines)) == (2, 1), (command, done.err)
        assert re.search("cannot be (written|made)", done.err), done.err
    assert study.read_bytes() == before
    assert {path.name for path in run.iterdir()} >= {"study.db", "best.yaml"}


def test_a_run_writes_below_its_folder_only(project: Project, tmp_path: Path) -> None:
    """A process of its own, in an empty folder; models and tasks lie elsewhere."""
    config = project(search={"trials": 6, "sampler": "random"})
    shutil.copytree(Path(config).parent, tmp_path / "as_it_was", ignore=lambda *_: ["as_it_was"])
    here = tmp_path / "here"
    here.mkdir()
    place = {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp")}
    for folder in place.values():
        Path(folder).mkdir()
    command = [sys.executable, "-m", "search", "run", str(config), "--dry-run"]
    subprocess.run(command, cwd=here, env=os.environ | place, check=True, capture_output=True)
    assert [path.name for path in here.iterdir()] == ["mix"]
    assert {path.name for path in tmp_path.iterdir()} == {
        "mix.yaml", "as_it_was", "here", "home", "tmp",
    }  # fmt: skip
    assert (tmp_path / "as_it_was" / "mix.yaml").read_bytes() == config.read_bytes()


def test_a_larger_budget_in_any_unit_stays(project: Project, tmp_path: Path) -> None:
    settings = {"questions": 2000, "asking": "all", "sampler": "random"}
    config, study = project(search=settings, held_out=0), tmp_path / "run" / "study.db"
    done = search("run", config, "--dry-run", "--out", study.parent)
    assert done.code == 0, done.err
    counts = []
    for more in (("--questions", 3000), ("--hours", 0.5), (), ("--trials", 12), ("--trials", 30)):
        done = search("resume", study, *more)
        assert done.code == 0, done.err
        store = Store.open(str(study))
        counts.append(len(store.records()))
        store.close()
    first, kept, again, fewer, more = counts
    assert first == kept == again == more > 12  # the limit of questions stays beside the others
    assert fewer == first
    status = search("status", study).out
    assert "of 3,000 questions" in status
    assert "of 30 recipes" in status
    done = search("resume", study, "--gpu-hours", 2)
    assert (done.code, len(done.lines)) == (2, 1)
    assert "search.gpu_hours: expected workers with GPUs" in done.err
    assert search("resume", study).code == 0  # a limit that was refused is not kept
