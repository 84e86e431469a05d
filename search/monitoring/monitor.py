"""What a person sees while a run works: a live view, a line that changes, or log lines."""

from __future__ import annotations

import math
import time
from typing import Any, Protocol

from rich.console import Console, RenderableType
from rich.live import Live

from evaluators.protocol import Failure, Score
from evaluators.workers.pool import Result
from search.monitoring.console import in_notebook, say_line, shows_progress
from search.monitoring.live.live_view import Active, PhasePace, PhaseStanding, line, view

__all__ = ["Active", "LiveMonitor", "LogMonitor", "Monitor", "PhaseStanding", "monitor"]

LOG_SECONDS = 5.0
"""Shortest time between two log lines of plain progress; news is always logged."""

REFRESHES = 2
"""Times a second that the live view is drawn anew."""


class Monitor(Protocol):
    """Is told what happens; never decides anything."""

    def update(self, standing: PhaseStanding, result: Result | None = None) -> None:
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

    seconds = LOG_SECONDS

    def __init__(self, console: Console) -> None:
        self._console = console
        self._pace = PhasePace()
        self._last = -math.inf
        self._told: tuple[int | None, str] = (None, "")
        self._done = 0

    def update(self, standing: PhaseStanding, result: Result | None = None) -> None:
        self._pace.see(standing)
        if result is None and (not standing.words or standing.done == self._done):
            return
        now = time.monotonic()
        failed = result is not None and isinstance(result.scored, Failure)
        tell = (standing.lead.candidate, standing.words)
        finished = standing.done == standing.total
        if not failed and tell == self._told and not finished and now - self._last < self.seconds:
            return
        self._last, self._told, self._done = now, tell, standing.done
        last = "" if result is None else describe(result)
        self.progress(line(standing, self._pace, last=last))

    def progress(self, text: str) -> None:
        """How far the run is."""
        self.note(text)

    def note(self, text: str) -> None:
        stamp = time.strftime("%H:%M:%S")
        say_line(self._console, f"{stamp}  {text}")

    def close(self) -> None:
        pass


class NotebookMonitor(LogMonitor):
    """One line of progress that changes in place; notes stay, in the order they came."""

    seconds = 0.5

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._line: Any = None

    def progress(self, text: str) -> None:
        from IPython.display import display

        shown = {"text/plain": text}
        if self._line is None:
            self._line = display(shown, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._line.update(shown, raw=True)

    def close(self) -> None:
        self._line = None


class NotesMonitor(LogMonitor):
    """Notes without progress."""

    def progress(self, text: str) -> None:
        pass


class LiveMonitor:
    """A view that is redrawn in place, with notes scrolling above it."""

    def __init__(self, console: Console) -> None:
        self._pace = PhasePace()
        self._standing: PhaseStanding | None = None
        self._live = Live(console=console, get_renderable=self._view, refresh_per_second=REFRESHES)

    def _view(self) -> RenderableType:
        return "" if self._standing is None else view(self._standing, self._pace)

    def update(self, standing: PhaseStanding, result: Result | None = None) -> None:
        self._pace.see(standing)
        first, self._standing = self._standing is None, standing
        if first:
            self._live.start()
        if result is not None and isinstance(result.scored, Failure):
            self.note(f"candidate {result.candidate.id}: {describe(result)}")

    def note(self, text: str) -> None:
        self._live.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        if self._standing is not None:
            self._live.refresh()
        self._live.stop()


def monitor(console: Console) -> Monitor:
    """A live view on a terminal, one live line in a notebook, log lines elsewhere."""
    if not shows_progress():
        return NotesMonitor(console)
    if in_notebook():
        return NotebookMonitor(console)
    return LiveMonitor(console) if console.is_terminal else LogMonitor(console)


def describe(result: Result) -> str:
    """What came back, in a few words."""
    outcome = result.scored
    if isinstance(outcome, Score):
        seconds = outcome.build_seconds + outcome.score_seconds
        return f"{outcome.value:.4f} ± {outcome.stderr:.4f} in {seconds:.1f} s on {result.worker}"
    return f"failed ({outcome.kind}): {outcome.message}"
