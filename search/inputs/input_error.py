"""What the command line turns into exit codes, besides ``spaces.errors.UserError``."""

from __future__ import annotations

from spaces.errors import RunFailed, UserError

__all__ = ["InputError", "RunFailed"]


class InputError(UserError):
    """Something the user gave cannot be used, found by a command itself; exit code 2."""
