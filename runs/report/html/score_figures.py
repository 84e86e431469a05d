"""Figures of what came out: scores by task with intervals, and the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import pandas as pd

from evaluators.protocol import TaskInfo
from runs.ranking.finalists import Finalist
from runs.ranking.leaderboard import fronts, ranked
from runs.ranking.verdict import Verdict
from runs.ranking.verdict_text import signed, title
from runs.records.record import MEASURES, SCORE, Record, Role, role_of
from runs.report.html.figure import (
    MARKERS,
    Figure,
    Json,
    View,
    axis,
    points,
    rounded,
    rows,
    text,
    thinned,
)
from runs.report.report_content import Report
from runs.report.report_tables import limits_text, score_text, task_title
from runs.report.task_tables import models_compared, task_difference
from runs.statistics.intervals import Interval

COMBINED = "score"
"""Key of the combined score among the tasks."""

MOST_PAIRS = 10
"""Pairs of tasks that the front is shown in."""

NORMAL = 1.959964
"""Half width of a 95 % interval in standard errors."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Compared:
    """One candidate in the comparison by task.

    Attributes:
        label: What it is, for people.
        role: What it is.
        winner: Whether it is the winner.
        scores: By task, and combined under ``COMBINED``.
        behind: The winner minus this one, on the questions that both answered, likewise.
    """

    label: str
    role: Role
    winner: bool
    scores: Mapping[str, Interval]
    behind: Mapping[str, Interval] = field(default_factory=dict)


def kept_figure(report: Report) -> Figure | None:
    """What the winner gained and lost: each task against every parent and the base.

    Args:
        report: Of a run whose held-out questions were asked; else ``None`` comes back.
    """
    if report.verdict is None or not (models := models_compared(report.verdict)):
        return None
    titles = {task.name: task_title(task) for task in report.tasks}
    if len(titles) > 1:
        titles[""] = "all, weighted"
    labels: list[str] = []
    at: list[int] = []
    found: list[Interval] = []
    for task, heading in titles.items():
        behind = {
            title(one.name): over
            for one in models
            if (over := task_difference(report.verdict, one, task)) is not None
        }
        labels += [heading] if behind else []
        for name, over in behind.items():
            at.append(len(labels))
            found.append(over)
            labels.append(f"{name}  {signed(over.value)}")
    if not found:
        return None
    trace = whiskers(
        at,
        found,
        name="difference",
        colours=[_good_or_bad(over) for over in found],
        symbols=["circle" if _clear(over) else "circle-open" for over in found],
    )
    return Figure(
        name="kept",
        title="What was kept and what was lost",
        note="The winner minus each parent and the base, task by task, on the same held-out "
        "questions, with 95 % intervals; those against the best parent are the verdict's. Right of "
        "the line the winner is better; a dot is filled where its interval excludes 0.",
        traces=(trace,),
        layout={
            "xaxis": axis("winner minus the other", zeroline=True, zerolinewidth=2),
            "yaxis": rows(labels),
            "showlegend": False,
        },
        height=80 + 28 * len(labels),
    )


def _clear(found: Interval) -> bool:
    """Whether no difference lies outside the interval."""
    return found.low > 0 or found.high < 0


def _good_or_bad(found: Interval) -> str:
    if not _clear(found):
        return "$soft"
    return "$good" if found.value > 0 else "$bad"


def task_figures(report: Report) -> Iterator[Figure]:
    """Winner, parents and default recipes: the combined score, then every task."""
    compared, questions = _compared(report)
    if len(compared) < 2:
        return
    tasks = [task for task in report.tasks if any(task.name in row.scores for row in compared)]
    if len(tasks) > 1:
        yield _dots(COMBINED, "All tasks, weighted", compared, questions, number=0)
    for number, task in enumerate(tasks, start=1):
        arrow = "higher is better" if task.higher_is_better else "lower is better"
        heading = f"{task.name} ({task.metric}, {arrow})"
        yield _dots(task.name, heading, compared, questions, number=number)


def _compared(report: Report) -> tuple[list[Compared], str]:
    """Who is compared, and on which questions: the held-out ones where they were asked."""
    verdict = report.verdict
    if verdict is not None and any(one.held_out.tasks for one in verdict.finalists[1:]):
        found = [
            Compared(
                label="winner: " + title(one.name) if at == 0 else title(one.name),
                role=one.role,
                winner=at == 0,
                scores={**one.held_out.tasks, COMBINED: one.held_out.combined},
                behind=_behind(verdict, one),
            )
            for at, one in enumerate(verdict.finalists)
            if at == 0 or one.role is not Role.SEARCHED
        ]
        return found, "held-out"
    frame = report.frame[report.frame["rank"].notna()]
    roles = [role_of(origin) for origin in frame["origin"]]
    found = [
        _from_row(row, role, report.tasks)
        for role, (_, row) in zip(roles, frame.iterrows(), strict=True)
        if role is not Role.SEARCHED or row["rank"] == 1
    ]
    return found, "search"


def _from_row(row: pd.Series, role: Role, tasks: Sequence[TaskInfo]) -> Compared:
    name = row["origin"] if role is not Role.SEARCHED else f"candidate {row['candidate']}"
    winner = bool(row["rank"] == 1)
    scores = {COMBINED: _normal(row["score"], row["stderr"])}
    scores |= {
        task.name: _normal(row[f"task:{task.name}"], row[f"task_stderr:{task.name}"])
        for task in tasks
    }
    known = {task: found for task, found in scores.items() if not math.isnan(found.value)}
    label = "winner: " + title(name) if winner else title(name)
    return Compared(label=label, role=role, winner=winner, scores=known)


def _normal(value: float, stderr: float) -> Interval:
    half = NORMAL * stderr
    return Interval(value=value, stderr=stderr, low=value - half, high=value + half, n=0)


def _behind(verdict: Verdict, one: Finalist) -> Mapping[str, Interval]:
    found = verdict.comparisons.get(one.name)
    return {
        task or COMBINED: over
        for task in ((*found.tasks, "") if found is not None else ())
        if (over := task_difference(verdict, one, task)) is not None
    }


def _dots(
    task: str, heading: str, compared: Sequence[Compared], questions: str, *, number: int
) -> Figure:
    known = [row for row in compared if task in row.scores]
    found = [row.scores[task] for row in known]
    labels = [
        f"{row.label}  {score_text(one.value)}" for row, one in zip(known, found, strict=True)
    ]
    colours = ["$winner" if row.winner else MARKERS[row.role][2] for row in known]
    symbols = ["star" if row.winner else MARKERS[row.role][1] for row in known]
    at = list(range(len(known)))
    trace = whiskers(at, found, name="score", colours=colours, symbols=symbols)
    behind = [row.behind.get(task, NOT_KNOWN) for row in known]
    views: tuple[View, ...] = ()
    if any(not math.isnan(one.value) for one in behind):
        differences = whiskers(at, behind, name="score", colours=colours, symbols=symbols)
        changed = {key: differences[key] for key in ("x", "error_x", "text")}
        named = [
            row.label if math.isnan(one.value) else f"{row.label}  {signed(one.value)}"
            for row, one in zip(known, behind, strict=True)
        ]
        views = (
            View(label="scores"),
            View(
                label="differences",
                traces=(changed,),
                layout={
                    "xaxis.title.text": "winner minus it",
                    "xaxis.zeroline": True,
                    "yaxis.ticktext": [text(label) for label in named],
                },
            ),
        )
    return Figure(
        name=f"task-{number}" if number else "tasks",
        title=heading,
        note=f"On the {questions} questions, with 95 % intervals.",
        traces=(trace,),
        layout={"xaxis": axis("", zeroline=False), "yaxis": rows(labels), "showlegend": False},
        height=66 + 34 * len(known),
        views=views,
    )


def whiskers(
    at: Sequence[int],
    found: Sequence[Interval],
    *,
    name: str,
    colours: Sequence[str],
    symbols: Sequence[str],
) -> Json:
    """A dot per row with its interval.

    Args:
        at: The rows.
        found: Value and ends; NaN leaves a row empty.
        name: Of the trace.
        colours: Of each dot.
        symbols: Marker of each dot.
    """
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": rounded([one.value for one in found]),
        "y": list(at),
        "marker": {"color": list(colours), "symbol": list(symbols), "size": 11,
                   "line": {"width": 2, "color": list(colours)}},
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": rounded([one.high - one.value for one in found]),
            "arrayminus": rounded([one.value - one.low for one in found]),
            "color": "$ink",
            "thickness": 1.5,
            "width": 5,
        },
        "hoverinfo": "text",
        "text": [text(limits_text(one)) for one in found],
    }  # fmt: skip


NOT_KNOWN = Interval(value=math.nan, stderr=math.nan, low=math.nan, high=math.nan, n=0)

OTHERS = {
    name: TaskInfo(name=name, metric="", higher_is_better=name == SCORE, weight=1.0)
    for name in (SCORE, *MEASURES)
}
"""Objectives that are no tasks, as if they were."""

_FRONT_NOTE = (
    "What is to be expected of each recipe in two tasks. Filled diamonds are the front: no other "
    "recipe matches them in every task and beats them in one clearly, beyond the error of what is "
    "expected."
)


def front_figure(report: Report, records: Sequence[Record]) -> Figure | None:
    """The tasks against each other; ``None`` unless there are several of them."""
    known = [record for record in ranked(records) if record.objectives]
    if not known or len(known[0].objectives) < 2:
        return None
    names = list(known[0].objectives)
    tasks = OTHERS | {task.name: task for task in report.tasks}
    apart = all(name not in OTHERS for name in names)
    pairs = list(combinations(names, 2))[:MOST_PAIRS]
    drawn = [_front(known, [tasks[name] for name in pair], line=len(names) == 2) for pair in pairs]
    views = tuple(
        View(
            label=" × ".join(pair),
            traces=tuple(
                {key: trace[key] for key in ("x", "y", "text", "textposition") if key in trace}
                for trace in traces
            ),
            layout={
                f"{at}axis.{key}": value
                for at, name in zip("xy", pair, strict=True)
                for key, value in _task_axis(tasks[name]).items()
            },
        )
        for pair, traces in zip(pairs, drawn, strict=True)
    )
    return Figure(
        name="front",
        title="Trade-off between the tasks" if apart else "Trade-off between the objectives",
        note=_FRONT_NOTE if apart else _FRONT_NOTE.replace("task", "objective"),
        traces=tuple(drawn[0]),
        layout={
            f"{at}axis": _task_axis(tasks[name]) for at, name in zip("xy", pairs[0], strict=True)
        },
        height=420,
        views=views if len(views) > 1 else (),
    )


def _task_axis(task: TaskInfo) -> Json:
    better = "higher" if task.higher_is_better else "lower"
    return {
        "title": {"text": text(f"{task.name} ({better} is better)")},
        "autorange": True if task.higher_is_better else "reversed",
    }


def _front(known: Sequence[Record], tasks: Sequence[TaskInfo], *, line: bool) -> list[Json]:
    """Every kind of candidate, then the front, then the winner."""
    best = fronts(known)

    def place(record: Record) -> tuple[float, float]:
        one, other = (record.objectives[task.name].value * task.sign for task in tasks)
        return one, other

    traces = []
    for role in Role:
        those = [record for record in known if role_of(record.origin) is role]
        those = [those[at] for at in thinned(len(those))]
        x, y = zip(*map(place, those), strict=True) if those else ((), ())
        traces.append(points(role, x, y, [record_name(record) for record in those]))
        if role is Role.PARENT:
            traces[-1] |= {"mode": "markers+text", "textposition": _sides(known, place, x)}
    members = sorted((record for record in known if record.id in best), key=place)
    x, y = zip(*map(place, members), strict=True)
    front = points(Role.SEARCHED, x, y, [record_name(record) for record in members])
    front |= {"name": "front", "mode": "lines+markers" if line else "markers"}
    front["marker"] = {"symbol": "diamond", "size": 10, "color": "$accent"}
    front["line"] = {"color": "$accent", "dash": "dot", "width": 1.5}
    across, up = place(known[0])
    winner = points(Role.SEARCHED, [across], [up], [record_name(known[0])])
    winner |= {"name": "winner"}
    winner["marker"] = {"symbol": "star", "size": 17, "color": "$winner",
                        "line": {"width": 1, "color": "$ink"}}  # fmt: skip
    return [*traces, front, winner]


def _sides(
    known: Sequence[Record],
    place: Callable[[Record], tuple[float, float]],
    x: Sequence[float],
) -> list[str]:
    """Where names stand: towards the middle, so that none is cut off."""
    across = [place(record)[0] for record in known]
    middle = (min(across) + max(across)) / 2
    return ["middle right" if value < middle else "middle left" for value in x]


def record_name(record: Record) -> str:
    """A candidate for whoever points at it."""
    role = role_of(record.origin)
    if role is Role.SEARCHED:
        return f"candidate {record.id} ({record.recipe.title})"
    return title(record.origin)
