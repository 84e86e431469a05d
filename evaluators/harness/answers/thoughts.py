"""Thoughts that a model writes before its answer: what ends them, and how they are cut short."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import LogitsProcessor

from evaluators.harness_spec import HarnessSpec

_LOOKBACK = 2
"""Tokens looked at beyond as many as the mark has: it may be written with others."""


class MarkError(ValueError):
    """A mark that a tokenizer lacks, or one without room before it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ThoughtMark:
    """What ends the thoughts of a model, in the words of its tokenizer.

    Attributes:
        tokenizer: The tokenizer.
        given: As lm-eval takes it: a text, or a token where texts would not show it.
        tokens: The mark as the model would write it.
        most: Most tokens of thoughts, the mark among them; ``None`` without a cap of their own.
    """

    tokenizer: Any
    given: str | int
    tokens: tuple[int, ...]
    most: int | None = None

    @classmethod
    def of(cls, tokenizer: Any, spec: HarnessSpec) -> ThoughtMark | None:
        """The mark that is asked for, if one is.

        Raises:
            MarkError: If the tokenizer cannot write it, or thoughts have no room beside it.
        """
        asked = spec.think_end_token
        if asked is None:
            return None
        given, tokens = _written(tokenizer, asked)
        if spec.max_think_toks is not None and spec.max_think_toks <= len(tokens):
            raise MarkError(
                f"harness.max_think_toks: expected more than the {len(tokens)} tokens of "
                f"harness.think_end_token, got {spec.max_think_toks}"
            )
        return cls(tokenizer=tokenizer, given=given, tokens=tokens, most=spec.max_think_toks)

    def last_in(self, tokens: Sequence[int]) -> int:
        """How many tokens there are up to the end of the last mark; 0 without any."""
        if isinstance(self.given, int):
            last = (at for at in range(len(tokens), 0, -1) if tokens[at - 1] == self.given)
            return next(last, 0)
        text = self.tokenizer.decode(tokens)
        end = text.rfind(self.given) + len(self.given)
        if self.given not in text:
            return 0
        counts = range(len(tokens) + 1)
        return bisect_left(counts, end, key=lambda at: len(self.tokenizer.decode(tokens[:at])))

    def ends_in(self, tokens: Sequence[int]) -> bool:
        """Whether the mark is among the last few tokens."""
        if isinstance(self.given, int):
            return self.given in tokens[-1:]
        return self.given in self.tokenizer.decode(tokens[-len(self.tokens) - _LOOKBACK :])


def _written(tokenizer: Any, asked: str | int) -> tuple[str | int, tuple[int, ...]]:
    """A mark as lm-eval takes it, and as tokens.

    lm-eval leaves special tokens out of texts: it would not find a mark that is one.
    """
    if isinstance(asked, int) or asked.isdigit():  # as lm-eval reads it
        token = int(asked)
        if token >= len(tokenizer):
            raise MarkError(
                f"harness.think_end_token: expected a token below {len(tokenizer)}, got {token}"
            )
        return token, (token,)
    tokens = tuple(tokenizer.encode(asked, add_special_tokens=False))
    if tokens and tokenizer.decode(tokens, skip_special_tokens=True).strip() == asked.strip():
        return asked, tokens
    if len(tokens) == 1 and tokenizer.decode(tokens).strip() == asked.strip():
        return tokens[0], tokens
    raise MarkError(
        "harness.think_end_token: expected a text that the tokenizer can write, or one of its "
        f"tokens, got {asked!r}"
    )


class AnswerStarts:
    """Where the answers of a batch begin, as far as they have.

    Args:
        mark: What ends thoughts; ``None`` without any: answers begin at once.
    """

    def __init__(self, mark: ThoughtMark | None) -> None:
        self._mark = mark
        self._known: dict[int, int] = {}

    def of(self, row: int, tokens: Sequence[int]) -> int | None:
        """The place of an answer's first token; ``None`` while there are thoughts only.

        Args:
            row: Of the batch.
            tokens: What was written there so far; to be shown after every token.
        """
        if self._mark is None:
            return 0
        if row not in self._known and self._mark.ends_in(tokens):
            self._known[row] = len(tokens)
        return self._known.get(row)


class ThoughtCap(LogitsProcessor):
    """Makes a model end its thoughts in time: whoever has not by then writes the mark next.

    Args:
        mark: What ends thoughts.
        most: Most tokens of thoughts, the mark among them.
        starts: Where answers begin, known for every row by now.
        start: Tokens of the prompts.
    """

    def __init__(self, mark: ThoughtMark, most: int, starts: AnswerStarts, *, start: int) -> None:
        self._mark, self._starts, self._start = mark, starts, start
        self._marked = range(most - len(mark.tokens), most)

    def due(self, row: int, tokens: Sequence[int]) -> int | None:
        """The token of the mark that has to come next; ``None`` where the model chooses.

        Args:
            row: Of the batch.
            tokens: What was written there so far.
        """
        if len(tokens) not in self._marked:
            return None
        begun = self._starts.of(row, tokens)
        if begun is not None and begun <= self._marked.start:
            return None
        return self._mark.tokens[self._marked.index(len(tokens))]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """``(batch, vocabulary)`` logits of the next tokens."""
        if input_ids.shape[1] - self._start not in self._marked:
            return scores
        for row, tokens in enumerate(input_ids[:, self._start :].tolist()):
            if (token := self.due(row, tokens)) is not None:
                scores[row] = -math.inf
                scores[row, token] = 0.0
        return scores
