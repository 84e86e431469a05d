"""What the command line puts in place of a config's values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

BUDGET = {
    "search.trials": "trials",
    "search.questions": "questions",
    "search.tokens": "tokens",
    "search.hours": "hours",
    "search.gpu_hours": "gpu_hours",
}
"""What replaces each limit of a config, by dotted key."""

ON_RESUME = BUDGET | {"workers.count": "workers", "workers.ray_address": "ray_address"}
"""What replaces the values of a config that a study may go on without."""

_KEYS = ON_RESUME | {"search.allow_test_sets": "allow_test_sets"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Overrides:
    """What the command line puts in place of the config's values; ``None`` leaves them.

    Attributes:
        moves: What lies elsewhere than the config says; see ``search.inputs.moved_locations``.
    """

    trials: int | None = None
    questions: int | None = None
    tokens: int | None = None
    hours: float | None = None
    gpu_hours: float | None = None
    workers: int | None = None
    ray_address: str | None = None
    allow_test_sets: bool | None = None
    moves: tuple[tuple[str, str], ...] = ()

    def values(self) -> dict[str, Any]:
        """Config values by dotted key."""
        given = {key: getattr(self, name) for key, name in _KEYS.items()}
        return {key: value for key, value in given.items() if value is not None}
