"""The verdict on a study: its winner against its baselines on held-out questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console

from evaluators.protocol import TaskInfo
from runs.config.locations import twin
from runs.config.run_config import RunConfig
from runs.ranking.verdict import Verdict, judge
from runs.ranking.verdict_text import title
from runs.records.manifest import MODELS_CHANGED, Manifest
from runs.records.record import BASE, PARENT, Record, Role, Split, State
from runs.report.task_tables import specialists_table
from runs.storage.store import Store
from search.engine.trials.held_out_looks import looks
from search.monitoring.console import say
from search.monitoring.fitted_table import FittedTable


def judge_run(store: Store, records: tuple[Record, ...]) -> Verdict | None:
    """The winner against its baselines on held-out questions; none for models that changed."""
    if store.fact(MODELS_CHANGED) is not None:
        return None
    asked = [
        record.id
        for record in records
        if (done := record.evaluations.get(Split.HELD_OUT)) and done.state is State.COMPLETE
    ]
    if not asked:
        return None
    outcomes = {number: store.outcomes(number, Split.HELD_OUT) for number in asked}
    found = judge(records, outcomes, store.manifest.catalogue, looks=looks(store))
    if found is None:
        return None
    return replace(found, notes=(*found.notes, *_base_notes(store.manifest, found)))


def _base_notes(manifest: Manifest, found: Verdict) -> tuple[str, ...]:
    """Where the base is, if it is not among those that were compared."""
    if not manifest.space.get("base") or any(one.role is Role.BASE for one in found.finalists):
        return ()
    same = twin(RunConfig.from_text(manifest.config, name="the study's config").locations, BASE)
    if same is not None:
        return (f"The base is {title(PARENT + same)}.",)
    if any(seed.name == BASE for seed in manifest.seeds):
        return ("The base is not compared: it has no held-out score.",)
    return ("The base is not compared: the study was begun by a version that did not score it.",)


def show_verdict(found: Verdict, tasks: Sequence[TaskInfo], console: Console) -> None:
    """The winner against the best parent at each task, and what it comes to."""
    shown = specialists_table(found, tasks)
    if shown.rows:
        title = "Held-out questions, task by task"
        console.print(
            FittedTable(title=title, headers=shown.headers, rows=shown.rows, numeric=shown.numeric)
        )
    say(console, f"Verdict: {found.sentence}.", style="bold")
    for note in found.notes:
        say(console, note)
