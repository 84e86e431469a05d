"""Monitors of runs in tests."""

from evaluators.workers.pool import Result
from search.monitoring.monitor import PhaseStanding


class NotingMonitor:
    """Shows nothing; remembers what it was told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.standings: list[PhaseStanding] = []

    def update(self, standing: PhaseStanding, result: Result | None = None) -> None:
        self.standings.append(standing)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def close(self) -> None:
        """Nothing is open."""
