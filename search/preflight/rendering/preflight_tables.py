"""A pre-flight as tables in a terminal."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from rich.console import Console

from merging.tensor_statistics.model_similarity import DeltaSums, ModelSimilarity
from search.monitoring.console import say, say_facts
from search.monitoring.fitted_table import FittedTable
from search.preflight.preflight_result import Preflight, gigabytes
from search.preflight.smoke_test import SmokeTest
from spaces.text.error_text import counted

_BARS = "▁▂▃▄▅▆▇█"


def show(found: Preflight, console: Console) -> None:
    """Print it."""
    console.print(_models(found))
    console.print(_tasks(found))
    say_facts(console, facts_of(found))
    if found.affinity is not None:
        console.print(_parents(found.affinity))
        if found.affinity.based and len(found.affinity.parents) > 1:
            console.print(_pairs(found.affinity))
    if found.smoke is not None and found.smoke.points:
        console.print(_losses(found.smoke))
    for note in found.notes:
        say(console, f"note: {note}")
    for warning in warnings_of(found):
        say(console, f"warning: {warning}", style="yellow")
    if found.advice is not None:
        say(console, found.advice.verdict, style="bold")
        say(console, f"Worth searching: {', '.join(found.advice.methods)}.")
        for reason in found.advice.reasons:
            say(console, f"  {reason}")
    if found.forecast is not None:
        say(console, f"{forecast_line(found)}.", style="bold")


def warnings_of(found: Preflight) -> tuple[str, ...]:
    """All of them: of the run, then of the models' weights."""
    return (*found.warnings, *(found.advice.warnings if found.advice is not None else ()))


def forecast_line(found: Preflight) -> str:
    """The forecast with what it rests on."""
    if found.forecast is None:
        return "No forecast: no candidate was tried"
    sentence = found.forecast.sentence(found.made)
    text = f"{sentence[0].upper()}{sentence[1:]}, started now (ended by {found.forecast.limit})"
    if found.forecast.crew.assumed:
        text += f"; not known here: {found.forecast.crew.assumed}"
    return text


def facts_of(found: Preflight) -> list[tuple[str, str]]:
    """Space, pace, memory and disk, each with a name."""
    space, room = found.space, found.room
    trees = f", {counted(space.trees, 'merge order')} in pairs" if space.trees else ""
    facts = [
        (
            "space",
            f"{counted(len(space.methods), 'method')}, {counted(space.numbers, 'number')} and "
            f"{counted(space.choices, 'choice')} to draw{trees}; "
            f"{counted(space.seeds, 'first recipe')}",
        )
    ]
    if found.smoke is not None and not math.isnan(found.smoke.pace.build):
        pace = found.smoke.pace
        facts.append(
            (
                "a candidate",
                f"{pace.build:.2f} s to build, {1000 * pace.question:.1f} ms a question "
                f"({pace.questions} asked on {pace.device}); a worker is set up in "
                f"{pace.setup:.0f} s",
            )
        )
    facts += [("memory", line) for line in room.lines]
    kept = f", the run keeps {gigabytes(room.cached)}" if room.cached else ""
    facts.append(
        (
            "disk",
            f"a built model takes {gigabytes(room.model)}{kept}; {gigabytes(room.disk_free)} free",
        )
    )
    return facts


def sparkline(values: Sequence[float]) -> str:
    """A bar per value, from the lowest to the highest; a blank for NaN."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return ""
    low, high = min(known), max(known)
    step = (high - low) / (len(_BARS) - 1) or 1.0
    return "".join(_BARS[round((v - low) / step)] if math.isfinite(v) else " " for v in values)


def _models(found: Preflight) -> FittedTable:
    names = ("model", "class", "layers", "weights", "on disk", "type", "rows")
    rows = [
        (
            one.name,
            one.architecture + (" + LoRA" if one.adapter else ""),
            str(one.layers),
            f"{one.parameters / 1e6:,.1f} M",
            gigabytes(one.bytes),
            ", ".join(one.dtypes),
            f"{one.vocabulary:,}",
            one.tokenizer,
            one.template or "none",
            "tied" if one.tied else "own",
        )
        for one in found.models
    ]
    return _table("Models", (*names, "tokenizer", "chat", "head"), rows)


def _tasks(found: Preflight) -> FittedTable:
    floors = any(one.floor for one in found.tasks)
    names = ("task", "metric", "weight", *["floor"] * floors, "asked as", "shots", "from")
    counts = ("questions", "documents", "search", "held out")
    rows = [
        (
            one.name,
            one.metric + ("" if one.higher_is_better else " (lower is better)"),
            f"{one.weight:g}",
            *[one.floor] * floors,
            one.facts.kind,
            f"{one.facts.shots} from {one.facts.examples}" if one.facts.shots else "0",
            f"{one.facts.dataset}:{one.facts.split}",
            f"{one.questions:,}",
            f"{one.documents:,}",
            f"{one.search:,}",
            f"{one.held_out:,}",
        )
        for one in found.tasks
    ]
    return _table("Tasks", (*names, *counts), rows, numeric=counts)


def _parents(affinity: ModelSimilarity) -> FittedTable:
    """Size of each delta: in all, by kind, and over depth."""
    what = "base" if affinity.based else "the models' mean"
    rows = [
        (
            name,
            percent(affinity.whole.size(at)),
            number(affinity.whole.likeness(at)),
            *(percent(affinity.of_kind(kind).size(at)) for kind in affinity.kinds),
            sparkline([sums.size(at) for sums in _layers(affinity)]),
        )
        for at, name in enumerate(affinity.parents)
    ]
    names = ("model", "size", "likeness", *affinity.kinds, "size over depth")
    return _table(f"Deltas, relative to {what}", names, rows)


def _pairs(affinity: ModelSimilarity) -> FittedTable:
    """Cosines and conflicts between deltas."""
    rows = []
    for one, other in affinity.pairs():
        kinds = [
            f"{kind} {number(sums.cosine(one, other))}, {percent(sums.conflict(one, other))}"
            for kind in affinity.kinds
            if not math.isnan((sums := affinity.of_kind(kind)).cosine(one, other))
        ]
        rows.append(
            (
                f"{affinity.parents[one]} · {affinity.parents[other]}",
                number(affinity.whole.cosine(one, other)),
                percent(affinity.whole.conflict(one, other)),
                "; ".join(kinds),
                sparkline([sums.conflict(one, other) for sums in _layers(affinity)]),
            )
        )
    names = ("models", "cosine", "conflict", "by kind (cosine, conflict)", "conflict over depth")
    return _table("Between deltas", names, rows)


def _losses(smoke: SmokeTest) -> FittedTable:
    tasks = list(dict.fromkeys(task for point in smoke.points for task in point.losses))
    title = f"Loss of the right answers, nats per token, {smoke.questions} questions a task"
    barriers = smoke.barriers()
    rows = []
    for point in smoke.points:
        height = barriers.get(point.ends)
        rows.append(
            (
                point.name,
                number(point.loss),
                "" if height is None else f"{height:+.2f}",
                *(number(point.losses.get(task, math.nan)) for task in tasks),
            )
        )
    return _table(title, ("model", "loss", "barrier", *tasks), rows, numeric=tasks)


def _layers(affinity: ModelSimilarity) -> list[DeltaSums]:
    inner = [depth for depth in affinity.depths if 0 <= depth < affinity.layers]
    return [affinity.at_depth(depth) for depth in inner]


def _table(
    title: str,
    names: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    numeric: Collection[str] = (),
) -> FittedTable:
    return FittedTable(
        title=title, headers=names, rows=rows, numeric=[name in numeric for name in names]
    )


def number(value: float) -> str:
    """Two digits after the point; empty for NaN."""
    return "" if math.isnan(value) else f"{value:.2f}"


def percent(value: float) -> str:
    """With one digit after the point; empty for NaN."""
    return "" if math.isnan(value) else f"{100 * value:.1f} %"
