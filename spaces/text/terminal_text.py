"""Text of unknown origin where a terminal shows it: nothing in it may move, hide or fake a line."""

from __future__ import annotations

_KEPT = "\n\t"
_DIRECTIONS = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_CONTROLS = {
    code: None
    for code in (*range(0x20), *range(0x7F, 0xA0), *_DIRECTIONS)
    if chr(code) not in _KEPT
}
"""Control characters (escape sequences start with one) and those that turn the reading direction.

https://www.unicode.org/reports/tr9/ and ECMA-48, section 5.3.
"""


def printable(text: str) -> str:
    """The text on one line, with control characters and the like as Python's escapes."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def stripped(text: str) -> str:
    """The text without control characters, line ends and tabs excepted: it keeps its width."""
    return text if text.isprintable() else text.translate(_CONTROLS)
