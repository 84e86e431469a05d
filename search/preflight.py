"""``search check``: everything that can be known of a run before it starts."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from evaluators.preparing import plan_gpus, plan_memory
from evaluators.resident import choose_devices, free_bytes
from evaluators.task_facts import TaskFacts
from merging.affinity import Affinity, survey
from merging.placement import Capacity, Weights
from runs.checks import BASE
from runs.config import RunConfig
from search.advice import Advice, advise
from search.forecast import Forecast, crew_of, forecast
from search.model_facts import ModelFacts, differences
from search.overrides import Overrides
from search.session import Prepared, prepare
from search.smoke import Smoke, try_out
from search.workers import Setting, evaluator_factory, worker_memory
from spaces.domains import Choices
from spaces.draw import parameters
from spaces.order import count as orders
from spaces.space import Space

JSON_FORMAT = 1
"""Version of the JSON; it grows when a key changes its meaning or goes away."""

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much it is in all (0: unknown)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Depth:
    """How deep to look.

    Attributes:
        weights: Whether to sample the models' weights.
        smoke: Whether to try a candidate.
        questions: Of each task for the losses; 0 for none.
        seconds: Longest time for the sampling of weights, and about that for the timing.
        gpu_memory: GB of each GPU of a worker, where the GPUs are elsewhere; ``None``: those here.
    """

    weights: bool = True
    smoke: bool = True
    questions: int = 12
    seconds: float = 60.0
    gpu_memory: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskRow:
    """A task as this run asks it.

    Attributes:
        name: lm-eval's name.
        metric: The metric that counts, as ``metric,filter``.
        weight: Share in the score.
        higher_is_better: Its direction.
        questions: How many there are.
        search: How many of them the search may ask.
        held_out: How many are kept for the final check.
        facts: What the task is.
    """

    name: str
    metric: str
    weight: float
    higher_is_better: bool
    questions: int
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
        """That of a space."""
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
        cached: What the run keeps there of adapters, and of ranks for DELLA.
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
    """

    title: str
    models: tuple[ModelFacts, ...]
    tasks: tuple[TaskRow, ...]
    space: SpaceSize
    room: Room
    affinity: Affinity | None = None
    smoke: Smoke | None = None
    forecast: Forecast | None = None
    advice: Advice | None = None
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    made: datetime = field(default_factory=lambda: datetime.now().astimezone())

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
        plain: dict[str, Any] = _plain(data)
        return plain

    def __repr__(self) -> str:
        return f"<Preflight of {self.title}: {self.summary}>"

    def _repr_html_(self) -> str:
        from search.preflight_page import fragment

        return fragment(self)

    @property
    def summary(self) -> str:
        """The forecast, or the number of models and tasks, in a few words."""
        if self.forecast is not None:
            return self.forecast.sentence(self.made)
        return f"{len(self.models)} models, {len(self.tasks)} tasks"


def check(
    given: Path | RunConfig, *, overrides: Overrides, depth: Depth, progress: Progress
) -> Preflight:
    """Check a config and look at its models and tasks; nothing is written.

    Args:
        given: The config, or its file.
        overrides: What replaces its values.
        depth: How deep to look.
        progress: Told what is being done.

    Raises:
        InputError: With everything that a run would refuse.
    """
    progress("models and tasks", 0, 0)
    prepared = prepare(given, overrides=overrides, dry_run=False)
    folder = Path(given.stem) if isinstance(given, Path) else Path()
    setting = Setting(
        config=prepared.config, space=prepared.space, checkpoints=prepared.checkpoints,
        folder=folder, dry_run=False,
    )  # fmt: skip
    facts = {name: ModelFacts.of(one) for name, one in prepared.checkpoints.items()}
    affinity = _affinity(prepared, depth, progress) if depth.weights else None
    smoke = _smoke(prepared, setting, depth, progress) if depth.smoke else None
    room = _room(setting, depth)
    return Preflight(
        title=given.name if isinstance(given, Path) else "config",
        models=tuple(facts.values()),
        tasks=_rows(prepared),
        space=SpaceSize.of(prepared.space, seeds=len(prepared.manifest.seeds)),
        room=room,
        affinity=affinity,
        smoke=smoke,
        forecast=_forecast(prepared, smoke),
        advice=None if affinity is None else advise(affinity, smoke),
        warnings=tuple(_warnings(prepared, facts, room, smoke)),
        notes=prepared.notes,
    )


def _affinity(prepared: Prepared, depth: Depth, progress: Progress) -> Affinity:
    base = BASE if prepared.config.base is not None else None
    return survey(
        prepared.checkpoints,
        base,
        seconds=depth.seconds,
        progress=lambda done, total: progress("weights", done, total),
    )


def _smoke(prepared: Prepared, setting: Setting, depth: Depth, progress: Progress) -> Smoke:
    # What is computed of the models is not kept: a check writes nothing.
    spec = replace(setting.harness_spec(), statistics=None)
    return try_out(
        evaluator_factory(prepared.config, spec),
        prepared.manifest.seeds,
        base=BASE if prepared.config.base is not None else None,
        device=str(choose_devices(spec.device, spec.gpus)[0]),
        search=prepared.manifest.questions.search,
        per_task=depth.questions,
        seconds=depth.seconds / 2,
        progress=lambda what: progress(what, 0, 0),
    )


def _forecast(prepared: Prepared, smoke: Smoke | None) -> Forecast | None:
    if smoke is None or math.isnan(smoke.pace.build):
        return None
    return forecast(
        prepared.config,
        prepared.manifest.catalogue,
        prepared.manifest.questions,
        pace=smoke.pace,
        crew=crew_of(prepared.config, prepared.checkpoints),
        seeds=len(prepared.manifest.seeds),
    )


def _rows(prepared: Prepared) -> tuple[TaskRow, ...]:
    questions, catalogue = prepared.manifest.questions, prepared.manifest.catalogue
    search, held_out = set(questions.search), set(questions.held_out)
    facts = {one.name: one for one in prepared.tasks}
    rows = []
    for task in catalogue.tasks:
        ids = [question.id for question in catalogue.questions if question.task == task.name]
        rows.append(
            TaskRow(
                name=task.name,
                metric=task.metric,
                weight=task.weight,
                higher_is_better=task.higher_is_better,
                questions=len(ids),
                search=sum(name in search for name in ids),
                held_out=sum(name in held_out for name in ids),
                facts=facts[task.name],
            )
        )
    return tuple(rows)


def _room(setting: Setting, depth: Depth) -> Room:
    config, checkpoints = setting.config, setting.checkpoints
    spec = setting.harness_spec()
    gpus = config.workers.gpus
    here = torch.cuda.device_count()
    if depth.gpu_memory is not None:
        count = 1 if isinstance(gpus, str) else max(1, round(gpus))
        share = gpus if isinstance(gpus, float) and 0 < gpus < 1 else 1.0
        nbytes = int(depth.gpu_memory * 1e9 * share)
        capacities = [Capacity(device=f"GPU {at}", nbytes=nbytes) for at in range(count)]
        plan = plan_gpus(spec, checkpoints, capacities)
        lines = (*plan.lines(), *plan.problems())
    elif here and gpus != 0:
        plan = plan_memory(spec, checkpoints, choose_devices(spec.device, spec.gpus))
        lines = (*plan.lines(), *plan.problems())
    else:
        need, free = worker_memory(config, checkpoints), free_bytes(torch.device("cpu"))
        lines = (f"a worker on CPU takes about {gigabytes(need)}; {gigabytes(free)} are free",)
    itemsize = {None: None, "float32": 4}.get(config.output.dtype, 2)
    largest = max(
        sum(i.numel * (itemsize or i.dtype.itemsize) for i in one.tensors.values())
        for one in checkpoints.values()
    )
    return Room(
        lines=lines,
        model=largest,
        disk_free=_free_disk(setting.folder),
        cached=_cached(setting),
    )


def _cached(setting: Setting) -> int:
    """Bytes that a run keeps in its folder of adapters, and of ranks where DELLA is searched."""
    total = sum(
        Weights.of(one).total for one in setting.checkpoints.values() if one.adapter is not None
    )
    if {"della", "della_linear"} & set(setting.space.methods):
        total += sum(
            4 * info.numel
            for name in setting.space.parents
            for info in setting.checkpoints[name].tensors.values()
        )
    return total


def _free_disk(folder: Path) -> int:
    place = folder.resolve()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def _warnings(
    prepared: Prepared, facts: Mapping[str, ModelFacts], room: Room, smoke: Smoke | None
) -> list[str]:
    found = [
        f"{task.name} is a well-known test set ({task.known}, split {task.split!r}): a score that "
        "a search has led to is no test result. Search on a train or dev split."
        for task in prepared.tasks
        if task.known is not None
    ]
    found += [f"{line[0].upper()}{line[1:]}." for line in differences(facts)]
    if prepared.config.harness.apply_chat_template is False and all(
        one.chat_template for one in facts.values()
    ):
        found.append(
            "All models have a chat template, and questions are put without it; if they are chat "
            "models, set harness.apply_chat_template: true."
        )
    if room.disk_free < room.model + room.cached:
        found.append(
            f"The disk has {gigabytes(room.disk_free)} free; the run keeps "
            f"{gigabytes(room.cached)} and a built model takes {gigabytes(room.model)}."
        )
    if not prepared.manifest.questions.held_out:
        found.append("No questions are held out: the winner's score will flatter it.")
    if smoke is not None and smoke.pace.failure:
        found.append(f"The candidate that was tried failed: {smoke.pace.failure}")
    return found


def gigabytes(size: float) -> str:
    """Bytes in words: ``1.5 GB``, ``12 MB``."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def affinity_dict(affinity: Affinity) -> dict[str, Any]:
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
        "whole": rows({"all": affinity.whole})["all"],
        "kinds": rows({kind: affinity.of_kind(kind) for kind in affinity.kinds}),
        "depths": rows({str(depth): affinity.at_depth(depth) for depth in affinity.depths}),
    }


def _smoke_dict(smoke: Smoke) -> dict[str, Any]:
    return {
        "pace": asdict(smoke.pace),
        "questions": smoke.questions,
        "points": [{**asdict(point), "loss": point.loss} for point in smoke.points],
        "barriers": [
            {"between": list(ends), "height": height} for ends, height in smoke.barriers().items()
        ],
    }


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value
