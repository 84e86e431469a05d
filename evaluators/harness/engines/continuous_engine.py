"""The engine that computes nothing twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evaluators.harness.engines.inference_engine import Continuation, Prompt
from evaluators.harness.engines.shared_prefixes import likelihoods
from evaluators.harness.engines.written_answers import answers


class ContinuousEngine:
    """Reads what sequences begin with alike once; keeps nothing between calls."""

    def start(self, model: Any, *, longest: int, rows: int) -> None:
        """Nothing to start."""

    def refill(self) -> None:
        """Nothing is kept of the weights."""

    def close(self) -> None:
        """Nothing is held."""

    def likelihoods(
        self, model: Any, asked: Sequence[Continuation], *, most: int, room: int
    ) -> list[tuple[float, bool]]:
        return likelihoods(model, asked, most=most, room=room)

    def answers(
        self, model: Any, asked: Sequence[Prompt], *, most: int, rows: int, penalty: float
    ) -> list[list[int]]:
        return answers(model, asked, most=most, rows=rows, penalty=penalty)
