"""What the strategies of ``benchmarks/search.py`` share: an evaluator with a meter.

Everyone pays for the questions asked plus a fixed number of questions for every build, whatever the
evaluator is. At fixed costs the meter notes which recipe would be recommended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.landscape import TASKS, Exam, Landscape
from evaluators.harness.answers.task_scores import task_score
from evaluators.protocol import (
    Candidate,
    Catalogue,
    Evaluator,
    Failure,
    Outcome,
    Question,
    Score,
    TaskInfo,
)
from spaces.recipes.recipe import Recipe


class LandscapeEvaluator:
    """Answers any of an exam's questions for recipes of a made-up family.

    Args:
        world: The family.
        exam: What can be asked.
    """

    def __init__(self, world: Landscape, exam: Exam) -> None:
        self._world, self._exam = world, exam
        names = [f"task{at}" for at in range(TASKS)]
        self._catalogue = Catalogue(
            tasks=tuple(
                TaskInfo(name=name, metric="acc", higher_is_better=True, weight=1.0)
                for name in names
            ),
            questions=tuple(
                Question(id=f"{name}/{at}", task=name, position=at)
                for name in names
                for at in range(exam.slope.shape[1])
            ),
        )
        self._place = {question.id: at for at, question in enumerate(self._catalogue.questions)}

    @property
    def notes(self) -> tuple[str, ...]:
        return ()

    def catalogue(self) -> Catalogue:
        return self._catalogue

    def evaluate(self, candidate: Candidate) -> Score | Failure:
        right = self._world.answers(candidate.recipe, self._exam).ravel().astype(float)
        asked = sorted(self._place[name] for name in candidate.questions)
        by_task: dict[str, dict[str, float]] = {}
        for question in (self._catalogue.questions[at] for at in asked):
            of = by_task.setdefault(question.task, {})
            of[question.id] = float(right[self._place[question.id]])
        scores = tuple(
            task_score(name, items, aggregate=np.mean, mean=True) for name, items in by_task.items()
        )
        return Score.of(
            self._catalogue.tasks,
            scores,
            outcomes=tuple(
                Outcome(question=name, value=answer)
                for items in by_task.values()
                for name, answer in items.items()
            ),
            fingerprint=candidate.recipe.key,
            build_seconds=0.0,
            score_seconds=0.0,
        )

    def close(self) -> None:
        """Nothing is held."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """Where a strategy stood when a certain cost was reached.

    Attributes:
        cost: Questions asked plus the price of all builds.
        candidates: Recipes that were asked anything.
        seconds: Since the start of the strategy.
        busy: Of those, seconds in which the evaluator was at work.
        leader: What the strategy would recommend.
    """

    cost: float
    candidates: int
    seconds: float
    busy: float
    leader: Recipe


@dataclass(kw_only=True)
class Meter:
    """An evaluator that counts what it costs.

    Attributes:
        evaluator: Does the work.
        build: Price of a build, in questions.
        checks: Costs at which to note the leader, ascending; the last one is the budget.
        clock: Tells the seconds.
        found: What was noted.
    """

    evaluator: Evaluator
    build: float
    checks: Sequence[float]
    clock: Callable[[], float] = time.perf_counter
    found: list[Check] = field(default_factory=list)
    cost: float = 0.0
    busy: float = 0.0
    _keys: set[str] = field(default_factory=set)
    _loaded: str = ""
    _start: float = field(init=False)

    def __post_init__(self) -> None:
        self._start = self.clock()

    @property
    def spent(self) -> bool:
        """Whether the last check is done."""
        return len(self.found) == len(self.checks)

    @property
    def notes(self) -> tuple[str, ...]:
        return self.evaluator.notes

    def catalogue(self) -> Catalogue:
        return self.evaluator.catalogue()

    def evaluate(self, candidate: Candidate) -> Score | Failure:
        if self._loaded != candidate.recipe.key:
            self.cost += self.build
            self._loaded = candidate.recipe.key
        self.cost += len(candidate.questions)
        self._keys.add(candidate.recipe.key)
        start = self.clock()
        outcome = self.evaluator.evaluate(candidate)
        self.busy += self.clock() - start
        return outcome

    def close(self) -> None:
        self.evaluator.close()

    def look(self, leader: Callable[[], Recipe]) -> None:
        """Note the leader if a check is due; time spent on finding it does not count."""
        start = self.clock()
        while not self.spent and self.cost >= self.checks[len(self.found)]:
            self.found.append(
                Check(
                    cost=self.cost,
                    candidates=len(self._keys),
                    seconds=start - self._start,
                    busy=self.busy,
                    leader=leader(),
                )
            )
        self._start += self.clock() - start
