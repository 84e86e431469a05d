"""Likelihoods without waste: what several sequences begin with goes through the model once.

Sequences that are put in order make a tree: each adds what it does not share with the one before.
The tree's tokens are read in that order, so many at a time, as one row in which every token sees
those that stand before it in its own sequence and no others. Keys and values of the path to the
next token are kept from one pass to the next. So every token of the tree is read once, and no
padding at all.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evaluators.harness.engines.inference_engine import Continuation
from evaluators.harness.engines.token_pool import Numbers, TokenPool

_NONE: Numbers = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Branch:
    """Tokens in a row that no earlier sequence has.

    Attributes:
        before: Numbers of the tokens that stand before them, in order; a token's number says how
            many are read before it.
        tokens: They themselves.
        first: Number of the first of them.
    """

    before: Numbers
    tokens: Numbers
    first: int


class PrefixTree:
    """Sequences with their common beginnings brought together.

    Args:
        asked: What is asked for.
        most: Most tokens that the model takes.

    Attributes:
        places: For each of those asked, in their order, the numbers of the tokens after which its
            continuation is read off.
        size: Number of tokens.
    """

    def __init__(self, asked: Sequence[Continuation], *, most: int) -> None:
        reads = [_read(one, most) for one in asked]
        self.places: list[Numbers] = [_NONE] * len(asked)
        self.size = 0
        self._branches: list[Branch] = []
        # Big-endian bytes are in the order of the numbers.
        order = sorted(range(len(asked)), key=lambda at: reads[at].astype(">i8").tobytes())
        path = last = _NONE
        for at in order:
            read = reads[at]
            shared = _shared(last, read)
            new = len(read) - shared
            if new:
                self._branches.append(
                    Branch(before=path[:shared], tokens=read[shared:], first=self.size)
                )
                path = np.concatenate([path[:shared], np.arange(self.size, self.size + new)])
                self.size += new
            self.places[at] = path[: len(read)][-len(asked[at].tokens) :]
            last = read

    def pack(self, start: int, end: int) -> list[Branch]:
        """The branches of the tokens with these numbers; the first and the last may be cut."""
        at, pack = bisect_right(self._branches, start, key=attrgetter("first")) - 1, []
        while start < end:
            branch = self._branches[at]
            skip = start - branch.first
            tokens = branch.tokens[skip : skip + end - start]
            before = np.concatenate([branch.before, np.arange(branch.first, start)])
            pack.append(Branch(before=before, tokens=tokens, first=start))
            start += len(tokens)
            at += 1
        return pack


def likelihoods(
    model: Any, asked: Sequence[Continuation], *, most: int, room: int
) -> list[tuple[float, bool]]:
    """How likely a model finds continuations; see ``InferenceEngine.likelihoods``."""
    tree = PrefixTree(asked, most=most)
    places = np.concatenate([_NONE, *tree.places])
    tokens = np.concatenate([_NONE, *(np.array(one.tokens, dtype=np.int64) for one in asked)])
    chances, likeliest = np.zeros(len(places)), np.zeros(len(places), dtype=bool)
    reader = TreeReader(model, TokenPool())
    with torch.inference_mode():
        for start in range(0, tree.size, room):
            end = min(start + room, tree.size)
            here = np.flatnonzero((places >= start) & (places < end))
            rows, row = np.unique(places[here] - start, return_inverse=True)
            logits = reader.logits(tree.pack(start, end), rows)
            said = logits[row, tokens[here]] - logits.logsumexp(dim=-1)[row]
            chances[here] = said.cpu().numpy()
            likeliest[here] = logits.argmax(dim=-1).cpu().numpy()[row] == tokens[here]
    ends = np.cumsum([len(one.tokens) for one in asked])[:-1]
    return [
        (float(some.sum()), bool(greedy.all()))
        for some, greedy in zip(np.split(chances, ends), np.split(likeliest, ends), strict=True)
    ]


def _read(one: Continuation, most: int) -> Numbers:
    """What goes through the model: all but the last token, the beginning cut off if too long.

    Raises:
        ValueError: If nothing can be said of it.
    """
    if not one.before or not 0 < len(one.tokens) <= most:
        raise ValueError(
            f"continuation: expected from 1 to {most} tokens after at least one, got "
            f"{len(one.tokens)} after {len(one.before)}"
        )
    return np.array([*one.before, *one.tokens][-(most + 1) : -1], dtype=np.int64)


def _shared(one: Numbers, other: Numbers) -> int:
    """How many tokens two sequences begin with alike."""
    length = min(len(one), len(other))
    differ = np.flatnonzero(one[:length] != other[:length])
    return int(differ[0]) if len(differ) else length


class TreeReader:
    """Passes of a model over the packs of a tree, in order."""

    def __init__(self, model: Any, pool: TokenPool) -> None:
        self._model = model
        self._pool = pool
        self._held = self._places = _NONE  # numbers of the tokens in the pool, and their places

    def logits(self, pack: Sequence[Branch], rows: Numbers) -> Tensor:
        """``(rows, vocabulary)`` float32 after these of a pack's tokens."""
        kept = pack[0].before
        size = sum(len(branch.tokens) for branch in pack)
        self._turn_to(kept, pack[0].first + np.arange(size))
        seen = torch.zeros((size, len(self._held)), dtype=torch.bool)
        depths, at = [], 0
        for branch in pack:
            end = at + len(branch.tokens)
            seen[at:end, np.searchsorted(self._held, branch.before)] = True
            seen[at:end, len(kept) + at : len(kept) + end] = torch.ones(
                (end - at, end - at), dtype=torch.bool
            ).tril()
            depths.append(len(branch.before) + np.arange(end - at))
            at = end
        kept_rows = rows if len(rows) else np.array([size - 1])  # whoever looks on finds a row
        logits = forward(
            self._model,
            self._pool,
            tokens=np.concatenate([one.tokens for one in pack])[None],
            positions=np.concatenate(depths)[None],
            seen=seen[None, None],
            rows=torch.from_numpy(kept_rows).to(self._model.device),
        )
        return logits[0, : len(rows)].float()

    def places(self, numbers: Numbers) -> Numbers:
        """Where tokens are that were just read, or kept for those."""
        return self._places[np.searchsorted(self._held, numbers)]

    def _turn_to(self, kept: Numbers, read: Numbers) -> None:
        """Let go of all but the path to the next tokens, and find places for these."""
        path = self.places(kept)
        self._pool.share(path)
        self._pool.release(self._places)
        new = self._pool.take(len(read))
        self._held, self._places = np.concatenate([kept, read]), np.concatenate([path, new])
        self._pool.aim(write=new, read=self._places[None], device=self._model.device)


def forward(
    model: Any,
    pool: TokenPool,
    *,
    tokens: Numbers,
    positions: Numbers,
    seen: Tensor,
    rows: Tensor | int,
) -> Tensor:
    """Logits of a pass whose keys and values are in a pool that was told where.

    Args:
        model: A causal language model of transformers.
        pool: Aimed at what is written and read.
        tokens: ``(rows, n)``.
        positions: ``(rows, n)`` of the tokens, in their own sequences.
        seen: ``(rows, 1, n, read)`` which places each token attends to.
        rows: Tokens whose logits are wanted, as ``logits_to_keep``.
    """
    device = model.device
    mask = seen.to(device)
    if model.config._attn_implementation == "eager":  # the plain one adds it to what it has
        mask = torch.zeros(mask.shape, dtype=model.dtype, device=device).masked_fill(
            ~mask, torch.finfo(model.dtype).min
        )
    logits: Tensor = model(
        input_ids=torch.from_numpy(tokens).to(device),
        position_ids=torch.from_numpy(positions).to(device),
        attention_mask=mask,
        past_key_values=pool,
        use_cache=True,
        logits_to_keep=rows,
    ).logits
    return logits
