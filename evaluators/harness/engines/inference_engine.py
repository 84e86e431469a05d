"""What runs tokens through the resident model in lm-eval's place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

ROW_TOKENS = 32
"""Tokens that an engine takes in a pass in place of a sequence: far fewer than sequences have."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Continuation:
    """Tokens whose likelihood is asked for.

    Attributes:
        before: What the model reads first, at least one token.
        tokens: What may follow, at least one.
    """

    before: Sequence[int]
    tokens: Sequence[int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """What an answer is asked for to, the likeliest token each.

    Attributes:
        tokens: At least one.
        over: Whether an answer of these tokens has ended; told once for each token more.
        due: The token that has to follow these, whatever the model finds; ``None`` for any. Asked
            before every token.
    """

    tokens: Sequence[int]
    over: Callable[[list[int]], bool]
    due: Callable[[list[int]], int | None] = lambda _: None


class InferenceEngine(Protocol):
    """Runs tokens through a model; lm-eval makes them and marks what comes back.

    The model's weights may be others at every call: nothing that was computed before may be used.
    An engine with weights of its own is told.
    """

    def start(self, model: Any, *, longest: int, rows: int) -> None:
        """Get ready, before the first recipe; an engine may overwrite the model's weights.

        Args:
            model: An empty model of the first kind that will be asked.
            longest: Tokens of the longest prompt with its answer.
            rows: Most answers under way at a time.

        Raises:
            EvaluatorError: If the engine does not work here.
        """
        ...

    def refill(self) -> None:
        """The model's weights are others from now on."""
        ...

    def close(self) -> None:
        """Give back all memory; calling it twice is fine."""
        ...

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

    def answers(
        self, model: Any, asked: Sequence[Prompt], *, most: int, rows: int, penalty: float
    ) -> list[list[int]]:
        """What a model writes.

        Args:
            model: As for likelihoods; it takes every prompt with the longest answer.
            asked: Prompts.
            most: Tokens of the longest answer, at least 1.
            rows: Most answers under way at a time, at least 1.
            penalty: What logits of tokens in the prompt or answer are divided by where they are
                positive, and multiplied by where not; 1 for none.

        Returns:
            For each the tokens of its answer, with that at which it ended.
        """
        ...
