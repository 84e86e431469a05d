"""How deep a pre-flight looks, and who is told how far it has come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much it is in all (0: unknown)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PreflightDepth:
    """How deep to look.

    Attributes:
        weights: Whether to sample the models' weights.
        smoke: Whether to try a candidate.
        questions: Of each task for the losses; 0 for none.
        seconds: Longest time for the sampling of weights, and about that for the timing.
        gpu_memory: GB of each GPU of a worker, where the GPUs are elsewhere; ``None``: those here.
    """

    weights: bool = True
    smoke: bool = True
    questions: int = 12
    seconds: float = 60.0
    gpu_memory: float | None = None
