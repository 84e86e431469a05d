"""Finding out what there is to know of a run before it starts."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from evaluators.resident_models import config_differences
from evaluators.resident_models.devices.build_preparation import plan_gpus, plan_memory
from evaluators.resident_models.devices.free_memory import free_bytes
from evaluators.resident_models.resident_model import choose_devices
from merging.planning.memory_plan import Capacity
from merging.tensor_statistics.model_similarity import ModelSimilarity, survey
from runs.config.config_checks import BASE
from runs.export.card_metadata import declared_base
from runs.ranking.floors import floor_text
from search.engine.final_check import places, reserve
from search.engine.learning.learning_plan import plan_of
from search.engine.preparation.run_preparation import PreparedRun, prepare
from search.engine.processes.worker_setup import Setting, evaluator_factory, worker_memory
from search.inputs.given_config import GivenConfig
from search.preflight.advice import advise
from search.preflight.forecast import Forecast, crew_of, forecast
from search.preflight.model_facts import ModelFacts, differences
from search.preflight.preflight_depth import PreflightDepth, Progress
from search.preflight.preflight_result import Preflight, Room, SpaceSize, TaskRow, gigabytes
from search.preflight.rendering.preflight_html import fragment
from search.preflight.smoke_test import SmokeTest, try_out


def check(given: GivenConfig, *, depth: PreflightDepth, progress: Progress) -> Preflight:
    """Look at a config's models and tasks; nothing is written.

    Raises:
        InputError: With everything that a run would refuse.
    """
    progress("models and tasks", 0, 0)
    prepared = prepare(given, dry_run=False)
    folder = Path() if given.path is None else Path(given.path.stem)
    setting = Setting(
        config=prepared.config, space=prepared.space, checkpoints=prepared.checkpoints,
        catalogue=prepared.manifest.catalogue,
        folder=folder, dry_run=False,
    )  # fmt: skip
    facts = {name: ModelFacts.of(one) for name, one in prepared.checkpoints.items()}
    affinity = _affinity(prepared, depth, progress) if depth.weights else None
    smoke = _smoke(prepared, setting, depth, progress) if depth.smoke else None
    room, reach = _room(setting, depth), _forecast(prepared, smoke)
    return Preflight(
        title=given.name if given.path is None else given.path.name,
        models=tuple(facts.values()),
        tasks=_rows(prepared),
        space=SpaceSize.of(prepared.space, seeds=len(prepared.manifest.seeds)),
        room=room,
        affinity=affinity,
        smoke=smoke,
        forecast=reach,
        advice=None if affinity is None else advise(affinity, smoke),
        warnings=(*_warnings(prepared, facts, room, smoke), *_empty(prepared, smoke, reach)),
        notes=(*_base_notes(prepared), *prepared.notes, _learning(prepared, smoke)),
        as_html=fragment,
    )


def _base_notes(prepared: PreparedRun) -> tuple[str, ...]:
    """What a config without a base cannot search, and how it could."""
    lacking = prepared.config.lacking
    if not lacking:
        return ()
    cards = {declared_base(one.folder) for one in prepared.checkpoints.values()} - {None}
    named = f" (their model cards name {cards.pop()})" if len(cards) == 1 else ""
    return (
        f"Left out for want of a base: {', '.join(lacking)}. To have them, "
        f"set `base` to the model that all were fine-tuned from{named}.",
    )


def _learning(prepared: PreparedRun, smoke: SmokeTest | None) -> str:
    """What a run learns before it searches, and from what; or why it learns nothing."""
    config, manifest = prepared.config, prepared.manifest
    kept_back = reserve(
        config,
        manifest.questions,
        top=places(config.search.validate_top, manifest.objectives),
        seeds=len(manifest.seeds),
    )
    plan = plan_of(config, manifest, prepared.space, reserved=kept_back)
    if plan.off:
        return f"Learning is off: {plan.off}."
    recipes = "one recipe" if plan.recipes == 1 else f"{plan.recipes} recipes"
    text = f"Before the search, the weights of {recipes} are learned in {plan.steps} steps"
    for task in manifest.catalogue.tasks:
        if smoke is not None and task.name in smoke.silent:
            text += f"; {task.name}: " + (
                "from answers of parents, as references alone would not be marked right"
                if task.written
                else "nothing, as it has no right answers to learn from"
            )
    return f"{text}."


def _affinity(prepared: PreparedRun, depth: PreflightDepth, progress: Progress) -> ModelSimilarity:
    base = BASE if prepared.config.base is not None else None
    return survey(
        prepared.checkpoints,
        base,
        seconds=depth.seconds,
        progress=lambda done, total: progress("weights", done, total),
    )


def _smoke(
    prepared: PreparedRun, setting: Setting, depth: PreflightDepth, progress: Progress
) -> SmokeTest:
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
        chances={one.name: one.chance for one in prepared.tasks if one.chance is not None},
        progress=lambda what: progress(what, 0, 0),
    )


def _forecast(prepared: PreparedRun, smoke: SmokeTest | None) -> Forecast | None:
    if smoke is None or math.isnan(smoke.pace.build):
        return None
    return forecast(
        prepared.config,
        prepared.manifest,
        pace=smoke.pace,
        crew=crew_of(prepared.config, prepared.checkpoints),
    )


def _rows(prepared: PreparedRun) -> tuple[TaskRow, ...]:
    questions, catalogue = prepared.manifest.questions, prepared.manifest.catalogue
    search, held_out = set(questions.search), set(questions.held_out)
    facts, about = {one.name: one for one in prepared.tasks}, catalogue.documents()
    rows = []
    for task in catalogue.tasks:
        ids = [question.id for question in catalogue.questions if question.task == task.name]
        rows.append(
            TaskRow(
                name=task.name,
                metric=task.metric,
                weight=task.weight,
                floor=floor_text(task.floor),
                higher_is_better=task.higher_is_better,
                questions=len(ids),
                documents=len({about[name] for name in ids}),
                search=sum(name in search for name in ids),
                held_out=sum(name in held_out for name in ids),
                facts=facts[task.name],
            )
        )
    return tuple(rows)


def _room(setting: Setting, depth: PreflightDepth) -> Room:
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
    """Bytes that a run keeps in its folder: computed tensors, and ranks where DELLA is searched."""
    total = sum(
        one.tensors[name].numel * one.tensors[name].dtype.itemsize
        for one in setting.checkpoints.values()
        for name in one.computed
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


def _empty(prepared: PreparedRun, smoke: SmokeTest | None, reach: Forecast | None) -> Iterator[str]:
    """A sentence where the budget has no room for a single candidate."""
    if smoke is None or reach is None or reach.candidates:
        return
    limit = getattr(prepared.config.search, reach.limit.removeprefix("search."))
    yield (
        f"{reach.limit}: expected room for one candidate beside the final check of "
        f"{reach.questions:,} questions (about {smoke.pace.tokens:,.0f} tokens each), got {limit}: "
        "nothing would be searched."
    )


def _warnings(
    prepared: PreparedRun, facts: Mapping[str, ModelFacts], room: Room, smoke: SmokeTest | None
) -> list[str]:
    found = [
        f"{task.name} is a well-known test set ({task.known}, split {task.split!r}): a score that "
        "a search has optimised is not a test result. Search on a train or dev split."
        for task in prepared.tasks
        if task.known is not None
    ]
    others = config_differences.differences(
        prepared.checkpoints, trust=prepared.config.harness.trust_remote_code
    )
    found += [f"{line[0].upper()}{line[1:]}." for line in (*others, *differences(facts))]
    found += [
        f"space.filters: {name!r} is part of no tensor's name: its values are drawn and change "
        "nothing."
        for name in prepared.config.bounds.filters
        if not any(
            name in tensor for one in prepared.checkpoints.values() for tensor in one.tensors
        )
    ]
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
    if smoke is not None:
        for level in smoke.levels:
            found += [words for words in (level.warning(), level.cap_warning()) if words]
    return found
