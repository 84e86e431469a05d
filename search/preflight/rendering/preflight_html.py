"""A pre-flight as one HTML page that needs nothing else, and as a part of a notebook."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import jinja2

from merging.tensor_statistics.model_similarity import DeltaSums, ModelSimilarity
from search.preflight.preflight_result import Preflight, gigabytes
from search.preflight.rendering.heat_map import HeatMap, heat_map
from search.preflight.rendering.preflight_tables import (
    facts_of,
    forecast_line,
    number,
    percent,
    warnings_of,
)

_CONFLICT = (0.3, 0.7)
"""Shares of conflicting signs between which colours tell apart; a half is chance."""


def page(found: Preflight) -> str:
    """The whole page: no script, no request, everything escaped."""
    return _render(found, "preflight.html.j2")


def fragment(found: Preflight) -> str:
    """The content of the page alone, for a notebook."""
    return _render(found, "preflight_body.html.j2")


def _render(found: Preflight, name: str) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name).render(
        found=found,
        facts=facts_of(found),
        forecast=forecast_line(found),
        warnings=warnings_of(found),
        maps=[] if found.affinity is None else list(heat_maps(found.affinity)),
        barriers={} if found.smoke is None else found.smoke.barriers(),
        gigabytes=gigabytes,
        number=number,
        percent=percent,
        nan=math.nan,
    )


def heat_maps(affinity: ModelSimilarity) -> Iterator[HeatMap]:
    """Sizes of deltas, cosines and conflicts over depth, by kind of tensor."""
    columns = [_depth(affinity, depth) for depth in affinity.depths]

    def rows(of: Callable[[DeltaSums], float], label: str) -> Iterator[tuple[str, list[float]]]:
        for kind in affinity.kinds:
            line = [
                of(affinity.groups[depth, kind]) if (depth, kind) in affinity.groups else math.nan
                for depth in affinity.depths
            ]
            if not all(map(math.isnan, line)):
                yield f"{label} · {kind}", line

    sizes = [
        row
        for at, name in enumerate(affinity.parents)
        for row in rows(lambda sums, at=at: sums.size(at), name)  # type: ignore[misc]
    ]
    what = "the base" if affinity.based else "the models' mean"
    high = max((v for _, line in sizes for v in line if math.isfinite(v)), default=1.0)
    yield heat_map(
        "Size of each delta", sizes, columns=columns, low=0.0, high=high, percent=True,
        note=f"Per cent of {what}'s norm, over depth from left to right. Dark: changed much.",
    )  # fmt: skip
    if not affinity.based or len(affinity.parents) < 2:
        return
    pairs = [(f"{affinity.parents[a]}, {affinity.parents[b]}", a, b) for a, b in affinity.pairs()]
    yield heat_map(
        "Cosine between deltas",
        [row for name, a, b in pairs for row in rows(lambda s, a=a, b=b: s.cosine(a, b), name)],  # type: ignore[misc]
        columns=columns, low=-1.0, high=1.0, diverging=True,
        note="1: the same change; 0: nothing to do with each other; below 0: against each other.",
    )  # fmt: skip
    yield heat_map(
        "Conflicts of sign",
        [row for name, a, b in pairs for row in rows(lambda s, a=a, b=b: s.conflict(a, b), name)],  # type: ignore[misc]
        columns=columns, low=_CONFLICT[1], high=_CONFLICT[0], diverging=True, percent=True,
        note="Per cent of the weights both changed that went in opposite directions; 50 is chance.",
    )  # fmt: skip


def _depth(affinity: ModelSimilarity, depth: int) -> str:
    if depth < 0:
        return "in"
    return "out" if depth >= affinity.layers else str(depth)
