"""The time of day of this process: it goes on evenly, also where the machine's clock is set."""

from __future__ import annotations

import time
from functools import partial

# Counts while the machine sleeps, too, where there is such a clock: on Linux.
_counted = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    if hasattr(time, "CLOCK_BOOTTIME")
    else time.monotonic
)
_START = time.time() - _counted()


def now() -> float:
    """Seconds since 1970 by the clock as it was when this process started.

    Two times of one process are as far apart as they were in truth, and never in the wrong order.
    """
    return _START + _counted()
