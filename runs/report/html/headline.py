"""What the page says first: who won, by how much, and what it cost."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from runs.ranking.finalists import Against, Finalist, WinnerStanding
from runs.ranking.floor_verdict import Kept
from runs.ranking.verdict import Verdict, name_of
from runs.ranking.verdict_text import everyone, losses, p_text, several, signed, title
from runs.records.manifest import MODELS_CHANGED
from runs.records.record import Role, role_of
from runs.report.report_content import Report
from runs.report.report_tables import score_text
from runs.statistics.intervals import Interval


@dataclass(frozen=True, kw_only=True, slots=True)
class LeadBar:
    """The winner against the best of one group, placed on a scale around zero.

    Attributes:
        over: Whom, in words.
        numbers: Difference, interval and p-value as text.
        low: Left end of the interval, in per cent of the width.
        value: The difference, likewise.
        high: Right end, likewise.
        zero: Where no difference is, likewise.
        clear: Whether zero lies outside the interval.
    """

    over: str
    numbers: str
    low: float
    value: float
    high: float
    zero: float
    clear: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Headline:
    """The top of the page.

    Attributes:
        mark: A sign for the standing, readable without colour.
        text: The verdict in a few words.
        winner: What the winner is, in words; empty before there is one.
        leads: The winner against the best parent and the best default recipe.
        tiles: Name, value and remark of the numbers to see first.
    """

    mark: str
    text: str
    winner: str
    leads: tuple[LeadBar, ...]
    tiles: tuple[tuple[str, str, str], ...]


_MARKS = {
    WinnerStanding.BEATS: "✓",
    WinnerStanding.AHEAD: "≈",
    WinnerStanding.NOT_BETTER: "✗",
    WinnerStanding.BASELINE: "✗",
    WinnerStanding.UNKNOWN: "?",
}


_BROKEN = "✗"


def headline(report: Report) -> Headline:
    """The verdict in a few words, with the numbers behind it."""
    verdict = report.verdict
    first = report.frame[report.frame["rank"] == 1]
    row = None if first.empty else first.iloc[0]
    winner = (
        "" if row is None else f"candidate {row['candidate']} · {row['method']} · {row['origin']}"
    )
    if verdict is None:
        text = "No verdict yet: the held-out questions have not been asked"
        if MODELS_CHANGED in report.facts.get("run", {}):
            text = "No verdict: the models changed during the run; start a new one"
        if row is None:
            text = "No candidate has been scored yet"
        return Headline(
            mark="…", text=text, winner=winner, leads=(), tiles=tuple(_tiles(report, row))
        )
    best = verdict.finalists[0]
    return Headline(
        mark=_BROKEN if _lost(verdict) else _MARKS[verdict.standing],
        text=_text(verdict, _name(report, best)) + _lost(verdict),
        winner=winner,
        leads=tuple(_leads(best)),
        tiles=tuple(_tiles(report, row)),
    )


def _lost(verdict: Verdict) -> str:
    """Which floors the winner breaks; empty where it breaks none."""
    names = [repr(one.task) for one in verdict.floors if one.kept is Kept.BROKEN]
    return f", but loses {' and '.join(names)}, which it was to keep" if names else ""


def _name(report: Report, winner: Finalist) -> str:
    """The winner for people: what it is made of, where that is known."""
    if winner.role is not Role.SEARCHED:
        return title(winner.name)
    records = () if report.details is None else report.details.records
    found = (one.recipe.words for one in records if name_of(one) == winner.name)
    return next(found, winner.name.capitalize())


def _text(verdict: Verdict, name: str) -> str:
    winner, standing = verdict.finalists[0], verdict.standing
    if standing is WinnerStanding.BASELINE:
        if winner.role is Role.PARENT:
            return f"Nothing beats the best parent: {name} stays the best"
        return f"The search found nothing better than {name}"
    if standing is WinnerStanding.UNKNOWN:
        return f"{name} leads, but there is nothing to compare it with"
    beats, ahead, worse = map(
        _groups(verdict).get,
        (WinnerStanding.BEATS, WinnerStanding.AHEAD, WinnerStanding.NOT_BETTER),
    )
    lost = losses(verdict.on_tasks)
    if worse:
        lead = f"beats {beats}, but is not better than {worse}"
        lead = lead if beats else f"is not better than {worse}"
    elif ahead:
        lead = f"beats {beats}; it is ahead of {ahead} too" if beats else f"is ahead of {ahead}"
        lead = f"{lead}, but not beyond doubt"
    else:
        return f"{name} beats {beats}{lost and f', but {lost}'}"
    return f"{name} {lead}{lost and f'; it {lost}'}"


def _groups(verdict: Verdict) -> dict[WinnerStanding, str]:
    """Whom the winner beats, whom it is ahead of, and the best of those that it is not."""
    winner, missing = verdict.finalists[0], [role_of(name) for name in verdict.missing]
    found: dict[WinnerStanding, list[str]] = {}
    for group, parents in ((winner.parents, True), (winner.defaults, False)):
        if group is not None:
            standing = group.standing(verdict.confidence)
            words = everyone(group, parents=parents, missing=missing)
            words += " on average" if parents and several(group) else ""
            if standing is WinnerStanding.NOT_BETTER:
                words = title(group.best)
            found.setdefault(standing, []).append(words)
    return {standing: " and ".join(words) for standing, words in found.items()}


def _leads(winner: Finalist) -> Iterator[LeadBar]:
    groups = [g for g in (winner.parents, winner.defaults) if g is not None]
    ends = [0.0]
    for group in groups:
        found = group.difference
        ends += [x for x in (found.low, found.value, found.high) if math.isfinite(x)]
    low, high = min(ends), max(ends)
    room = 0.08 * (high - low) or 1.0

    def place(value: float) -> float:
        return round(100 * (value - low + room) / (high - low + 2 * room), 2)

    for group in groups:
        yield _lead(group, [place(x) for x in (*_ends(group.difference), 0.0)])


def _ends(found: Interval) -> tuple[float, float, float]:
    known = math.isfinite(found.low)
    return (found.low if known else found.value, found.value, found.high if known else found.value)


def _lead(group: Against, places: list[float]) -> LeadBar:
    low, value, high, zero = places
    found = group.difference
    text = signed(found.value)
    if math.isfinite(found.low):
        text += f" ({signed(found.low)} to {signed(found.high)}, p {_p(group.p_value)})"
    return LeadBar(
        over=title(group.best),
        numbers=text,
        low=low,
        value=value,
        high=high,
        zero=zero,
        clear=low > zero or high < zero,
    )


def _p(value: float) -> str:
    text = p_text(value)
    return text if text.startswith("<") else f"= {text}"


def _tiles(report: Report, row: pd.Series | None) -> Iterator[tuple[str, str, str]]:
    verdict, facts = report.verdict, report.facts.get("run", {})
    if verdict is not None and verdict.finalists[0].held_out.tasks:
        found = verdict.finalists[0].held_out.combined
        remark = f"95 % interval {score_text(found.low)} to {score_text(found.high)}"
        yield "held-out score", score_text(found.value), remark
    if row is not None:
        yield _score_tile(row)
    ranked = int(report.frame["rank"].notna().sum())
    failed = int((report.frame["state"] == "failed").sum())
    yield "recipes scored", f"{ranked:,}", f"{failed:,} failed"
    if facts.get("questions asked") is not None:
        saved = _number(facts.get("questions saved by racing"))
        yield "questions asked", _number(facts["questions asked"]), f"{saved} questions saved"
    if (hours := facts.get("hours")) is not None:
        gpus, unit = float(facts.get("GPU-hours") or 0), "GPU-hours"
        if gpus < 1:
            gpus, unit = 60 * gpus, "GPU-minutes"
        yield *_time(float(hours)), f"{_number(gpus)} {unit}"
    if facts.get("worker utilisation") is not None:
        yield (
            "workers busy",
            str(facts["worker utilisation"]),
            f"{facts.get('workers', '')} at once",
        )


def _score_tile(row: pd.Series) -> tuple[str, str, str]:
    """The score that ranks go by, and what was seen."""
    seen, error = (score_text(float(row[name])) for name in ("score", "stderr"))
    if pd.isna(row["expected"]):
        return "search score", seen, f"± {error}"
    known, doubt = (score_text(float(row[name])) for name in ("expected", "expected_stderr"))
    return "expected score", known, f"± {doubt}; search score {seen} ± {error}"


def _time(hours: float) -> tuple[str, str]:
    """The unit and the time in it: minutes and seconds below an hour."""
    if hours >= 1:
        return "hours", _number(hours)
    minutes, seconds = divmod(round(3600 * hours), 60)
    return "minutes", f"{minutes}:{seconds:02}"


def _number(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value or 0)
