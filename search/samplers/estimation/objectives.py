"""What a run searches for: the tasks' scores, together or apart, and measures to be small."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evaluators.protocol import Catalogue
from runs.config.run_config import RunConfig
from runs.records.question_split import Questions
from runs.records.record import ANSWER_LENGTH, SCORE
from search.inputs.input_error import InputError
from search.samplers.estimation.comparable_scores import ComparableScores
from search.samplers.estimation.estimates import Estimates
from spaces.recipes.parameter_count import ParameterCount
from spaces.sampling.seed_recipes import Seed

if TYPE_CHECKING:
    from merging.checkpoints.checkpoint import Checkpoint

Array = NDArray[np.float64]


def objectives(config: RunConfig, catalogue: Catalogue, questions: Questions) -> tuple[str, ...]:
    """Names of the objectives, tasks first; none where the weighted sum is the only one.

    Raises:
        InputError: If a measure is asked for that these tasks do not give.
    """
    searched = set(questions.search)
    asked = {question.task for question in catalogue.questions if question.id in searched}
    tasks = [task for task in catalogue.tasks if task.name in asked]
    small = config.search.minimize
    if ANSWER_LENGTH in small and not any(task.written for task in tasks):
        raise InputError(
            "search.minimize: expected answer_length only with a task whose answers are written "
            "(generate_until) among those to search on, got none"
        )
    if config.search.objective == "pareto":
        return (*(task.name for task in tasks if task.weight), *small)
    return (SCORE, *small) if small else ()


def sizes_of(first: Seed, checkpoints: Mapping[str, Checkpoint]) -> ParameterCount | None:
    """Parameters of the models by layer, from headers; ``None`` where they do not go together.

    Args:
        first: A recipe that stacks no layers.
        checkpoints: The models by name.
    """
    from merging.planning.merge_plan import PlanError, plan

    try:
        planned = plan(first.recipe, checkpoints)
    except PlanError:
        return None  # every candidate of this kind will say why
    pattern = checkpoints[planned.donor].layers
    layers, outside = [0] * planned.layers, 0
    for job in planned.jobs:
        place = pattern.split(job.name) if pattern is not None else None
        count = job.size // job.dtype.itemsize
        if place is None:
            outside += count
        else:
            layers[place[0]] += count
    return ParameterCount(outside=outside, layers=tuple(layers))


def objective_table(
    table: Estimates,
    answers: ComparableScores,
    names: Sequence[str],
    *,
    parameters: Mapping[int, float],
) -> Estimates:
    """What is known of some candidates' objectives, larger is better.

    Args:
        table: Their scores: some rows of ``answers.table()``.
        answers: Of all candidates.
        names: Objectives that are asked for.
        parameters: How many a candidate has, where that is known.

    Returns:
        A column for each name; NaN where it is not known.
    """
    scores = (SCORE, *(task.name for task in answers.tasks))

    def column(name: str) -> tuple[Array, Array]:
        if name in scores:
            at = scores.index(name)
            return table.value[:, at], table.stderr[:, at]
        if name == ANSWER_LENGTH:
            return answers.lengths().aligned(table.numbers)
        counts = [parameters.get(number, math.nan) for number in table]
        return -np.array(counts, dtype=np.float64), np.zeros(len(table))

    value, stderr = zip(*map(column, names), strict=True)
    return Estimates(table.numbers, np.column_stack(value), np.column_stack(stderr))
