"""Curves of benchmark results as a picture: a line for each strategy, with a band of quartiles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Axes:
    """What the axes are.

    Attributes:
        x: Label of the horizontal axis, which is logarithmic.
        y: Label of the vertical axis.
        title: Above the picture.
    """

    x: str
    y: str
    title: str


Curves = Mapping[str, tuple[Array, Array]]
"""By name: where it was looked at, ``(checks,)`` above 0, and what each run had there,
``(runs, checks)``."""


def draw(path: Path, curves: Curves, axes: Axes, *, level: tuple[str, float] | None = None) -> None:
    """Write a picture of medians and quartiles over runs.

    Args:
        path: Where to; the ending says in which format.
        curves: At most ten.
        axes: Labels.
        level: Name and height of a line to compare with.
    """
    import matplotlib as mpl

    mpl.use("agg")
    mpl.rcParams["svg.hashsalt"] = "merge-search"  # the same picture, the same bytes
    from matplotlib import pyplot as plt

    figure, plane = plt.subplots(figsize=(7.5, 4.5), layout="constrained")
    for number, (name, (x, runs)) in enumerate(curves.items()):
        low, middle, high = np.percentile(runs, (25, 50, 75), axis=0)
        # the product first, and thicker than what it is compared with
        plane.plot(x, middle, marker="o", ms=3.5, label=name, lw=1.3 if number else 2.4)
        plane.fill_between(x, low, high, alpha=0.12, lw=0)
    if level is not None:
        plane.axhline(level[1], color="0.4", ls=":", label=level[0])
    plane.set(xscale="log", xlabel=axes.x, ylabel=axes.y, title=axes.title)
    ticks = sorted({float(at) for x, _ in curves.values() for at in x})
    plane.set_xticks(ticks, [f"{at:g}" for at in ticks])
    plane.minorticks_off()
    plane.grid(alpha=0.25)
    plane.legend(frameon=False, fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)
