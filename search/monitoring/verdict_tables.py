"""The verdict on the terminal: task by task, then in a sentence."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from evaluators.protocol import TaskInfo
from runs.ranking.verdict import Verdict
from runs.report.task_tables import specialists_table


def show_verdict(found: Verdict, tasks: Sequence[TaskInfo], console: Console) -> None:
    """The winner against the best parent at each task, and what it comes to.

    Args:
        found: The verdict.
        tasks: The run's tasks.
        console: Where it goes.
    """
    shown = specialists_table(found, tasks)
    if shown.rows:
        table = Table(title="Held-out questions, task by task", title_justify="left")
        for name, numeric in zip(shown.headers, shown.numeric, strict=True):
            table.add_column(name, justify="right" if numeric else "left")
        for row in shown.rows:
            table.add_row(*map(Text, row))
        console.print(table)
    console.print(Text(f"Verdict: {found.sentence}.", style="bold"), soft_wrap=True)
    for note in found.notes:
        console.print(note, markup=False, soft_wrap=True)
