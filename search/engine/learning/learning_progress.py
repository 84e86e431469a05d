"""What a study holds of learned coefficients: where each recipe stands, and what that cost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from runs.config.budget import Budget, Cost
from runs.records.record import LEARNED
from runs.report.learning_summary import LearningSummary
from runs.storage.store import Store
from search.engine.learning.adam_descent import Descent
from search.monitoring.live.live_view import PhaseStanding
from spaces.recipes.coefficients import Coefficients
from spaces.recipes.recipe import Recipe

FACT = "learning:"
"""How the facts that hold the learning start; the name of the recipe follows."""

PHASE = "learning"
"""The phase of a run in which it learns."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LearningProgress:
    """One recipe that is learned.

    Attributes:
        recipe: As it began.
        descent: Where its coefficients stand.
        planned: Steps to take; 0 where that is not known.
        targets: What is learned in place of references, in words; empty where they are learned.
    """

    recipe: Recipe
    descent: Descent
    planned: int = 0
    targets: str = ""

    def to_json(self) -> str:
        """All of it as text; ``from_json`` is the inverse."""
        return json.dumps(
            {
                "recipe": self.recipe.to_dict(),
                "descent": self.descent.to_json(),
                "planned": self.planned,
                "targets": self.targets,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> LearningProgress:
        """What ``to_json`` wrote.

        Raises:
            ValueError, KeyError, TypeError: If it is something else.
        """
        data = json.loads(text)
        return cls(
            recipe=Recipe.from_dict(data["recipe"]),
            descent=Descent.from_json(data["descent"]),
            planned=int(data.get("planned", 0)),
            targets=str(data.get("targets", "")),
        )

    @property
    def under_way(self) -> bool:
        """Whether there are steps to take."""
        return not self.descent.failed and self.descent.steps < self.planned

    @property
    def over(self) -> bool:
        """Whether the last step was taken and looked at."""
        looks = self.descent.aside
        return bool(self.planned and looks) and looks[-1][0] >= self.planned

    def now(self) -> Recipe:
        """The recipe with the coefficients as they are."""
        return Coefficients(self.recipe).replaced(self.descent.values)

    def learned(self) -> Recipe:
        """The recipe with the best coefficients."""
        return Coefficients(self.recipe).replaced(self.descent.best or self.descent.values)


def tracks(store: Store) -> dict[str, LearningProgress]:
    """What the study holds of learning, by name; what cannot be read counts for nothing."""
    found: dict[str, LearningProgress] = {}
    for name, text in store.facts(FACT).items():
        with suppress(ValueError, KeyError, TypeError):
            found[name.removeprefix(FACT)] = LearningProgress.from_json(text)
    return found


def begun(store: Store) -> bool:
    """Whether a run has begun to learn."""
    return bool(store.facts(FACT))


def spent(store: Store) -> Cost:
    """What learning has cost so far: questions, as many as its passes are worth, and GPU-hours."""
    gpus = store.number("gpus")
    found = [track.descent for track in tracks(store).values()]
    return Cost(
        questions=sum(one.questions for one in found),
        tokens=sum(one.tokens for one in found),
        gpu_hours=gpus * sum(one.seconds for one in found) / 3600,
    )


def lessons(store: Store, budget: Budget, *, workers: int) -> tuple[LearningSummary, ...]:
    """How each recipe was learned, for people."""
    asked, gpus = len(store.manifest.questions.search), store.number("gpus")
    found = []
    for name, track in tracks(store).items():
        descent = track.descent
        cost = Cost(
            trials=descent.questions / max(1, asked),
            questions=descent.questions,
            tokens=descent.tokens,
            hours=descent.seconds / 3600 / max(1, workers),
            gpu_hours=gpus * descent.seconds / 3600,
        )
        found.append(
            LearningSummary(
                name=name,
                recipe=track.learned(),
                coefficients=len(descent.values),
                steps=descent.steps,
                planned=track.planned,
                losses=descent.losses,
                aside=descent.aside,
                questions=descent.questions,
                seconds=descent.seconds,
                share=budget.share(cost),
                failed=descent.failed,
                targets=track.targets,
            )
        )
    return tuple(found)


def standing_of(
    found: Mapping[str, LearningProgress], *, title: str, workers: int
) -> PhaseStanding:
    """Where learning stands, for a live view."""
    looks = {name: one.descent.aside for name, one in found.items() if one.descent.aside}
    losses = ", ".join(
        f"{name.removeprefix(LEARNED)} {aside[0][1]:.3f} -> {min(loss for _, loss in aside):.3f}"
        for name, aside in looks.items()
    )
    return PhaseStanding(
        phase=PHASE,
        total=sum(one.planned for one in found.values()),
        done=sum(one.descent.steps for one in found.values()),
        title=title,
        workers=workers,
        questions=sum(one.descent.questions for one in found.values()),
        words=f"loss on questions kept aside: {losses or 'not known yet'}",
    )
