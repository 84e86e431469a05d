"""Looking at a run from another terminal: `search status --watch`, and Optuna's dashboard."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from runs.store import Store
from search import commands
from search.overrides import Overrides
from search.reading import config_of
from search.watching import Watcher, watch


@pytest.fixture
def study(project: Callable[..., Path], tmp_path: Path) -> Path:
    """A finished run of 14 recipes with made-up scores."""
    out = tmp_path / "mix"
    commands.run(project(), out=out, overrides=Overrides(trials=14), dry_run=True)
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
        watch(store, config_of(store, Overrides()), console, interval=0.5, sleep=sleep)
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
        store.set_fact("budget", json.dumps({"search.trials": 20}))
        recipe = store.records()[5].recipe
        from dataclasses import replace

        number = store.add(replace(recipe, seed=99), origin="random", trial=None)
        store.lock.acquire()
        before = study.read_bytes()
        standing = Watcher(store, config_of(store, Overrides())).standing()
        assert standing.phase == "search"
        assert (standing.done, standing.total, standing.running) == (14, 20, 1)
        assert list(standing.active) == [number]
        assert standing.best > standing.best_parent
        shown = watched(study, terminal=True, looks=3)
        assert f"candidate {number}" in shown
        assert "15 of 20 recipes" in shown
        assert "nobody is at work" not in shown
        assert study.read_bytes() == before
        store.lock.release()
    assert "nobody is at work on it; `search resume" in watched(study, terminal=False)


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
        server.wait(10)
        assert server.stdout is not None
        server.stdout.close()


def read(url: str) -> Any:
    until = time.monotonic() + 60
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
