"""What the report of a study holds, and the files that are made of it."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from evaluators.workers.pool import Attendance
from runs.activity.timeline import Timeline
from runs.activity.worker_register import attended, busy_share
from runs.config.budget import Budget
from runs.config.locations import portable, portable_values, published
from runs.config.run_config import RunConfig
from runs.export.recipe_export import recipe_text
from runs.output_files import write_text
from runs.ranking.leaderboard import best, failures, leaderboard
from runs.records.manifest import MODELS_CHANGED
from runs.records.record import Record, Split, State
from runs.report.report_content import Details, Report
from runs.report.report_files import write_report
from runs.storage.store import Store
from search.engine.learning.learning_progress import lessons
from search.engine.spending import cost_so_far, sessions
from search.inputs.stored_study.kept_answers import answer_book
from search.monitoring.run_verdict import judge_run
from search.samplers.estimation.posterior import judged
from search.samplers.parameter_importance import insights
from search.samplers.sampler_choice import chosen
from spaces.search_space.space import Space

DRY = "dry run: the scores are made up, no model was read"
"""What every output of a dry run says first."""


def make_report(store: Store, config: RunConfig) -> Report:
    """The report of a study, finished or not."""
    records = tuple(_without_home(record) for record in judged(store))
    manifest = store.manifest
    winner = best(records)
    space = Space.from_dict(manifest.space)
    places = _published_places(config, store.folder)
    study = shlex.quote(store.name if "://" in store.name else Path(store.name).name)
    known = {record.id for record in records}  # a driver may have taken up more since
    parts = (part for part in store.parts() if part[0] in known)
    timeline = Timeline.of(parts, sessions=sessions(store))
    verdict = judge_run(store, records)
    made = RunConfig.from_text(manifest.config, name=store.name)
    return Report(
        title=store.title,
        frame=leaderboard(records, manifest.catalogue.tasks),
        failures=failures(records),
        tasks=manifest.catalogue.tasks,
        verdict=verdict,
        notice=DRY if manifest.dry_run else "",
        facts=_facts(store, config, records, timeline),
        best_yaml=None if winner is None else recipe_text(winner, manifest, places, verdict),
        reproduce=(
            "# in the run's folder, with config.yaml (below) saved there",
            f"search run config.yaml --out again{' --dry-run' if manifest.dry_run else ''}",
            "search build again/best.yaml again/merged",
        ),
        config=made.replaced(portable_values(config.to_dict(), store.folder)).to_yaml(),
        learning=lessons(store, Budget.of(config.search), workers=timeline.most_at_once),
        details=Details(
            records=records,
            timeline=timeline,
            insights=insights(records, space),
            layers=space.layers,
            recipe=lambda record: recipe_text(record, manifest, places, verdict),
            study=study,
            answers=answer_book(store, records),
        ),
    )


def _without_home(record: Record) -> Record:
    """The record with ``~`` for the user's home folder in what is said of failures."""
    home = str(Path("~").expanduser())
    if home == "/" or not any(home in one.failure_message for one in record.evaluations.values()):
        return record
    evaluations = {
        split: replace(one, failure_message=one.failure_message.replace(home, "~"))
        for split, one in record.evaluations.items()
    }
    return replace(record, evaluations=evaluations)


def places_for(config: RunConfig, folder: Path, *, absolute: bool = False) -> dict[str, str]:
    """Locations of the models as a file in a folder names them, relative where that can be."""
    if absolute:
        return config.locations
    return {name: portable(place, folder) for name, place in config.locations.items()}


def _published_places(config: RunConfig, folder: Path) -> dict[str, str]:
    """Locations of the models as a report names them: never by an absolute path."""
    return {name: published(place, name) for name, place in places_for(config, folder).items()}


def write_outputs(store: Store, config: RunConfig, folder: Path) -> tuple[list[Path], Report]:
    """Reports and the best recipe, into the run's folder; the files, and what the reports hold."""
    report = make_report(store, config)
    written = write_report(report, folder)
    winner = None if report.details is None else best(report.details.records)
    if winner is not None:
        path = folder / "best.yaml"
        places = places_for(config, folder)
        write_text(path, recipe_text(winner, store.manifest, places, report.verdict))
        written.append(path)
    return written, report


def _facts(
    store: Store, config: RunConfig, records: tuple[Record, ...], timeline: Timeline
) -> dict[str, dict[str, str | int | float | None]]:
    manifest, cost = store.manifest, cost_so_far(store, records)
    changed = models_changed(store)
    return {
        "run": {
            "created": manifest.created,
            **({MODELS_CHANGED: changed} if changed else {}),
            "candidates": len(records),
            "sampler": chosen(config.search.sampler),
            "seed": config.search.seed,
            "search questions": len(manifest.questions.search),
            "held-out questions": len(manifest.questions.held_out),
            "hours": round(cost.hours, 5),
            "GPU-hours": round(cost.gpu_hours, 5),
            "questions asked": int(cost.questions),
            "tokens read and written": int(cost.tokens),
            "questions saved by racing": saved_by_racing(records),
            "workers": timeline.most_at_once,
            "worker utilisation": _busy(store, timeline),
        },
        "budget": {unit: most for unit, _, most in Budget.of(config.search).items(cost)},
        "busy share by worker": _busy_shares(attended(store)),
        "models": dict(_published_places(config, store.folder)),
        "inputs": dict(manifest.inputs),
        "versions": dict(manifest.versions),
    }


def _busy_shares(attendances: Sequence[Attendance]) -> dict[str, str | int | float | None]:
    """How busy each worker was, in all sessions together; ``None`` where that is not known."""
    by_name: dict[str, list[Attendance]] = {}
    for one in attendances:
        by_name.setdefault(one.worker, []).append(one)
    return {
        name: None if math.isnan(share := busy_share(known)) else round(share, 4)
        for name, known in by_name.items()
    }


def _busy(store: Store, timeline: Timeline) -> str:
    """Share of the workers' time in which they had a candidate."""
    share = busy_share(attended(store))
    return f"{100 * (timeline.utilisation if math.isnan(share) else share):.0f} %"


def models_changed(store: Store) -> str | None:
    """When models were found changed during the run; ``None`` where they were not."""
    noted = store.fact(MODELS_CHANGED)
    if noted is None:
        return None
    try:
        return str(json.loads(noted)["seen"])
    except (ValueError, KeyError, TypeError):  # damaged: what it stands for holds all the same
        return "at an unknown time"


def saved_by_racing(records: tuple[Record, ...]) -> int:
    """Questions that candidates were not asked because they were clearly behind."""
    return sum(
        max(0, len(record.planned) - evaluation.questions)
        for record in records
        if (evaluation := record.evaluations[Split.SEARCH]).state is State.COMPLETE
    )
