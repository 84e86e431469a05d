"""The verdict in words, with numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from runs.ranking.finalists import BY_HAND, Against, Entry, Finalist, WinnerStanding
from runs.ranking.specialists import OnTask, TaskChange
from runs.records.record import AVERAGE, OWN, PARENT, Role, role_of
from runs.statistics.intervals import Interval
from spaces.text.error_text import counted, listed

_BEHIND = (TaskChange.LOSES, TaskChange.MAY_LOSE)
MOST_TASKS = 4
"""Tasks up to which a sentence names each; losses are always named."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Story:
    """What the sentences are made from.

    Attributes:
        finalists: The winner first.
        on_tasks: The winner, and others that beat the parents, against the specialist of each
            task, by name.
        missing: Recipes not searched that the winner was not compared with.
        questions: What to call the questions.
        confidence: Coverage of the intervals.
    """

    finalists: tuple[Finalist, ...]
    on_tasks: Mapping[str, Sequence[OnTask]]
    missing: tuple[Entry, ...]
    questions: str
    confidence: float

    @property
    def _winner(self) -> Finalist:
        return self.finalists[0]

    def sentence(self, standing: WinnerStanding) -> str:
        """The verdict; starts in lower case, no full stop."""
        if standing is WinnerStanding.BASELINE:
            return self._not_searched()
        if standing is WinnerStanding.UNKNOWN and not self._winner.held_out.tasks:
            return f"not compared: the winner was not scored on {self.questions} questions"
        if standing is WinnerStanding.UNKNOWN:
            return (
                "not compared: neither a parent nor a default recipe was scored on "
                f"{self.questions} questions"
            )
        return f"{self._opening()}the winner {'; it '.join(self._clauses())}{self._base()}"

    def _not_searched(self) -> str:
        """The sentence where the winner is not a recipe of the search."""
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
            case WinnerStanding.NOT_BETTER:
                return "nothing beats the best parent: "
            case WinnerStanding.AHEAD:
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
        numbers = f"({self._interval(group.difference)}, {p_words(group.p_value)})"
        missing = [entry.role for entry in self.missing]
        every = everyone(group, parents=word == "parent", missing=missing)
        if every == title(group.best):
            margin = signed(group.difference.value)
        standing, by_task = group.standing(self.confidence), ""
        if word == "parent" and several(group):
            every += " on average"
            found = self.on_tasks[self._winner.name]
            by_task = told(found, contrast=standing is WinnerStanding.BEATS)
        match standing:
            case WinnerStanding.BEATS:
                return f"beats {every}: {margin} {numbers}{by_task}"
            case WinnerStanding.AHEAD:
                return f"is ahead of {every}, but not beyond doubt: {margin} {numbers}{by_task}"
            case _:
                over = f"{title(group.best)}: {margin.split()[0]} {numbers}{by_task}"
                return f"is not better than {over}"

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
        text = f", on {counted(count, f'{self.questions} question')}"
        if self.missing:
            text += "; not compared: " + ", ".join(_absent(self.missing))
        left_out = dict.fromkeys(task for item in found for task in item.left_out)
        if left_out:
            text += "; without " + ", ".join(map(repr, left_out)) + " (no values per question)"
        return text

    def _others(self) -> Iterator[str]:
        """Finalists that beat every parent where the winner does not."""
        mine = self._winner.parents
        if mine is not None and mine.standing(self.confidence) is WinnerStanding.BEATS:
            return
        count = sum(finalist.parents is not None for finalist in self.finalists)
        for finalist in self.finalists[1:]:
            group = finalist.parents
            if group is not None and group.beats_after_correction(self.confidence):
                on_average = several(group)
                found = self.on_tasks[finalist.name] if on_average else ()
                yield (
                    f"{title(finalist.name).capitalize()} beats every parent"
                    f"{' on average' if on_average else ''}: "
                    f"{signed(group.difference.value)} over the best, {title(group.best)} "
                    f"({self._interval(group.difference)}; {p_words(group.adjusted)}, "
                    f"corrected for {count} finalists){told(found, contrast=True)}."
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


def several(group: Against) -> bool:
    """Whether more than one task was compared."""
    return any(len(item.tasks) > 1 for item in group.comparisons.values())


def everyone(group: Against, *, parents: bool, missing: Sequence[Role]) -> str:
    """Whom a finalist was compared with, such as ``every parent``.

    Args:
        group: The comparisons.
        parents: Whether they are the parents; else they are what is tried by hand.
        missing: Roles of those that it was not compared with.
    """
    roles = (Role.PARENT,) if parents else BY_HAND
    every = f"every {'compared ' if set(roles) & set(missing) else ''}"
    if parents:
        return f"{every}parent"
    found = {role_of(name) for name in group.comparisons}
    words = [f"{every}default recipe"] if Role.DEFAULT in found else [title(AVERAGE)]
    if Role.OWN in found:
        words = [*(words if len(found) > 1 else []), f"{every}recipe of yours"]
    return " and ".join(words)


def told(found: Sequence[OnTask], *, contrast: bool) -> str:
    """The winner task by task: ``, but loses 5.0 points on 'largest' (...) against parent 'b'``.

    Every loss is named, however many there are; of many tasks, gains and the rest are counted.

    Args:
        found: The winner against the specialist of each task.
        contrast: Whether something good was said before.
    """
    lost = [_named(one) for change in _BEHIND for one in found if one.change is change]
    others = [one for one in found if one.change not in _BEHIND]
    others.sort(key=lambda one: one.change is TaskChange.KEEPS)
    parts = lost + (list(map(_named, others)) if len(found) <= MOST_TASKS else _counted(others))
    if not parts:
        return ""
    return f", {'but' if contrast and lost else 'and'} {listed(parts)}"


def losses(found: Sequence[OnTask]) -> str:
    """What the winner loses or may lose: ``loses 5.0 points on 'largest' to parent 'b'``."""
    return listed(
        [
            f"{change.value} {_amount(one)} on {one.task!r} to {title(one.specialist)}"
            for change in _BEHIND
            for one in found
            if one.change is change
        ]
    )


def _named(one: OnTask) -> str:
    over = title(one.specialist)
    if one.change is TaskChange.KEEPS:
        share = f"{100 * one.kept:.0f} % of " if one.kept <= 1 else ""
        return f"keeps {share}{one.task!r} ({_points(one)} against {over}, within the noise)"
    low, high = one.difference.low, one.difference.high
    ends = f"{100 * low:+.1f} to {100 * high:+.1f}" if one.points else ""
    ends = ends or f"{signed(low)} to {signed(high)}"
    doubt = ", not confirmed by the test" if one.change.value.startswith("may ") else ""
    word = "over" if one.difference.value > 0 else "against"
    return f"{one.change.value} {_amount(one)} on {one.task!r} ({ends}{doubt}) {word} {over}"


def _counted(found: Sequence[OnTask]) -> list[str]:
    words = {
        TaskChange.GAINS: "gains on {}",
        TaskChange.MAY_GAIN: "may gain on {}",
        TaskChange.KEEPS: "is within the noise on {}",
    }
    counts = {change: sum(one.change is change for one in found) for change in words}
    return [
        words[change].format(counted(count, "task")) for change, count in counts.items() if count
    ]


def _amount(one: OnTask) -> str:
    return _points(one).lstrip("+-")


def _points(one: OnTask) -> str:
    """A difference: ``-5.0 points``, or in the metric's own unit."""
    value = one.difference.value
    return f"{100 * value:+.1f} points" if one.points else signed(value)


def title(name: str) -> str:
    """A candidate in words: ``parent 'math'``, ``the plain average``, ``default recipe 'ties'``."""
    if name.startswith("candidate "):
        return name
    match role_of(name):
        case Role.PARENT:
            return f"parent {name.removeprefix(PARENT)!r}"
        case Role.BASE | Role.AVERAGE:
            return f"the {name}"
        case Role.OWN:
            return f"your recipe {name.removeprefix(OWN)!r}"
        case _:
            return f"default recipe {name!r}"


def signed(value: float) -> str:
    """A difference: ``+0.031``."""
    return f"{value:+.3f}" if abs(value) < 100 else f"{value:+.1f}"


def p_text(value: float) -> str:
    """A p-value: ``0.012``, ``<0.001``."""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def p_words(value: float) -> str:
    """The same in a sentence: ``p = 0.012``, ``p < 0.001``."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _absent(missing: Sequence[Entry]) -> list[str]:
    """Parents and average by name, default recipes and the user's own by number."""
    numbered = {Role.DEFAULT: ("default recipe", ""), Role.OWN: ("recipe", " of yours")}
    words = [title(entry.name) for entry in missing if entry.role not in numbered]
    for role, (what, whose) in numbered.items():
        if count := sum(entry.role is role for entry in missing):
            words.append(f"{counted(count, what)}{whose}")
    return words
