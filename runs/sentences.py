"""The verdict in words, with numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from runs.finalists import Against, Entry, Finalist, Standing
from runs.intervals import Interval
from runs.records import AVERAGE, PARENT, Role


@dataclass(frozen=True, kw_only=True, slots=True)
class Story:
    """What the sentences are made from.

    Attributes:
        finalists: The winner first.
        missing: Parents, average and default recipes that the winner was not compared with.
        questions: What to call the questions.
        confidence: Coverage of the intervals.
    """

    finalists: tuple[Finalist, ...]
    missing: tuple[Entry, ...]
    questions: str
    confidence: float

    @property
    def _winner(self) -> Finalist:
        return self.finalists[0]

    def sentence(self, standing: Standing) -> str:
        """The verdict; starts in lower case, no full stop."""
        if standing is Standing.BASELINE:
            return self._not_searched()
        if standing is Standing.UNKNOWN and not self._winner.held_out.tasks:
            return f"not compared: the winner was not scored on {self.questions} questions"
        if standing is Standing.UNKNOWN:
            return (
                "not compared: neither a parent nor a default recipe was scored on "
                f"{self.questions} questions"
            )
        return f"{self._opening()}the winner {'; it '.join(self._clauses())}{self._base()}"

    def _not_searched(self) -> str:
        """The sentence where the winner is a parent, the plain average or a default recipe."""
        winner = self._winner
        text = f"no other recipe did better in the search than {title(winner.name)}"
        if winner.role is Role.PARENT:
            return text if any(self._others()) else f"nothing beats the best parent: {text}"
        if winner.parents is None:
            return text
        return f"{text}, which {self._over(winner.parents, 'parent')}{self._base()}"

    def notes(self) -> tuple[str, ...]:
        """What else there is to say: whole sentences."""
        return (*self._others(), *self._curse())

    def _opening(self) -> str:
        """Says so where no finalist beats the parents."""
        parents = self._winner.parents
        if parents is None or any(self._others()):
            return ""
        match parents.standing(self.confidence):
            case Standing.NOT_BETTER:
                return "nothing beats the best parent: "
            case Standing.AHEAD:
                return "nothing beats the best parent beyond doubt: "
            case _:
                return ""

    def _clauses(self) -> Iterator[str]:
        for group, word in ((self._winner.parents, "parent"), (self._winner.defaults, "default")):
            if group is not None:
                yield self._over(group, word)

    def _over(self, group: Against, word: str) -> str:
        """The winner against one group: ``beats every parent: +0.1 over the best, ...``."""
        margin = f"{signed(group.difference.value)} over the best, {title(group.best)}"
        numbers = f"({self._interval(group.difference)}, {_p(group.p_value)})"
        missing = [entry.role for entry in self.missing]
        every = everyone(group, parents=word == "parent", missing=missing)
        if every == title(group.best):
            margin = signed(group.difference.value)
        match group.standing(self.confidence):
            case Standing.BEATS:
                return f"beats {every}: {margin} {numbers}"
            case Standing.AHEAD:
                return f"is ahead of {every}, but not beyond doubt: {margin} {numbers}"
            case _:
                return f"is not better than {title(group.best)}: {margin.split()[0]} {numbers}"

    def _interval(self, found: Interval) -> str:
        if math.isnan(found.low):
            return "too few questions for an interval"
        return f"{100 * self.confidence:g} % interval {signed(found.low)} to {signed(found.high)}"

    def _base(self) -> str:
        """On how many questions, and what was left out."""
        groups = [g for g in (self._winner.parents, self._winner.defaults) if g is not None]
        found = [item for group in groups for item in group.comparisons.values()]
        if not found:
            return ""
        count = min(item.difference.n for item in found)
        text = f", on {count} {self.questions} question{'' if count == 1 else 's'}"
        if self.missing:
            text += "; not compared: " + ", ".join(_absent(self.missing))
        left_out = dict.fromkeys(task for item in found for task in item.left_out)
        if left_out:
            text += "; without " + ", ".join(map(repr, left_out)) + " (no values per question)"
        return text

    def _others(self) -> Iterator[str]:
        """Finalists that beat every parent where the winner does not."""
        mine = self._winner.parents
        if mine is not None and mine.standing(self.confidence) is Standing.BEATS:
            return
        count = sum(finalist.parents is not None for finalist in self.finalists)
        for finalist in self.finalists[1:]:
            group = finalist.parents
            if group is not None and group.beats_after_correction(self.confidence):
                yield (
                    f"{title(finalist.name).capitalize()} beats every parent: "
                    f"{signed(group.difference.value)} over the best, {title(group.best)} "
                    f"({self._interval(group.difference)}; {_p(group.adjusted)}, "
                    f"corrected for {count} finalists)."
                )

    def _curse(self) -> Iterator[str]:
        """By how much the score that the winner was found with flatters it."""
        gap = self._winner.gap
        if gap is None or math.isnan(gap.low):
            return
        side = "above" if gap.value >= 0 else "below"
        if gap.low > 0:
            meaning = "so the search score flatters"
        elif gap.high < 0:
            meaning = "so the search score was too low"
        else:
            meaning = "which chance alone may explain"
        yield (
            f"The winner's search score is {signed(abs(gap.value)).lstrip('+')} {side} its "
            f"{self.questions} score ({self._interval(gap)}), {meaning}."
        )


def everyone(group: Against, *, parents: bool, missing: Sequence[Role]) -> str:
    """Whom a finalist was compared with, such as ``every parent``.

    Args:
        group: The comparisons.
        parents: Whether they are the parents; else they are average and default recipes.
        missing: Roles of those that it was not compared with.
    """
    if set(group.comparisons) == {AVERAGE}:
        return title(AVERAGE)
    roles = (Role.PARENT,) if parents else (Role.AVERAGE, Role.DEFAULT)
    compared = "compared " if set(roles) & set(missing) else ""
    return f"every {compared}{'parent' if parents else 'default recipe'}"


def title(name: str) -> str:
    """A candidate in words: ``parent 'math'``, ``the plain average``, ``default recipe 'ties'``."""
    if name.startswith(PARENT):
        return f"parent {name.removeprefix(PARENT)!r}"
    if name == AVERAGE:
        return "the plain average"
    return name if name.startswith("candidate ") else f"default recipe {name!r}"


def signed(value: float) -> str:
    """A difference: ``+0.031``."""
    return f"{value:+.3f}" if abs(value) < 100 else f"{value:+.1f}"


def p_text(value: float) -> str:
    """A p-value: ``0.012``, ``<0.001``."""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _absent(missing: Sequence[Entry]) -> list[str]:
    """Parents and average by name, default recipes by number."""
    words = [title(entry.name) for entry in missing if entry.role is not Role.DEFAULT]
    count = sum(entry.role is Role.DEFAULT for entry in missing)
    if count:
        words.append(f"{count} default recipe{'' if count == 1 else 's'}")
    return words
