"""The command line without a process of its own: for tests that call it many times."""

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

from search.cli import app


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
