"""How often racing stops a recipe as good as the leader, and what it saves on those behind.

    python -m benchmarks.racing                      # two minutes on one core
    python -m benchmarks.racing --runs 2000

Recipes answer right or wrong; a question is as hard for all of them. The leader has the best mean
over all questions, so it was lucky. A new recipe, so many points behind the leader's true accuracy,
is raced against it on a block of all the questions: the late part of a run, where luck counts most.
In the world ``equal`` all recipes are as good, the worst case; in ``spread`` accuracies have a
standard deviation of 5 points. ``named`` is the test of a leader named beforehand, ``chosen``
corrects for the choice, with rivals counted as in a run.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy is loaded: one core

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from evaluators.protocol import TaskInfo
from runs.statistics.comparisons import Outcomes
from search.engine.trials import racing

Array = NDArray[np.float64]

TASKS = (TaskInfo(name="task", metric="acc", higher_is_better=True, weight=1.0),)
WORLDS = {"equal": 0.0, "spread": 0.05}
SLOPE = 0.2
"""Accuracy per unit of skill near the mean, with difficulties of this world: for small changes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Race:
    """One new recipe against the leader: whether it was stopped, and the share of its block asked.

    Attributes:
        rivals: Of the leader, as they were counted.
        named: Without correction.
        chosen: With it.
    """

    rivals: int
    named: tuple[bool, float]
    chosen: tuple[bool, float]


def race(world: str, seed: int, *, questions: int, recipes: int, behind: float) -> Race:
    """Let ``recipes`` answer, find the leader, and race a recipe so much worse than it is."""
    rng = np.random.default_rng([seed, questions, recipes])
    hard = rng.normal(0.0, 1.2, questions)
    skills = rng.normal(0.0, WORLDS[world] / SLOPE, recipes)
    answers = rng.random((recipes, questions)) < expit(skills[:, None] - hard)
    means = answers.mean(axis=1)
    leader = int(means.argmax())
    errors = np.sqrt(means * (1 - means) / questions)
    reach = racing.REACH * np.hypot(errors, errors[leader])
    rivals = int(np.count_nonzero(means >= means[leader] - reach))
    new = rng.random(questions) < expit(skills[leader] - behind / SLOPE - hard)
    known, ours = answers[leader].astype(float), new.astype(float)
    named, chosen = (_run(known, ours, rivals=count) for count in (1, rivals))
    return Race(rivals=rivals, named=named, chosen=chosen)


def _run(leader: Array, new: Array, *, rivals: int) -> tuple[bool, float]:
    size = len(new)
    for look in racing.looks(size):
        if racing.behind(_table(leader), _table(new[:look]), TASKS, size=size, rivals=rivals):
            return True, look / size
    return False, 1.0


def _table(answers: Array) -> Outcomes:
    return {"task": {str(at): value for at, value in enumerate(answers.tolist())}}


def rows(args: argparse.Namespace) -> Iterator[str]:
    """Lines of the table, shares in per cent."""
    for world in WORLDS:
        for questions in args.questions:
            for recipes in args.recipes:
                for behind in args.behind:
                    found = [
                        race(world, seed, questions=questions, recipes=recipes, behind=behind / 100)
                        for seed in range(args.runs)
                    ]
                    stopped = [100 * np.mean([way[0] for way in ways]) for ways in _ways(found)]
                    asked = [100 * np.mean([way[1] for way in ways]) for ways in _ways(found)]
                    rivals = int(np.median([one.rivals for one in found]))
                    yield (
                        f"| {world} | {questions} | {recipes} | {rivals} | {behind:g} "
                        f"| {stopped[0]:.1f} | {stopped[1]:.1f} | {asked[0]:.0f} | {asked[1]:.0f} |"
                    )


def _ways(found: list[Race]) -> tuple[list[tuple[bool, float]], list[tuple[bool, float]]]:
    return [one.named for one in found], [one.chosen for one in found]


HEADERS = (
    "world", "questions", "recipes", "rivals", "points behind",
    "stopped, named", "stopped, chosen", "asked, named", "asked, chosen",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--questions", type=int, nargs="+", default=[120, 240, 480])
    parser.add_argument("--recipes", type=int, nargs="+", default=[50, 200])
    parser.add_argument("--behind", type=float, nargs="+", default=[0, 10, 20])
    print(f"| {' | '.join(HEADERS)} |\n|{'---|' * len(HEADERS)}")
    for row in rows(parser.parse_args()):
        print(row, flush=True)


if __name__ == "__main__":
    main()
