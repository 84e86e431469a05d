"""What runs tokens through the resident model in lm-eval's place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class Continuation:
    """Tokens whose likelihood is asked for.

    Attributes:
        before: What the model reads first, at least one token.
        tokens: What may follow, at least one.
    """

    before: Sequence[int]
    tokens: Sequence[int]


class InferenceEngine(Protocol):
    """Runs tokens through a model; lm-eval makes them and marks what comes back.

    The model's weights may be others at every call: nothing that was computed before may be used.
    """

    def likelihoods(
        self, model: Any, asked: Sequence[Continuation], *, most: int, room: int
    ) -> list[tuple[float, bool]]:
        """How likely a model finds continuations.

        Args:
            model: A causal language model of transformers, in eval mode.
            asked: What is asked for.
            most: Most tokens that the model takes; of longer texts the beginning is cut off.
            room: Tokens of a pass, at least 1.

        Returns:
            For each the log-likelihood in nats, NaN where the model overflows, and whether every
            token is the likeliest at its place.

        Raises:
            ValueError: If there is nothing to rate, or nothing before it.
        """
        ...
