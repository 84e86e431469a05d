"""Who was busy when, and the best recipe so far."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from evaluators.protocol import TaskInfo, TaskScore, least_stderr
from runs.activity.search_progress import changes, progress
from runs.activity.timeline import Timeline
from runs.records.pooled_evaluations import whole
from runs.records.record import Estimate, Part, Record, Split, State
from spaces.recipes.recipe import Merge, Model, Recipe, Source, parameters

START = datetime(2026, 1, 1, tzinfo=UTC)


def part(start: float, end: float | None, worker: str = "w1", value: float = 0.5) -> Part:
    return Part(
        state=State.RUNNING if end is None else State.COMPLETE,
        value=math.nan if end is None else value,
        stderr=0.1,
        tasks=(),
        questions=10,
        build_seconds=1.0,
        score_seconds=1.0,
        worker="" if end is None else worker,
        fingerprint="",
        failure_kind=None,
        failure_message="",
        started=START + timedelta(seconds=start),
        finished=None if end is None else START + timedelta(seconds=end),
        attempts=1,
    )


def timeline(*parts: Part) -> Timeline:
    return Timeline.of((at, Split.SEARCH, one) for at, one in enumerate(parts))


def test_utilisation_counts_workers_that_were_busy_at_once() -> None:
    found = timeline(part(0, 100), part(0, 50, "w2"), part(100, 200), part(150, 200, "w2"))
    assert found.workers == ("w1", "w2")
    assert found.most_at_once == 2
    assert found.busy_seconds == 300
    assert found.utilisation == pytest.approx(300 / 400)


def test_pauses_take_no_time() -> None:
    found = timeline(part(0, 100), part(10_000, 10_100))
    clock, start = found.clock(), START.timestamp()
    assert clock.total == 200
    assert [clock.at(moment) for moment in clock.starts] == [0, 100]
    assert [clock.at(start + x) for x in (-5, 0, 50, 5000, 10_000, 10_050, 99_999)] == [
        0, 0, 50, 100, 100, 150, 200,
    ]  # fmt: skip
    assert found.utilisation == 1.0


def test_what_is_under_way_is_busy_until_the_latest_time_known() -> None:
    found = timeline(part(0, 100), part(50, None))
    assert [span.end - span.start for span in found.spans] == [100, 50]
    assert found.workers == ("w1",)


def test_time_is_that_of_drivers_at_work_where_it_is_known() -> None:
    """Short pauses count as little as long ones, and waiting of a driver as much as work."""
    start = START.timestamp()
    parts = [(0, Split.SEARCH, part(10, 20)), (1, Split.SEARCH, part(130, 140))]
    clock = Timeline.of(parts, sessions=((start, start + 50), (start + 120, start + 150))).clock()
    assert clock.total == 80
    assert [clock.at(start + at) for at in (20, 90, 140)] == [20, 50, 70]
    assert [clock.at(moment) for moment in clock.starts] == [0, 50]
    assert Timeline.of(parts).clock().total == 130


def test_nothing_at_all() -> None:
    found = timeline()
    assert (found.utilisation, found.most_at_once, found.levels()) == (0.0, 0, [])
    assert progress((), found) == ()
    assert changes(()) == ()


def record(number: int, start: float, end: float, expected: float, origin: str) -> Record:
    weight = parameters(weight=1.0 + number)
    recipe = Recipe(
        root=Merge(method="linear", sources=(Source(of=Model("a"), parameters=weight),))
    )
    found = Record(id=number, recipe=recipe, origin=origin, trial=number)
    evaluation = whole(Split.SEARCH, [part(start, end, value=0.9)], ())
    return replace(
        found,
        evaluations={Split.SEARCH: evaluation},
        posterior=Estimate(value=expected, stderr=0.0),
    )


def test_the_best_so_far_goes_by_what_is_known_now_and_ends_with_the_winner() -> None:
    records = (
        record(0, 0, 3600, 0.5, "parent a"),
        record(1, 0, 7200, 0.8, "random"),
        record(2, 3600, 5400, 0.6, "random"),
        record(3, 7200, 9000, 0.7, "random"),
    )
    parts = [(r.id, Split.SEARCH, part_of(r)) for r in records]
    steps = progress(records, Timeline.of(parts))
    assert [step.candidate for step in steps] == [0, 2, 1, 3]
    assert [step.best for step in steps] == [0.5, 0.6, 0.8, 0.8]
    assert [step.questions for step in steps] == [10, 20, 30, 40]
    assert [step.hours for step in steps] == [1.0, 1.5, 2.0, 2.5]
    assert [step.candidate for step in changes(steps)] == [0, 2, 1, 3]


def part_of(one: Record) -> Part:
    evaluation = one.evaluations[Split.SEARCH]
    assert evaluation.finished is not None
    start, end = ((x - START).total_seconds() for x in (evaluation.started, evaluation.finished))
    return part(start, end)


def test_what_an_earlier_version_took_for_certain() -> None:
    info = TaskInfo(name="t", metric="acc", higher_is_better=True, weight=1.0)
    task = TaskScore(task="t", value=1.0, stderr=0.0, n=10)
    old = replace(part(0, 1, value=1.0), stderr=0.0, tasks=(task,))
    assert whole(Split.SEARCH, [old], [info]).stderr == least_stderr(10)
    both = whole(Split.SEARCH, [old, old], [info])
    assert (both.tasks[0].stderr, both.stderr) == (0.0, least_stderr(20))
