"""What the command line turns into exit codes."""

from __future__ import annotations

from collections.abc import Sequence


class InputError(Exception):
    """Something the user gave cannot be used; exit code 2, one line per problem.

    Attributes:
        problems: Complete lines for people, each says what to do.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class RunFailed(Exception):  # noqa: N818 - it names an outcome, exit code 1
    """The run could not do its work though its input was fine; the message is one line."""
