"""Where a run stands, as a panel for a terminal and as a line for a log."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from runs.ranking.lead import Lead

PACE_SECONDS = 300.0
"""The pace is that of the last so many seconds."""

MOST_ACTIVE = 8
"""Candidates under way that are listed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Active:
    """A candidate under way.

    Attributes:
        candidate: Its id.
        what: How it is made, in a word or two.
        questions: Number of questions it is asked.
        since: When it was handed out, on the clock of ``time.time``.
    """

    candidate: int
    what: str
    questions: int
    since: float


@dataclass(kw_only=True, slots=True)
class PhaseStanding:
    """Where a phase of a run stands.

    Attributes:
        phase: Its name, such as ``search`` or ``held-out``.
        total: Number of candidates it will take; ``None`` where something else limits it.
        title: Name of the run.
        share: How much of the budget is spent, in [0, 1]; NaN where only ``total`` limits it.
        budget: The same in words, in the units of the budget.
        done: Number finished, failures included.
        failures: Number that failed.
        kinds: The same by kind, as far as they were seen.
        lead: Who ranks first.
        seconds: Time that drivers were at work on the run, all sessions together.
        running: Number under way.
        workers: Number of workers.
        questions: Number of questions answered.
        active: What is under way.
        notice: What else the user should know; may be empty.
        words: What there is to say of a phase without scores, in place of the best one.
    """

    phase: str
    total: int | None
    title: str = ""
    share: float = math.nan
    budget: str = ""
    done: int = 0
    failures: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    lead: Lead = field(default_factory=Lead)
    seconds: float = 0.0
    running: int = 0
    workers: int = 1
    questions: int = 0
    active: Mapping[int, Active] = field(default_factory=dict)
    notice: str = ""
    words: str = ""

    @property
    def progress(self) -> float:
        """How far the phase is, in [0, 1]; NaN where nothing tells."""
        done = self.done / self.total if self.total else math.nan
        known = [value for value in (done, self.share) if not math.isnan(value)]
        return min(1.0, max(known, default=math.nan))

    def best_text(self) -> str:
        """Who is ahead, in words, or what takes its place."""
        return self.words or str(self.lead)

    def amount(self) -> str:
        """How far the phase is, in its units."""
        if self.budget:
            return self.budget
        return str(self.done) if self.total is None else f"{self.done} of {self.total}"

    def failed_text(self) -> str:
        """How many failed, and of which kinds."""
        kinds = sorted(self.kinds.items(), key=lambda item: -item[1])
        listed = ", ".join(f"{count} {kind}" for kind, count in kinds)
        return f"{self.failures} failed" + (f": {listed}" if listed else "")

    def fail(self, kind: str) -> None:
        """Count a failure."""
        self.failures += 1
        self.kinds[kind] = self.kinds.get(kind, 0) + 1


class PhasePace:
    """Time to go and questions a second, from the last minutes of the phase.

    Args:
        clock: Seconds of the run; those of this process by default.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._phase = ""
        self._seen: deque[tuple[float, float, int]] = deque()

    def since(self, standing: PhaseStanding, seconds: float) -> None:
        """Count a phase from its beginning so many seconds ago, with nothing done by then."""
        self._phase = standing.phase
        self._seen.clear()
        self._seen.append((self._clock() - seconds, 0.0, 0))

    def see(self, standing: PhaseStanding, now: float | None = None) -> None:
        """Take note of how far the phase is; a new phase has a pace of its own."""
        now = self._clock() if now is None else now
        if standing.phase != self._phase:
            self._phase = standing.phase
            self._seen.clear()
        far = 0.0 if math.isnan(standing.progress) else standing.progress
        if not self._seen or self._seen[-1][1:] != (far, standing.questions):
            self._seen.append((now, far, standing.questions))
        while len(self._seen) > 2 and now - self._seen[1][0] > PACE_SECONDS:
            self._seen.popleft()

    def left(self, standing: PhaseStanding) -> float:
        """Seconds to go at the present pace; NaN where nothing tells."""
        if not self._seen or math.isnan(standing.progress):
            return math.nan
        first, far, _ = self._seen[0]
        last, now, _ = self._seen[-1]
        pace = (now - far) / (last - first) if last > first else 0.0
        return (1.0 - standing.progress) / pace if pace > 0 else math.nan

    def questions_per_second(self) -> float:
        """NaN before any was answered."""
        if len(self._seen) < 2:
            return math.nan
        (first, _, before), (last, _, after) = self._seen[0], self._seen[-1]
        return (after - before) / (last - first) if last > first and after > before else math.nan

    def text(self, standing: PhaseStanding) -> str:
        """Time used by the run, and the estimate of what is left where there is one."""
        text, left = span(standing.seconds), self.left(standing)
        return text if math.isnan(left) else f"{text}, about {span(left)} to go"

    def rate_text(self) -> str:
        """Questions a second; empty before any."""
        rate = self.questions_per_second()
        return "" if math.isnan(rate) else f"{rate:,.{0 if rate >= 100 else 1}f} questions/s"


def line(standing: PhaseStanding, pace: PhasePace, *, last: str = "") -> str:
    """The standing as one line."""
    total = "" if standing.total is None else f"/{standing.total}"
    spent = f" ({standing.budget})" if standing.budget else ""
    parts = [
        f"{standing.phase} {standing.done}{total}{spent}",
        standing.best_text(),
        f"last {last}" if last else "",
        f"failed {standing.failures}",
        f"busy {standing.running}/{standing.workers}",
        pace.rate_text(),
        pace.text(standing),
        standing.notice,
    ]
    return "  ".join(part for part in parts if part)


def view(standing: PhaseStanding, pace: PhasePace) -> RenderableType:
    """The standing as a panel that fits a terminal of 80 columns."""
    far = 0.0 if math.isnan(standing.progress) else standing.progress
    bar = Table.grid(expand=True, padding=(0, 1))
    bar.add_column(ratio=1)
    bar.add_column(justify="right", no_wrap=True)
    bar.add_row(ProgressBar(total=1.0, completed=far), f"{100 * far:.0f} %")
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, text in _facts(standing, pace):
        facts.add_row(name, text)
    parts: list[RenderableType] = [bar, facts]
    if standing.active:
        parts.append(_active(standing))
    title = " · ".join(filter(None, dict.fromkeys((standing.title, standing.phase))))
    return Panel(Group(*parts), title=Text(title), title_align="left", padding=(0, 1))


def _facts(standing: PhaseStanding, pace: PhasePace) -> Iterator[tuple[str, Text]]:
    yield "done", Text(standing.amount())
    yield "time", Text(pace.text(standing))
    margin = standing.lead.margin
    colour = "" if math.isnan(margin) else "green" if margin > 0 else "yellow"
    name = "learned" if standing.words else "best"
    yield name, Text(standing.best_text().removeprefix("best "), style=f"bold {colour}".strip())
    busy = f"{standing.running} of {standing.workers} busy"
    yield "workers", Text(" · ".join(part for part in (busy, pace.rate_text()) if part))
    if standing.failures:
        yield "failures", Text(standing.failed_text(), style="red")
    if standing.notice:
        yield "notice", Text(standing.notice, style="yellow")


def _active(standing: PhaseStanding) -> Table:
    table = Table(box=None, padding=(0, 2), pad_edge=False, header_style="dim")
    table.add_column("under way", no_wrap=True, min_width=16)
    table.add_column("recipe", no_wrap=True, overflow="ellipsis")
    table.add_column("questions", justify="right")
    table.add_column("for", justify="right")
    # The loop may change it meanwhile: it is copied at once.
    under_way = sorted(dict(standing.active).values(), key=lambda one: one.since)
    now = time.time()
    for one in under_way[:MOST_ACTIVE]:
        ago = span(max(0.0, now - one.since))
        table.add_row(f"candidate {one.candidate}", Text(one.what), f"{one.questions:,}", ago)
    if len(under_way) > MOST_ACTIVE:
        table.add_row(f"and {len(under_way) - MOST_ACTIVE} more", "", "", "")
    return table


def span(seconds: float) -> str:
    """A time: ``0:41``, ``1:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
