"""Questions as benchmarks have them: in passages, about shared documents, with graded metrics.

What a made-up family (``benchmarks/landscape.py``) answers becomes the outcomes of a run whose
truth is known. Questions on one passage share that part of their hardness and of the luck with them
that the kind says. In a kind with shared documents every task asks about the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.landscape import HARDNESS, TASKS, Array, Exam, Landscape
from evaluators.harness.answers.task_scores import mean_stderr
from evaluators.protocol import TaskInfo, TaskScore
from runs.statistics.comparisons import Outcomes
from spaces.recipes.recipe import Recipe

EACH = 4
"""Questions on a passage."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """What answers count for.

    Attributes:
        name: Of the metric.
        wrong: Value of a wrong answer, from chances in (0, 1): how wrong it is.
        right: Value of a right answer.
        mean: Mean of a wrong answer's value.
        higher_is_better: Its direction.
    """

    name: str
    wrong: Callable[[Array], Array]
    right: float
    mean: float
    higher_is_better: bool = True


RIGHT = Metric(name="acc", wrong=np.zeros_like, right=1.0, mean=0.0)
GRADED = Metric(name="f1", wrong=lambda chance: chance**4, right=1.0, mean=0.2)
SKEWED = Metric(
    name="loss",
    wrong=lambda chance: -np.log(np.maximum(chance, 1e-12)),
    right=0.0,
    mean=1.0,
    higher_is_better=False,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A kind of questions.

    Attributes:
        metric: What answers count for.
        likeness: Correlation of questions on one passage, 0 for independent questions.
        shared: Whether all tasks ask about the same documents.
    """

    metric: Metric = RIGHT
    likeness: float = 0.0
    shared: bool = False


KINDS = {
    "independent": Kind(),
    "passages-0.3": Kind(likeness=0.3),
    "passages-0.6": Kind(likeness=0.6),
    "shared": Kind(shared=True),
    "graded": Kind(metric=GRADED),
    "skewed": Kind(metric=SKEWED),
    "skewed-passages-0.6": Kind(metric=SKEWED, likeness=0.6),
}


class Population:
    """A family whose answers are to questions of a kind.

    Args:
        family: Who answers.
        kind: What is asked.
    """

    def __init__(self, family: Landscape, kind: Kind) -> None:
        self._family, self._kind = family, kind
        self.infos = tuple(
            TaskInfo(
                name=f"task{at}",
                metric=kind.metric.name,
                higher_is_better=kind.metric.higher_is_better,
                weight=1.0,
            )
            for at in range(TASKS)
        )

    def exam(self, questions: int, *, seed: int) -> Exam:
        """Questions of the kind, about so many over all tasks."""
        each = EACH if self._kind.likeness else 1
        passages = math.ceil(questions / TASKS / each)
        exam = self._family.exam(passages * each, seed=seed)
        if self._kind.shared:
            first = exam.field[:, :1]
            field = np.repeat(first, TASKS, axis=1)
            return replace(exam, hardness=np.repeat(exam.hardness[:1], TASKS, 0), field=field)
        if not self._kind.likeness:
            return exam
        rng = np.random.default_rng([20_003, exam.seed])
        hardness = (exam.hardness - HARDNESS[0]) / HARDNESS[1]
        return replace(
            exam,
            hardness=HARDNESS[0] + HARDNESS[1] * self._alike(hardness, rng, axis=1),
            field=self._alike(exam.field, rng, axis=2),
        )

    def _alike(self, normal: Array, rng: np.random.Generator, *, axis: int) -> Array:
        """Standard normal numbers of which those of one passage are correlated."""
        shape = list(normal.shape)
        shape[axis] //= EACH
        common = np.repeat(rng.normal(size=shape), EACH, axis=axis)
        likeness = self._kind.likeness
        return math.sqrt(likeness) * common + math.sqrt(1.0 - likeness) * normal

    def documents(self, exam: Exam) -> dict[str, str]:
        """The document of every question of an exam."""
        number = exam.hardness.shape[1]
        each = EACH if self._kind.likeness else 1
        return {
            f"{info.name}/{at}": ("" if self._kind.shared else info.name) + f"/{at // each}"
            for info in self.infos
            for at in range(number)
        }

    def values(self, recipe: Recipe, exam: Exam) -> Array:
        """``(TASKS, n)`` in the metric's own unit."""
        metric = self._kind.metric
        right, chance = self._family.solved(recipe, exam)
        return np.where(right, metric.right, metric.wrong(chance))

    def outcomes(self, recipe: Recipe, exam: Exam) -> Outcomes:
        """What a recipe gets in an exam."""
        return {
            info.name: {f"{info.name}/{at}": value for at, value in enumerate(row)}
            for info, row in zip(self.infos, self.values(recipe, exam).tolist(), strict=True)
        }

    def scores(self, recipe: Recipe) -> tuple[TaskScore, ...]:
        """What a recipe gets on the search questions, which are independent."""
        return tuple(
            TaskScore(task=info.name, value=float(row.mean()), stderr=mean_stderr(row), n=len(row))
            for info, row in zip(self.infos, self.values(recipe, self._family.search), strict=True)
        )

    def expected(self, recipe: Recipe) -> float:
        """Expected combined score, larger is better."""
        metric, right = self._kind.metric, self._family.expected(recipe)
        value = metric.right * right + metric.mean * (1.0 - right)
        return value if metric.higher_is_better else -value
