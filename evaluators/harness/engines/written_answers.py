"""Answers written without waste: prompts are read as a tree, and who is done makes room at once.

Prompts go through the model as likelihoods do (``shared_prefixes``): what several begin with is
read once, and kept as long as one of them is being answered. Every pass then takes one token of
each answer that is open. Where some have ended, the next prompts are read in their stead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import RepetitionPenaltyLogitsProcessor

from evaluators.harness.engines.inference_engine import ROW_TOKENS, Continuation, Prompt
from evaluators.harness.engines.shared_prefixes import PrefixTree, TreeReader, forward
from evaluators.harness.engines.token_pool import Numbers, TokenPool


@dataclass(kw_only=True, slots=True)
class OpenAnswer:
    """An answer under way.

    Attributes:
        prompt: What it answers.
        tokens: The prompt's and those written so far.
        places: Where the pool has those that were read: all but the last.
    """

    prompt: Prompt
    tokens: list[int]
    places: Numbers

    @property
    def written(self) -> list[int]:
        """Tokens of the answer."""
        return self.tokens[len(self.prompt.tokens) :]


def answers(
    model: Any, asked: Sequence[Prompt], *, most: int, rows: int, penalty: float = 1.0
) -> list[list[int]]:
    """What a model writes; see ``InferenceEngine.answers``."""
    each = {tuple(one.tokens): one for one in asked}  # the same prompt has the same answer
    writer = _Writer(model, list(each.values()), most=most, penalty=penalty)
    with torch.inference_mode():
        while writer.waiting or writer.open:
            free = rows - len(writer.open)
            # A few at a time: a pass takes as long for one prompt as for some.
            if writer.waiting and free >= max(1, rows // 8):
                writer.read(free, ROW_TOKENS * rows)
            else:
                writer.step()
    return [writer.done[tuple(one.tokens)] for one in asked]


class _Writer:
    """Answers of a model, some of them open.

    Args:
        model: The model.
        asked: Prompts, all different.
        most: Tokens of the longest answer.
        penalty: Of tokens that are there already.

    Attributes:
        waiting: Prompts that were not read to their end, the next one last.
        open: Answers under way.
        done: Tokens of each answer that has ended, by its prompt's.
    """

    def __init__(self, model: Any, asked: Sequence[Prompt], *, most: int, penalty: float) -> None:
        self._model, self._most = model, most
        self._processor = RepetitionPenaltyLogitsProcessor(penalty) if penalty != 1 else None
        self._tree = PrefixTree(
            [Continuation(before=one.tokens, tokens=(0,)) for one in asked],
            most=max((len(one.tokens) for one in asked), default=1),
        )
        ends = ((int(last), one) for (last,), one in zip(self._tree.places, asked, strict=True))
        self.waiting = sorted(ends, key=lambda item: -item[0])
        self._read = 0
        self._pool = TokenPool()
        self._reader = TreeReader(model, self._pool)
        self.open: list[OpenAnswer] = []
        self.done: dict[tuple[int, ...], list[int]] = {}

    def read(self, most: int, room: int) -> None:
        """Read on, and begin the answers to those prompts that end there.

        Args:
            most: Answers to begin.
            room: Tokens to read.
        """
        last, _ = self.waiting[-most:][0]
        start, end = self._read, min(self._read + room, last + 1)
        pack, self._read = self._tree.pack(start, end), end
        ended = []
        while self.waiting and self.waiting[-1][0] < end:
            ended.append(self.waiting.pop())
        logits = self._reader.logits(pack, np.array([at - start for at, _ in ended], dtype=int))
        begun = []
        for at, prompt in ended:
            branch = next(one for one in reversed(pack) if one.first <= at)
            path = np.concatenate([branch.before, np.arange(branch.first, at + 1)])
            places = self._reader.places(path)
            self._pool.share(places)
            begun.append(OpenAnswer(prompt=prompt, tokens=list(prompt.tokens), places=places))
        self._write(begun, logits)

    def step(self) -> None:
        """Write a token of each answer that is open."""
        begun, self.open = self.open, []
        new = self._pool.take(len(begun))
        for answer, place in zip(begun, new, strict=True):
            answer.places = np.append(answer.places, place)
        lengths = np.array([len(answer.places) for answer in begun])
        # What is beyond a row's end is masked; there it reads a place of its own.
        read = np.repeat(np.array([[answer.places[0]] for answer in begun]), lengths.max(), axis=1)
        for row, answer in zip(read, begun, strict=True):
            row[: len(answer.places)] = answer.places
        seen = np.arange(lengths.max()) < lengths[:, None]
        self._pool.aim(write=new, read=read, device=self._model.device)
        logits = forward(
            self._model,
            self._pool,
            tokens=np.array([answer.tokens[-1:] for answer in begun]),
            positions=lengths[:, None] - 1,
            seen=torch.from_numpy(seen)[:, None, None],
            rows=1,
        )
        self._write(begun, logits[:, -1].float())

    def _write(self, begun: Sequence[OpenAnswer], logits: Tensor) -> None:
        """Add the likeliest token to each, and let go of those that have ended."""
        if self._processor is not None and begun:
            texts = [torch.tensor(answer.tokens) for answer in begun]
            # Shorter ones begin with their first token again: it counts once.
            ids = torch.stack([_filled(text, max(map(len, texts))) for text in texts])
            logits = self._processor(ids.to(logits.device), logits)
        for answer, likeliest in zip(begun, logits.argmax(dim=-1).tolist(), strict=True):
            due = answer.prompt.due(answer.written)
            answer.tokens.append(likeliest if due is None else due)
            if not answer.prompt.over(answer.written) and len(answer.written) < self._most:
                self.open.append(answer)
                continue
            self._pool.release(answer.places)
            self.done[tuple(answer.prompt.tokens)] = answer.written


def _filled(text: Tensor, length: int) -> Tensor:
    return torch.cat([text[:1].expand(length - len(text)), text])
