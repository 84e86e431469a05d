"""Texts of others, such as what their exceptions say, made fit to be kept and shown."""

from __future__ import annotations

import re
from collections.abc import Sequence

LINE = 1_000
"""Most characters of a line of theirs."""

_NOTE = " [... {} characters left out ...] "

_UNFIT = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tabs and line ends, marks that turn text round, halves of characters."""


def said(error: BaseException) -> str:
    """What an exception says; a note where its text cannot be made."""
    try:
        return str(error)
    except Exception as why:  # noqa: BLE001 - its code is a stranger's
        return f"(its text cannot be made: {type(why).__name__})"


def last_line(error: BaseException) -> str:
    """What an exception says last, where libraries put what matters, or its class."""
    lines = [line.strip() for line in said(error).splitlines() if line.strip()]
    return plain_line(lines[-1], LINE) if lines else type(error).__name__


def class_and_last_line(error: BaseException) -> str:
    """An exception's class, and what it says last."""
    name, line = type(error).__name__, last_line(error)
    return name if line == name else f"{name}: {line}"


def fitted(text: str, most: int) -> str:
    """A text of at most so many characters: of a longer one the middle is left out, with a note."""
    if len(text) <= most:
        return text
    room = most - len(_NOTE.format(len(text)))
    if room < 2:
        return text[:most]
    end = room // 2
    return text[: room - end] + _NOTE.format(len(text) - room) + text[-end:]


def counted(count: int, noun: str) -> str:
    """So many of something: ``1 method``, ``2,000 methods``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def listed(parts: Sequence[str]) -> str:
    """Parts of a sentence: ``a, b and c``."""
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))


def plain(text: str, most: int) -> str:
    r"""Lines that every database and terminal takes, at most so many characters of them.

    Control characters and lone surrogates stand as escapes, such as ``\x1b``; lines and tabs stay.
    """
    shown = _UNFIT.sub(lambda one: ascii(one[0])[1:-1], fitted(text, most).replace("\r\n", "\n"))
    return fitted(shown, most)


def plain_line(text: str, most: int) -> str:
    """One line that every database and terminal takes; several become one, with semicolons."""
    lines = (line.strip() for line in fitted(text, most).splitlines())
    return plain("; ".join(line for line in lines if line), most)
