"""How each written answer ended: by itself, in a loop, or cut off at the most tokens allowed."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

LOOP_REPEATS = 8
"""Times that a block of tokens stands in a row where an answer is called a loop, at least."""

LOOP_TOKENS = 128
"""Tokens that all these blocks have together, at least."""


class Ending(StrEnum):
    """What ended an answer."""

    STOP = "stop sequence"
    TEXT = "end of text"
    LOOP = "loop"
    CAP = "most tokens allowed"


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerEnd:
    """The end of one answer.

    Attributes:
        ending: What ended it.
        tokens: Tokens that were written up to there, thoughts included.
        thought: What was written before it, the mark that ends thoughts and blanks included.
    """

    ending: Ending
    tokens: int = 0
    thought: str = ""


class AnswerEndings:
    """Carries notes on answers from lm-eval's batches to its requests.

    lm-eval tells of each answer it has finished (``add_partial``), in the order of its batches.
    """

    def __init__(self) -> None:
        self._batch: deque[AnswerEnd] = deque()
        self._noted: dict[str, deque[AnswerEnd]] = {}

    def note(self, ends: Sequence[AnswerEnd]) -> None:
        """Take the ends of a batch of answers, in its order."""
        self._batch.extend(ends)

    def add_partial(self, kind: str, arguments: Any, answer: Any) -> None:
        """Told by lm-eval, as its hook for caches, of every answer."""
        del answer
        if kind == "generate_until":
            self._noted.setdefault(_key(arguments), deque()).append(self._batch.popleft())

    def take(self, arguments: Any) -> AnswerEnd:
        """How the next answer to a request ended."""
        return self._noted[_key(arguments)].popleft()


def ending_of(
    tokenizer: Any, tokens: Sequence[int], *, stops: Sequence[str], ends: Collection[int]
) -> Ending:
    """What ended an answer without thoughts.

    Args:
        tokenizer: Of the model.
        tokens: Of the answer, and of what may come after its end.
        stops: Stop sequences.
        ends: Tokens that end a text.
    """
    if not set(ends).isdisjoint(tokens):
        return Ending.TEXT
    text = tokenizer.decode(tokens)
    if any(stop and stop in text for stop in stops):
        return Ending.STOP
    return Ending.LOOP if loops(tokens) else Ending.CAP


def loops(tokens: Sequence[int], *, repeats: int = LOOP_REPEATS, most: int = LOOP_TOKENS) -> bool:
    """Whether the last tokens are one block again and again, without a single other token.

    Args:
        tokens: Of an answer so far.
        repeats: How often the block must stand there, at least twice.
        most: How many tokens that must be together, if it is more.
    """
    found = np.asarray(tokens, dtype=np.int64)[::-1]
    length = len(found)
    if length < max(most, repeats):
        return False
    same = np.flatnonzero(found[1 : length // repeats + 1] == found[0]) + 1
    for period in same.tolist():
        span = max(repeats * period, most)
        if span <= length and (found[period:span] == found[: span - period]).all():
            return True
    return False


def _key(arguments: Any) -> str:
    return json.dumps(arguments, sort_keys=True, default=str)
