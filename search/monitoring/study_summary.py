"""A study as lines on a terminal, and as values for programs: its standing, and its result."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from evaluators.workers.pool import Attendance
from runs.activity.timeline import Timeline
from runs.activity.worker_register import attended, busy_share, machines, most_at_once
from runs.config.budget import Budget, Cost
from runs.config.run_config import RunConfig
from runs.ranking.floors import broken_text, floored
from runs.ranking.lead import lead, why_first
from runs.ranking.leaderboard import best, ranked, score_of
from runs.ranking.verdict import Verdict
from runs.records.pooled_evaluations import QUARANTINED
from runs.records.record import LEARNED, Estimate, Record, Split, State
from runs.report.learning_summary import cost_words
from runs.report.report_content import Report
from runs.storage.store import Store
from search.engine.learning.learning_progress import begun, lessons
from search.engine.spending import cost_so_far
from search.monitoring.console import say, say_facts, tell
from search.monitoring.fitted_table import FittedTable
from search.monitoring.live.live_view import span
from search.monitoring.run_verdict import judge_run, show_verdict
from search.monitoring.study_report import DRY, models_changed, saved_by_racing
from search.samplers.estimation.posterior import judged
from spaces.text.error_text import counted

SHOWN = 10
"""Rows of the leaderboard that a command prints."""


def show_result(store: Store, report: Report, console: Console) -> None:
    """The head of the leaderboard, what failed, and the verdict."""
    records = () if report.details is None else report.details.records
    _show_table(store, records, console)
    failed = _failed(records)
    if failed:
        say(console, f"{failed.total()} failed: {_kinds(failed)}")
    attendances = attended(store)
    if attendances:
        say(console, f"Workers: {_attendance(attendances)}")
    if report.learning:
        say(console, f"Learning: {cost_words(report.learning)}")
    if store.manifest.dry_run:
        say(console, DRY)
    if changed := models_changed(store):
        text = f"No verdict: the models changed during the run (seen {changed}); start a new one."
        say(console, text, style="bold")
    if report.verdict is not None:
        show_verdict(report.verdict, report.tasks, console)


def outcome(report: Report) -> dict[str, Any]:
    """What a run came to, for programs."""
    records = () if report.details is None else report.details.records
    return {
        "title": report.title,
        "best": _best_values(records),
        "verdict": _verdict_values(report.verdict),
    }


def _verdict_values(found: Verdict | None) -> dict[str, str] | None:
    if found is None:
        return None
    return {"standing": found.standing, "winner": found.winner, "sentence": found.sentence}


def _best_values(records: Sequence[Record]) -> dict[str, Any] | None:
    first = best(records)
    if first is None:
        return None
    known = first.posterior
    return {
        "candidate": first.id,
        "origin": first.origin,
        "recipe": first.recipe.words,
        "expected": None if known is None else known.value,
        "stderr": None if known is None or math.isnan(known.stderr) else known.stderr,
        "search": _known(score_of(first, Split.SEARCH)),
        "held_out": _known(score_of(first, Split.HELD_OUT)),
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def show_status(store: Store, config: RunConfig, console: Console) -> None:
    """Where a run stands, a line per fact."""
    # a verdict looks at each task as well
    checked = not store.under_way() and next(store.answers(Split.HELD_OUT), None) is not None
    records = judged(store, apart=checked)
    tell(lambda: status_values(store, config, records))
    say_facts(console, _standing(store, config, records).items())
    _show_table(store, records, console)


def status_values(store: Store, config: RunConfig, records: tuple[Record, ...]) -> dict[str, Any]:
    """Where a run stands, for programs."""
    states = Counter(record.evaluations[Split.SEARCH].state for record in records)
    budget, cost, holder = (
        Budget.of(config.search),
        cost_so_far(store, records),
        store.lock.holder(),
    )
    driven = holder is not None and holder.alive
    verdict = None if store.under_way() else judge_run(store, records)
    return {
        "study": store.name,
        "title": store.title,
        "created": store.manifest.created,
        "dry_run": store.manifest.dry_run,
        "driver": {"host": holder.host, "process": holder.pid} if holder and driven else None,
        "complete": store.fact("ended") == budget.words(Cost()) and not driven,
        "candidates": {
            "done": states[State.COMPLETE] + states[State.FAILED],
            "failed": dict(_failed(records)),
            "under_way": states[State.RUNNING],
            "held_out": sum(Split.HELD_OUT in record.evaluations for record in records),
        },
        "budget": {
            unit: {"spent": spent, "limit": most} for unit, spent, most in budget.items(cost)
        },
        "questions": int(cost.questions),
        "tokens": int(cost.tokens),
        "hours": cost.hours,
        "best": _best_values(records),
        "verdict": _verdict_values(verdict),
    }


def _standing(store: Store, config: RunConfig, records: tuple[Record, ...]) -> Mapping[str, str]:
    search = [record.evaluations[Split.SEARCH] for record in records]
    states = Counter(evaluation.state for evaluation in search)
    budget, cost = Budget.of(config.search), cost_so_far(store, records)
    holder = store.lock.holder()
    lines = {"study": store.name, "created": store.manifest.created}
    if holder is not None and holder.alive:
        lines["driver"] = f"process {holder.pid} on {holder.host}"
    elif states[State.RUNNING] or store.fact("ended") != budget.words(Cost()):
        lines["driver"] = f"none; `search resume {store.name}` continues it"
    else:
        lines["driver"] = "none; the budget is spent"
    done = states[State.COMPLETE] + states[State.FAILED]
    lines["candidates"] = f"{done} done, {states[State.RUNNING]} under way"
    lines["budget"] = budget.words(cost)
    lines["questions"] = (
        f"{cost.questions:,.0f} asked, {saved_by_racing(records):,} saved by racing"
    )
    if cost.tokens:
        lines["tokens"] = f"{cost.tokens:,.0f} read and written"
    lines["time"] = span(3600 * cost.hours)
    workers = Timeline.of(store.parts() if begun(store) else ()).most_at_once
    if learned := lessons(store, budget, workers=workers):
        each = "; ".join(f"{one.name.removeprefix(LEARNED)}: {one.words()}" for one in learned)
        lines["learning"] = f"{each}; {cost_words(learned)}"
    lines["best"] = lead(records).text()
    held_out = sum(Split.HELD_OUT in record.evaluations for record in records)
    lines["held-out"] = f"{counted(held_out, 'candidate')} asked"
    failed = _failed(records)
    if failed:
        lines["failed"] = f"{failed.total()}: {_kinds(failed)}"
    attendances = attended(store)
    if attendances:
        lines["workers"] = _attendance(attendances)
    finished = [e.finished.timestamp() for e in search if e.finished is not None]
    if finished:
        lines["last result"] = f"{span(max(0.0, time.time() - max(finished)))} ago"
    if held_out and not store.under_way():
        verdict = judge_run(store, records)
        lines |= {} if verdict is None else {"verdict": verdict.sentence}
    if store.manifest.dry_run:
        lines["notice"] = DRY
    elif changed := models_changed(store):
        lines["notice"] = f"no verdict: the models changed during the run (seen {changed})"
    return lines


def _failed(records: tuple[Record, ...]) -> Counter[str]:
    return Counter(
        evaluation.failure_kind.value
        for record in records
        if (evaluation := record.evaluations[Split.SEARCH]).failure_kind is not None
    )


def _kinds(failed: Counter[str]) -> str:
    """Counts by kind, such as ``3 out_of_memory (quarantined), 1 task``."""
    return ", ".join(
        f"{count} {kind}" + (" (quarantined)" if kind in QUARANTINED else "")
        for kind, count in failed.most_common()
    )


def _attendance(attendances: Sequence[Attendance]) -> str:
    """Such as ``8 on 2 nodes, busy 97.5 % of the time that they were there``."""
    nodes = machines(attendances)
    where = "" if nodes == 1 else f" on {nodes} nodes"
    busy = busy_share(attendances)
    share = "" if math.isnan(busy) else f", {100 * busy:.1f} % utilisation"
    return f"{most_at_once(attendances)}{where}{share}"


def _show_table(store: Store, records: tuple[Record, ...], console: Console) -> None:
    """The head of the leaderboard, and why a higher score than the first one's is not the first."""
    if ranked(records):
        console.print(_table(store, records))
    if why := why_first(records):
        say(console, why)


def _table(store: Store, records: tuple[Record, ...]) -> FittedTable:
    order = ranked(records)
    places = {record.id: place for place, record in enumerate(order, start=1)}
    tasks = store.manifest.catalogue.tasks
    floors = bool(floored(tasks))
    numbers = ("rank", "expected", "search", "held-out", *(task.name for task in tasks))
    texts = (*["below floor"] * floors, "method", "origin")
    rows = []
    for record in _shown(order):
        values = {score.task: score.value for score in record.evaluations[Split.SEARCH].tasks}
        rows.append(
            (
                str(places[record.id]),
                "" if record.posterior is None else _value(record.posterior),
                _score(record, Split.SEARCH),
                _score(record, Split.HELD_OUT),
                *(_number(values.get(task.name)) for task in tasks),
                *[broken_text(record)] * floors,
                record.recipe.title,
                record.origin,
            )
        )
    left_out = len(order) - len(rows)
    return FittedTable(
        title=f"{store.title}: {len(order)} scored"
        + (f", {left_out} not shown" if left_out else ""),
        headers=(*numbers, *texts),
        rows=rows,
        numeric=(True,) * len(numbers) + (False,) * len(texts),
    )


def _shown(order: Sequence[Record]) -> list[Record]:
    """The best, and whom they are compared with."""
    return [*order[:SHOWN], *(record for record in order[SHOWN:] if record.is_baseline)]


def _score(record: Record, split: Split) -> str:
    value = score_of(record, split)
    if math.isnan(value):
        return ""
    return _value(Estimate(value=value, stderr=record.evaluations[split].stderr))


def _value(one: Estimate) -> str:
    return f"{one.value:.4f}" + ("" if math.isnan(one.stderr) else f" ± {one.stderr:.4f}")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
