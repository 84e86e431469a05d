"""Who is ahead in a run, by the rule that ranks go by: whatever says so, says this."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from runs.activity.search_progress import expected
from runs.ranking.leaderboard import ranked, score_of
from runs.ranking.verdict_text import title
from runs.records.record import Record, Role, Split, role_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Lead:
    """Who ranks first.

    Attributes:
        candidate: Its id; ``None`` before the first score.
        what: How it is made, in a word or two; of a parent, the base or the average, which it is.
        best: The score to expect of it; NaN before the first.
        stderr: Its standard error.
        best_parent: The score to expect of the parent that ranks before the others; NaN before
            the first.
        scored: Number of candidates that it is the best of.
        is_parent: Whether it is a parent itself.
    """

    candidate: int | None = None
    what: str = ""
    best: float = math.nan
    stderr: float = math.nan
    best_parent: float = math.nan
    scored: int = 0
    is_parent: bool = False

    @property
    def margin(self) -> float:
        """By how much it is ahead of the best parent; NaN where one of them is not known."""
        return self.best - self.best_parent

    def text(self) -> str:
        """How good, who it is, and of how many: ``0.9402 ± 0.0101 (ties), of 57 scored``."""
        if self.candidate is None:
            return "no score yet"
        text = f"{self.best:.4f}"
        if not math.isnan(self.stderr):
            text += f" ± {self.stderr:.4f}"
        text += f" ({self.what})"
        if not self.is_parent and not math.isnan(self.margin):
            level = abs(self.margin) < 0.00005
            text += ", level with" if level else f", {self.margin:+.4f} over"
            text += " the best parent"
        return f"{text}, of {self.scored} scored"

    def __str__(self) -> str:
        return self.text() if self.candidate is None else f"best {self.text()}"


def lead(records: Sequence[Record]) -> Lead:
    """Who is ahead among candidates with what is to be expected of them."""
    order = ranked(records)
    if not order:
        return Lead()
    first = order[0]
    parents = (expected(record) for record in order if role_of(record.origin) is Role.PARENT)
    known = first.posterior
    return Lead(
        candidate=first.id,
        what=title(first.origin) if first.is_baseline else first.recipe.title,
        best=expected(first),
        stderr=math.nan if known is None else known.stderr,
        best_parent=next(parents, math.nan),
        scored=len(order),
        is_parent=role_of(first.origin) is Role.PARENT,
    )


def why_first(records: Sequence[Record]) -> str:
    """Why a candidate with the highest score does not rank first; empty where it does."""
    order = ranked(records)
    if len(order) < 2:
        return ""
    first, highest = order[0], max(order, key=score_of)
    if not score_of(highest) > score_of(first):
        return ""
    if highest.shortfall > first.shortfall:
        why = "which is expected to break a floor"
    elif expected(highest) < expected(first):
        why = "whose expected score, estimated from all results, is lower"
    else:
        why = "less sure"
    return (
        f"Ranked by expected score less its standard error: {_told(first)} comes before "
        f"{_told(highest)}, {why}."
    )


def _told(record: Record) -> str:
    """A candidate with what ranks it and what it scored."""
    known, asked = record.posterior, record.evaluations[Split.SEARCH].questions
    scored = f"score {score_of(record):.4f} on {asked:,} questions"
    if known is None:
        return f"candidate {record.id} ({scored})"
    return f"candidate {record.id} with {known.value:.4f} ± {known.stderr:.4f} ({scored})"
