"""When a batch of written answers is done: once no further token can change any of them.

lm-eval writes on until every answer of a batch has met the same stop sequence, or until the longest
answer allowed. Answers end differently (one with a stop sequence, one with the end of text), and
all that comes after is cut off again. Here the batch ends when every answer is settled. Nothing
else changes: rows are neither dropped nor masked, so every token is the one that lm-eval gets.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria

LOOKBACK = 2
"""Tokens looked at beyond as many as a stop sequence has, as in lm-eval."""


class GenerationStopping(StoppingCriteria):
    """Ends a batch when lm-eval would, or when every answer in it is settled before.

    Args:
        usual: lm-eval's criteria, one for each stop sequence; asked only where they could end a
            batch that is not settled (a stop sequence made of special tokens, which are no text).
        tokenizer: Of the model.
        stops: The stop sequences; answers are cut at them, one after the other.
        start: Tokens of the prompts; answers follow.
        ends: Tokens after which the model's own rule ends an answer.
    """

    def __init__(
        self,
        usual: Sequence[Any],
        *,
        tokenizer: Any,
        stops: Sequence[str],
        start: int,
        ends: Collection[int],
    ) -> None:
        self._usual = tuple(usual)
        self._tokenizer = tokenizer
        self._stops = tuple(stop for stop in stops if stop)
        self._start, self._ends = start, frozenset(ends)
        self._windows: dict[int, list[str]] = {}
        for stop in self._stops:
            tokens = tokenizer.encode(stop, add_special_tokens=False)
            self._windows.setdefault(len(tokens) + LOOKBACK, []).append(stop)
        self._open: list[int] | None = None
        self._odd = False
        self._told = 0

    def __call__(self, input_ids: Tensor, scores: Any, **options: Any) -> Tensor:
        """Whether the batch is done, ``(batch,)``, the same for all."""
        del options
        rows = input_ids[:, self._start :].tolist()
        open_rows = range(len(rows)) if self._open is None else self._open
        self._open = [at for at in open_rows if not self._is_settled(rows[at])]
        done = not self._open or (self._odd and self._usual_says(input_ids, scores))
        return torch.full((len(rows),), done, dtype=torch.bool, device=input_ids.device)

    def _is_settled(self, tokens: list[int]) -> bool:
        if not self._ends.isdisjoint(tokens):
            return True
        if not any(
            stop in ending
            for window, stops in self._windows.items()
            for ending in [self._tokenizer.decode(tokens[-window:])]
            for stop in stops
        ):
            return False
        if settled(self._tokenizer.decode(tokens, skip_special_tokens=True), self._stops):
            return True
        self._odd = True  # lm-eval takes it for stopped: from now on it may end the batch
        return False

    def _usual_says(self, input_ids: Tensor, scores: Any) -> bool:
        """What lm-eval's criteria say, once told of every token: they keep count."""
        says = [False]
        for count in range(self._told + 1, input_ids.shape[1] - self._start + 1):
            told = input_ids[:, : self._start + count]
            says = [bool(criterion(told, scores)) for criterion in self._usual]
        self._told = input_ids.shape[1] - self._start
        return any(says)


def settled(text: str, stops: Sequence[str]) -> bool:
    """Whether text that comes after cannot change what is left once it is cut at the stops.

    Args:
        text: An answer so far.
        stops: Stop sequences, none empty.
    """
    end, left = 0, text
    for stop in stops:
        at = left.find(stop)
        if at >= 0:
            end, left = max(end, at + len(stop)), left[:at]
    # Another stop sequence may have begun before the end of those that were cut at, and be
    # completed later: it would be cut at instead, or cut one of them in two.
    return end > 0 and not any(
        len(stop) > len(text) - at and stop.startswith(text[at:])
        for stop in stops
        for at in range(max(0, len(text) - len(stop) + 1), min(end, len(text)))
    )
