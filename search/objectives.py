"""What a run searches for: the tasks' scores, together or apart, and measures to be small."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from evaluators.base import Catalogue
from runs.config import RunConfig
from runs.records import ANSWER_LENGTH, PARAMETERS, SCORE, Estimate
from runs.split import Questions
from search.answers import Answers
from search.errors import InputError
from spaces.recipe import Recipe
from spaces.seeds import Seed
from spaces.sizes import Sizes

if TYPE_CHECKING:
    from merging.checkpoint import Checkpoint


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
        return (*(task.name for task in tasks), *small)
    return (SCORE, *small) if small else ()


def sizes_of(first: Seed, checkpoints: Mapping[str, Checkpoint]) -> Sizes | None:
    """Parameters of the models by layer, from headers; ``None`` where they do not go together.

    Args:
        first: A recipe that stacks no layers.
        checkpoints: The models by name.
    """
    from merging.plan import PlanError, plan

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
    return Sizes(outside=outside, layers=tuple(layers))


def known_of(
    answers: Answers, number: int, recipe: Recipe, *, sizes: Sizes | None, names: Collection[str]
) -> dict[str, Estimate]:
    """What is known of a candidate with a score, larger is better.

    Args:
        answers: Of all candidates.
        number: The candidate.
        recipe: Its recipe.
        sizes: What tells its number of parameters, if known.
        names: Objectives that are asked for.

    Returns:
        By name; without those that are not known.
    """
    tasks = (task.name for task in answers.tasks)
    found = dict(zip((SCORE, *tasks), answers.table()[number], strict=True))
    if ANSWER_LENGTH in names and number in answers.lengths():
        found[ANSWER_LENGTH] = answers.lengths()[number][0]
    if PARAMETERS in names and sizes is not None:
        found[PARAMETERS] = Estimate(value=-float(sizes.of(recipe)), stderr=0.0)
    return {name: found[name] for name in names if name in found}
