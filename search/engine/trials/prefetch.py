"""How many proposals are kept ready, so that no worker waits for the sampler."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

IDLE = 0.01
"""Share of a worker's time that may be lost while its next recipe is thought out."""

READY = 0.25
"""Recipes kept ready, as a share of the workers, where more would be lost."""

RECENT = 50
"""Number of recent times that say how long things take."""


class Prefetch:
    """Weighs the time to think of a recipe against the time that workers take for one.

    A recipe that was thought out ahead does not know the results that came since. So none is kept
    ready where candidates take long, and never for a single worker, whose search is then the same
    whether it was interrupted or not.
    """

    def __init__(self) -> None:
        self._thinking: deque[float] = deque(maxlen=RECENT)
        self._working: deque[float] = deque(maxlen=RECENT)

    @contextmanager
    def thinking(self) -> Iterator[None]:
        """Takes the time of what the driver does for a candidate."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._thinking.append(time.perf_counter() - started)

    def note(self, seconds: float) -> None:
        """Take note of how long a worker took for a candidate; NaN counts for nothing."""
        if not math.isnan(seconds):
            self._working.append(seconds)

    def wanted(self, workers: int) -> int:
        """How many recipes to keep ready for so many workers."""
        if workers < 2 or not self._thinking or not self._working:
            return 0
        if median(self._thinking) <= IDLE * median(self._working):
            return 0
        return math.ceil(READY * workers)
