"""Figures of what was learned before the search: losses, and weights beside the searched ones."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from runs.ranking.leaderboard import ranked
from runs.records.record import LEARNED, Role, role_of
from runs.report.html.figure import Figure, Json, View, axis, rounded, text
from runs.report.html.recipe_figures import weights_figure
from runs.report.html.score_figures import record_name
from runs.report.learning_summary import LearningSummary
from runs.report.report_content import Details

_COLOURS = ("$accent", "$second", "$third")
_MARKERS = ("circle", "square", "diamond")


def loss_figure(lessons: Sequence[LearningSummary]) -> Figure | None:
    """Losses over the steps; ``None`` before the first step."""
    traces = [trace for at, one in enumerate(lessons) for trace in _curves(one, at) if trace["x"]]
    if not traces:
        return None
    return Figure(
        name="learning",
        title="Loss while learning",
        note="Mean loss of right answers, in nats. Faint: the questions of each step, by the "
        "coefficients before it. Strong: the questions kept aside, from which nothing is learned. "
        "The star is where these were answered best: its coefficients were kept.",
        traces=tuple(traces),
        layout={"xaxis": axis("steps"), "yaxis": axis("loss", rangemode="tozero")},
        height=380,
        views=(View(label="loss"), View(label="logarithm", layout={"yaxis.type": "log"})),
    )


def _curves(lesson: LearningSummary, at: int) -> Iterator[Json]:
    colour, marker = _COLOURS[at % len(_COLOURS)], _MARKERS[at % len(_MARKERS)]
    name = text(lesson.name)
    common: Json = {"type": "scatter", "hovertemplate": f"{name}, step %{{x}}: %{{y:.4f}}"}
    yield common | {
        "mode": "lines",
        "name": f"{name}: learned from",
        "x": list(range(len(lesson.losses))),
        "y": rounded(lesson.losses),
        "opacity": 0.45,
        "line": {"width": 1.5, "color": colour, "dash": "dot"},
    }
    yield common | {
        "mode": "lines+markers",
        "name": f"{name}: kept aside",
        "x": [step for step, _ in lesson.aside],
        "y": rounded([loss for _, loss in lesson.aside]),
        "line": {"width": 2.5, "color": colour},
        "marker": {"symbol": marker, "size": 7, "color": colour},
    }
    chosen = [] if lesson.chosen is None else [lesson.chosen]
    yield common | {
        "mode": "markers",
        "name": f"{name}: chosen",
        "x": [step for step, _ in chosen],
        "y": rounded([loss for _, loss in chosen]),
        "marker": {"symbol": "star", "size": 16, "color": "$winner"},
    }


def learned_figures(details: Details, lessons: Sequence[LearningSummary]) -> Iterator[Figure]:
    """Learned weights over depth, then those of the best recipe that a sampler proposed."""
    for lesson in lessons:
        figure = weights_figure(
            lesson.recipe,
            details.layers,
            name=re.sub(r"[^a-z0-9]+", "-", lesson.name.lower()),
            title=f"Weights {lesson.name}",
            note="Weight of each parent in every layer, by kind of tensor, as it was learned.",
        )
        if figure is not None:
            yield figure
    if not lessons:
        return
    searched = (r for r in ranked(details.records) if role_of(r.origin) is Role.SEARCHED)
    best = next((r for r in searched if not r.origin.startswith(LEARNED)), None)
    if best is None:
        return
    figure = weights_figure(
        best.recipe,
        details.layers,
        name="searched",
        title="Weights of the best searched recipe",
        note=f"The best of those that the sampler proposed, to compare: {record_name(best)}.",
    )
    if figure is not None:
        yield figure
