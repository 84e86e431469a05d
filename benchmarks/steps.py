"""Commands run one after another, each with a time limit of its own.

A command that is not done in time is asked for the stacks of all its threads, then ended with
everything that it started: what hung says where.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

STACKS_SECONDS = 5.0
"""Time for processes to write their stacks before they are ended."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One command.

    Attributes:
        name: What it is called in the output.
        command: Arguments, the first of them the program.
        seconds: Longest time it may take.
        until: Asked every half second; once it is true, the command is killed, which is then no
            failure. ``None`` for a command that ends by itself.
    """

    name: str
    command: tuple[str, ...]
    seconds: float
    until: Callable[[], bool] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How a step came out.

    Attributes:
        name: Of the step.
        how: ``done``, ``killed`` (as was asked for), ``exit code N`` or ``time limit``.
        seconds: What it took.
        output: All that it printed.
    """

    name: str
    how: str
    seconds: float
    output: str

    @property
    def well(self) -> bool:
        """Whether it did what it was to do."""
        return self.how in ("done", "killed")


def run(step: Step) -> Ended:
    """Run a command; every line that it prints is shown at once, with the time since it began."""
    began = time.monotonic()
    _say(step.name, 0.0, " ".join(step.command))
    process = subprocess.Popen(
        step.command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        env={**os.environ, "PYTHONFAULTHANDLER": "1", "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    lines: list[str] = []
    reader = threading.Thread(
        target=_read, args=(process.stdout, lines, step.name, began), daemon=True
    )
    reader.start()
    how = _await(process, step, began)
    reader.join(timeout=STACKS_SECONDS)
    seconds = time.monotonic() - began
    _say(step.name, seconds, how)
    return Ended(name=step.name, how=how, seconds=seconds, output="".join(lines))


def _await(process: subprocess.Popen[str], step: Step, began: float) -> str:
    while True:
        with suppress(subprocess.TimeoutExpired):
            code = process.wait(timeout=0.5)
            return "done" if code == 0 else f"exit code {code}"
        if step.until is not None and step.until():
            _end(process, stacks=False)
            return "killed"
        if time.monotonic() - began > step.seconds:
            _end(process, stacks=True)
            return "time limit"


def _end(process: subprocess.Popen[str], *, stacks: bool) -> None:
    """End a command and everything that it started."""
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process.pid)
        family = [parent, *parent.children(recursive=True)]
        if stacks:
            for one in family:
                with suppress(psutil.Error):
                    if "python" in one.name() or "ray::" in one.name():
                        one.send_signal(signal.SIGABRT)
            psutil.wait_procs(family, timeout=STACKS_SECONDS)
        for one in family:
            with suppress(psutil.Error):
                one.kill()
    process.wait()


def _read(stream: IO[str], lines: list[str], name: str, began: float) -> None:
    for line in stream:
        lines.append(line)
        _say(name, time.monotonic() - began, line.rstrip("\n"))


def _say(name: str, seconds: float, text: str) -> None:
    print(f"[{name} {seconds:6.1f} s] {text}", flush=True)


def python(module: str, *arguments: str) -> tuple[str, ...]:
    """The command for a module of this environment."""
    return (sys.executable, "-m", module, *arguments)


def log_tails(folder: Path, *, lines: int = 15, files: int = 6) -> str:
    """The last lines of the files that were written last, such as those of Ray's workers."""
    found = [path for pattern in ("*.err", "*.log") for path in folder.glob(pattern)]
    found = [path for path in found if path.stat().st_size]
    found.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    parts = []
    for path in found[:files]:
        text = path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
        parts.append("\n".join([f"--- {path.name}", *text]))
    return "\n".join(parts)


def all_well(ended: Sequence[Ended]) -> bool:
    """Whether every step did what it was to do."""
    return all(one.well for one in ended)
