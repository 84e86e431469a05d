"""`search serve` in a real browser, beside a run that is killed and goes on."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit

import pytest
import yaml

from tests.faults.driver import drive_here
from tests.faults.driver import make_study as make_run

ROOT = Path(__file__).parents[2]
CONFIG = """
base: ./base
models: {a: ./a, b: ./b, c: ./c}
tasks: ["one", "two"]
held_out: 0.3
search: {trials: 60, seed: 1, sampler: random}
workers: {ray: false}
"""


@contextmanager
def served(study: Path, *options: str) -> Iterator[str]:
    """The address that the command prints, while it runs."""
    command = (sys.executable, "-c", "from search.cli import main; main()", "serve", str(study))
    process = subprocess.Popen(
        (*command, "--port", "0", *options), stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        assert process.stdout is not None
        yield next(line.strip() for line in process.stdout if line.startswith("http"))
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()


@contextmanager
def opened(browser, address: str, *, width: int = 1600) -> Iterator[None]:
    """A page that is left before its server ends: it would go on asking."""
    browser.open(address, width=width)
    try:
        yield
    finally:
        browser.driver.get("about:blank")


def until(true: Callable[[], object], what: str) -> None:
    end = time.monotonic() + 120
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def ask(address: str, *, host: str = "", cookie: str = "") -> tuple[int, str, dict[str, str]]:
    headers = {name: text for name, text in (("Host", host), ("Cookie", cookie)) if text}
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers)) as answer:
            return answer.status, answer.read().decode(), dict(answer.headers)
    except HTTPError as error:
        return error.code, error.read().decode(), dict(error.headers)


def drive(study: Path, *, seconds: float) -> subprocess.Popen[bytes]:
    """A driver whose candidates take so many seconds."""
    log = str(study.with_name("log"))
    code = (
        "from dataclasses import replace; from tests.faults import driver; "
        f"spec = replace(driver.SPEC, seconds={seconds}); "
        f"driver.drive({str(study)!r}, {log!r}, 0, spec)"
    )
    return subprocess.Popen((sys.executable, "-c", code), cwd=ROOT, env={**os.environ})


@pytest.mark.slow
def test_the_page_follows_a_run_that_is_killed_and_resumed(browser, tmp_path: Path) -> None:
    study = tmp_path / "study.db"
    make_run(str(study), CONFIG).close()
    state = "return document.getElementById('live').dataset.state"
    results = "return Number(document.getElementById('live').dataset.results)"
    with served(study) as address:
        first = drive(study, seconds=5.0)  # still at work when the page is there
        until(lambda: json.loads(ask(address + "standing.json")[1])["results"], "no result")
        with opened(browser, address):
            until(lambda: browser.run(state) == "running", "not seen to run")
            first.kill()
            first.wait()
            until(lambda: browser.run(state) == "stopped", "not seen to be dead")
            before = browser.run(results)
            second = drive(study, seconds=0.0)
            assert second.wait(timeout=200) == 0
            until(lambda: browser.run(state) == "over", "not seen to end")
            until(lambda: browser.run(results) > before, "new results are not shown")
            until(lambda: browser.run("return document.documentElement.dataset.ready"), "no page")
            assert "Verdict" in browser.run("return document.body.innerText")
            assert browser.errors() == []


@pytest.mark.parametrize("width", [400, 1600])
def test_names_that_would_do_harm_are_text(browser, study: Path, width: int) -> None:
    with served(study) as address, opened(browser, address, width=width):
        strip = "return document.getElementById('live')"
        until(lambda: browser.run(f"{strip}.dataset.state") == "over", "no standing")
        assert browser.run(f"{strip}.innerText").strip().startswith("finished")
        assert browser.run("return window.hacked") is None
        assert browser.errors() == []
        assert browser.run("return document.documentElement.scrollWidth") == width
        assert {urlsplit(url).netloc for url in browser.requests()} == {urlsplit(address).netloc}


def test_what_is_downloaded_is_what_report_and_export_write(study: Path) -> None:
    with served(study) as address:
        status, text, headers = ask(address + "files/best.yaml")
        assert (status, headers["content-disposition"]) == (200, 'attachment; filename="best.yaml"')
        assert yaml.safe_load(text)["merge_method"]
        table = json.loads(ask(address + "files/leaderboard.json")[1])
        number = table["candidates"][3]["candidate"]
        assert yaml.safe_load(ask(f"{address}recipes/{number}.yaml")[1])
        assert ask(address + "files/leaderboard.csv")[1].count("\n") > 40
        for wrong in ("recipes/999999.yaml", "files/study.db", "files/..%2fstudy.db", "study.db"):
            assert ask(address + wrong)[0] == 404, wrong


def test_a_page_of_elsewhere_cannot_ask_this_machine(study: Path) -> None:
    with served(study) as address:
        assert ask(address + "standing.json", host="evil.example")[0] == 400
        assert ask(address + "standing.json", host="localhost")[0] == 200


def test_beyond_this_machine_a_token_is_needed(study: Path) -> None:
    with served(study, "--host", "0.0.0.0") as printed:
        where, token = printed.split("?token=")
        where = f"http://127.0.0.1:{urlsplit(where).port}/"
        for given in ("", "?token=", "?token=wrong"):
            assert ask(where + given)[0] == 401
            assert ask(where + "files/best.yaml" + given)[0] == 401
        connection = http.client.HTTPConnection(urlsplit(where).netloc)
        connection.request("GET", f"/?token={token}")
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("location")) == (303, "/")
        cookie = answer.getheader("set-cookie")
        assert "HttpOnly" in cookie
        assert ask(where + "standing.json", cookie=cookie.split(";")[0])[0] == 200
        assert ask(where + "standing.json", cookie="merge_search_token=wrong")[0] == 401


def test_a_study_that_goes_away_is_one_line_and_one_that_takes_its_place_is_shown(
    study: Path, tmp_path: Path
) -> None:
    place = tmp_path / "study.db"
    shutil.copy(study, place)
    with served(place) as address:
        assert json.loads(ask(address + "files/leaderboard.json")[1])["title"]
        place.unlink()
        for path in ("", "standing.json", "files/best.yaml"):
            status, text, _ = ask(address + path)
            assert (status, text) == (503, f"{place}: expected a study, got no such file")
        assert list(tmp_path.iterdir()) == []
        drive_here(str(place))
        table = json.loads(ask(address + "files/leaderboard.json")[1])
        assert table["notice"].startswith("dry run")
        assert "nowhere" in table["config"]


@pytest.mark.parametrize("path", [f"recipes/{'9' * 5000}.yaml", "recipes/x.yaml", "other"])
def test_what_is_not_there_is_not_found(study: Path, path: str) -> None:
    with served(study) as address:
        status, _, headers = ask(address + path)
        assert status == 404
        assert headers["x-content-type-options"] == "nosniff"


def test_servers_of_one_machine_do_not_log_each_other_out(study: Path) -> None:
    cookies = set()
    for _ in range(2):
        with served(study, "--host", "0.0.0.0") as printed:
            port, token = urlsplit(printed).port, printed.split("?token=")[1]
            connection = http.client.HTTPConnection(f"127.0.0.1:{port}")
            connection.request("GET", f"/?token={token}")
            cookies.add(connection.getresponse().getheader("set-cookie").split("=")[0])
    assert len(cookies) == 2


def test_any_loopback_address_is_answered(study: Path) -> None:
    with served(study, "--host", "127.0.0.2") as address:
        assert ask(address + "standing.json")[0] == 200
