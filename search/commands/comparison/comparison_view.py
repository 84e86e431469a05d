"""A comparison of two candidates as people and programs see it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console

from runs.ranking.verdict import name_of
from runs.records.record import Record, Split
from runs.report.report_tables import difference_text, task_title
from runs.statistics.intervals import Interval
from runs.statistics.paired_answers import PairedAnswers, PairedTask
from search.commands.comparison.compared_questions import AnsweredQuestion, QuestionFilter
from search.monitoring.console import say, say_facts
from search.monitoring.fitted_table import FittedTable
from spaces.text.error_text import plain

PLACES = {"search": Split.SEARCH, "held-out": Split.HELD_OUT}
"""Which questions can be asked for."""

LONG = 10_000
"""Most characters of a text that are shown: more than a study keeps."""

WORDS = {1: "only A is right", -1: "only B is right", 0: "A and B are level"}


def show_counts(
    screen: Console, found: PairedAnswers, records: tuple[Record, Record], split: Split
) -> None:
    """Show who is compared, and how often which of them was right."""
    say_facts(screen, [(letter, _who(one)) for letter, one in zip("AB", records, strict=True)])
    name = {two: one for one, two in PLACES.items()}[split]
    rows = [_row(one) for one in found.tasks]
    if len(rows) > 1:
        total = (str(sum(one.questions for one in found.tasks)), *[""] * 4)
        rows.append(("all, weighted", *total, difference_text(found.comparison.difference)))
    screen.print(
        FittedTable(
            title=f"The {name} questions that both answered",
            headers=("task", "questions", "both right", "only A", "only B", "both wrong", "A − B"),
            rows=rows,
            numeric=(False, *[True] * 6),
        )
    )
    say(
        screen,
        "A − B: the paired difference with the 95 % interval of this pair alone; above 0, A is "
        "better. The verdict's intervals are wider: they allow for the choice of the best parent "
        "and for the number of tasks.",
    )
    if split is Split.SEARCH:
        say(screen, "Search questions chose the candidates: they flatter the best of them.")


def _row(one: PairedTask) -> tuple[str, ...]:
    right, wrong = ("" if count is None else str(count) for count in (one.right, one.wrong))
    return (
        task_title(one.task), str(one.questions), right, str(one.first), str(one.second), wrong,
        difference_text(one.difference),
    )  # fmt: skip


def _who(record: Record) -> str:
    name = name_of(record)
    return name if record.is_baseline else f"{name}, {record.recipe.words}"


def show_questions(
    screen: Console, asked: Sequence[AnsweredQuestion], wanted: QuestionFilter, *, among: int
) -> None:
    """Show questions with both answers, as many as are wanted."""
    for one in asked[: wanted.most]:
        say(screen, f"\n{one.id}: {WORDS[one.better]}", style="bold")
        choices = (f"{at}. {text}" for at, text in enumerate(one.said.choices, start=1))
        facts = {"prompt": one.said.prompt, "choices": "\n".join(choices)}
        facts |= {"expected": one.said.expected, "A": one.answers[0], "B": one.answers[1]}
        if not any(one.answers):
            facts |= {letter: f"{value:g}" for letter, value in zip("AB", one.values, strict=True)}
        say_facts(screen, [(name, plain(text, LONG)) for name, text in facts.items() if text])
    screen.print()
    what = "questions" if wanted.everything else "questions on which one is better"
    if among and not asked:
        say(screen, f"None of the {among} {what} contains {plain(wanted.text, LONG)!r}.")
        return
    left = len(asked) - wanted.most
    more = f"; --most {len(asked)} shows all" if left > 0 else ""
    say(screen, f"{min(len(asked), wanted.most)} of {len(asked)} {what}{more}.")
    if asked and not any(any(one.answers) for one in asked):
        say(
            screen,
            "The study keeps no texts of these answers: `output.answers` says whose it keeps.",
        )


def comparison_values(
    found: PairedAnswers,
    records: tuple[Record, Record],
    split: Split,
    asked: Sequence[AnsweredQuestion],
) -> dict[str, Any]:
    """The comparison for programs; ``docs/report.md`` describes the keys."""
    whose = [
        {
            "candidate": one.id,
            "name": name_of(one),
            "recipe": one.origin if one.is_baseline else one.recipe.words,
        }
        for one in records
    ]
    return {
        "questions": {two: one for one, two in PLACES.items()}[split],
        "a": whose[0],
        "b": whose[1],
        "difference": _interval(found.comparison.difference),
        "tasks": [
            {
                "task": one.task.name,
                "questions": one.questions,
                "both_right": one.right,
                "only_a": one.first,
                "only_b": one.second,
                "both_wrong": one.wrong,
                "difference": _interval(one.difference),
            }
            for one in found.tasks
        ],
        "shown": [
            {
                "question": one.id,
                "task": one.task,
                "better": {1: "a", -1: "b", 0: None}[one.better],
                "prompt": plain(one.said.prompt, LONG),
                "choices": [plain(choice, LONG) for choice in one.said.choices],
                "expected": plain(one.said.expected, LONG),
                "a": {"value": one.values[0], "text": plain(one.answers[0], LONG)},
                "b": {"value": one.values[1], "text": plain(one.answers[1], LONG)},
            }
            for one in asked
        ],
    }


def _interval(found: Interval | None) -> dict[str, Any] | None:
    if found is None or math.isnan(found.value):
        return None
    values = asdict(found).items()
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in values
    }
