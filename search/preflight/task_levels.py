"""Tasks in which nothing tells one model from another: all wrong, all right, guessed, or cut off.

A search is led by differences between scores. Where the candidate that was tried answered every
question of a task alike, or did no better than guessing, the models themselves are asked. So they
are where answers are written: the most tokens allowed may be what decides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from evaluators.protocol import (
    Candidate,
    Catalogue,
    Evaluator,
    Failure,
    Score,
    TaskInfo,
    scored,
)
from evaluators.workers.attempt import attempt
from runs.ranking.verdict import CUT_OFF
from spaces.recipes.recipe import Recipe

FEWEST = 10
"""Questions of a task below which nothing is said of it."""

MOST = 50
"""Questions of a task that each model is asked."""

CLEARLY = 2.0
"""Standard errors above chance from which a score is better than guessing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """What models make of a task that may not tell one from another.

    Attributes:
        task: Its name.
        questions: How many search questions each of them was asked.
        scores: Mean over these questions by model, in the metric's own units.
        cut_off: Share of the answers that were cut off by model, where answers are written.
        flat: Whether the candidate that was tried said little there.
        alike: The value of every answer of every model, if they are all the same; else NaN.
        chance: What guessing scores; NaN where there are no choices to guess from.
    """

    task: str
    questions: int
    scores: Mapping[str, float]
    cut_off: Mapping[str, float] = field(default_factory=dict)
    flat: bool = True
    alike: float = math.nan
    chance: float = math.nan

    def warning(self) -> str:
        """A sentence for the user; empty if one of the models stands out."""
        if not self.flat:
            return ""
        asked = f"the {self.questions} questions of {self.task} that were tried"
        if self.alike == 0.0:
            return (
                f"No model answers any of {asked}: the search has nothing to go by there. The "
                "questions may not be put as the models were taught (chat template, prompt, length "
                "of answers), or the task is too hard for them."
            )
        if self.alike == 1.0:
            return (
                f"Every model answers all of {asked}: no merge can do better there, and the search "
                "has nothing to go by. Take a harder task."
            )
        if not math.isnan(self.alike):
            return (
                f"Every model has the same value, {self.alike:g}, for all of {asked}: the search "
                "has nothing to go by there."
            )
        best = max(self.scores, key=lambda name: self.scores[name])
        if self.scores[best] < guessed(self.chance, self.questions):
            return (
                f"No model is clearly better than guessing ({self.chance:.2f}) on {asked}; the "
                f"best, {best}, scores {self.scores[best]:.2f}. What the search finds there may be "
                "luck: see whether the questions are put as the models were taught, or take an "
                "easier task."
            )
        return ""

    def cap_warning(self) -> str:
        """A sentence where the most tokens allowed may decide; empty where few answers meet it."""
        often = {name: share for name, share in self.cut_off.items() if share > CUT_OFF}
        if not often:
            return ""
        shares = ", ".join(f"{share:.0%} of {name}" for name, share in often.items())
        return (
            f"Answers to the {self.questions} questions of {self.task} that were tried are cut off "
            f"at the most tokens allowed: {shares}. What is compared there may be the length of "
            "answers: give them more room (max_gen_toks in harness.gen_kwargs)."
        )


def guessed(chance: float, questions: int) -> float:
    """The score from which one is clearly better than guessing; NaN where nothing is guessed."""
    return chance + CLEARLY * math.sqrt(chance * (1.0 - chance) / questions)


def levels(
    evaluator: Evaluator,
    models: Mapping[str, Recipe],
    tried: Score,
    *,
    chances: Mapping[str, float],
    seconds: float,
) -> tuple[Level, ...]:
    """Ask the models in each task where the candidate that was tried says little, or writes."""
    room = int(seconds * len(tried.outcomes) / max(tried.score_seconds, 1e-9) / max(1, len(models)))
    found = []
    for task in evaluator.catalogue().tasks:
        values = _values(evaluator.catalogue(), tried, task.name)
        if len(values) < FEWEST:
            continue
        chance = chances.get(task.name, math.nan)
        flat = _flat(task, list(values.values()), chance)
        if flat or task.written:
            asked = tuple(values)[: max(FEWEST, min(MOST, room))]
            level = _asked(evaluator, models, task.name, asked, chance)
            found += [replace(level, flat=flat)] if level is not None else []
    return tuple(found)


def _values(catalogue: Catalogue, tried: Score, task: str) -> dict[str, float]:
    """Value by question of a task."""
    ids = {question.id for question in catalogue.questions if question.task == task}
    return {one.question: one.value for one in tried.outcomes if one.question in ids}


def _flat(task: TaskInfo, values: Sequence[float], chance: float) -> bool:
    """Whether a task's values tell nothing; never where it is no mean, or lower is better."""
    known = [value for value in values if math.isfinite(value)]
    if len(known) < FEWEST or not (task.mean and task.higher_is_better):
        return False
    alike = max(known) == min(known)
    return alike or math.fsum(known) / len(known) < guessed(chance, len(known))


def _asked(
    evaluator: Evaluator,
    models: Mapping[str, Recipe],
    task: str,
    questions: tuple[str, ...],
    chance: float,
) -> Level | None:
    """What all models make of some questions; nothing if one could not be asked."""
    scores: dict[str, float] = {}
    cut_off: dict[str, float] = {}
    seen: set[float] = set()
    for number, (name, recipe) in enumerate(models.items()):
        found = scored(attempt(evaluator, Candidate(id=number, recipe=recipe, questions=questions)))
        if isinstance(found, Failure):
            return None
        values = [one.value for one in found.outcomes if math.isfinite(one.value)]
        if not values:
            return None
        scores[name] = math.fsum(values) / len(values)
        if (share := found.tasks[0].cut_off) is not None:
            cut_off[name] = share
        seen |= set(values)
    if not scores:
        return None
    alike = seen.pop() if len(seen) == 1 else math.nan
    return Level(
        task=task,
        questions=len(questions),
        scores=scores,
        cut_off=cut_off,
        alike=alike,
        chance=chance,
    )
