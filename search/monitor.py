"""What a person sees while a run works: a live bar on a terminal, log lines elsewhere."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from evaluators.base import Failure, Score
from evaluators.pool import Result

LOG_SECONDS = 5.0
"""Shortest time between two log lines of plain progress; news is always logged."""


@dataclass(kw_only=True, slots=True)
class Standing:
    """Where a phase of a run stands.

    Attributes:
        phase: Its name, such as ``search`` or ``held-out``.
        total: Number of candidates it will take; ``None`` where something else limits it.
        share: How much of the budget is spent, in [0, 1]; NaN where only ``total`` limits it.
        budget: The same in words, in the units of the budget.
        done: Number finished, failures included.
        failures: Number that failed.
        best: Best score of the search so far; NaN before the first.
        best_what: How that recipe is made, in a word or two.
        best_parent: Best score of a parent alone; NaN before the first.
        running: Number under way.
        workers: Number of workers.
    """

    phase: str
    total: int | None
    share: float = math.nan
    budget: str = ""
    done: int = 0
    failures: int = 0
    best: float = math.nan
    best_what: str = ""
    best_parent: float = math.nan
    running: int = 0
    workers: int = 1

    @property
    def progress(self) -> float:
        """How far the phase is, in [0, 1]; NaN where nothing tells."""
        done = self.done / self.total if self.total else math.nan
        known = [value for value in (done, self.share) if not math.isnan(value)]
        return min(1.0, max(known, default=math.nan))

    def best_text(self) -> str:
        """The best so far and its lead over the best parent, in words."""
        if math.isnan(self.best):
            return "no score yet"
        text = f"best {self.best:.4f} ({self.best_what})"
        if not math.isnan(self.best_parent):
            text += f", {self.best - self.best_parent:+.4f} over the best parent"
        return text


class Monitor(Protocol):
    """Is told what happens; never decides anything."""

    def update(self, standing: Standing, result: Result | None = None) -> None:
        """Something changed; ``result`` is what just came back, if that was it."""
        ...

    def note(self, text: str) -> None:
        """A sentence for the user."""
        ...

    def close(self) -> None:
        """The phase is over."""
        ...


class LogMonitor:
    """One line now and then: for files, pipes and schedulers."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._clock = Clock()
        self._last = -math.inf
        self._best = ""

    def update(self, standing: Standing, result: Result | None = None) -> None:
        self._clock.see(standing)
        if result is None:
            return
        now = time.monotonic()
        news = isinstance(result.outcome, Failure) or standing.best_text() != self._best
        finished = standing.done == standing.total
        if not news and not finished and now - self._last < LOG_SECONDS:
            return
        self._last, self._best = now, standing.best_text()
        total = "" if standing.total is None else f"/{standing.total}"
        spent = f" ({standing.budget})" if standing.budget else ""
        self.note(
            f"{standing.phase} {standing.done}{total}{spent}  {standing.best_text()}  "
            f"last {_describe(result)}  failed {standing.failures}  {self._clock.text(standing)}"
        )

    def note(self, text: str) -> None:
        stamp = time.strftime("%H:%M:%S")
        self._console.print(f"{stamp}  {text}", markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        pass


class LiveMonitor:
    """A bar that is redrawn in place, with notes scrolling above it."""

    def __init__(self, console: Console) -> None:
        self._clock = Clock()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[amount]}", markup=False),
            TextColumn("{task.fields[status]}", markup=False),
            console=console,
            transient=False,
        )
        self._task: TaskID | None = None
        self._phase = ""

    def update(self, standing: Standing, result: Result | None = None) -> None:
        self._clock.see(standing)
        if self._task is None or standing.phase != self._phase:
            self._progress.start()
            self._phase = standing.phase
            self._task = self._progress.add_task(standing.phase, total=1.0, status="", amount="")
        status = (
            f"{standing.best_text()} · {standing.running}/{standing.workers} workers busy · "
            f"{standing.failures} failed · {self._clock.text(standing)}"
        )
        far = standing.progress
        self._progress.update(
            self._task,
            completed=0.0 if math.isnan(far) else far,
            status=status,
            amount=standing.budget or _amount(standing),
        )
        if result is not None and isinstance(result.outcome, Failure):
            self.note(f"candidate {result.candidate.id}: {_describe(result)}")

    def note(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        self._progress.stop()


class Clock:
    """Time used and time to go, from the pace of the phase since this driver started."""

    def __init__(self) -> None:
        self._phase = ""
        self._start = time.monotonic()
        self._before = 0.0

    def see(self, standing: Standing) -> None:
        """Notice a new phase: its pace is counted from here."""
        if standing.phase != self._phase:
            self._phase = standing.phase
            self._start, self._before = time.monotonic(), standing.progress

    def text(self, standing: Standing) -> str:
        """Time used, and the estimate of what is left where a total is known."""
        used = time.monotonic() - self._start
        finished = standing.progress - (0.0 if math.isnan(self._before) else self._before)
        text = _span(used)
        if finished > 0:
            text += f", about {_span(used / finished * (1.0 - standing.progress))} to go"
        return text


def monitor(console: Console) -> Monitor:
    """A live view on a terminal, log lines elsewhere."""
    return LiveMonitor(console) if console.is_terminal else LogMonitor(console)


def _describe(result: Result) -> str:
    outcome = result.outcome
    if isinstance(outcome, Score):
        seconds = outcome.build_seconds + outcome.score_seconds
        return f"{outcome.value:.4f} ± {outcome.stderr:.4f} in {seconds:.1f} s on {result.worker}"
    return f"failed ({outcome.kind}): {outcome.message}"


def _amount(standing: Standing) -> str:
    return str(standing.done) if standing.total is None else f"{standing.done}/{standing.total}"


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
