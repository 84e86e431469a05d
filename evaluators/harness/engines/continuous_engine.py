"""The engine that computes nothing twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evaluators.harness.engines.inference_engine import Continuation
from evaluators.harness.engines.shared_prefixes import likelihoods


class ContinuousEngine:
    """Reads what sequences begin with alike once; keeps nothing between calls."""

    def likelihoods(
        self, model: Any, asked: Sequence[Continuation], *, most: int, room: int
    ) -> list[tuple[float, bool]]:
        return likelihoods(model, asked, most=most, room=room)
