"""Which answers of a study may be read, and when."""

from __future__ import annotations

from collections.abc import Sequence

from runs.ranking.leaderboard import ranked
from runs.ranking.verdict import name_of
from runs.records.answer_book import AnswerBook, AnswerSheet
from runs.records.record import Record, Role, Split, role_of
from runs.storage.kept_texts import LONGEST_TEXT
from runs.storage.store import Store
from search.engine.trials.held_out_looks import is_judged
from spaces.text.error_text import plain

BEST = 20
"""Candidates by rank whose answers a report has, besides those that others are compared with."""


def open_splits(store: Store) -> tuple[Split, ...]:
    """The splits whose answers may be read.

    Held-out ones are read only after the final check: who reads them before would be led by them
    in what is searched next.
    """
    over = is_judged(store) and not store.under_way()
    return (Split.SEARCH, *([Split.HELD_OUT] if over else []))


def answer_book(store: Store, records: Sequence[Record]) -> AnswerBook | None:
    """What the best candidates, and those that they are compared with, answered.

    Args:
        store: The study.
        records: Its candidates, with what is to be expected of them.

    Returns:
        The book; ``None`` where there are no two candidates with kept answers.
    """
    kept = store.answered_in_words()
    order = [record for record in ranked(records) if record.id in kept]
    first = [
        one
        for at, one in enumerate(order)
        if at < BEST  # or others are compared with it, or it was chosen for the final check
        or role_of(one.origin) is not Role.SEARCHED
        or Split.HELD_OUT in one.evaluations
    ]
    if len(first) < 2:
        return None
    splits, catalogue = open_splits(store), store.manifest.catalogue
    sheets = tuple(_sheet(store, record, splits) for record in first)
    answered = {name for sheet in sheets for name in sheet.values}
    return AnswerBook(
        tasks=catalogue.tasks,
        questions=tuple(one for one in catalogue.questions if one.id in answered),
        held_out=frozenset(store.manifest.questions.held_out),
        said=store.question_texts(),
        sheets=sheets,
        left_out=len(kept) - len(sheets),
    )


def _sheet(store: Store, record: Record, splits: Sequence[Split]) -> AnswerSheet:
    outcomes = [one for split in splits for one in store.outcomes(record.id, split)]
    texts: dict[str, str] = {}
    for split in splits:
        texts |= store.answer_texts(record.id, split)
    name = name_of(record)
    return AnswerSheet(
        candidate=record.id,
        name=name if record.is_baseline else f"{name}, {record.recipe.words}",
        values={one.question: one.value for one in outcomes},
        texts={name: plain(text, LONGEST_TEXT) for name, text in texts.items()},
    )
