"""One candidate for a try: how long it takes, and whether there is a barrier between the models."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Protocol, runtime_checkable

from evaluators.protocol import (
    Candidate,
    Catalogue,
    Evaluator,
    EvaluatorError,
    EvaluatorFactory,
    Failure,
    LossGradient,
    Score,
    evaluated,
    scored,
)
from evaluators.workers.attempt import attempt
from runs.records.record import BASE, PARENT
from search.inputs.input_error import InputError
from search.preflight.task_levels import Level, levels
from spaces.recipes.recipe import Merge, Model, Recipe, Source, parameters
from spaces.sampling.seed_recipes import Seed

AVERAGE = "plain average"

MOST_PAIRS = 10
"""Pairs whose middle is looked at; of more parents, the first pairs."""

TYPICAL = ("dare_ties", "ties", "della", "breadcrumbs_ties")
"""Methods that take as long as any; a candidate of one of them is timed where there is one."""

FIRST = 16
"""Questions of the first asking, which says how many more there is time for."""

Progress = Callable[[str], None]


@runtime_checkable
class Loser(Evaluator, Protocol):
    """An evaluator that also gives losses."""

    def losses(self, candidate: Candidate) -> Mapping[str, float] | Failure:
        """Loss of the right answer in nats per token, by question; or what went wrong."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """A model on a line between others.

    Attributes:
        name: Such as ``math``, ``math + code``, ``plain average``.
        ends: The parents it lies between; itself alone for a parent, none for the base.
        losses: Mean loss by task, in nats per token.
        failure: What went wrong; empty if nothing did.
    """

    name: str
    ends: tuple[str, ...]
    losses: Mapping[str, float] = field(default_factory=dict)
    failure: str = ""

    @property
    def loss(self) -> float:
        """Mean over the tasks; NaN where it failed."""
        return math.fsum(self.losses.values()) / len(self.losses) if self.losses else math.nan


@dataclass(frozen=True, kw_only=True, slots=True)
class CandidatePace:
    """How long a candidate takes on the machine it was tried on.

    Attributes:
        build: Seconds to build one.
        question: Seconds per question.
        tokens: Tokens read and written per question.
        questions: Questions that were asked.
        recipe: What was built.
        device: Where, such as ``cpu`` or ``cuda:0``.
        setup: Seconds until the first candidate could be built.
        failure: What went wrong with it; empty if nothing did.
    """

    build: float
    question: float
    questions: int
    recipe: str = ""
    tokens: float = 0.0
    device: str = ""
    setup: float = 0.0
    failure: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class SmokeTest:
    """What the try gave.

    Attributes:
        pace: How long a candidate takes.
        points: Base, parents, middles of pairs, and the plain average.
        questions: Questions per task that losses were taken from.
        levels: Scores of the models in tasks where the candidate's said little, or was written.
        silent: Tasks whose references give no loss that coefficients could be learned from.
    """

    pace: CandidatePace
    points: tuple[Point, ...] = ()
    questions: int = 0
    levels: tuple[Level, ...] = ()
    silent: tuple[str, ...] = ()

    def barriers(self) -> dict[tuple[str, ...], float]:
        """By how much the loss between parents is above the mean of theirs, in nats per token.

        Below 0 the models help each other; NaN where one could not be scored.
        """
        alone = {point.name: point.loss for point in self.points if point.ends == (point.name,)}
        return {
            point.ends: point.loss - math.fsum(alone[end] for end in point.ends) / len(point.ends)
            for point in self.points
            if len(point.ends) > 1
        }


def try_out(
    make: EvaluatorFactory,
    seeds: Sequence[Seed],
    *,
    base: str | None,
    device: str,
    search: tuple[str, ...],
    per_task: int,
    seconds: float,
    chances: Mapping[str, float],
    progress: Progress,
) -> SmokeTest:
    """Set up an evaluator in this process and try candidates.

    Args:
        make: Makes the evaluator.
        seeds: The run's first recipes: parents, plain average, others.
        base: Name of the base; ``None`` without one.
        device: Where it works, for the record.
        search: Ids of the search questions, in the run's order.
        per_task: Questions of each task for the losses, which a user's own evaluator has none of;
            0 leaves them out.
        seconds: How long the candidate that is timed may be asked, about.
        chances: What guessing scores in a task, where that is known.
        progress: Told what is being done.

    Raises:
        InputError: If the evaluator cannot be set up.
    """
    progress("setting up a worker")
    began = perf_counter()
    try:
        evaluator = make()
    except EvaluatorError as error:
        raise InputError(error.problems) from error
    try:
        setup = perf_counter() - began
        progress("a candidate for a try")
        timed, tried = _pace(evaluator, seeds, search, seconds)
        pace = replace(timed, device=device, setup=setup)
        found: tuple[Level, ...] = ()
        if tried is not None:
            progress("scores of the models")
            models = _alone(seeds)
            found = levels(evaluator, models, tried, chances=chances, seconds=seconds / 4)
        points: tuple[Point, ...] = ()
        silent: tuple[str, ...] = ()
        asked = _first_of_each(evaluator.catalogue(), search, per_task)
        if asked and not pace.failure and isinstance(evaluator, Loser):
            points = tuple(_points(evaluator, seeds, base=base, asked=asked, progress=progress))
            silent = _silent(evaluator, seeds[0].recipe, asked)
        return SmokeTest(
            pace=pace,
            points=points,
            questions=per_task if points else 0,
            levels=found,
            silent=silent,
        )
    finally:
        evaluator.close()


def _pace(
    evaluator: Evaluator, seeds: Sequence[Seed], search: tuple[str, ...], seconds: float
) -> tuple[CandidatePace, Score | None]:
    """Time one candidate after another that warms everything up, and what it scored."""
    first = scored(
        attempt(evaluator, Candidate(id=0, recipe=seeds[0].recipe, questions=search[:FIRST]))
    )
    if isinstance(first, Failure):
        failure = f"{seeds[0].name}: {first.kind}: {first.message}"
        return CandidatePace(build=math.nan, question=math.nan, questions=0, failure=failure), None
    each = first.score_seconds / len(first.outcomes)
    room = max(FIRST, int(seconds / each)) if each > 0 else len(search)
    merged = [seed for seed in seeds if seed.name != BASE]
    chosen = next((seed for seed in merged if seed.recipe.title in TYPICAL), merged[-1])
    questions = search[:room]
    found = scored(attempt(evaluator, Candidate(id=1, recipe=chosen.recipe, questions=questions)))
    if isinstance(found, Failure):
        failure = f"{chosen.name}: {found.kind}: {found.message}"
        asked = len(first.outcomes)
        return CandidatePace(
            build=first.build_seconds, question=each, questions=asked, failure=failure
        ), None
    asked = len(questions)
    pace = CandidatePace(
        recipe=chosen.name,
        build=found.build_seconds,
        question=found.score_seconds / asked,
        tokens=sum(one.tokens for one in found.tasks) / asked,
        questions=asked,
    )
    return pace, found


def _alone(seeds: Sequence[Seed]) -> dict[str, Recipe]:
    """Each parent as it is, by name."""
    return {
        seed.name.removeprefix(PARENT): seed.recipe
        for seed in seeds
        if seed.name.startswith(PARENT)
    }


def _points(
    evaluator: Loser,
    seeds: Sequence[Seed],
    *,
    base: str | None,
    asked: Mapping[str, Sequence[str]],
    progress: Progress,
) -> Iterator[Point]:
    """Losses of base, parents, the middles between two, and the average of all."""
    average = next((seed.recipe for seed in seeds if seed.name == AVERAGE), seeds[0].recipe)
    parents = list(_alone(seeds))
    pairs = [(a, b) for at, a in enumerate(parents) for b in parents[at + 1 :]]
    wanted: list[tuple[str, tuple[str, ...], Recipe]] = []
    if base is not None:
        wanted.append((base, (), _mean(average, (base,))))
    wanted += [(name, (name,), _mean(average, (name,))) for name in parents]
    wanted += [(f"{a} + {b}", (a, b), _mean(average, (a, b))) for a, b in pairs[:MOST_PAIRS]]
    if len(parents) > 2:
        wanted.append((AVERAGE, tuple(parents), average))
    questions = tuple(question for ids in asked.values() for question in ids)
    for number, (name, ends, recipe) in enumerate(wanted):
        progress(f"loss of {name}")
        found = evaluator.losses(Candidate(id=number, recipe=recipe, questions=questions))
        if isinstance(found, Failure):
            yield Point(name=name, ends=ends, failure=f"{found.kind}: {found.message}")
            continue
        by_task = {
            task: [found[question] for question in ids if question in found]
            for task, ids in asked.items()
        }
        losses = {task: math.fsum(v) / len(v) for task, v in by_task.items() if v}
        yield Point(name=name, ends=ends, losses=losses)


def _silent(
    evaluator: Evaluator, recipe: Recipe, asked: Mapping[str, Sequence[str]]
) -> tuple[str, ...]:
    """Tasks none of whose questions gives a loss to learn from; none where that is not known."""
    questions = tuple(question for ids in asked.values() for question in ids)
    found = evaluated(evaluator, Candidate(id=0, recipe=recipe, questions=questions, weights={}))
    if not isinstance(found, LossGradient):
        return ()
    return tuple(task for task, ids in asked.items() if not found.losses.keys() & set(ids))


def _mean(like: Recipe, names: tuple[str, ...]) -> Recipe:
    """The plain average of some models, with the output of another recipe."""
    sources = tuple(Source(of=Model(name), parameters=parameters(weight=1.0)) for name in names)
    return replace(like, root=Merge(method="linear", sources=sources))


def _first_of_each(
    catalogue: Catalogue, search: Sequence[str], count: int
) -> dict[str, tuple[str, ...]]:
    """The first search questions of each task, in the run's order."""
    task_of = {question.id: question.task for question in catalogue.questions}
    found: dict[str, list[str]] = {}
    for name in search:
        ids = found.setdefault(task_of[name], [])
        if len(ids) < count:
            ids.append(name)
    return {task: tuple(ids) for task, ids in found.items() if ids}
