"""The errors that people are meant to see: lines for people, no traceback."""

from __future__ import annotations

from collections.abc import Sequence


class UserError(Exception):
    """Something that was given cannot be used; the command line shows it and exits with code 2.

    Every error class that stands for bad input derives from it, whatever folder it is in.

    Attributes:
        problems: At least one complete line each, ``name: expected X, got Y`` and what to do.
    """

    def __init__(self, problems: str | Sequence[str]) -> None:
        lines = problems.splitlines() if isinstance(problems, str) else problems
        super().__init__("\n".join(lines))
        self.problems = tuple(lines)

    def __reduce__(self) -> tuple[type[UserError], tuple[tuple[str, ...]]]:
        return type(self), (self.problems,)  # workers send errors to the driver


class RunFailed(Exception):  # noqa: N818 - it names an outcome
    """The run could not do its work though its input was fine; one line, exit code 1."""
