"""The command line without a new interpreter: for tests that call it many times.

``search`` runs a command in this process. ``apart`` runs it in a process of its own, forked from
one that has the libraries loaded: importing them anew takes six seconds of a core each time.
"""

import atexit
import io
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runs.storage.store import Store
from search.cli import app

FORKED = multiprocessing.get_context("forkserver")
"""Forks processes from one that has loaded what whole runs load."""

FORKED.set_forkserver_preload(
    [
        "evaluators.harness.lm_eval_adapter",
        "evaluators.workers.ray_pool",
        "lm_eval.models.huggingface",
        "scipy.stats",
        "search.commands.run_command",
        "tests.command",
        "tests.faults.driver",
        "transformers.models.llama.modeling_llama",
    ]
)


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


def apart(
    *arguments: object, cwd: Path | None = None, dies_after: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run ``search ARGUMENTS...`` in a process of its own, as a terminal without a screen does.

    Args:
        arguments: As typed.
        cwd: Folder that it runs in; this process's by default.
        dies_after: It gets SIGKILL when so many results are in the study; 0 lets it live.
    """
    command = ["search", *map(str, arguments)]
    # Ray in this process leaves its mode here, which one that was loaded before does not know of.
    variables = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH_")}
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = FORKED.Process(
            target=_command,
            args=(command, cwd or Path.cwd(), variables, out, err, dies_after),
        )
        process.start()
        process.join()
        assert process.exitcode is not None
        return subprocess.CompletedProcess(
            command, process.exitcode, out.read_text("utf-8"), err.read_text("utf-8")
        )


def _command(
    command: list[str],
    cwd: Path,
    environment: dict[str, str],
    out: Path,
    err: Path,
    dies_after: int,
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
    if dies_after:
        _die_after(dies_after)
    try:
        app.main()
    finally:
        atexit._run_exitfuncs()  # such a process ends without them


def _die_after(results: int) -> None:
    finish, done = Store.finish, itertools.count(1)

    def finish_and_die(store: Store, *arguments: Any, **options: Any) -> None:
        finish(store, *arguments, **options)
        if next(done) == results:
            os.kill(os.getpid(), signal.SIGKILL)

    Store.finish = finish_and_die  # type: ignore[method-assign]
