"""Two candidates of a study, question by question."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console

from evaluators.protocol import QuestionText
from runs.ranking.leaderboard import ranked
from runs.ranking.verdict import name_of
from runs.records.record import PARENT, Record, Split
from runs.report.report_tables import difference_text, task_title
from runs.statistics.intervals import Interval
from runs.statistics.paired_answers import PairedAnswers, PairedTask, paired_answers
from runs.storage.store import Store
from search.inputs.input_error import InputError
from search.inputs.stored_study.kept_answers import open_splits
from search.inputs.stored_study.study_path import study_in
from search.monitoring.console import console, say, say_facts, tell
from search.monitoring.fitted_table import FittedTable
from search.samplers.estimation.posterior import judged
from spaces.text.error_text import plain

BEST = "best"
"""What the first of the leaderboard is called."""

PLACES = {"search": Split.SEARCH, "held-out": Split.HELD_OUT}
"""Which questions can be asked for."""

LONG = 10_000
"""Most characters of a text that are shown: more than a study keeps."""

WORDS = {1: "only A is right", -1: "only B is right", 0: "A and B are level"}


@dataclass(frozen=True, kw_only=True, slots=True)
class QuestionFilter:
    """Which questions to show.

    Attributes:
        task: Of this task alone; ``None`` for all.
        text: That have this text in prompt, right answer or an answer, whatever its case.
        everything: Also those on which both candidates are level.
        most: At most so many.
    """

    task: str | None = None
    text: str = ""
    everything: bool = False
    most: int = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class AnsweredQuestion:
    """One question as two candidates answered it.

    Attributes:
        id: Of the question.
        task: Its task.
        better: 1 where the first is better, -1 where the second is, 0 where they are level.
        said: What it says; empty where that was not kept.
        values: What the answers are worth, in the metric's unit.
        answers: Their texts; empty where they were not kept.
    """

    id: str
    task: str
    better: int
    said: QuestionText
    values: tuple[float, float]
    answers: tuple[str, str]

    def holds(self, text: str) -> bool:
        """Whether a text stands in it, whatever its case."""
        texts = (self.id, self.said.prompt, self.said.expected, *self.answers)
        return any(text.lower() in one.lower() for one in texts)


def compare(
    study: str, names: tuple[str, str], *, questions: str | None, wanted: QuestionFilter
) -> None:
    """Show where two candidates differ; see ``search compare --help``."""
    with Store.open(study_in(study)) as store:
        for note in store.notes:
            console().print(note, markup=False, soft_wrap=True)
        show_comparison(store, names, questions=questions, wanted=wanted, screen=console())


def show_comparison(
    store: Store,
    names: tuple[str, str],
    *,
    questions: str | None,
    wanted: QuestionFilter,
    screen: Console,
) -> None:
    """Show where two candidates of a study differ.

    Args:
        store: The study.
        names: What people call the candidates; see ``named``.
        questions: ``search`` or ``held-out``; ``None`` takes the latter where both answered them.
        wanted: Which questions to show.
        screen: Where it goes.

    Raises:
        InputError: If there is no such candidate or task, or nothing to compare.
    """
    records = judged(store)
    first, second = (named(records, name) for name in names)
    split, catalogue = _split(store, (first, second), questions), store.manifest.catalogue
    tasks = [task.name for task in catalogue.tasks]
    if wanted.task not in (None, *tasks):
        raise InputError(f"--task: expected one of {', '.join(tasks)}, got {wanted.task!r}")
    ours, theirs = (store.outcomes(record.id, split) for record in (first, second))
    found = paired_answers(ours, theirs, catalogue)
    if not found.better:
        raise InputError(f"{', '.join(names)}: expected a question that both answered, got none")
    asked = [
        one
        for one in answered(store, (first, second), split, found)
        if (wanted.everything or one.better)
        and wanted.task in (None, one.task)
        and one.holds(wanted.text)
    ]
    asked.sort(key=lambda one: (one.better == 0, one.better))  # what A lost comes first
    tell(lambda: _values(found, (first, second), split, asked))
    _show(screen, found, (first, second), split)
    _show_questions(screen, asked, wanted)


def named(records: Sequence[Record], name: str) -> Record:
    """The candidate that people mean: ``best``, its number, a parent's name, or its origin.

    Raises:
        InputError: If there is none.
    """
    if name == BEST and (order := ranked(records)):
        return order[0]
    number = name.removeprefix("candidate ")
    for record in records:
        if number == str(record.id) or record.origin in (name, PARENT + name):
            return record
    known = ", ".join(
        record.origin.removeprefix(PARENT) for record in records if record.is_baseline
    )
    raise InputError(
        f"candidate: expected {BEST}, a number from 0 to {len(records) - 1}, an origin of the "
        f"leaderboard, or one of {known}; got {name!r}"
    )


def _split(store: Store, records: tuple[Record, Record], questions: str | None) -> Split:
    """The questions to compare on: held-out ones where both were asked them and it is over."""
    if questions not in (None, *PLACES):
        raise InputError(f"--questions: expected search or held-out, got {questions!r}")
    shown = open_splits(store)
    known = [one for one in shown if all(one in record.evaluations for record in records)]
    if questions is None:
        return known[-1]
    split = PLACES[questions]
    if split not in shown:
        raise InputError(
            "--questions: held-out answers are shown after the final check, so that nobody is led "
            "by them before; take search"
        )
    if split not in known:
        raise InputError("--questions: expected candidates that were asked held-out questions")
    return split


def answered(
    store: Store, records: tuple[Record, Record], split: Split, found: PairedAnswers
) -> Iterator[AnsweredQuestion]:
    """The questions that were compared, with the texts that the study keeps."""
    said = store.question_texts()
    texts = [store.answer_texts(record.id, split) for record in records]
    values = [
        {one.question: one.value for one in store.outcomes(record.id, split)} for record in records
    ]
    task_of = {one.id: one.task for one in store.manifest.catalogue.questions}
    for name, better in found.better.items():
        yield AnsweredQuestion(
            id=name,
            task=task_of[name],
            better=better,
            said=said.get(name, QuestionText()),
            values=(values[0][name], values[1][name]),
            answers=(texts[0].get(name, ""), texts[1].get(name, "")),
        )


def _show(
    screen: Console, found: PairedAnswers, records: tuple[Record, Record], split: Split
) -> None:
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
    say(screen, "A − B: the paired difference with its 95 % interval; above 0, A is better.")
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


def _show_questions(
    screen: Console, asked: Sequence[AnsweredQuestion], wanted: QuestionFilter
) -> None:
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
    left = len(asked) - wanted.most
    more = f"; --most {len(asked)} shows all" if left > 0 else ""
    say(screen, f"{min(len(asked), wanted.most)} of {len(asked)} {what}{more}.")
    if asked and not any(any(one.answers) for one in asked):
        say(
            screen,
            "The study keeps no texts of these answers: `output.answers` says whose it keeps.",
        )


def _values(
    found: PairedAnswers,
    records: tuple[Record, Record],
    split: Split,
    asked: Sequence[AnsweredQuestion],
) -> dict[str, Any]:
    """The comparison for programs; ``docs/report.md`` describes the keys."""
    whose = [
        {"candidate": one.id, "name": name_of(one), "recipe": one.recipe.words} for one in records
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
