"""Figures of how the run went: best so far, failures, workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from runs.activity.search_progress import Step, changes, progress
from runs.activity.timeline import Clock, Span, Timeline
from runs.records.record import Record, Role, State
from runs.report.html.figure import (
    Figure,
    Json,
    View,
    axis,
    bars,
    points,
    rounded,
    rows,
    text,
    thinned,
)
from runs.report.html.score_figures import record_name
from runs.report.report_content import Report

MOST_WORKERS = 40
"""Workers that get a line of their own."""

FINEST = 1500
"""Spans that are nearer to each other than this part of the whole time are drawn as one."""

_LEARNING = (
    " Learning before the search is not drawn: workers are busy, but no recipe is under way."
)

_UNITS = (
    ("evaluations", "recipes scored"),
    ("questions", "search questions answered"),
    ("hours", "hours at work"),
)


def progress_figure(records: Sequence[Record], timeline: Timeline) -> Figure | None:
    """Best so far against what was spent; ``None`` before there is a score."""
    steps = progress(records, timeline)
    if not steps:
        return None
    by_id = {record.id: record for record in records}
    chosen = [
        (role, [found[at] for at in thinned(len(found))])
        for role in Role
        if (found := [step for step in steps if step.role is role])
    ]
    curve = changes(steps)
    parent = max((s.value for s in steps if s.role is Role.PARENT), default=None)
    traces = [
        points(
            role,
            [step.evaluations for step in those],
            [step.value for step in those],
            [record_name(by_id[step.candidate]) for step in those],
        )
        for role, those in chosen
    ]
    traces.append(_line(curve))
    ends = [steps[0], steps[-1]]
    if parent is not None:
        traces.append(_level([parent] * 2, "best parent"))
    views = tuple(
        View(
            label=label,
            traces=(
                *({"x": _along(those, unit)} for _, those in chosen),
                {"x": _along(curve, unit)},
                *([{"x": _along(ends, unit)}] if parent is not None else []),
            ),
            layout={"xaxis.title.text": label},
        )
        for unit, label in _UNITS
    )
    traces[-1] |= {"x": _along(ends if parent is not None else curve, "evaluations")}
    return Figure(
        name="progress",
        title="Best recipe so far",
        note="Each point is a recipe at the time it was scored, at its current estimated score. "
        "The line is the recipe that ranks first among those scored by then. "
        "Hours are the working time of drivers.",
        traces=tuple(traces),
        layout={"xaxis": axis(_UNITS[0][1]), "yaxis": axis("expected score")},
        height=420,
        views=views,
    )


def _along(steps: Sequence[Step], unit: str) -> list[float | None]:
    return rounded([float(getattr(step, unit)) for step in steps])


def _line(curve: Sequence[Step]) -> Json:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "best so far",
        "x": _along(curve, "evaluations"),
        "y": rounded([step.best for step in curve]),
        "line": {"shape": "hv", "width": 3, "color": "$winner"},
        "hovertemplate": "best so far %{y:.4f}<extra></extra>",
    }


def _level(values: Sequence[float], name: str) -> Json:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "y": rounded(values),
        "line": {"dash": "dash", "width": 1.5, "color": "$third"},
        "hovertemplate": f"{name} %{{y:.4f}}<extra></extra>",
    }


def failures_figure(report: Report) -> Figure | None:
    """How often each kind of failure came up; ``None`` without any."""
    counts = Counter(report.failures["kind"]).most_common()
    if not counts:
        return None
    labels = [f"{kind}  {count}" for kind, count in counts]
    return Figure(
        name="failures",
        title="Failures by kind",
        note="A failed recipe has no score, not a score of zero, and never ends a run.",
        traces=(
            bars(
                [float(count) for _, count in counts],
                marker={"color": "$bad", "pattern": {"shape": "x", "solidity": 0.2}},
            ),
        ),
        layout={"xaxis": axis("failed evaluations"), "yaxis": rows(labels), "bargap": 0.4},
        height=90 + 34 * len(counts),
    )


def workers_figure(timeline: Timeline, *, learned: bool) -> Figure | None:
    """Who was busy when, and how many at a time; ``None`` where nobody was.

    Args:
        timeline: Of the recipes; when workers learned is not known.
        learned: Whether they did, which the figure then says.
    """
    if not timeline.spans or timeline.clock().total <= 0:
        return None
    clock, names = timeline.clock(), timeline.workers
    busy = Counter[str]()
    for span in timeline.spans:
        busy[span.worker] += int(1000 * (span.end - span.start))
    most = {name for name, _ in busy.most_common(MOST_WORKERS)}
    shown = [name for name in names if name in most]
    hours = clock.total / 3600
    factor, unit = (1.0, "hours") if hours >= 1 else (60.0, "minutes")
    left_out = f" The {len(shown)} busiest of {len(names)} workers." if most < set(names) else ""
    lane = 22 * max(len(shown), 1)
    top = 110
    share = top / (lane + top + 30)
    return Figure(
        name="workers",
        title="Workers over time",
        note="Above, how many recipes were under way at once; below, who was busy, with a cross "
        "where a recipe failed. Times without a driver are left out."
        + left_out
        + _LEARNING * learned,
        traces=(
            _levels(timeline, clock, factor),
            _lanes(timeline, clock, shown, factor),
            _crosses(timeline, clock, shown, factor),
        ),
        layout={
            "xaxis": axis(f"{unit} at work", anchor="y2"),
            "yaxis": axis("under way", domain=[1 - share, 1], rangemode="tozero", nticks=4),
            "yaxis2": {**rows(shown), "domain": [0, 1 - share - 0.05]},
            "showlegend": False,
        },
        height=lane + top + 110,
    )


def _levels(timeline: Timeline, clock: Clock, factor: float) -> Json:
    """Mean number under way in a few hundred steps of equal length."""
    count = 240
    total = clock.total
    sums = [0.0] * count
    for start, end, level in timeline.levels():
        low, high = clock.at(start) / total * count, clock.at(end) / total * count
        for cell in range(int(low), min(count - 1, int(high)) + 1):
            sums[cell] += level * max(0.0, min(high, cell + 1) - max(low, cell))
    return {
        "type": "scatter",
        "mode": "lines",
        "x": rounded([(at + 0.5) / count * total / 3600 * factor for at in range(count)]),
        "y": rounded(sums),
        "line": {"shape": "hvh", "width": 1.5, "color": "$accent"},
        "fill": "tozeroy",
        "fillcolor": "$wash",
        "hovertemplate": "%{y:.1f} under way<extra></extra>",
    }


def _lanes(timeline: Timeline, clock: Clock, shown: Sequence[str], factor: float) -> Json:
    x: list[float | None] = []
    y: list[float | None] = []
    least = clock.total / FINEST
    for at, name in enumerate(shown):
        for start, end in _joined([s for s in timeline.spans if s.worker == name], clock, least):
            x += [*rounded([start / 3600 * factor, end / 3600 * factor]), None]
            y += [at, at, None]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": x,
        "y": y,
        "yaxis": "y2",
        "line": {"width": 12, "color": "$accent"},
        "hoverinfo": "skip",
    }


def _joined(spans: Sequence[Span], clock: Clock, least: float) -> Iterator[tuple[float, float]]:
    """Start and end of each time that a worker was busy; gaps too short to be seen are closed."""
    current: tuple[float, float] | None = None
    for span in spans:
        start, end = clock.at(span.start), clock.at(span.end)
        if current is not None and start - current[1] <= least:
            current = current[0], max(current[1], end)
            continue
        if current is not None:
            yield current
        current = start, end
    if current is not None:
        yield current


def _crosses(timeline: Timeline, clock: Clock, shown: Sequence[str], factor: float) -> Json:
    lanes = {name: at for at, name in enumerate(shown)}
    failed = [s for s in timeline.spans if s.state is State.FAILED and s.worker in lanes]
    failed = [failed[at] for at in thinned(len(failed))]
    return {
        "type": "scatter",
        "mode": "markers",
        "x": rounded([clock.at(span.end) / 3600 * factor for span in failed]),
        "y": [lanes[span.worker] for span in failed],
        "yaxis": "y2",
        "text": [text(f"candidate {span.candidate} failed") for span in failed],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {
            "symbol": "x",
            "size": 8,
            "color": "$bad",
            "line": {"width": 1, "color": "$paper"},
        },
    }
