"""The command line without a new interpreter: for tests that call it many times.

``search`` runs a command in this process. ``apart`` runs it in a process of its own, forked from
one that has the libraries loaded: importing them anew takes six seconds of a core each time.
"""

import atexit
import io
import multiprocessing
import os
import subprocess
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from search.cli import app

_LOADED = ["search.engine.session", "evaluators.harness.lm_eval_adapter", "ray", "tests.command"]


@dataclass(frozen=True, kw_only=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.err.splitlines()


def search(*arguments: object) -> Done:
    """Run ``search ARGUMENTS...`` here; whatever escapes from it but its exit is a test failure."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["search", *map(str, arguments)]
    app._debug = False
    try:
        with redirect_stdout(out), redirect_stderr(err):
            app.main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    finally:
        sys.argv = before
    return Done(code=code, out=out.getvalue(), err=err.getvalue())


def apart(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``search ARGUMENTS...`` in a process of its own, as a terminal without a screen does."""
    command = ["search", *map(str, arguments)]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_LOADED)
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = context.Process(
            target=_command, args=(command, cwd or Path.cwd(), dict(os.environ), out, err)
        )
        process.start()
        process.join()
        assert process.exitcode is not None
        return subprocess.CompletedProcess(
            command, process.exitcode, out.read_text("utf-8"), err.read_text("utf-8")
        )


def _command(
    command: list[str], cwd: Path, environment: dict[str, str], out: Path, err: Path
) -> None:
    """What the forked process does: streams, folder and variables first, as of a new one."""
    for file, stream in ((Path(os.devnull), 0), (out, 1), (err, 2)):
        opened = os.open(file, os.O_RDWR | os.O_CREAT)
        os.dup2(opened, stream)
        os.close(opened)
    sys.stdin, sys.stdout, sys.stderr = map(os.fdopen, range(3), "rww")
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.argv = command
    try:
        app.main()
    finally:
        atexit._run_exitfuncs()  # such a process ends without them
