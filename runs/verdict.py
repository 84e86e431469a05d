"""What a run found, in one sentence with numbers: is the winner better than what it was made of?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from evaluators.base import Catalogue, Outcome, TaskInfo
from runs.leaderboard import best
from runs.records import AVERAGE, PARENT, Record
from runs.statistics import DEFAULT, Comparison, Outcomes, Resampling, by_task, paired


class Standing(StrEnum):
    """How the winner compares with every baseline."""

    BEATS = "beats"  # better than each beyond doubt
    AHEAD = "ahead"  # better than each, but some difference could be chance
    NOT_BETTER = "not_better"  # at least one baseline is as good
    BASELINE = "baseline"  # the winner is itself a parent or the plain average
    UNKNOWN = "unknown"  # there is nothing to compare with


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The winner against its parents and the plain average on the same questions.

    Attributes:
        standing: The outcome against all baselines together.
        sentence: The outcome for people, with the numbers; starts in lower case, no full stop.
        winner: Name of the winner.
        comparisons: Winner minus baseline by the baseline's name, parents first.
        missing: Baselines that have no outcomes to compare with.
        best_parent: The parent that does best on these questions; ``None`` if none was scored.
        confidence: Coverage of the intervals.
    """

    standing: Standing
    sentence: str
    winner: str
    comparisons: Mapping[str, Comparison]
    missing: tuple[str, ...]
    best_parent: str | None
    confidence: float


def verdict(
    winner: str,
    baselines: Sequence[str],
    *,
    outcomes: Mapping[str, Outcomes],
    tasks: Sequence[TaskInfo],
    questions: str = "held-out",
    how: Resampling = DEFAULT,
) -> Verdict:
    """Compare a winner with its baselines.

    Being better than all of them at once needs no correction for their number: each comparison
    has to hold by itself (an intersection-union test).

    Args:
        winner: Its name in ``outcomes``.
        baselines: Origins as records have them: ``parent NAME`` and ``plain average``.
        outcomes: What each candidate got, by name; baselines may be missing.
        tasks: Weights and directions.
        questions: What to call the questions in the sentence.
        how: Confidence, number of resamples and seed.
    """
    ordered = sorted(baselines, key=lambda name: not name.startswith(PARENT))
    ours = outcomes.get(winner, {})
    asked = [task for task in tasks if task.name in ours]  # held-out questions may lack a task
    found = {
        name: paired(ours, outcomes[name], asked, how=how)
        for name in ordered
        if name != winner and name in outcomes
    }
    comparisons = {name: item for name, item in found.items() if item.difference.n > 0}
    parents = [name for name in comparisons if name.startswith(PARENT)]
    best_parent = min(parents, key=lambda name: comparisons[name].difference.value, default=None)
    missing = tuple(name for name in ordered if name != winner and name not in comparisons)
    standing = _standing(winner in baselines, comparisons, how.confidence)
    story = _Story(
        winner=winner,
        comparisons=comparisons,
        best_parent=best_parent,
        missing=missing,
        questions=questions,
        confidence=how.confidence,
    )
    return Verdict(
        standing=standing,
        sentence=story.sentence(standing, scored=any(ours.values())),
        winner=winner,
        comparisons=comparisons,
        missing=missing,
        best_parent=best_parent,
        confidence=how.confidence,
    )


def judge(
    records: Sequence[Record],
    outcomes: Mapping[int, Sequence[Outcome]],
    catalogue: Catalogue,
    *,
    questions: str = "held-out",
    how: Resampling = DEFAULT,
) -> Verdict | None:
    """The verdict of a run.

    Args:
        records: All candidates; the winner is the one with the best search score.
        outcomes: Outcomes on the questions to judge by, by candidate id; those of the winner and
            the baselines are used.
        catalogue: The run's tasks and questions.
        questions: What to call the questions in the sentence.
        how: Confidence, number of resamples and seed.

    Returns:
        The verdict, or ``None`` where no candidate has a score.
    """
    winner = best(records)
    if winner is None:
        return None
    baselines = [record for record in records if record.is_baseline]
    names = {record.id: record.origin for record in baselines}
    names.setdefault(winner.id, f"candidate {winner.id}")
    return verdict(
        names[winner.id],
        [record.origin for record in baselines],
        outcomes={
            name: by_task(outcomes[number], catalogue)
            for number, name in names.items()
            if outcomes.get(number)
        },
        tasks=catalogue.tasks,
        questions=questions,
        how=how,
    )


def _standing(
    is_baseline: bool, comparisons: Mapping[str, Comparison], confidence: float
) -> Standing:
    if is_baseline:
        return Standing.BASELINE
    if not comparisons:
        return Standing.UNKNOWN
    if any(not item.difference.value > 0 for item in comparisons.values()):
        return Standing.NOT_BETTER
    if all(item.clear(confidence) for item in comparisons.values()):
        return Standing.BEATS
    return Standing.AHEAD


@dataclass(frozen=True, kw_only=True, slots=True)
class _Story:
    """What a sentence is made from; the fields are those of the verdict."""

    winner: str
    comparisons: Mapping[str, Comparison]
    best_parent: str | None
    missing: tuple[str, ...]
    questions: str
    confidence: float

    def sentence(self, standing: Standing, *, scored: bool) -> str:
        """The sentence; ``scored`` tells whether the winner has any outcome."""
        match standing:
            case Standing.BASELINE:
                return f"no other recipe did better in the search than {_title(self.winner)}"
            case Standing.UNKNOWN if not scored:
                return f"not compared: the winner was not scored on {self.questions} questions"
            case Standing.UNKNOWN:
                return (
                    "not compared: neither a parent nor the plain average was scored on "
                    f"{self.questions} questions"
                )
            case Standing.NOT_BETTER:
                text = "not better than " + " or ".join(
                    f"{_title(name)} ({self._numbers(item)})"
                    for name, item in self.comparisons.items()
                    if not item.difference.value > 0
                )
            case Standing.BEATS:
                text = f"beats {self._everyone()}: {self._margins()}"
            case _:
                text = f"ahead of {self._everyone()}, but not beyond doubt: {self._margins()}"
        return text + self._base()

    def _everyone(self) -> str:
        parents = [name for name in self.comparisons if name.startswith(PARENT)]
        absent = any(name.startswith(PARENT) for name in self.missing)
        every = "every compared parent" if absent else "every parent"
        words = [every] if parents else []
        words += [_title(name) for name in self.comparisons if name not in parents]
        return " and ".join(words)

    def _margins(self) -> str:
        """The margin over the best parent, then over everything that is no parent."""
        parts = []
        for name, item in self.comparisons.items():
            if name == self.best_parent:
                parts.append(f"{_signed(item.difference.value)} over the best {_title(name)}")
            elif not name.startswith(PARENT):
                parts.append(f"{_signed(item.difference.value)} over {_title(name)}")
            else:
                continue
            parts[-1] += f" ({self._interval(item)})"
        return " and ".join(parts)

    def _numbers(self, item: Comparison) -> str:
        return f"{_signed(item.difference.value)}, {self._interval(item)}"

    def _interval(self, item: Comparison) -> str:
        if math.isnan(item.difference.low):
            return "too few questions for an interval"
        low, high = _signed(item.difference.low), _signed(item.difference.high)
        return f"{100 * self.confidence:g} % interval {low} to {high}"

    def _base(self) -> str:
        """On how many questions, and what was left out."""
        count = min(item.difference.n for item in self.comparisons.values())
        text = f", on {count} {self.questions} question{'' if count == 1 else 's'}"
        if self.missing:
            text += "; not compared: " + ", ".join(map(_title, self.missing))
        left_out = dict.fromkeys(t for item in self.comparisons.values() for t in item.left_out)
        if left_out:
            text += "; without " + ", ".join(map(repr, left_out)) + " (no values per question)"
        return text


def _title(origin: str) -> str:
    """A baseline in words: ``parent 'math'``, ``the plain average``."""
    if origin.startswith(PARENT):
        return f"parent {origin.removeprefix(PARENT)!r}"
    return "the plain average" if origin == AVERAGE else origin


def _signed(value: float) -> str:
    return f"{value:+.3f}" if abs(value) < 100 else f"{value:+.1f}"
