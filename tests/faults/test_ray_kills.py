"""Parts of Ray itself are killed under a search of the command line: it ends, and says why."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from evaluators.protocol import FailureKind
from runs.records.record import Split, State
from runs.storage.store import Store

EVALUATOR = """
import os, signal, sys, time
from evaluators.synthetic_evaluator import SyntheticEvaluator, SyntheticSpec

class Slow(SyntheticEvaluator):
    def evaluate(self, candidate):
        time.sleep(0.1)
        if os.path.exists("death"):
            exec(open("death").read())
        return super().evaluate(candidate)

def make(spec):
    return Slow(SyntheticSpec(parents=("math", "code"), tasks=(("one", 1.0),), questions=100))
"""

pytestmark = pytest.mark.timeout(900)
"""All starts and ends here are of whole searches, which take minutes on a busy machine."""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tiny_family: dict[str, Path], tmp_path: Path) -> Iterator[Start]:
    """Starts ``search run`` with Ray; keywords are of ``workers``."""
    begun = []

    def run(**workers: object) -> subprocess.Popen[str]:
        (tmp_path / "slow.py").write_text(EVALUATOR)
        config = {
            "base": str(tiny_family["base"]),
            "models": {name: str(tiny_family[name]) for name in ("math", "code")},
            "evaluator": "./slow.py:make",
            "tasks": ["one"],
            "held_out": 0.3,
            "space": {"methods": ["linear"]},
            "search": {"trials": 2000, "sampler": "random", "seed": 1},
            "workers": {"count": 1, "retries": 0, **workers},
        }
        (tmp_path / "mix.yaml").write_text(yaml.safe_dump(config))
        begun.append(
            subprocess.Popen(
                [Path(sys.executable).parent / "search", "run", "mix.yaml", "--out", "run"],
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        return begun[-1]

    yield run
    for driver in begun:
        driver.kill()
        driver.communicate()


def scored(study: Path) -> int:
    if not study.exists():
        return 0
    store = Store.open(str(study))
    try:
        parts = [record.evaluations[Split.SEARCH] for record in store.records()]
        return sum(one.state is State.COMPLETE for one in parts)
    finally:
        store.close()


def parts_of(driver: subprocess.Popen[str]) -> dict[str, psutil.Process]:
    """Ray's processes by their names."""
    return {one.name(): one for one in psutil.Process(driver.pid).children(recursive=True)}


def wait_for(condition: Callable[[], object], driver: subprocess.Popen[str]) -> None:
    while not condition():
        assert driver.poll() is None, driver.communicate()
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("victims", "words"),
    [
        (("raylet",), "its raylet ended or was killed"),
        (("gcs_server",), "gives no answer any more"),
        (("raylet", "gcs_server"), "gives no answer any more"),
    ],
)
def test_a_part_of_ray_is_killed(
    start: Start, tmp_path: Path, victims: tuple[str, ...], words: str
) -> None:
    driver, study = start(timeout=25), tmp_path / "run" / "study.db"
    wait_for(lambda: scored(study) >= 5, driver)
    parts = parts_of(driver)
    for name in victims:
        parts[name].send_signal(signal.SIGKILL)
    out, err = driver.communicate()
    assert driver.returncode == 1, (out, err)
    (line,) = [line for line in err.splitlines() if line.startswith("search: error: ")]
    assert words in line
    assert line.endswith("`search resume run/study.db` continues it"), line
    assert "state-dump" not in out + err
    assert "\x1b[" not in out + err
    assert "Traceback" not in out + err
    assert scored(study) >= 5
    assert not list(study.parent.glob("study.db-*"))  # closed as at any end
    assert (study.parent / "report.html").exists()


@pytest.mark.slow
def test_a_worker_that_never_comes_up(start: Start, tmp_path: Path) -> None:
    """Not the first of them: one that takes the place of a worker that died."""
    driver, study = start(wait=60), tmp_path / "run" / "study.db"
    text = (tmp_path / "slow.py").read_text()
    wait_for(lambda: scored(study) >= 3, driver)
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(1000)\n" + text)
    (worker,) = [p for name, p in parts_of(driver).items() if name.startswith("ray::Worker")]
    worker.send_signal(signal.SIGKILL)
    out, err = driver.communicate()
    assert driver.returncode == 1, (out, err)
    assert "workers: none was set up within 60 s (workers.wait) on " in err
    assert "continues" in err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("deed", "words"),
    [
        ("import ctypes; ctypes.string_at(0)", "Segmentation fault"),
        ("os.kill(os.getpid(), signal.SIGABRT)", "Aborted"),
        ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)", "SIGTERM"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "no trace, as of SIGKILL or os._exit"),
    ],
)
def test_a_lost_worker_says_why(start: Start, tmp_path: Path, deed: str, words: str) -> None:
    driver, study = start(), tmp_path / "run" / "study.db"
    wait_for(lambda: scored(study) >= 2, driver)
    (tmp_path / "death").write_text(f"os.unlink('death')\n{deed}")
    lost = failure_in(study, driver)
    assert lost[0] is FailureKind.LOST_WORKER
    assert f"the worker died, once, ({words}) while it evaluated" in lost[1]
    driver.send_signal(signal.SIGTERM)
    out, err = driver.communicate()
    assert driver.returncode == 3, (out, err)  # stopped, and can go on
    assert "\x1b[" not in out + err
    assert "(raylet)" not in out + err


def failure_in(study: Path, driver: subprocess.Popen[str]) -> tuple[FailureKind, str]:
    """The kind and the message of the first failure."""
    found = list[tuple[FailureKind, str]]()

    def look() -> bool:
        store = Store.open(str(study))
        try:
            for record in store.records():
                one = record.evaluations.get(Split.SEARCH)
                if one is not None and one.failure_kind:
                    found.append((FailureKind(one.failure_kind), one.failure_message))
        finally:
            store.close()
        return bool(found)

    wait_for(look, driver)
    return found[0]


GROUPS = Path("/sys/fs/cgroup/memory")


@pytest.mark.slow
@pytest.mark.skipif(not os.access(GROUPS, os.W_OK), reason="no control group can be made here")
def test_a_worker_that_the_kernel_killed_for_its_memory(start: Start, tmp_path: Path) -> None:
    driver, study = start(), tmp_path / "run" / "study.db"
    wait_for(lambda: scored(study) >= 2, driver)
    group = GROUPS / f"merge-search-{os.getpid()}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(64 * 2**20))
        join = f"open('{group}/cgroup.procs', 'w').write(str(os.getpid()))"
        (tmp_path / "death").write_text(f"os.unlink('death')\n{join}\nbytearray(10**9)")
        kind, message = failure_in(study, driver)
    finally:
        driver.kill()
        driver.communicate()
        for _ in range(100):
            try:
                group.rmdir()
                break
            except OSError:  # what was killed is not gone yet
                time.sleep(0.1)
    assert kind is FailureKind.OUT_OF_MEMORY
    assert "the worker died, once, (killed by the kernel's out-of-memory killer)" in message
