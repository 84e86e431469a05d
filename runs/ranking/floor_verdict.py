"""Whether the winner keeps the floors, by the questions to judge by."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from evaluators.protocol import TaskInfo
from runs.ranking.finalists import Entry, against
from runs.ranking.floors import floored
from runs.ranking.verdict_text import signed, title
from runs.records.record import Role
from runs.statistics.comparisons import Documents, score
from runs.statistics.intervals import Interval
from runs.statistics.resampling import Resampling


class Kept(StrEnum):
    """Whether a floor is kept."""

    KEPT = "kept"  # beyond doubt: the whole interval
    BROKEN = "broken"  # likewise
    NOT_DECIDED = "not decided"  # the floor lies within the interval, or there is none


@dataclass(frozen=True, kw_only=True, slots=True)
class FloorFound:
    """The winner at one floor.

    Attributes:
        task: Its name.
        kept: Whether it is kept.
        margin: The winner's value less the floor, turned so that above 0 it is kept.
        floor: Where it lies, in words.
    """

    task: str
    kept: Kept
    margin: Interval
    floor: str

    def words(self, confidence: float) -> str:
        """Such as ``floor of 'code' kept: +0.050 from 0.8 (95 % interval +0.010 to +0.090)``."""
        text = f"floor of {self.task!r} {self.kept}"
        if math.isnan(self.margin.value):
            return f"{text}: nothing to compare"
        text += f": {signed(self.margin.value)} from {self.floor}"
        if math.isnan(self.margin.low):
            return f"{text} (too few questions for an interval)"
        ends = f"{signed(self.margin.low)} to {signed(self.margin.high)}"
        return f"{text} ({100 * confidence:g} % interval {ends})"


def floors_found(
    entries: Sequence[Entry],
    *,
    tasks: Sequence[TaskInfo],
    documents: Documents,
    how: Resampling,
) -> tuple[FloorFound, ...]:
    """The winner, the first of the entries, at every floor."""
    return tuple(_found(entries, task, documents, how) for task in floored(tasks))


def _found(
    entries: Sequence[Entry], task: TaskInfo, documents: Documents, how: Resampling
) -> FloorFound:
    floor, winner = task.floor, entries[0]
    assert floor is not None  # floored
    if floor.value is not None:
        margin, words = _above(winner, task, floor.value, documents, how), f"{floor.value:g}"
    else:
        less = floor.below_best_parent or 0.0
        margin, best = _above_parents(entries, task, documents, how)
        margin = _moved(margin, less)
        words = f"the best parent{best} less {less:g}" if less else f"the best parent{best}"
    return FloorFound(task=task.name, kept=_kept(margin), margin=margin, floor=words)


def _above(
    winner: Entry, task: TaskInfo, floor: float, documents: Documents, how: Resampling
) -> Interval:
    """The winner's value less a fixed floor."""
    known = score(winner.outcomes, [task], documents=documents, how=how).tasks.get(task.name)
    if known is None:
        return _NOTHING
    if task.higher_is_better:
        return _moved(known, -floor)
    turned = replace(known, value=-known.value, low=-known.high, high=-known.low)
    return _moved(turned, floor)


def _above_parents(
    entries: Sequence[Entry], task: TaskInfo, documents: Documents, how: Resampling
) -> tuple[Interval, str]:
    """The winner's value less that of the best parent, whichever that is, and its name."""
    winner = entries[0]
    parents = [one for one in entries if one.role is Role.PARENT and one.outcomes]
    found = against(winner, parents, [task], documents, how)
    if found is not None:
        return found.difference, f", {title(found.best)},"
    if winner in parents and len(parents) == 1:  # the only one is the best
        n = len(winner.outcomes.get(task.name, ()))
        return Interval(value=0.0, stderr=0.0, low=0.0, high=0.0, n=n), ""
    return _NOTHING, ""


def _moved(found: Interval, by: float) -> Interval:
    return replace(found, value=found.value + by, low=found.low + by, high=found.high + by)


def _kept(margin: Interval) -> Kept:
    if margin.low >= 0:
        return Kept.KEPT
    return Kept.BROKEN if margin.high < 0 else Kept.NOT_DECIDED


_NOTHING = Interval(value=math.nan, stderr=math.nan, low=math.nan, high=math.nan, n=0)


def keeping_words(found: Sequence[FloorFound], confidence: float) -> tuple[str, str]:
    """What goes before and after the sentence of a verdict: a broken floor comes first."""
    broken = [one.words(confidence) for one in found if one.kept is Kept.BROKEN]
    others = [one.words(confidence) for one in found if one.kept is not Kept.BROKEN]
    return "".join(f"{text}; " for text in broken), "".join(f"; {text}" for text in others)


def unkept(shortfall: float, broken: str) -> Iterator[str]:
    """A sentence where no recipe is expected to keep every floor, by the winner's."""
    if shortfall:
        yield (
            "No recipe is expected to keep every floor: the winner comes nearest to it by the "
            f"search questions, below the floor of {broken}."
        )
