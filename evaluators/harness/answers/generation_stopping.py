"""When a batch of written answers is done: once no further token can change any of them.

lm-eval writes on until every answer of a batch has met the same stop sequence, or until the longest
answer allowed. Answers end differently (one with a stop sequence, one with the end of text), and
all that comes after is cut off again. Here the batch ends when every answer is settled. Rows are
neither dropped nor masked before, so every token is the one that lm-eval gets.

Two kinds of rows get padding from where they end, so that nothing comes after: answers that are
ended as a loop, and those after thoughts, whose stop sequences and cap count from the mark on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria

from evaluators.harness.answers.answer_endings import AnswerEnd, Ending, ending_of, loops
from evaluators.harness.answers.thoughts import AnswerStarts, ThoughtMark

LOOKBACK = 2
"""Tokens looked at beyond as many as a stop sequence has, as in lm-eval."""

_LOOK_EVERY = 16
"""Tokens after which loops are looked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerRules:
    """What ends an answer.

    Attributes:
        tokenizer: Of the model.
        stops: The stop sequences; answers are cut at them, one after the other.
        ends: Tokens after which the model's own rule ends an answer.
        mark: What ends the thoughts before it, if there are any.
        most: Most tokens of an answer after thoughts; ``None`` where the batch's length says it.
        end_loops: Whether an answer ends once it is a loop.
    """

    tokenizer: Any
    stops: tuple[str, ...]
    ends: frozenset[int]
    mark: ThoughtMark | None = None
    most: int | None = None
    end_loops: bool = True


class GenerationStopping(StoppingCriteria):
    """Ends a batch when lm-eval would, or when every answer in it is settled before.

    Args:
        usual: lm-eval's criteria, one for each stop sequence; asked only where they could end a
            batch that is not settled (a stop sequence made of special tokens, which are no text).
        rules: What ends an answer.
        start: Tokens of the prompts; answers follow.

    Attributes:
        starts: Where the answers begin.
    """

    def __init__(self, usual: Sequence[Any], rules: AnswerRules, *, start: int) -> None:
        self._usual = tuple(usual)
        self._rules, self._start = rules, start
        self._stops = tuple(stop for stop in rules.stops if stop)
        self._windows: dict[int, list[str]] = {}
        for stop in self._stops:
            tokens = rules.tokenizer.encode(stop, add_special_tokens=False)
            self._windows.setdefault(len(tokens) + LOOKBACK, []).append(stop)
        self.starts = AnswerStarts(rules.mark)
        self._endings: dict[int, Ending] = {}
        self._written: dict[int, int] = {}
        self._open: Sequence[int] | None = None
        self._odd = False
        self._told = 0

    def __call__(self, input_ids: Tensor, scores: Any, **options: Any) -> Tensor:
        """``(batch,)``: all where the batch is done, else the rows to be padded from now on."""
        del options
        rows = input_ids[:, self._start :].tolist()
        for at in range(len(rows)) if self._open is None else self._open:
            if (ending := self._ending(at, rows[at])) is not None:
                self._endings[at], self._written[at] = ending, len(rows[at])
        self._open = [at for at in range(len(rows)) if at not in self._endings]
        done = not self._open or (self._odd and self._usual_says(input_ids, scores))
        padded = [done or self._is_padded(at) for at in range(len(rows))]
        return torch.tensor(padded, device=input_ids.device)

    def answer_ends(self, rows: Sequence[list[int]]) -> list[AnswerEnd]:
        """How each answer ended, once the batch has.

        Args:
            rows: All that was written.
        """
        return [
            AnswerEnd(
                ending=self._final(at, tokens),
                tokens=self._written.get(at, len(tokens)),
                thought=self._thought(at, tokens),
            )
            for at, tokens in enumerate(rows)
        ]

    def _is_padded(self, row: int) -> bool:
        ending = self._endings.get(row)
        return ending is Ending.LOOP or (ending is not None and self._rules.mark is not None)

    def _ending(self, row: int, tokens: list[int]) -> Ending | None:
        """What has ended an answer; ``None`` if nothing has."""
        if not self._rules.ends.isdisjoint(tokens):
            return Ending.TEXT
        start = self.starts.of(row, tokens)
        if start is not None:
            answer = tokens[start:] if start else tokens
            if self._is_settled(answer):
                return Ending.STOP
            if self._rules.most is not None and len(answer) >= self._rules.most:
                return Ending.CAP
        looks = self._rules.end_loops and len(tokens) % _LOOK_EVERY == 0
        return Ending.LOOP if looks and loops(tokens) else None

    def _is_settled(self, tokens: list[int]) -> bool:
        tokenizer = self._rules.tokenizer
        if not any(
            stop in ending
            for window, stops in self._windows.items()
            for ending in [tokenizer.decode(tokens[-window:])]
            for stop in stops
        ):
            return False
        if settled(tokenizer.decode(tokens, skip_special_tokens=True), self._stops):
            return True
        # lm-eval takes it for stopped: from now on it may end the batch
        self._odd = self._rules.mark is None
        return False

    def _final(self, row: int, tokens: list[int]) -> Ending:
        if row in self._endings:
            return self._endings[row]
        if self._rules.mark is not None:
            return Ending.LOOP if loops(tokens) else Ending.CAP
        rules = self._rules
        return ending_of(rules.tokenizer, tokens, stops=rules.stops, ends=rules.ends)

    def _thought(self, row: int, tokens: list[int]) -> str:
        """What was written before the answer, with the blanks that lm-eval takes away after it.

        The answer is what follows the last mark, as in lm-eval.
        """
        start, mark = self.starts.of(row, tokens), self._rules.mark
        if not start or mark is None:
            return ""
        start += mark.last_in(tokens[start:])
        answer = str(self._rules.tokenizer.decode(tokens[start:], skip_special_tokens=True))
        blanks = answer[: len(answer) - len(answer.lstrip())]
        return str(self._rules.tokenizer.decode(tokens[:start])) + blanks

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
