"""Collecting problems: all of them, but one line per cause."""

from __future__ import annotations


class Problems:
    """Problems in the order found; those that repeat for many tensors become one line."""

    def __init__(self) -> None:
        self._found: dict[object, list[str]] = {}

    def add(self, text: str, *, group: object = None) -> None:
        """Note a problem.

        Args:
            text: One line that can stand alone.
            group: What it has in common with others of its kind; the first of them is shown and
                the rest are counted. ``None`` groups equal texts.
        """
        self._found.setdefault(text if group is None else group, []).append(text)

    def lines(self) -> list[str]:
        """One line per cause."""
        result = []
        for texts in self._found.values():
            more = len(set(texts)) - 1
            result.append(texts[0] + (f" (and {more} more tensors)" if more else ""))
        return result

    def __bool__(self) -> bool:
        return bool(self._found)
