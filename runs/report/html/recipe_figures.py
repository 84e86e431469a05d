"""Figures of what makes a recipe good: what matters, how scores depend on it, and the winner."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter

from runs.activity.search_progress import expected
from runs.ranking.leaderboard import ranked
from runs.records.record import Record, Role
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
from runs.report.insights import Insights, ParentShares
from runs.report.report_content import Details
from spaces.recipes.contributions import contributions
from spaces.recipes.recipe import Recipe

MOST_PARTS = 14
"""Parts of recipes whose importance is shown."""

MOST_METHODS = 14
"""Methods whose scores are shown."""

ALL_POINTS = 400
"""Recipes up to which each is drawn beside the boxes."""

BINS = 10
"""Points of the curve of medians."""

MOST_LINES = 300
"""Recipes of which each has a line across all axes, the best ones."""

MOST_NAMES = 4
"""Recipes that are left out and named; more are counted."""

MOST_NUMBERS = 12
"""Layers up to which the numbers are written into the heat map."""


_Mix = Callable[[ParentShares], Mapping[str, float]]
_WEIGHTS: _Mix = attrgetter("weights")
_DENSITIES: _Mix = attrgetter("densities")


def importance_figure(insights: Insights) -> Figure | None:
    """What matters most; ``None`` where too little is known."""
    found = insights.importance[:MOST_PARTS]
    if not found:
        return None
    labels = [f"{item.name}  {100 * item.share:.0f} %" for item in found]
    sure = ""
    if math.isfinite(insights.explained):
        sure = (
            f" The model explains {max(0.0, 100 * insights.explained):.0f} % of the variance "
            "between recipes that it was not fitted to."
        )
    return Figure(
        name="importance",
        title="What matters",
        note="The share of the expected score's variance in which a part of the recipe is "
        "involved, alone or with others (Sobol's total index). The search's own model (a Gaussian "
        "process) computes it for recipes drawn at random from the whole space, not for those "
        "near the best. A joint effect counts for each of its parts, so shares may sum to more "
        "than 100 %." + sure,
        traces=(bars([100 * item.share for item in found]),),
        layout={"xaxis": axis("% of the variance"), "yaxis": rows(labels), "bargap": 0.35},
        height=90 + 28 * len(found),
    )


def effect_figures(details: Details) -> Iterator[Figure]:
    """Score by method, and against the weight and density of every parent."""
    known = [r for r in ranked(details.records) if math.isfinite(expected(r))]
    if len(known) < 3:
        return
    yield _methods(known)
    dials = details.insights.dials
    inside = [record for record in known if record.id in dials]
    left_out = _left_out(known)
    for name, note, values in (
        ("weight", "mean over all layers and tensors, after normalisation", _WEIGHTS),
        ("density", "mean over all layers and tensors, of recipes that have densities", _DENSITIES),
    ):
        figure = _against(name, note, inside, [values(dials[record.id]) for record in inside])
        if figure is not None:
            yield replace(figure, note=figure.note + left_out)
    lines = _lines(inside[:MOST_LINES], details)
    if lines is not None:
        yield replace(lines, note=lines.note + left_out)


def _left_out(known: Sequence[Record]) -> str:
    """Which of the recipes, given by rank, have no mix in the space's terms; empty if all have."""
    apart = [record for record in known if record.trial is None]
    names = ["the winner " * (record is known[0]) + record_name(record) for record in apart]
    if len(names) > MOST_NAMES + 1:
        names[MOST_NAMES:] = [f"{len(names) - MOST_NAMES} more"]
    told = " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
    return f" Left out, as outside the space: {told}." if told else ""


def _lines(records: Sequence[Record], details: Details) -> Figure | None:
    """Each recipe as a line across what it mixes and what it scores: parallel coordinates."""
    axes: dict[str, list[float]] = {}
    for kind, of in (("weight", _WEIGHTS), ("density", _DENSITIES)):
        values = [of(details.insights.dials[record.id]) for record in records]
        for parent in dict.fromkeys(parent for one in values for parent in one):
            axes[f"{kind} of {parent}"] = [one.get(parent, math.nan) for one in values]
    for task in dict.fromkeys(name for record in records for name in record.objectives):
        axes[task] = [
            r.objectives[task].value if task in r.objectives else math.nan for r in records
        ]
    axes["expected"] = [expected(record) for record in records]
    ends = {
        name: (min(known), max(known)) for name, known in _known(axes).items() if len(known) > 1
    }
    axes = {name: axes[name] for name, (low, high) in ends.items() if low < high}
    if len(axes) < 3 or len(records) < 3:
        return None
    best = math.ceil(len(records) / 10)
    return Figure(
        name="lines",
        title="Recipes side by side",
        note="Every line is a recipe; every axis runs from the lowest to the highest value among "
        f"the {len(records)} shown, and both stand at its ends. The best tenth is drawn strong: "
        "where its lines meet, the good recipes agree.",
        traces=(
            _across(axes, ends, records, slice(best, None), name="others", best=False),
            _across(axes, ends, records, slice(best), name="best tenth", best=True),
        ),
        layout={
            "xaxis": {
                "tickvals": [*range(len(axes))],
                "ticktext": [f"{ends[name][0]:.3g}<br>{text(_short(name))}" for name in axes],
                "tickangle": 90,
                "gridcolor": "$soft",
                "range": [-0.3, len(axes) - 0.7],
                "zeroline": False,
            },
            "xaxis2": {
                "overlaying": "x",
                "side": "top",
                "matches": "x",
                "tickvals": [*range(len(axes))],
                "ticktext": [f"{ends[name][1]:.3g}" for name in axes],
                "showgrid": False,
                "zeroline": False,
            },
            "yaxis": {
                "showticklabels": False,
                "showgrid": False,
                "zeroline": False,
                "domain": [0, 0.92],
            },
            "hovermode": "closest",
            "showlegend": False,
        },
        height=420,
    )


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}…"


def _known(axes: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    return {name: [v for v in values if math.isfinite(v)] for name, values in axes.items()}


def _across(
    axes: Mapping[str, Sequence[float]],
    ends: Mapping[str, tuple[float, float]],
    records: Sequence[Record],
    chosen: slice,
    *,
    name: str,
    best: bool,
) -> Json:
    """The lines of some recipes as one trace, with a gap after each."""
    x: list[float | None] = []
    y: list[float | None] = []
    said: list[str] = []
    for at in range(len(records))[chosen]:
        values = [axes[key][at] for key in axes]
        scaled = [
            (v - ends[k][0]) / (ends[k][1] - ends[k][0]) for k, v in zip(axes, values, strict=True)
        ]
        x += [*range(len(axes)), None]
        y += [*rounded(scaled), None]
        label = text(record_name(records[at]))
        said += [f"{label}<br>{text(k)} {v:.4g}" for k, v in zip(axes, values, strict=True)] + [""]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": x,
        "y": y,
        "xaxis": "x2" if best else "x",
        "text": said,
        "hovertemplate": "%{text}<extra></extra>",
        "connectgaps": False,
        "line": {"width": 2.5 if best else 1, "color": "$winner" if best else "$accent"},
        "opacity": 0.9 if best else 0.35,
    }


def _methods(known: Sequence[Record]) -> Figure:
    by_method: dict[str, list[float]] = {}
    for record in known:
        by_method.setdefault(record.recipe.title, []).append(expected(record))
    common = sorted(by_method, key=lambda name: -len(by_method[name]))[:MOST_METHODS]
    order = sorted(common, key=lambda name: -statistics.median(by_method[name]))
    labels = [f"{name} ({len(by_method[name])})" for name in order]
    every = len(known) <= ALL_POINTS
    traces = tuple(
        {
            "type": "box",
            "orientation": "h",
            "x": rounded(by_method[name]),
            "y": [at] * len(by_method[name]),
            "boxpoints": "all" if every else "outliers",
            "jitter": 0.5,
            "pointpos": 0,
            "fillcolor": "$wash",
            "marker": {"size": 4, "color": "$accent", "opacity": 0.6},
            "line": {"width": 1.5, "color": "$accent"},
            "hoverinfo": "x",
            "showlegend": False,
        }
        for at, name in enumerate(order)
    )
    left_out = len(by_method) - len(order)
    return Figure(
        name="methods",
        title="Score by method",
        note="Expected scores of all recipes of a method, their number in brackets, by the median. "
        "Boxes hold the middle half, the line in them is the median."
        + (f" {left_out} rarer combinations are left out." if left_out else ""),
        traces=traces,
        layout={"xaxis": axis("expected score"), "yaxis": rows(labels)},
        height=90 + 34 * len(order),
    )


def _against(
    name: str, note: str, records: Sequence[Record], values: Sequence[Mapping[str, float]]
) -> Figure | None:
    parents = list(dict.fromkeys(parent for one in values for parent in one))
    drawn = [_dependence(parent, records, values) for parent in parents]
    if not drawn or not any(len(set(traces[0]["x"])) > 1 for traces in drawn):
        return None
    views = tuple(
        View(
            label=parent,
            traces=tuple({key: trace[key] for key in ("x", "y", "text")} for trace in traces),
            layout={"xaxis.title.text": text(f"{name} of {parent}")},
        )
        for parent, traces in zip(parents, drawn, strict=True)
    )
    return Figure(
        name=name,
        title=f"Score against {name}",
        note=f"The {name} of a parent: {note}."
        + " The line joins the medians of neighbouring recipes." * any(t[1]["x"] for t in drawn),
        traces=tuple(drawn[0]),
        layout={"xaxis": axis(f"{name} of {parents[0]}"), "yaxis": axis("expected score")},
        height=360,
        views=views if len(views) > 1 else (),
    )


def _dependence(
    parent: str, records: Sequence[Record], values: Sequence[Mapping[str, float]]
) -> list[Json]:
    found = sorted(
        (
            (one[parent], expected(record), record_name(record))
            for one, record in zip(values, records, strict=True)
            if parent in one
        ),
        key=lambda point: point[0],
    )
    shown = [found[at] for at in thinned(len(found))]
    x, y, names = (list(column) for column in zip(*shown, strict=True)) if shown else ([], [], [])
    size = max(1, math.ceil(len(found) / BINS))
    bins = [found[at : at + size] for at in range(0, len(found), size)] if len(found) > 30 else []
    median: Callable[[Sequence[float]], float] = statistics.median
    curve = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "median",
        "x": rounded([median([point[0] for point in part]) for part in bins]),
        "y": rounded([median([point[1] for point in part]) for part in bins]),
        "text": [],
        "line": {"width": 2.5, "color": "$winner"},
        "marker": {"symbol": "line-ns", "size": 1},
        "hoverinfo": "skip",
    }
    return [points(Role.SEARCHED, x, y, names), curve]


def depth_figure(details: Details, record: Record) -> Figure | None:
    """Weight of each parent over depth; ``None`` where the recipe brings in nothing."""
    return weights_figure(
        record.recipe,
        details.layers,
        name="depth",
        title="Weight of each parent over depth",
        note="Effective weights of the winner in every layer, from the first to the last: after "
        "normalisation, multiplied along the merge tree. The darker or stronger, the more.",
    )


def weights_figure(
    recipe: Recipe, layers: int, *, name: str, title: str, note: str
) -> Figure | None:
    """Weight of each parent over depth, by kind of tensor; ``None`` where nothing is brought in."""
    found = contributions(recipe, layers)
    if not found:
        return None
    several = len({item.tensors for item in found}) > 1
    labels = [
        f"{item.model} · {item.tensors or 'other tensors'}" if several else item.model
        for item in found
    ]
    layers = len(found[0].shares)
    low = min(min(item.shares) for item in found)
    high = max(max(item.shares) for item in found)
    trace: Json = {
        "type": "heatmap",
        "z": [rounded(item.shares) for item in found],
        "x": list(range(layers)),
        "y": list(range(len(found))),
        "text": [[text(label)] * layers for label in labels],
        "hovertemplate": "%{text}, layer %{x}: %{z:.3f}<extra></extra>",
        "xgap": 1 if layers <= 64 else 0,
        "ygap": 2,
        "zmin": min(0.0, low),
        "zmax": max(high, 1e-9),
        "colorscale": [[0, "$paper"], [1, "$deep"]],
        "colorbar": {"title": {"text": "weight"}, "thickness": 12, "outlinewidth": 0},
    }
    if low < 0:
        most = max(-low, high)
        trace |= {"zmin": -most, "zmax": most}
        trace["colorscale"] = [[0, "$bad"], [0.5, "$paper"], [1, "$deep"]]
    if layers <= MOST_NUMBERS:
        trace["texttemplate"] = "%{z:.2f}"
    return Figure(
        name=name,
        title=title,
        note=note,
        traces=(trace,),
        layout={
            "xaxis": axis("layer", showgrid=False, zeroline=False, fixedrange=True),
            "yaxis": rows(labels),
        },
        height=100 + 34 * len(found),
    )
