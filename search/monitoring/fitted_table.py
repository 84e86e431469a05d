"""Tables on a terminal of any width: nothing is cut off, and no word is broken."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderResult
from rich.table import Table
from rich.text import Text

BORDER = 3
"""Characters that a column takes beside its text; a table takes one more."""

PHRASE = 24
"""Characters of a longer text that stay on a line even where another table is needed for it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FittedTable:
    """A table that is as many tables as the width asks for, one below the other.

    Each begins with the first column, so that a row is known again. Columns are as wide as their
    text; where a table is too wide even for one more column, texts wrap between words.

    Attributes:
        title: Above the first table.
        headers: One per column.
        rows: Cells by row.
        numeric: Whether a column holds numbers, which go to the right.
    """

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: Sequence[bool]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for at, columns in enumerate(self._parts(options.max_width)):
            yield self._part("" if at else self.title, columns)

    def _parts(self, room: int) -> Iterator[dict[int, int]]:
        """Columns of each table with their widths."""
        columns = [[row[at] for row in self.rows] for at in range(len(self.headers))]
        lines = [_longest(cells) for cells in columns]
        wide = [max(cell_len(name), line) for name, line in zip(self.headers, lines, strict=True)]
        narrow = [
            max(
                _longest(self.headers[at].split()),
                lines[at] if self.numeric[at] else min(lines[at], PHRASE),
                _longest(word for cell in cells for word in cell.split()),
            )
            for at, cells in enumerate(columns)
        ]
        part: list[int] = []
        for at in range(len(columns)):
            if len(part) > 1 and _total([narrow[one] for one in (*part, at)]) > room:
                yield _shrunk(part, wide, narrow, room)
                part = [0]
            part.append(at)
        yield _shrunk(part, wide, narrow, room)

    def _part(self, title: str, columns: dict[int, int]) -> Table:
        table = Table(title=Text(title) if title else None, title_justify="left")
        for at, width in columns.items():
            side: JustifyMethod = "right" if self.numeric[at] else "left"
            table.add_column(Text(self.headers[at]), justify=side, width=width, overflow="fold")
        for row in self.rows:
            table.add_row(*(Text(row[at]) for at in columns))
        return table


def _longest(texts: Iterable[str]) -> int:
    return max(map(cell_len, texts), default=0)


def _total(widths: Collection[int]) -> int:
    return sum(widths) + BORDER * len(widths) + 1


def _shrunk(
    part: Sequence[int], wide: Sequence[int], narrow: Sequence[int], room: int
) -> dict[int, int]:
    """Widths of a table's columns, the widest ones less than they need where the room asks."""
    found, least = {at: wide[at] for at in part}, {at: narrow[at] for at in part}
    while _total(found.values()) > room and max(found.values()) > 1:
        able = [at for at in found if found[at] > least[at]] or list(found)
        found[max(able, key=found.__getitem__)] -= 1
    return found
