"""What the command line turns into exit codes, besides ``spaces.problems.UserError``."""

from __future__ import annotations

from spaces.problems import UserError


class InputError(UserError):
    """Something the user gave cannot be used, found by a command itself; exit code 2."""


class RunFailed(Exception):  # noqa: N818 - it names an outcome
    """The run could not do its work though its input was fine; one line, exit code 1."""
