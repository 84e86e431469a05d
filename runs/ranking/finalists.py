"""The candidates that were asked the held-out questions: how good they are, and than whom.

A candidate has to beat a whole group (all parents, or all recipes that anyone would try by hand)
at once, so its p-value against the group is the largest of those against its members (an
intersection-union test, Berger 1982): valid whichever member is the best, though that is only known
from the same questions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np

from evaluators.protocol import TaskInfo, TaskScore, combine
from runs.records.record import Role
from runs.statistics.comparisons import (
    ALONE,
    Comparison,
    Documents,
    Outcomes,
    Scores,
    difference,
    holm,
    paired,
    score,
)
from runs.statistics.intervals import Interval
from runs.statistics.resampling import Resampling

BY_HAND = (Role.AVERAGE, Role.DEFAULT, Role.OWN)
"""What is tried by hand: a group to be better than, besides the parents."""


class WinnerStanding(StrEnum):
    """How the winner compares with the parents and with the recipes tried by hand."""

    BEATS = "beats"  # better than each beyond doubt
    AHEAD = "ahead"  # better than each, but some difference could be chance
    NOT_BETTER = "not_better"  # at least one of them is as good
    BASELINE = "baseline"  # the winner is itself one of them
    UNKNOWN = "unknown"  # there is nothing to compare with


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One candidate as it enters the comparison.

    Attributes:
        name: The origin of a recipe that was not searched; else ``candidate N``.
        role: What it is.
        rank: Place by search data alone, from 1; ``None`` without a search score.
        search: Values per task on the search questions.
        expected: The same, larger is better, where they were made comparable between candidates
            that answered different questions.
        outcomes: What it got on the questions to judge by; empty if it was not asked.
    """

    name: str
    role: Role
    rank: int | None = None
    search: tuple[TaskScore, ...] = ()
    expected: Mapping[str, float] = field(default_factory=dict)
    outcomes: Outcomes = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Against:
    """A finalist against a group of others.

    Attributes:
        best: The member that does best on the questions that both answered.
        difference: Finalist minus the best member, whichever that is in truth: the interval allows
            for it being known from the same questions only.
        comparisons: Finalist minus member by the member's name, at least one.
        p_value: One-sided, that the finalist is better than none or not all of them.
        adjusted: The p-value corrected for the number of finalists.
    """

    best: str
    difference: Interval
    comparisons: Mapping[str, Comparison]
    p_value: float
    adjusted: float

    def standing(self, confidence: float) -> WinnerStanding:
        """How the finalist, by itself, compares with the group."""
        found = self.comparisons.values()
        if any(not item.difference.value > 0 for item in found):
            return WinnerStanding.NOT_BETTER
        if all(item.clear(confidence) for item in found):
            return WinnerStanding.BEATS
        return WinnerStanding.AHEAD

    def beats_after_correction(self, confidence: float) -> bool:
        """Whether it beats the group also as one of several finalists."""
        beats = self.standing(confidence) is WinnerStanding.BEATS
        return beats and self.adjusted < (1 - confidence) / 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Finalist:
    """A candidate that was asked the held-out questions, or the winner.

    Attributes:
        name: As in the entry.
        role: What it is.
        rank: Place by search data alone, from 1; ``None`` without a search score.
        search: Combined score on the search questions, NaN without.
        held_out: Scores on the held-out questions; no task if it was not asked.
        gap: Search score minus held-out score on the tasks that have both, with the interval of
            the held-out score: by how much the search score flatters. ``None`` without such tasks.
        parents: Against the parents; ``None`` where there is nothing to compare: no parent was
            asked, it is a parent, or it serves only for comparison.
        defaults: Against the plain average, the default recipes and the user's own; likewise.
    """

    name: str
    role: Role
    rank: int | None
    search: float
    held_out: Scores
    gap: Interval | None
    parents: Against | None = None
    defaults: Against | None = None


def finalists(
    entries: Sequence[Entry],
    *,
    tasks: Sequence[TaskInfo],
    documents: Documents = ALONE,
    how: Resampling,
) -> tuple[Finalist, ...]:
    """Score and compare everyone who was asked.

    The winner and the searched candidates are compared with the others, and their p-values are
    corrected for their number (Holm). The winner is named before these questions are asked, so
    ``p_value`` holds for it as it is; whoever picks another finalist for its held-out score goes by
    ``adjusted``.

    Args:
        entries: By rank, the winner first.
        tasks: Weights and directions.
        documents: What the questions are about.
        how: Confidence, number of resamples and seed.

    Returns:
        The winner and all entries with outcomes, in the order of the entries.
    """
    winner = entries[0]
    asked = [entry for entry in entries if entry.outcomes or entry is winner]
    contenders = [e for e in asked if e.role is Role.SEARCHED or e is winner]
    groups = {
        "parents": [e for e in asked if e.role is Role.PARENT],
        "defaults": [e for e in asked if e.role in BY_HAND],
    }
    results: dict[str, dict[str, Against]] = {entry.name: {} for entry in asked}
    for group, members in groups.items():
        found = {
            e.name: against(e, members, tasks, documents, how)
            for e in contenders
            if group != "parents" or e.role is not Role.PARENT
        }
        known = {name: item for name, item in found.items() if item is not None}
        corrected = holm([item.p_value for item in known.values()])
        for (name, item), adjusted in zip(known.items(), corrected, strict=True):
            results[name][group] = replace(item, adjusted=adjusted)
    return tuple(_finalist(entry, results[entry.name], tasks, documents, how) for entry in asked)


def against(
    entry: Entry,
    members: Sequence[Entry],
    tasks: Sequence[TaskInfo],
    documents: Documents,
    how: Resampling,
) -> Against | None:
    """An entry against the best of some members, whichever that is; ``None`` without answers."""
    asked = [task for task in tasks if task.name in entry.outcomes]
    found = {
        member.name: paired(entry.outcomes, member.outcomes, asked, documents=documents, how=how)
        for member in members
        if member is not entry
    }
    known = {name: item for name, item in found.items() if item.difference.n > 0}
    if not known:
        return None
    p_value = max(item.p_value for item in known.values())
    best = min(known, key=lambda name: known[name].difference.value)
    outcomes = {member.name: member.outcomes for member in members if member.name in known}

    def at(name: str, confidence: float) -> Interval:
        wider = replace(how, confidence=confidence)
        return difference(entry.outcomes, outcomes[name], asked, documents=documents, how=wider)

    return Against(
        best=best,
        difference=_to_best({name: c.difference for name, c in known.items()}, best, at, how),
        comparisons=known,
        p_value=p_value,
        adjusted=p_value,
    )


def _to_best(
    known: Mapping[str, Interval],
    best: str,
    at: Callable[[str, float], Interval],
    how: Resampling,
) -> Interval:
    """The difference to the best of several, whichever that is in truth.

    It is the smallest of the differences, so the lower end is the smallest of the lower ends. The
    smallest of several upper ends would be too small where several members may be the best: each of
    theirs is taken at its share of the error rate (Bonferroni). A member that is below another
    beyond doubt is not counted.
    """
    error = 1.0 - how.confidence
    wide = {name: at(name, 1.0 - error / len(known)) for name in known}
    ceiling = np.min([item.high for item in wide.values()])  # NaN where one is not known
    rivals = [name for name in known if not wide[name].low > ceiling]
    highs = [
        known[name].high if len(rivals) == 1 else at(name, 1.0 - error / len(rivals)).high
        for name in rivals
    ]
    low = np.min([item.low for item in known.values()])
    return replace(known[best], low=float(low), high=float(np.min(highs)))


def _finalist(
    entry: Entry,
    against: Mapping[str, Against],
    tasks: Sequence[TaskInfo],
    documents: Documents,
    how: Resampling,
) -> Finalist:
    held_out = score(entry.outcomes, tasks, documents=documents, how=how)
    seen = {item.task for item in entry.search}
    both = [task for task in tasks if task.name in seen and task.name in held_out.tasks]
    if len(both) < len(held_out.tasks):
        known = score(entry.outcomes, both, documents=documents, how=how).combined
    else:
        known = held_out.combined
    return Finalist(
        name=entry.name,
        role=entry.role,
        rank=entry.rank,
        search=combine(entry.search, tasks)[0],
        held_out=held_out,
        gap=_gap(entry.search, known, both),
        parents=against.get("parents"),
        defaults=against.get("defaults"),
    )


def _gap(
    search: Sequence[TaskScore], known: Interval, tasks: Sequence[TaskInfo]
) -> Interval | None:
    """Search score minus held-out score on the same tasks.

    The search score is a number that was seen, and picked for being high; only how far it is from
    the truth is uncertain, and that is as uncertain as the held-out score.
    """
    seen, _ = combine(search, tasks)
    if math.isnan(seen):
        return None
    return Interval(
        value=seen - known.value,
        stderr=known.stderr,
        low=seen - known.high,
        high=seen - known.low,
        n=known.n,
    )
