"""Adam on the coefficients of a recipe, as a value that is saved after every step.

Kingma and Ba 2015, "Adam: A method for stochastic optimization", with beta_2 = 0.99: a few dozen
steps are all there are. Each step sees a few questions of every task; a part of the questions is
kept aside, and the coefficients with the least loss on these are the result.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

FIRST, SECOND, TINY = 0.9, 0.99, 1e-8


@dataclass(frozen=True, kw_only=True, slots=True)
class Descent:
    """Where the learning of one recipe stands.

    Attributes:
        values: ``(n,)`` coefficients.
        first: ``(n,)`` running mean of the gradients.
        second: ``(n,)`` running mean of their squares.
        steps: Gradients taken.
        losses: Mean loss of the questions of every step, by the coefficients before it.
        aside: Step and mean loss on the questions kept aside, each time it was looked at.
        best: The coefficients with the least of these; those at the start before the first look.
        questions: What it cost so far, in questions: a gradient costs as much as three.
        seconds: Time that workers were busy with it.
        tokens: Tokens read.
        failed: Why it ended early; empty if it did not.
    """

    values: tuple[float, ...]
    first: tuple[float, ...] = ()
    second: tuple[float, ...] = ()
    steps: int = 0
    losses: tuple[float, ...] = ()
    aside: tuple[tuple[int, float], ...] = ()
    best: tuple[float, ...] = ()
    questions: int = 0
    seconds: float = 0.0
    tokens: int = 0
    failed: str = ""

    def look(self, loss: float) -> Descent:
        """Note the loss on the questions kept aside."""
        least = min((one for _, one in self.aside), default=math.inf)
        return replace(
            self,
            aside=(*self.aside, (self.steps, loss)),
            best=self.values if loss <= least else self.best,
        )

    def step(self, gradient: Sequence[float], *, loss: float, rate: float) -> Descent:
        """One step of Adam.

        Args:
            gradient: ``(n,)`` of the loss by the coefficients.
            loss: Mean loss of the step's questions.
            rate: About the length of a step of each coefficient.
        """
        count = self.steps + 1
        zeros = (0.0,) * len(self.values)
        first = _blended(self.first or zeros, gradient, FIRST)
        second = _blended(self.second or zeros, [one * one for one in gradient], SECOND)
        bias, spread = 1 - FIRST**count, 1 - SECOND**count
        values = tuple(
            value - rate * (m / bias) / (math.sqrt(v / spread) + TINY)
            for value, m, v in zip(self.values, first, second, strict=True)
        )
        return replace(
            self,
            values=values,
            first=first,
            second=second,
            steps=count,
            losses=(*self.losses, loss),
        )

    def to_json(self) -> str:
        """All of it as text; ``from_json`` is the inverse."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Descent:
        """What ``to_json`` wrote.

        Raises:
            ValueError: If it is something else.
        """
        try:
            data: dict[str, Any] = json.loads(text)
            fixed = {
                name: tuple(map(tuple, value)) if name == "aside" else tuple(value)
                for name, value in data.items()
                if isinstance(value, list)
            }
            return cls(**{**data, **fixed})
        except (TypeError, AttributeError) as error:
            raise ValueError(f"learning: expected what was saved, got {error}") from error


@dataclass(frozen=True, kw_only=True, slots=True)
class Batches:
    """Which questions each step sees: a few of every task, in turn, anew in each round.

    Attributes:
        tasks: Questions to learn from, by task; at least one each.
        size: Questions of a step, all tasks together; at least one of each all the same.
        seed: Of the order.
    """

    tasks: Mapping[str, Sequence[str]]
    size: int
    seed: int
    _orders: dict[tuple[str, int], list[str]] = field(default_factory=dict)

    def of(self, step: int) -> dict[str, tuple[str, ...]]:
        """The questions of a step, from 0, by task; the same for the same step."""
        found = {}
        for task, names in self.tasks.items():
            count = min(len(names), max(1, self.size // len(self.tasks)))
            rounds = len(names) // count  # a question comes once a round
            at = step % rounds * count
            found[task] = tuple(self._order(task, step // rounds)[at : at + count])
        return found

    def _order(self, task: str, turn: int) -> list[str]:
        if (task, turn) not in self._orders:
            order = sorted(self.tasks[task])
            random.Random(f"{self.seed}:{task}:{turn}").shuffle(order)
            self._orders[task, turn] = order
        return self._orders[task, turn]


def per_task(size: int, tasks: int) -> int:
    """Questions of each task in a step of so many questions."""
    return max(1, round(size / tasks))


def _blended(old: Sequence[float], new: Sequence[float], share: float) -> tuple[float, ...]:
    return tuple(share * a + (1 - share) * b for a, b in zip(old, new, strict=True))
