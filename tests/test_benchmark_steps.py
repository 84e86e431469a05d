"""Steps of a benchmark end in time, and what hung says where."""

import sys
import textwrap
from pathlib import Path

import psutil

from benchmarks.steps import Step, all_well, log_tails, run

HANGS = """
import subprocess, sys, threading
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("child", child.pid, flush=True)
def waits_for_nothing():
    threading.Event().wait()
waits_for_nothing()
"""


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", textwrap.dedent(code))


def test_what_hangs_shows_its_stacks_and_leaves_nothing_behind() -> None:
    ended = run(Step(name="hangs", command=python(HANGS), seconds=8))
    assert ended.how == "time limit"
    assert "waits_for_nothing" in ended.output
    child = int(ended.output.split("child ", 1)[1].split()[0])
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == "zombie"
    assert not all_well([ended])


def test_a_step_is_killed_once_it_has_come_far_enough(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    code = f"import pathlib, time; pathlib.Path({str(seen)!r}).touch(); time.sleep(600)"
    ended = run(Step(name="on", command=python(code), seconds=200, until=seen.exists))
    assert ended.how == "killed"
    assert all_well([ended])


def test_how_a_command_ends_is_told() -> None:
    fine = run(Step(name="fine", command=python("print('said')"), seconds=200))
    assert (fine.how, fine.output) == ("done", "said\n")
    bad = run(Step(name="bad", command=python("raise SystemExit(3)"), seconds=200))
    assert bad.how == "exit code 3"


def test_the_last_lines_of_logs(tmp_path: Path) -> None:
    (tmp_path / "worker.err").write_text("\n".join(f"line {n}" for n in range(40)))
    (tmp_path / "empty.err").touch()
    shown = log_tails(tmp_path, lines=2)
    assert shown == "--- worker.err\nline 38\nline 39"
