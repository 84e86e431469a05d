"""Keeping passwords out of what is printed, logged or stored."""

from __future__ import annotations

import re

HIDDEN = "***"

# Up to the last @: a password that somebody forgot to escape is one all the same.
_USER = re.compile(r"(?P<before>://[^\s/@:'\"]*:)[^\s'\"]*@")
_QUERY = re.compile(
    r"(?P<before>\b\w*(?:password|passwd|pwd|secret)\w*\s*=\s*)"
    r"(?!\*\*\*)(?:'[^']*'|\"[^\"]*\"|[^\s&;,'\")]+)",
    re.IGNORECASE,
)


def hidden(text: str) -> str:
    """A text without the passwords of URLs and connection strings in it.

    ``scheme://user:password@host`` keeps its user; ``password=...`` and the like keep their name.
    """
    return _QUERY.sub(_masked, _USER.sub(lambda match: f"{match['before']}{HIDDEN}@", text))


def _masked(match: re.Match[str]) -> str:
    return f"{match['before']}{HIDDEN}"
