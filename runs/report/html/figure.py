"""Figures as plain values in Plotly's JSON form, and what they share.

Colours are names such as ``$accent``: the page puts in those of its light or dark theme. Every
kind of candidate also has a marker of its own, so that nothing is told by colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from runs.records.record import Role

Json = dict[str, Any]

MARKERS: dict[Role, tuple[str, str, str]] = {
    Role.SEARCHED: ("searched", "circle", "$accent"),
    Role.DEFAULT: ("default recipe", "diamond-open", "$second"),
    Role.OWN: ("your recipe", "diamond", "$second"),
    Role.AVERAGE: ("plain average", "triangle-up", "$second"),
    Role.PARENT: ("parent", "square", "$third"),
    Role.BASE: ("base", "square-open", "$third"),
}
"""Name in the legend, marker and colour of each kind of candidate."""

MOST_POINTS = 2500
"""Points of one kind that a figure draws; of more, an even choice, so that it stays quick."""


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """Another way to look at a figure.

    Attributes:
        label: On its button.
        traces: What replaces keys of each trace, in their order.
        layout: What replaces keys of the layout, by dotted name such as ``xaxis.title.text``.
    """

    label: str
    traces: tuple[Json, ...] = ()
    layout: Json = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One figure.

    Attributes:
        name: Short name, also of its image file.
        title: Heading, plain text.
        note: What it shows and how to read it, plain text.
        traces: Plotly traces.
        layout: Plotly layout, without fonts, margins and colours of the page.
        height: In CSS pixels.
        views: Ways to look at it, the first one shown; none where there is only one.
    """

    name: str
    title: str
    note: str
    traces: tuple[Json, ...]
    layout: Json = field(default_factory=dict)
    height: int = 320
    views: tuple[View, ...] = ()

    def to_json(self) -> Json:
        """For the page's script."""
        return {
            "name": self.name,
            "title": self.title,
            "height": self.height,
            "data": list(self.traces),
            "layout": self.layout,
            "views": [
                {"label": view.label, "data": list(view.traces), "layout": view.layout}
                for view in self.views
            ],
        }


def text(value: str) -> str:
    """Text that Plotly shows as it is: it takes a few HTML tags and entities as markup."""
    return value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def axis(title: str, **more: Any) -> Json:
    """An axis with a title."""
    return {"title": {"text": text(title)}, **more}


def rounded(values: Sequence[float]) -> list[float | None]:
    """Numbers to five digits, for a smaller page; those that do not exist as ``None``."""
    return [float(f"{value:.5g}") if math.isfinite(value) else None for value in values]


def points(role: Role, x: Sequence[float], y: Sequence[float], names: Sequence[str]) -> Json:
    """Markers of one kind of candidate, with their names for whoever points at them."""
    legend, symbol, colour = MARKERS[role]
    few = role is not Role.SEARCHED
    return {
        "type": "scatter",
        "mode": "markers",
        "name": legend,
        "x": rounded(x),
        "y": rounded(y),
        "text": [text(name) for name in names],
        "hovertemplate": "%{text}<br>%{x} · %{y:.4f}<extra></extra>",
        "marker": {
            "symbol": symbol,
            "size": 10 if few else 6,
            "opacity": 1.0 if few else 0.55,
            "color": colour,
            "line": {"width": 2 if "open" in symbol else 0, "color": colour},
        },
    }


def thinned(count: int, most: int = MOST_POINTS) -> list[int]:
    """Positions of at most so many points, evenly chosen, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return sorted({round(at * (count - 1) / (most - 1)) for at in range(most)})


def bars(values: Sequence[float], **more: Any) -> Json:
    """Bars that lie, the first on top."""
    return {
        "type": "bar",
        "orientation": "h",
        "x": rounded(values),
        "y": list(range(len(values))),
        "hoverinfo": "skip",
        "showlegend": False,
        "marker": {"color": "$accent"},
        **more,
    }


def rows(labels: Sequence[str]) -> Json:
    """The axis beside bars: one label for each, from the top; it may hold the number."""
    return {
        "tickvals": list(range(len(labels))),
        "ticktext": [text(label) for label in labels],
        "range": [len(labels) - 0.5, -0.5],
        "automargin": True,
        "showgrid": False,
        "zeroline": False,
        "fixedrange": True,
    }
