"""Text of unknown origin on a terminal."""

import pytest
from rich.table import Table
from rich.text import Text

from search.monitoring.console import Screen
from spaces.text.terminal_text import printable, stripped

NASTY = "a\x1b[2Jb\x9b31mc\x1b]0;title\x07d\u202ee\u2066f\x7f\rg"


def test_stripped_keeps_lines_and_width() -> None:
    assert stripped("one\n\ttwo ± ümläut 漢") == "one\n\ttwo ± ümläut 漢"
    assert stripped(NASTY) == "a[2Jb31mc]0;titledefg"


def test_printable_is_one_line_and_shows_what_was_there() -> None:
    assert printable("a\x1b[2J\nb\u202e") == "a\\x1b[2J\\nb\\u202e"


@pytest.mark.parametrize("terminal", [False, True])
def test_nothing_printed_leads_the_terminal_astray(
    terminal: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    screen = Screen(force_terminal=terminal, color_system=None, width=120)
    table = Table(title=Text(NASTY))
    table.add_column(NASTY)
    table.add_row(Text(NASTY))
    screen.print(NASTY, markup=False)
    screen.print(table)
    screen.out(NASTY)
    printed = capsys.readouterr().out
    assert not set(printed) & set("\x1b\x9b\x07\u202e\u2066\x7f\r")
    lines = {len(line) for line in printed.splitlines() if line.startswith(("│", "┃", "├", "└"))}
    assert len(lines) == 1  # the table keeps its shape
