"""The driver is killed at random moments, again and again; afterwards nothing is missing or double.

Drivers are real processes, forked from a server that has the libraries loaded already, so that many
moments fit into a test. What the workers wrote down on their own is compared with the study.
"""

import multiprocessing
import os
import random
import signal
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runs.storage.store import Store
from tests.command import FORKED
from tests.faults.checker import Found, Seen, check, lines, seconds_to_first_new
from tests.faults.driver import drive, make_study

CONFIG = """
base: ./base
models: {a: ./a, b: ./b, c: ./c}
tasks: [one, two]
held_out: 0.3
space: {methods: [linear, ties, slerp]}
search: {trials: 40, sampler: SAMPLER, asking: ASKING, seed: 1, validate: 2}
workers: {ray: false}
"""

pytestmark = pytest.mark.timeout(900)
"""A driver starts a dozen times in a test, which takes minutes on a busy machine."""


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """Where the study of that name is to be made."""
    if request.param == "sqlite":
        return lambda name: str(tmp_path / f"{name}.db")
    server = request.getfixturevalue("postgres")
    return lambda name: server.database()


def start(location: str, log: Path, *, workers: int = 0) -> multiprocessing.Process:
    driver = FORKED.Process(target=drive, args=(location, str(log), workers))
    driver.start()
    return driver


def killed(driver: multiprocessing.Process, log: Path, *, begun: int, after: float) -> bool:
    """Kill a driver so many seconds after it began with more evaluations than that, or was started.

    Returns:
        Whether it was still at work.
    """
    while driver.exitcode is None and count(log) <= begun:
        time.sleep(0.002)
    driver.join(after)
    alive = driver.exitcode is None
    if alive:
        os.kill(driver.pid, signal.SIGKILL)
        driver.join()
    assert driver.exitcode in (0, -signal.SIGKILL)
    return alive


def count(log: Path) -> int:
    return log.read_bytes().count(b"\n") if log.exists() else 0


def seen_in(location: str) -> Seen:
    store = Store.open(location)
    try:
        return Seen.of(store)
    finally:
        store.close()


def ended(location: str, log: Path, *, workers: int = 0) -> None:
    driver = start(location, log, workers=workers)
    driver.join()
    assert driver.exitcode == 0


def rehearsed(config: str, folder: Path) -> tuple[list[tuple[str, float]], int]:
    """The candidates of a run that nobody kills, and how often a worker began or ended one."""
    make_study(str(folder / "through.db"), config).close()
    ended(str(folder / "through.db"), folder / "through.log")
    return results(str(folder / "through.db")), count(folder / "through.log")


def results(location: str) -> list[tuple[str, float]]:
    store = Store.open(location)
    found = [
        (record.recipe.key, evaluation.value)
        for record in store.records()
        for evaluation in record.evaluations.values()
    ]
    store.close()
    return found


def say(capsys: pytest.CaptureFixture[str], text: str) -> None:
    with capsys.disabled():
        print(f"\n  {text}", end="")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampler", "asking", "kills"), [("tpe", "all", 10), ("random", "growing", 10)]
)
def test_killed_at_random_moments(
    place: Callable[[str], str],
    tmp_path: Path,
    sampler: str,
    asking: str,
    kills: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = CONFIG.replace("SAMPLER", sampler).replace("ASKING", asking)
    expected, whole = rehearsed(config, tmp_path)
    location, log = place("killed"), tmp_path / "killed.log"
    make_study(location, config).close()
    moments = random.Random(f"{sampler} {location[:4]}")
    earlier, waits, hits = [], [], 0
    for _ in range(kills):
        known, begun, since = {line["key"] for line in lines(log)}, count(log), time.time()
        far = moments.uniform(-0.25, 1.0)  # one in five dies while it starts
        more = begun + int(far * whole / kills) if far > 0 else -1
        after = moments.uniform(0.0, 0.005) if far > 0 else -far
        hits += killed(start(location, log), log, begun=more, after=after)
        earlier.append(seen_in(location))
        waited = seconds_to_first_new(log, known=known, since=since)
        waits += [] if waited is None else [waited]
    assert hits >= 0.8 * kills
    ended(location, log)
    store = Store.open(location)
    found = check(store, log, trials=40, kills=hits, earlier=earlier)
    assert store.lock.holder() is None
    store.close()
    assert results(location) == expected  # as if nobody had been killed
    tell(capsys, hits, found, waits)


def tell(capsys: pytest.CaptureFixture[str], hits: int, found: Found, waits: list[float]) -> None:
    wait = f"{statistics.median(waits):.2f} s" if waits else "none seen"
    say(
        capsys,
        f"{hits} kills: {found.asked_again} asked again, {found.lost} results lost on the way; "
        f"first new recipe after a resume: {wait} (median)",
    )


@pytest.mark.slow
def test_killed_with_real_workers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With Ray, in other numbers each time: workers end with the driver; a new one starts more."""
    config = CONFIG.replace("SAMPLER", "random").replace("ASKING", "all").replace("40", "120")
    location, log = str(tmp_path / "study.db"), tmp_path / "log"
    make_study(location, config).close()
    moments, earlier, waits, hits = random.Random("ray"), [], [], 0
    for workers in (2, 1, 3, 2):
        known, begun, since = {line["key"] for line in lines(log)}, count(log), time.time()
        driver = start(location, log, workers=workers)
        more = begun + moments.randrange(30)
        hits += killed(driver, log, begun=more, after=moments.uniform(0.0, 0.1))
        earlier.append(seen_in(location))
        waited = seconds_to_first_new(log, known=known, since=since)
        waits += [] if waited is None else [waited]
    ended(location, log, workers=2)
    store = Store.open(location)
    found = check(store, log, trials=120, kills=hits, in_flight=3, earlier=earlier)
    store.close()
    assert hits >= 2
    tell(capsys, hits, found, waits)
