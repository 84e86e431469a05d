"""What the command line turns into exit codes, besides ``spaces.errors.UserError``."""

from __future__ import annotations

from spaces.errors import RunFailed, UserError

__all__ = ["InputError", "RunFailed", "RunStopped"]


class InputError(UserError):
    """Something the user gave cannot be used, found by a command itself; exit code 2."""


class RunStopped(RunFailed):
    """A run was stopped by the user; `search resume` goes on; exit code 3."""
