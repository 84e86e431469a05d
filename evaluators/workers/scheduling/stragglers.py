"""How long candidates usually take, and when one takes too long to be waited for."""

from __future__ import annotations

from collections import deque
from statistics import median

TIMES = 3.0
"""A straggler takes longer than so many times what is usual."""

RECENT = 50
"""Number of results that say what is usual."""


class RecentTimes:
    """The times of recent candidates.

    Args:
        least: Seconds that every candidate is given.
    """

    def __init__(self, *, least: float) -> None:
        self._least = least
        self._recent: deque[tuple[float, int]] = deque(maxlen=RECENT)

    def note(self, seconds: float, *, questions: int) -> None:
        """Take note of a candidate that was scored."""
        self._recent.append((seconds, max(1, questions)))

    @property
    def usual(self) -> float:
        """Median of the seconds that candidates took; 0 before the first."""
        return median(seconds for seconds, _ in self._recent) if self._recent else 0.0

    def limit(self, *, questions: int) -> float:
        """Seconds after which a candidate with so many questions is a straggler.

        Three times the median, in all or by the number of questions, whichever is longer.
        """
        each = median(seconds / asked for seconds, asked in self._recent) if self._recent else 0.0
        return max(self._least, TIMES * self.usual, TIMES * each * questions)
