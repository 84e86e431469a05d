"""Two candidates of a study, question by question."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from runs.ranking.leaderboard import ranked
from runs.records.record import PARENT, Record, Split
from runs.statistics.paired_answers import paired_answers
from runs.storage.store import Store
from search.commands.comparison.compared_questions import QuestionFilter, answered
from search.commands.comparison.comparison_view import (
    PLACES,
    comparison_values,
    show_counts,
    show_questions,
)
from search.inputs.input_error import InputError
from search.inputs.stored_study.kept_answers import open_splits
from search.inputs.stored_study.study_path import study_in
from search.monitoring.console import console, say_lines, tell
from search.samplers.estimation.posterior import judged

BEST = "best"
"""What the first of the leaderboard is called."""


def compare(
    study: str, names: tuple[str, str], *, questions: str | None, wanted: QuestionFilter
) -> None:
    """Show where two candidates differ; see ``search compare --help``."""
    with Store.open(study_in(study)) as store:
        say_lines(console(), store.notes)
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
    if first is second:
        raise InputError(f"{' '.join(names)}: expected two candidates, got {first.id} twice")
    split, catalogue = _split(store, (first, second), questions), store.manifest.catalogue
    tasks = [task.name for task in catalogue.tasks]
    if wanted.task not in (None, *tasks):
        raise InputError(f"--task: expected one of {', '.join(tasks)}, got {wanted.task!r}")
    ours, theirs = (store.outcomes(record.id, split) for record in (first, second))
    found = paired_answers(ours, theirs, catalogue)
    if not found.better:
        raise InputError(f"{', '.join(names)}: expected a question that both answered, got none")
    chosen = [
        one
        for one in answered(store, (first, second), split, (ours, theirs), found)
        if (wanted.everything or one.better) and wanted.task in (None, one.task)
    ]
    asked = [one for one in chosen if one.holds(wanted.text)]
    asked.sort(key=lambda one: (one.better == 0, one.better))  # what A lost comes first
    tell(lambda: comparison_values(found, (first, second), split, asked))
    show_counts(screen, found, (first, second), split)
    show_questions(screen, asked, wanted, among=len(chosen))


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
