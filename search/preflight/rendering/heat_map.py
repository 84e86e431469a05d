"""Heat maps as SVG: a few hundred cells need no library and no script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SEQUENTIAL = ((247, 251, 255), (107, 174, 214), (8, 48, 107))
"""From little to much: light to dark blue."""

DIVERGING = ((178, 24, 43), (247, 247, 247), (33, 102, 172))
"""From -1 over 0 to 1: red, white, blue; told apart also without red and green."""


_LUMA = (0.299, 0.587, 0.114)
"""Parts of red, green and blue in how light a colour is (ITU-R BT.601)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One square.

    Attributes:
        colour: Of the square, as ``rgb(...)``.
        ink: Of its text: black or white, whichever is read better.
        text: What stands in it; empty where there is no value.
        tip: The same in words, shown under the pointer and read aloud.
    """

    colour: str
    ink: str
    text: str
    tip: str


@dataclass(frozen=True, kw_only=True, slots=True)
class HeatMap:
    """Values by row and column, ready to be drawn.

    Attributes:
        title: What it shows.
        note: How to read it.
        columns: Labels from left to right.
        rows: Labels and cells from top to bottom.
    """

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


def heat_map(
    title: str,
    values: Sequence[tuple[str, Sequence[float]]],
    *,
    columns: Sequence[str],
    note: str,
    low: float,
    high: float,
    diverging: bool = False,
    percent: bool = False,
) -> HeatMap:
    """Colour values.

    Args:
        title: What they are.
        values: By row; NaN leaves a cell empty.
        columns: Their labels.
        note: How to read it.
        low: The value of the first colour; what is below has it too.
        high: That of the last.
        diverging: Whether the middle is the neutral value.
        percent: Whether to write them as shares.
    """
    scale = DIVERGING if diverging else SEQUENTIAL
    rows = []
    for label, line in values:
        cells = []
        for column, value in zip(columns, line, strict=True):
            text = ""
            if not math.isnan(value):
                text = f"{100 * value:.0f}" if percent else f"{value:.2f}"
            shade = _shade(value, low, high, scale)
            words = text + (" %" if percent else "") if text else "no value"
            cells.append(
                Cell(
                    colour="none" if shade is None else "rgb({},{},{})".format(*shade),
                    ink="#000" if shade is None or np.dot(_LUMA, shade) > 140 else "#fff",
                    text=text,
                    tip=f"{label}, {column}: {words}",
                )
            )
        rows.append((label, tuple(cells)))
    return HeatMap(title=title, note=note, columns=tuple(columns), rows=tuple(rows))


def _shade(
    value: float, low: float, high: float, scale: tuple[tuple[int, int, int], ...]
) -> tuple[int, int, int] | None:
    if math.isnan(value):
        return None
    stops = np.linspace(0.0, 1.0, len(scale))
    place = (value - low) / (high - low or 1.0)
    red, green, blue = (
        round(float(np.interp(place, stops, ends))) for ends in zip(*scale, strict=True)
    )
    return red, green, blue
