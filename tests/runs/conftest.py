"""A small finished run as plain values."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest

from evaluators.protocol import FailureKind, TaskInfo, TaskScore
from runs.records.record import Evaluation, Record, Split, State
from spaces.recipes.recipe import Merge, Model, Recipe, Source, parameters

NASTY = 'bad <script>alert(1)</script> | `x` "q" & [link](http://x)\nsecond line'


def source(of: Model | Merge, **values: float) -> Source:
    return Source(of=of, parameters=parameters(**values))


def alone(name: str) -> Recipe:
    return Recipe(root=Merge(method="passthrough", sources=(Source(of=Model(name)),)))


def average() -> Recipe:
    inputs = tuple(source(Model(name), weight=0.5) for name in ("math", "code"))
    return Recipe(root=Merge(method="linear", sources=inputs))


def ties() -> Recipe:
    inputs = tuple(source(Model(name), weight=0.5, density=0.5) for name in ("math", "code"))
    return Recipe(root=Merge(method="ties", sources=inputs, base=Model("base")), dtype="bfloat16")


def tree() -> Recipe:
    inner = Merge(
        method="slerp",
        sources=(Source(of=Model("math")), Source(of=Model("code"))),
        base=Model("math"),
        parameters=parameters(t=0.25),
    )
    outer = (source(inner, weight=0.75), source(Model("text"), weight=0.25))
    return Recipe(root=Merge(method="linear", sources=outer))


def dare(seed: int) -> Recipe:
    inputs = tuple(source(Model(name), weight=0.5, density=0.5) for name in ("math", "code"))
    return Recipe(root=Merge(method="dare_ties", sources=inputs, base=Model("base")), seed=seed)


def evaluation(
    split: Split = Split.SEARCH,
    *,
    value: float = math.nan,
    tasks: dict[str, float] | None = None,
    state: State = State.COMPLETE,
    kind: FailureKind | None = None,
    message: str = "",
    n: int = 40,
) -> Evaluation:
    complete = state is State.COMPLETE
    scores = (tasks or {}) if complete else {}
    return Evaluation(
        split=split,
        state=state,
        value=value if complete else math.nan,
        stderr=0.05 if complete else math.nan,
        tasks=tuple(
            TaskScore(task=name, value=score, stderr=0.0625, n=n // 2)
            for name, score in scores.items()
        ),
        questions=n,
        asked=n,
        build_seconds=0.5 if complete else math.nan,
        score_seconds=12.25 if complete else math.nan,
        worker="" if state is State.RUNNING else "node-a/1",
        fingerprint="ab12cd34" if complete else "",
        failure_kind=kind,
        failure_message=message,
        started=datetime(2026, 1, 2, tzinfo=UTC),
        finished=None if state is State.RUNNING else datetime(2026, 1, 3, tzinfo=UTC),
        attempts=1,
    )


def scored(value: float, sort: float, loss: float) -> Evaluation:
    return evaluation(value=value, tasks={"sort": sort, "loss": loss})


@pytest.fixture
def run_tasks() -> tuple[TaskInfo, ...]:
    return (
        TaskInfo(name="sort", metric="acc,none", higher_is_better=True, weight=2.0),
        TaskInfo(name="loss", metric="bits,none", higher_is_better=False, weight=1.0),
    )


@pytest.fixture
def run_records() -> tuple[Record, ...]:
    """Two parents, the average, a failure, a running one, a tie, and a winner with held-out."""
    held_out = evaluation(Split.HELD_OUT, value=0.25, tasks={"sort": 0.5, "loss": 0.25}, n=20)
    lost = evaluation(
        Split.HELD_OUT, state=State.FAILED, kind=FailureKind.LOST_WORKER, message="node-a died"
    )
    rows: list[tuple[Recipe, str, int | None, dict[Split, Evaluation]]] = [
        (alone("math"), "parent math", None, {Split.SEARCH: scored(0.125, 0.5, 0.625)}),
        (
            alone("code"),
            "parent code",
            None,
            {Split.SEARCH: scored(0.2, 0.5, 0.4), Split.HELD_OUT: lost},
        ),
        (average(), "plain average", 0, {Split.SEARCH: scored(0.25, 0.5, 0.25)}),
        (
            dare(1),
            "tpe",
            1,
            {
                Split.SEARCH: evaluation(
                    state=State.FAILED, kind=FailureKind.TASK, message=NASTY, n=0
                )
            },
        ),
        (
            ties(),
            "tpe",
            2,
            {Split.SEARCH: scored(0.5, 0.8, 0.1), Split.HELD_OUT: held_out},
        ),
        (tree(), "tpe", 3, {Split.SEARCH: scored(0.25, 0.5, 0.25)}),
        (dare(2), "tpe", 4, {Split.SEARCH: evaluation(state=State.RUNNING)}),
    ]
    return tuple(
        Record(id=number, recipe=recipe, origin=origin, trial=trial, evaluations=evaluations)
        for number, (recipe, origin, trial, evaluations) in enumerate(rows)
    )
