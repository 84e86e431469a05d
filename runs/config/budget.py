"""What a search may cost, and what it has cost: recipes, questions, tokens, hours, GPU-hours."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

from runs.config.config_sections import SearchSection
from runs.records.record import Record, Split

DEFAULT_TRIALS = 300
"""Recipes to try where a config sets no budget at all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Amounts in the units that people pay in.

    Attributes:
        trials: Distinct recipes, failed ones included.
        questions: Questions asked, held-out ones and those of failed recipes included.
        tokens: Tokens that models were shown and wrote, in answers that came back.
        hours: Hours by the clock while a driver was at work.
        gpu_hours: Hours of work of all workers, times the GPUs of each.
    """

    trials: float = 0.0
    questions: float = 0.0
    tokens: float = 0.0
    hours: float = 0.0
    gpu_hours: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """When a search is over: whichever of its limits is reached first; ``None`` sets none."""

    trials: int | None = None
    questions: int | None = None
    tokens: int | None = None
    hours: float | None = None
    gpu_hours: float | None = None

    @classmethod
    def of(cls, section: SearchSection) -> Budget:
        """The budget of a config; 300 recipes where it sets none."""
        limits = {limit.name: getattr(section, limit.name) for limit in fields(cls)}
        if all(value is None for value in limits.values()):
            limits["trials"] = DEFAULT_TRIALS
        return cls(**limits)

    @property
    def counts_questions(self) -> bool:
        """Whether asking fewer questions of a recipe leaves more of the budget for others."""
        limits = (self.questions, self.tokens, self.hours, self.gpu_hours)
        return any(limit is not None for limit in limits)

    def items(self, cost: Cost) -> Iterator[tuple[str, float, float]]:
        """Unit, amount spent and limit, for every limit that is set."""
        for limit in fields(self):
            most = getattr(self, limit.name)
            if most is not None:
                yield limit.name, getattr(cost, limit.name), most

    def share(self, cost: Cost) -> float:
        """How much of the budget is spent, from 0; above 1 where it was exceeded."""
        return max((spent / most for _, spent, most in self.items(cost)), default=math.nan)

    def words(self, cost: Cost) -> str:
        """Such as ``12 of 300 recipes, 0.50 of 8 hours``."""
        return ", ".join(
            f"{_amount(unit, spent)} of {_amount(unit, most)} {_UNITS[unit]}"
            for unit, spent, most in self.items(cost)
        )


_UNITS = {
    "trials": "recipes",
    "questions": "questions",
    "tokens": "tokens",
    "hours": "hours",
    "gpu_hours": "GPU-hours",
}


def _amount(unit: str, value: float) -> str:
    if unit in ("trials", "questions", "tokens"):
        return f"{value:,.0f}"
    return f"{value:g}" if value == round(value, 2) else f"{value:.2f}"


def cost_of(records: Sequence[Record], *, seconds: float, gpus: float) -> Cost:
    """What a search has cost so far, by the clock's seconds and the GPUs of one worker."""
    evaluations = [item for record in records for item in record.evaluations.values()]
    busy = math.fsum(
        item.build_seconds + item.score_seconds
        for item in evaluations
        if not math.isnan(item.build_seconds)
    )
    return Cost(
        trials=sum(Split.SEARCH in record.evaluations for record in records),
        questions=sum(item.asked for item in evaluations),
        tokens=sum(task.tokens for item in evaluations for task in item.tasks),
        hours=seconds / 3600,
        gpu_hours=busy * gpus / 3600,
    )
