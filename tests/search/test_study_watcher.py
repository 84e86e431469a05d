"""Looking at a run from another terminal: `search status --watch`, and Optuna's dashboard."""

from __future__ import annotations

import io
import json
import math
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from evaluators.workers.pool import Attendance
from runs.activity.worker_register import busy_share, machines, most_at_once
from runs.storage.store import Store
from search.commands import run_command
from search.commands.run_handle import Run
from search.inputs.overrides import Overrides
from search.monitoring.live import study_watcher
from search.monitoring.live.study_watcher import Watcher, await_study, watch
from tests.command import search


@pytest.fixture
def study(project: Callable[..., Path], tmp_path: Path) -> Path:
    """A finished run of 14 recipes with made-up scores."""
    out = tmp_path / "mix"
    run_command.run(project(), out=out, overrides=Overrides(trials=14), dry_run=True)
    return out / "study.db"


def watched(study: Path, *, terminal: bool, looks: int = 1) -> str:
    """What is shown in so many looks, after which the user presses Ctrl-C."""
    left = looks

    def sleep(seconds: float) -> None:
        nonlocal left
        assert seconds == 0.5
        left -= 1
        if not left:
            raise KeyboardInterrupt

    text = io.StringIO()
    with closing(Store.open(str(study))) as store:
        console = Console(file=text, force_terminal=terminal, width=120)
        watch(store, console, interval=0.5, sleep=sleep)
    return text.getvalue()


def test_a_finished_run_is_shown_once(study: Path) -> None:
    shown = watched(study, terminal=False)
    assert shown.count("\n") == 1
    assert "best " in shown
    assert "over the best parent" in shown
    assert "busy 0/1" in shown


def test_a_run_under_way_is_shown_until_ctrl_c_and_left_alone(study: Path) -> None:
    with closing(Store.open(str(study))) as store:
        # As a driver that has just begun: more to do, a candidate under way, the lock held.
        store.lock.acquire()
        store.set_fact("budget", json.dumps({"search.trials": 20}))
        recipe = store.records()[5].recipe
        number = store.add(replace(recipe, seed=99), origin="random", trial=None)
        before = study.read_bytes()
        standing = Watcher(store).standing()
        assert standing.phase == "search"
        assert (standing.done, standing.total, standing.running) == (14, 20, 1)
        assert list(standing.active) == [number]
        assert standing.lead.best > standing.lead.best_parent
        shown = watched(study, terminal=True, looks=3)
        assert f"candidate {number}" in shown
        assert "15 of 20 recipes" in shown
        assert "no driver is running" not in shown
        assert study.read_bytes() == before
        store.lock.release()
    assert "no driver is running; `search resume" in watched(study, terminal=False)


def test_what_a_driver_writes_between_two_queries_is_not_seen(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A candidate taken up after the candidates were read has parts, and no recipe yet."""
    with closing(Store.open(str(study))) as driver, closing(Store.open(str(study))) as store:
        driver.hold()
        parts = Store.parts

        def while_a_driver_goes_on(self: Store) -> object:
            if self is store:
                recipe = replace(self.records()[5].recipe, seed=99)
                driver.add(recipe, origin="random", trial=None)
            return parts(self)

        monkeypatch.setattr(Store, "parts", while_a_driver_goes_on)
        watcher = Watcher(store)
        assert watcher.standing().active == {}
        monkeypatch.undo()
        assert list(watcher.standing().active) == [14]


def test_pauses_take_no_time(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Store.open(str(study))) as driver, closing(Store.open(str(study))) as store:
        driver.lock.acquire()
        driver.set_fact("seconds", "100")
        watcher, now = Watcher(store), time.monotonic()
        monkeypatch.setattr(study_watcher.time, "monotonic", lambda: now)
        watcher.standing()
        now += 5
        assert watcher.seconds() == pytest.approx(105)  # it is at work since
        driver.lock.release()
        now += 3600
        watcher.standing()
        now += 3600
        assert watcher.seconds() == pytest.approx(105)
        driver.lock.acquire()
        driver.set_fact("seconds", "110")
        watcher.standing()
        now += 2
        assert watcher.seconds() == pytest.approx(112)
        driver.lock.release()


@pytest.mark.parametrize("end", ["killed", "stopped", "spent"])
def test_it_ends_with_the_driver_and_waits_for_a_resume_after_a_crash(
    study: Path, end: str
) -> None:
    looks = 0
    with closing(Store.open(str(study))) as driver, closing(Store.open(str(study))) as store:
        driver.lock.acquire()
        if end != "spent":
            driver.set_fact("budget", json.dumps({"search.trials": 20}))

        def sleep(seconds: float) -> None:
            nonlocal looks
            looks += 1
            if looks == 3 and end == "killed":
                with driver._engine.begin() as connection:
                    connection.exec_driver_sql("UPDATE merge_search_lock SET pid = 999999999")
            elif looks == 3:
                driver.lock.release()
            if looks == 6:
                raise KeyboardInterrupt

        text = io.StringIO()
        watch(store, Console(file=text, width=200), interval=0.5, sleep=sleep)
        if end == "killed":
            with driver._engine.begin() as connection:
                connection.exec_driver_sql("DELETE FROM merge_search_lock")
    assert looks == (6 if end == "killed" else 3)
    assert ("no driver is running" in text.getvalue().splitlines()[-1]) == (end != "spent")


@pytest.mark.parametrize("folder", [False, True])
def test_a_study_that_is_not_there_yet_is_waited_for(tmp_path: Path, folder: bool) -> None:
    place, text, looks = tmp_path / "mix", io.StringIO(), 0
    study = place / "study.db"

    def sleep(seconds: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            place.mkdir()
        if looks == 4:
            study.touch()
        assert looks < 5

    if folder:
        place.mkdir()
        looks = 2
    asked = str(place if folder else study)
    found = await_study(asked, Console(file=text, width=200), interval=0.5, sleep=sleep)
    assert (found, looks) == (str(study), 4)
    assert text.getvalue() == f"waiting for {asked}; Ctrl-C stops\n"


def test_it_watches_a_whole_run_from_before_it_begins(
    project: Callable[..., Path], tmp_path: Path
) -> None:
    """In a process of its own, across a driver that is stopped and one that goes on."""
    out = tmp_path / "mix"
    command = [sys.executable, "-m", "search", "status", str(out / "study.db"), "--watch"]
    with subprocess.Popen(
        [*command, "--interval", "0.5"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as watcher:
        assert watcher.stdout is not None
        assert "waiting for" in watcher.stdout.readline()
        run_command.run(project(), out=out, overrides=Overrides(trials=30), dry_run=True)
        said, errors = watcher.communicate()
    assert (watcher.returncode, errors) == (0, "")
    assert "30 done" in said
    assert Path(out / "study.db").read_bytes()[18:20] == b"\1\1"  # one plain file afterwards


def test_one_machine_is_one_whatever_ray_calls_it() -> None:
    times = ((0.0, 10.0), (20.0, 30.0), (40.0, 50.0), (60.0, None))
    resumed = [
        Attendance(worker="w", node=f"host (id{at})", gpus=0.0, joined=joined, left=left)
        for at, (joined, left) in enumerate(times)
    ]
    assert (most_at_once(resumed), machines(resumed)) == (1, 1)
    second = replace(resumed[0], node="other (idx)", joined=5.0)
    assert (most_at_once([*resumed, second]), machines([*resumed, second])) == (2, 2)
    same_name = replace(resumed[0], node="host (idx)", joined=5.0)  # two nodes at one time
    assert machines([*resumed, same_name]) == 2
    back = replace(resumed[0], left=-100.0)  # the clock was set back
    assert (most_at_once([back]), busy_share([back])) == (0, pytest.approx(math.nan, nan_ok=True))


GARBAGE = ("", "[", "[]", "null", "x", "nan", "-1", "1e400", '{"a": 1}', '{"search.trials": []}',
           '{"tried": 7}', "\x00", "[" * 100_000)  # fmt: skip


@pytest.mark.parametrize("value", GARBAGE, ids=lambda value: value[:20] or "empty")
def test_facts_that_nobody_wrote_are_damage(study: Path, value: str, tmp_path: Path) -> None:
    """One line and exit code 2, or no harm: never a traceback."""
    keys = ("seconds", "gpus", "budget", "ended", "exhausted", "finalists", "worker:0", "worker:x",
            "fit:0:6", "fit:0:x", "folder", "file")  # fmt: skip
    content = study.read_bytes()
    for key in keys:
        with closing(sqlite3.connect(study)) as connection:
            row = (f"now:{key}", value)
            connection.execute("insert or replace into merge_search_run values (?, ?)", row)
            connection.commit()
        for command in (("status",), ("report", "--format", "csv", "--out", tmp_path / "r")):
            done = search(command[0], study, *command[1:])
            assert "shows where" not in done.err, (key, command, done.err)
            assert done.code in (0, 2), (key, command, done.err)
            assert len(done.lines) == (done.code == 2), (key, command, done.err)
        study.write_bytes(content)


@contextmanager
def dashboard(study: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("optuna-dashboard")
    command = [str(program), f"sqlite:///{study}", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()
        assert server.stdout is not None
        server.stdout.close()


def read(url: str) -> Any:
    until = time.monotonic() + 200
    while True:
        try:
            with urllib.request.urlopen(url, timeout=20) as answer:
                return json.load(answer)
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.2)


@pytest.mark.slow
def test_optunas_dashboard_opens_a_study(study: Path) -> None:
    with dashboard(study) as address:
        (summary,) = read(f"{address}/api/studies")["study_summaries"]
        assert summary["study_name"] == "merge-search"
        detail = read(f"{address}/api/studies/{summary['study_id']}")
    with closing(Store.open(str(study))) as store:
        told = {trial.number: trial.values for trial in store.study.trials}
        trials = [record.trial for record in store.records() if record.trial is not None]
    shown = {trial["number"]: trial.get("values") for trial in detail["trials"]}
    assert shown == told
    assert set(trials) <= set(shown)


def test_optuna_shows_what_came_of_a_trial(study: Path) -> None:
    """Method, rank and task scores, as of the leaderboard, and again after a resume."""
    for trials in (14, 18):
        assert search("resume", study, "--trials", trials).code == 0
        board = Run(study).leaderboard().dropna(subset=["trial"]).set_index("trial")
        with closing(Store.open(str(study))) as store:
            shown = {trial.number: trial.user_attrs for trial in store.study.trials}
        for number, row in board.iterrows():
            attrs = shown[number]
            assert attrs["candidate"] == row["candidate"]
            assert (attrs["method"], attrs["rank"]) == (row["method"], row["rank"])
            names = [name for name in board if name.startswith(("task:", "held_out:"))]
            assert names
            for name in names:
                value = None if math.isnan(row[name]) else pytest.approx(row[name])
                assert attrs.get(name) == value, name


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("finalists", '{"tried": 7}'),
        ("finalists", "{"),
        ("fit:0:6", "x"),
        ("worker:0", '{"worker": 1}'),
        ("seconds", "x"),
    ],
)
def test_nor_does_a_resume_take_them(study: Path, key: str, value: str) -> None:
    with closing(sqlite3.connect(study)) as connection:
        row = (f"now:{key}", value)
        connection.execute("insert or replace into merge_search_run values (?, ?)", row)
        connection.commit()
    done = search("resume", study, "--trials", 16)
    assert (done.code, len(done.lines)) == (2, 1), done.err
    assert "expected what `search run` wrote, got damage" in done.err
