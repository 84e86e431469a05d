"""Tasks in which nothing tells one model from another: all wrong, all right, or guessed.

A search is led by differences between scores. Where the candidate that was tried answered every
question of a task alike, or did no better than guessing, the models themselves are asked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluators.protocol import Candidate, Catalogue, Evaluator, Failure, Score, scored
from evaluators.workers.attempt import attempt
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
        alike: The value of every answer of every model, if they are all the same; else NaN.
        chance: What guessing scores; NaN where there are no choices to guess from.
    """

    task: str
    questions: int
    scores: Mapping[str, float]
    alike: float = math.nan
    chance: float = math.nan

    def warning(self) -> str:
        """A sentence for the user; empty if one of the models stands out."""
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
    """Ask the models in each task where the candidate that was tried says little.

    Args:
        evaluator: Asks them.
        models: Each parent alone, by name.
        tried: What a candidate scored on search questions.
        chances: What guessing scores, by task, where that is known.
        seconds: How long each task may take, about.
    """
    room = int(seconds * len(tried.outcomes) / max(tried.score_seconds, 1e-9) / max(1, len(models)))
    found = []
    for task, values in _by_task(evaluator.catalogue(), tried).items():
        chance = chances.get(task, math.nan)
        if len(values) < FEWEST or not _flat(list(values.values()), chance):
            continue
        asked = tuple(values)[: max(FEWEST, min(MOST, room))]
        level = _asked(evaluator, models, task, asked, chance)
        found += [level] if level is not None else []
    return tuple(found)


def _by_task(catalogue: Catalogue, tried: Score) -> dict[str, dict[str, float]]:
    """Value by question of each task whose score is a mean of such, where larger is better."""
    task_of = {question.id: question.task for question in catalogue.questions}
    found: dict[str, dict[str, float]] = {
        task.name: {} for task in catalogue.tasks if task.mean and task.higher_is_better
    }
    for one in tried.outcomes:
        if task_of[one.question] in found and math.isfinite(one.value):
            found[task_of[one.question]][one.question] = one.value
    return found


def _flat(values: Sequence[float], chance: float) -> bool:
    alike = max(values) == min(values)
    return alike or math.fsum(values) / len(values) < guessed(chance, len(values))


def _asked(
    evaluator: Evaluator,
    models: Mapping[str, Recipe],
    task: str,
    questions: tuple[str, ...],
    chance: float,
) -> Level | None:
    """What all models make of some questions; nothing if one could not be asked."""
    scores: dict[str, float] = {}
    seen: set[float] = set()
    for number, (name, recipe) in enumerate(models.items()):
        found = scored(attempt(evaluator, Candidate(id=number, recipe=recipe, questions=questions)))
        if isinstance(found, Failure):
            return None
        values = [one.value for one in found.outcomes if math.isfinite(one.value)]
        if not values:
            return None
        scores[name] = math.fsum(values) / len(values)
        seen |= set(values)
    if not scores:
        return None
    alike = seen.pop() if len(seen) == 1 else math.nan
    return Level(task=task, questions=len(questions), scores=scores, alike=alike, chance=chance)
