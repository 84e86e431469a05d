"""How each written answer ended: by itself, or cut off at the most tokens it may have."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Collection, Sequence
from typing import Any


class AnswerEndings:
    """Notes of every answer whether it was cut off, from lm-eval's batches to its requests.

    lm-eval tells of each answer it has finished (``add_partial``), in the order of its batches.
    """

    def __init__(self) -> None:
        self._batch: deque[bool] = deque()
        self._noted: dict[str, deque[bool]] = {}

    def note(
        self,
        tokenizer: Any,
        rows: Sequence[list[int]],
        *,
        stops: Sequence[str],
        ends: Collection[int],
    ) -> None:
        """Look at a batch of answers.

        Args:
            tokenizer: Of the model.
            rows: Tokens of each answer, and of what may come after its end.
            stops: Stop sequences.
            ends: Tokens that end a text.
        """
        for tokens in rows:
            ended = not set(ends).isdisjoint(tokens)
            if not ended:
                text = tokenizer.decode(tokens)
                ended = any(stop and stop in text for stop in stops)
            self._batch.append(not ended)

    def add_partial(self, kind: str, arguments: Any, answer: Any) -> None:
        """Told by lm-eval, as its hook for caches, of every answer."""
        del answer
        if kind == "generate_until":
            self._noted.setdefault(_key(arguments), deque()).append(self._batch.popleft())

    def take(self, arguments: Any) -> bool:
        """Whether the next answer to a request was cut off."""
        return self._noted[_key(arguments)].popleft()


def _key(arguments: Any) -> str:
    return json.dumps(arguments, sort_keys=True, default=str)
