"""What a report says of learned coefficients: how each recipe was learned, and what that cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from spaces.recipes.recipe import Recipe


@dataclass(frozen=True, kw_only=True, slots=True)
class LearningSummary:
    """How the coefficients of one recipe were learned.

    Attributes:
        name: Of the recipe, which is the origin of the candidate that came of it.
        recipe: With the coefficients that were chosen so far.
        coefficients: Their number.
        steps: Gradients taken.
        planned: Gradients to take; 0 where that is not known.
        losses: Mean loss of the questions of every step, by the coefficients before it.
        aside: Step and mean loss on the questions kept aside, each time it was looked at.
        questions: What it cost, in questions: a gradient costs as much as three.
        seconds: Time that workers were busy with it.
        share: The same as a share of the run's budget; NaN where that is not known.
        failed: Why it ended early; empty if it did not.
        targets: What was learned in place of references; empty where these were learned.
    """

    name: str
    recipe: Recipe
    coefficients: int
    steps: int
    planned: int
    losses: tuple[float, ...]
    aside: tuple[tuple[int, float], ...]
    questions: int
    seconds: float
    share: float
    failed: str
    targets: str = ""

    @property
    def chosen(self) -> tuple[int, float] | None:
        """After which step the coefficients were the best, and their loss; none before a look."""
        return min(self.aside, key=lambda look: (look[1], -look[0]), default=None)

    def words(self) -> str:
        """Such as ``12 of 35 steps, loss 0.222 -> 0.034 on questions kept aside``."""
        planned = f" of {self.planned}" if self.planned else ""
        text = f"{self.steps}{planned} steps"
        if self.chosen is not None:
            text += f", loss {self.aside[0][1]:.3f} -> {self.chosen[1]:.3f} on questions kept aside"
        text += f" ({self.targets})" if self.targets else ""
        return text + (f"; ended early: {self.failed}" if self.failed else "")


def cost_words(lessons: Sequence[LearningSummary]) -> str:
    """What learning has cost, such as ``4,320 questions (12 % of the budget), 41 s of work``."""
    share = sum(one.share for one in lessons)
    part = "" if math.isnan(share) else f" ({100 * share:.0f} % of the budget)"
    seconds = sum(one.seconds for one in lessons)
    return f"{sum(one.questions for one in lessons):,} questions{part}, {seconds:.0f} s of work"
