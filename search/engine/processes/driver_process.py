"""The process of a driver, set up to serve many workers while a run lasts."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits

SWITCH_SECONDS = 0.001
"""Longest turn of a thread of the driver while others wait; Python's own is five times as long."""


@contextmanager
def settled() -> Iterator[None]:
    """Have interpreter and libraries serve a driver with many workers; put back afterwards.

    - The garbage collector leaves alone what is there now: libraries make half a million objects,
      and to look through all of them every hundred recipes takes a quarter of a second each time,
      in which nobody gets a recipe.
    - Threads take turns more often: the one that hands recipes out needs several turns for each,
      and waits for every one of them while the driver thinks.
    - NumPy and SciPy compute on one thread. The sampler's matrices are small: more threads gain
      nothing, wait for each other without pause, and take the processor from Ray and from workers
      on the same machine. Proposals then are the same whatever the number of processors, too.
      torch, which evaluates models where they are built in this process, is left alone.
    """
    usual = sys.getswitchinterval()
    gc.freeze()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        with threadpool_limits(limits=1, user_api="blas"):
            yield
    finally:
        sys.setswitchinterval(usual)
        gc.unfreeze()
