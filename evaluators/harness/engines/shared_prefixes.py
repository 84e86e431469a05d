"""Likelihoods without waste: what several sequences begin with goes through the model once.

Sequences that are put in order make a tree: each adds what it does not share with the one before.
The tree's tokens are read in that order, so many at a time, as one row in which every token sees
those that stand before it in its own sequence and no others. Keys and values of the path to the
next token are kept from one pass to the next. So every token of the tree is read once, and no
padding at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from evaluators.harness.engines.inference_engine import Continuation

Numbers = np.ndarray[Any, np.dtype[np.int64]]

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

    def packs(self, room: int) -> Iterator[list[Branch]]:
        """All branches in order, so many tokens at a time; long ones are cut."""
        pack: list[Branch] = []
        free = room
        for branch in self._branches:
            at = 0
            while at < len(branch.tokens):
                some = branch.tokens[at : at + free]
                own = np.arange(branch.first, branch.first + at)
                before = np.concatenate([branch.before, own])
                pack.append(Branch(before=before, tokens=some, first=branch.first + at))
                at += len(some)
                free -= len(some)
                if not free:
                    yield pack
                    pack, free = [], room
        if pack:
            yield pack


def likelihoods(
    model: Any, asked: Sequence[Continuation], *, most: int, room: int
) -> list[tuple[float, bool]]:
    """How likely a model finds continuations; see ``InferenceEngine.likelihoods``."""
    tree = PrefixTree(asked, most=most)
    places = np.concatenate([_NONE, *tree.places])
    tokens = np.concatenate([_NONE, *(np.array(one.tokens, dtype=np.int64) for one in asked)])
    chances, likeliest = np.zeros(len(places)), np.zeros(len(places), dtype=bool)
    reader = _Reader(model)
    with torch.inference_mode():
        for pack in tree.packs(room):
            last = pack[-1].first + len(pack[-1].tokens)
            here = np.flatnonzero((places >= pack[0].first) & (places < last))
            rows, row = np.unique(places[here] - pack[0].first, return_inverse=True)
            logits = reader.logits(pack, rows)
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


class _Reader:
    """Passes of a model over the packs of a tree, in order.

    Args:
        model: The model.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._cache = DynamicCache()  # without a config: every layer keeps all it is given
        self._held = _NONE  # numbers of the tokens whose keys and values are in the cache

    def logits(self, pack: Sequence[Branch], rows: Numbers) -> Tensor:
        """``(rows, vocabulary)`` float32 after these of a pack's tokens."""
        kept = pack[0].before
        self._keep(kept)
        size = sum(len(branch.tokens) for branch in pack)
        self._held = np.concatenate([kept, pack[0].first + np.arange(size)])
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
        device = self._model.device
        kept_rows = rows if len(rows) else np.array([size - 1])  # whoever looks on finds a row
        logits: Tensor = self._model(
            input_ids=torch.from_numpy(np.concatenate([one.tokens for one in pack]))[None].to(
                device
            ),
            position_ids=torch.from_numpy(np.concatenate(depths))[None].to(device),
            attention_mask=self._mask(seen[None, None].to(device)),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=torch.from_numpy(kept_rows).to(device),
        ).logits
        return logits[0, : len(rows)].float()

    def _keep(self, numbers: Numbers) -> None:
        """Leave in the cache these tokens, in their order, and no others."""
        if not len(numbers):
            self._cache = DynamicCache()
            return
        slots = torch.from_numpy(np.searchsorted(self._held, numbers))
        layers: list[Any] = self._cache.layers
        for layer in layers:
            at = slots.to(layer.keys.device)
            layer.keys, layer.values = layer.keys[:, :, at], layer.values[:, :, at]

    def _mask(self, seen: Tensor) -> Tensor:
        """As the model's attention takes it: the plain one adds it to what it has."""
        if self._model.config._attn_implementation != "eager":
            return seen
        dtype = self._model.dtype
        return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(
            ~seen, torch.finfo(dtype).min
        )
