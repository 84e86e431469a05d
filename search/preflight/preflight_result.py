"""A pre-flight: everything that is known of a run before it starts, and its JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from evaluators.harness.tasks.task_facts import TaskFacts
from merging.tensor_statistics.model_similarity import ModelSimilarity
from runs.report.report_files import plain
from search.preflight.advice import Advice
from search.preflight.forecast import Forecast
from search.preflight.model_facts import ModelFacts
from search.preflight.smoke_test import SmokeTest
from spaces.sampling.distributions import Choices
from spaces.sampling.draw import parameters
from spaces.search_space.merge_trees import count as orders
from spaces.search_space.space import Space
from spaces.text.error_text import counted

JSON_FORMAT = 1
"""Version of the JSON; it grows when a key changes its meaning or goes away."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskRow:
    """A task as this run asks it.

    Attributes:
        name: lm-eval's name.
        metric: The metric that counts, as ``metric,filter``.
        weight: Share in the score.
        floor: What it must not fall below, in words; empty for no limit.
        higher_is_better: Its direction.
        questions: How many there are.
        documents: How many documents they are about.
        search: How many of them the search may ask.
        held_out: How many are kept for the final check.
        facts: What the task is.
    """

    name: str
    metric: str
    weight: float
    floor: str
    higher_is_better: bool
    questions: int
    documents: int
    search: int
    held_out: int
    facts: TaskFacts


@dataclass(frozen=True, kw_only=True, slots=True)
class SpaceSize:
    """How much there is to search.

    Attributes:
        methods: Methods that may be drawn.
        numbers: Numbers that may be drawn, over all methods.
        choices: Words that may be drawn: methods, orders.
        trees: Ways to bring the parents together in pairs; 0 where that is not searched.
        seeds: Recipes that are tried first.
    """

    methods: tuple[str, ...]
    numbers: int
    choices: int
    trees: int
    seeds: int

    @classmethod
    def of(cls, space: Space, *, seeds: int) -> SpaceSize:
        """How much there is to search in a space."""
        domains = parameters(space).values()
        words = sum(isinstance(domain, Choices) for domain in domains)
        return cls(
            methods=space.methods,
            numbers=len(domains) - words,
            choices=words,
            trees=orders(len(space.parents)) if space.pairwise else 0,
            seeds=seeds,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """Memory and disk, in bytes.

    Attributes:
        lines: The plan of a worker's memory, in words.
        model: A merged model.
        disk_free: Free where the run's folder will be.
        cached: What the run keeps there of adapted and dequantised tensors, and of ranks for DELLA.
    """

    lines: tuple[str, ...]
    model: int
    disk_free: int
    cached: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Preflight:
    """Everything that is known of a run before it starts.

    Attributes:
        title: The config's name.
        models: The models, the base first.
        tasks: The tasks.
        space: How much there is to search.
        room: Memory and disk.
        affinity: How the models lie to each other; ``None`` where their weights were not read.
        smoke: What a candidate took and gave; ``None`` where none was tried.
        forecast: How far the budget reaches; ``None`` without a try.
        advice: What to make of the models; ``None`` where their weights were not read.
        warnings: What to look at before starting, a sentence each.
        notes: What the user should know of the seeds.
        made: When.
        as_html: How a notebook shows it; ``None``: as text.
    """

    title: str
    models: tuple[ModelFacts, ...]
    tasks: tuple[TaskRow, ...]
    space: SpaceSize
    room: Room
    affinity: ModelSimilarity | None = None
    smoke: SmokeTest | None = None
    forecast: Forecast | None = None
    advice: Advice | None = None
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    made: datetime = field(default_factory=lambda: datetime.now().astimezone())
    as_html: Callable[[Preflight], str] | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values; NaN is null. ``docs/check.md`` describes the keys."""
        data = {
            "format": JSON_FORMAT,
            "title": self.title,
            "made": self.made.isoformat(timespec="seconds"),
            "models": [asdict(model) for model in self.models],
            "tasks": [asdict(task) for task in self.tasks],
            "space": asdict(self.space),
            "room": asdict(self.room),
            "affinity": None if self.affinity is None else affinity_dict(self.affinity),
            "smoke": None if self.smoke is None else _smoke_dict(self.smoke),
            "forecast": None
            if self.forecast is None
            else {**asdict(self.forecast), "sentence": self.forecast.sentence(self.made)},
            "advice": None if self.advice is None else asdict(self.advice),
            "warnings": list(self.warnings),
            "notes": list(self.notes),
        }
        values: dict[str, Any] = plain(data)
        return values

    def __repr__(self) -> str:
        return f"<Preflight of {self.title}: {self.summary}>"

    def _repr_html_(self) -> str | None:
        return None if self.as_html is None else self.as_html(self)

    @property
    def summary(self) -> str:
        """The forecast, or the number of models and tasks, in a few words."""
        if self.forecast is not None:
            return self.forecast.sentence(self.made)
        return f"{counted(len(self.models), 'model')}, {counted(len(self.tasks), 'task')}"


def gigabytes(size: float) -> str:
    """Bytes in words: ``1.5 GB``, ``12 MB``."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def affinity_dict(affinity: ModelSimilarity) -> dict[str, Any]:
    """What an affinity says, by depth and kind, under the parents' names."""

    def rows(groups: Mapping[str, Any]) -> dict[str, Any]:
        return {
            label: {
                "size": {n: sums.size(at) for at, n in enumerate(affinity.parents)},
                "likeness": {n: sums.likeness(at) for at, n in enumerate(affinity.parents)},
                "pairs": [
                    {
                        "between": [affinity.parents[one], affinity.parents[other]],
                        "cosine": sums.cosine(one, other) if affinity.based else math.nan,
                        "conflict": sums.conflict(one, other) if affinity.based else math.nan,
                        "distance": sums.distance(one, other),
                    }
                    for one, other in affinity.pairs()
                ],
            }
            for label, sums in groups.items()
        }

    return {
        "based": affinity.based,
        "covered": affinity.covered,
        "skipped": list(affinity.skipped),
        "broken": list(affinity.broken),
        "routers": [asdict(one) for one in affinity.routers],
        "whole": rows({"all": affinity.whole})["all"],
        "kinds": rows({kind: affinity.of_kind(kind) for kind in affinity.kinds}),
        "depths": rows({str(depth): affinity.at_depth(depth) for depth in affinity.depths}),
    }


def _smoke_dict(smoke: SmokeTest) -> dict[str, Any]:
    return {
        "pace": asdict(smoke.pace),
        "questions": smoke.questions,
        "points": [{**asdict(point), "loss": point.loss} for point in smoke.points],
        "barriers": [
            {"between": list(ends), "height": height} for ends, height in smoke.barriers().items()
        ],
        "levels": [{**asdict(level), "warning": level.warning()} for level in smoke.levels],
    }
