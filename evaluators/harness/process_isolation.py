"""Keeping what lm-eval does to the process away from the rest of it."""

from __future__ import annotations

import io
import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr

import numpy as np
import torch


@contextmanager
def seeded(device: torch.device, *, python: int, others: int) -> Iterator[None]:
    """Run with these seeds and put the global generators back afterwards.

    lm-eval seeds the generators of random, numpy and torch for the whole process, and tasks that
    sample their answers draw from them. Seeded alike for every candidate, such tasks give the same
    answers for the same weights, and nothing outside notices.

    Args:
        device: Where models live; its generator is kept too.
        python: Seed of ``random``.
        others: Seed of numpy and torch.
    """
    python_state = random.getstate()
    numpy_state = np.random.get_state()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            random.seed(python)
            np.random.seed(others)
            torch.manual_seed(others)
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


@contextmanager
def quiet(*loggers: str, bars: bool = True) -> Iterator[None]:
    """Hide what these loggers say below an error, and progress bars.

    Args:
        loggers: Names of the loggers.
        bars: Whether there are bars to hide; all of stderr goes with them, a live display of ours
            too, so only for the calls that cannot be asked to draw none.
    """
    named = [logging.getLogger(name) for name in loggers]
    levels = [logger.level for logger in named]
    for logger in named:
        logger.setLevel(logging.ERROR)
    try:
        with redirect_stderr(io.StringIO()) if bars else nullcontext():
            yield
    finally:
        for logger, level in zip(named, levels, strict=True):
            logger.setLevel(level)
