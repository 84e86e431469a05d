"""What the command line puts in place of a config's values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Overrides:
    """What the command line puts in place of the config's values; ``None`` leaves them.

    Attributes:
        moves: What lies elsewhere than the config says; see ``search.inputs.moved_locations``.
    """

    trials: int | None = None
    questions: int | None = None
    hours: float | None = None
    gpu_hours: float | None = None
    workers: int | None = None
    ray_address: str | None = None
    allow_test_sets: bool | None = None
    moves: tuple[tuple[str, str], ...] = ()

    def values(self) -> dict[str, Any]:
        """Config values by dotted key."""
        given = {
            "search.trials": self.trials,
            "search.questions": self.questions,
            "search.hours": self.hours,
            "search.gpu_hours": self.gpu_hours,
            "workers.count": self.workers,
            "workers.ray_address": self.ray_address,
            "search.allow_test_sets": self.allow_test_sets,
        }
        return {key: value for key, value in given.items() if value is not None}
