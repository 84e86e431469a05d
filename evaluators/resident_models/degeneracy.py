"""A cheap look at a merged model before tasks are paid for: does it hear what it is asked?

A merge that has gone wrong often gives finite numbers, yet the same next token whatever stands
before it. With logits z of every position of a few prompts, each less its mean over the vocabulary,
and p their softmax, two measures tell:

    heard  = mean |z - mean z|^2 / mean |z|^2      (means over positions; 0 where all z are 0)
    spread = mean over positions of the total variation distance between p and the mean p

Both are 0 for a model that says the same always. A working model has both far above the limits
here, an untrained one has a small spread only: its logits are small, but they follow the input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

PROMPTS = 8
"""Prompts that are looked at."""

TOKENS = 64
"""Last tokens of each prompt that are given to the model."""

POSITIONS = 16
"""Of these, positions that count; they are spread evenly."""

LEAST_POSITIONS = 16
"""With fewer positions in all, nothing is concluded."""

HEARD = 1e-2
"""Logits that follow the input less than this are suspicious."""

SPREAD = 1e-2
"""Distributions that differ less than this are the same for all purposes."""

SPREAD_OF_ONE = 0.1
"""The same where one token is the likeliest everywhere."""


class DegenerateError(ArithmeticError):
    """A model that says the same whatever it is asked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Degeneracy:
    """What was seen of a model.

    Attributes:
        positions: Number of positions looked at.
        heard: How much logits follow the input, in [0, 1].
        spread: How much distributions differ, in [0, 1].
        one: Whether one token is the likeliest everywhere.
    """

    positions: int
    heard: float
    spread: float
    one: bool

    @property
    def degenerate(self) -> bool:
        """Whether the model says the same whatever it is asked."""
        if self.positions < LEAST_POSITIONS or self.heard >= HEARD:
            return False
        return self.spread < SPREAD or (self.one and self.spread < SPREAD_OF_ONE)


def look(logits: Tensor) -> Degeneracy:
    """Measure logits.

    Args:
        logits: ``(positions, vocabulary)``, float32, finite or ``-inf``.
    """
    masked = torch.isinf(logits)
    values = logits.masked_fill(masked, 0.0)
    centred = (values - values.mean(dim=-1, keepdim=True)).masked_fill(masked, 0.0)
    whole = centred.square().sum(dim=-1).mean()
    moved = (centred - centred.mean(dim=0)).square().sum(dim=-1).mean()
    chances = logits.softmax(dim=-1)
    spread = 0.5 * (chances - chances.mean(dim=0)).abs().sum(dim=-1).mean()
    likeliest = logits.argmax(dim=-1)
    return Degeneracy(
        positions=len(logits),
        heard=float(moved / whole) if float(whole) > 0 else 0.0,
        spread=float(spread),
        one=bool((likeliest == likeliest[0]).all()),
    )


def check_hears(
    model: Any, prompts: Sequence[Sequence[int]], device: torch.device, *, at_once: int = PROMPTS
) -> None:
    """Make sure that a model's answers depend on what it is asked.

    Args:
        model: A causal language model of transformers, in eval mode.
        prompts: Token ids; the last ``TOKENS`` of the first ``PROMPTS`` of them are used.
        device: Where its inputs go.
        at_once: Prompts of a forward pass.

    Raises:
        DegenerateError: If they do not.
    """
    rows = [list(prompt)[-TOKENS:] for prompt in prompts[:PROMPTS]]
    if not rows:
        return
    parts = [rows[at : at + at_once] for at in range(0, len(rows), at_once)]
    found = look(torch.cat([seen for part in parts for seen in listen(model, part, device)]))
    if found.degenerate:
        raise DegenerateError(
            f"the merged model gives the same answer to every prompt: over {found.positions} "
            f"positions of {len(rows)} prompts its next-token distributions differ by "
            f"{found.spread:.1e} (harness.check_degenerate: false scores such models)"
        )


def listen(model: Any, rows: Sequence[list[int]], device: torch.device) -> list[Tensor]:
    """Logits at the positions that count, in one forward pass.

    Args:
        model: As for ``check_hears``.
        rows: Token ids, at least one row, none empty.
        device: Likewise.

    Returns:
        ``(positions, vocabulary)`` float32 for each row.
    """
    longest = max(map(len, rows))
    # Padded behind the end, which the positions of a causal model before it do not see.
    padded = [row + row[-1:] * (longest - len(row)) for row in rows]
    mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
    with torch.inference_mode():
        logits = model(
            input_ids=torch.tensor(padded, device=device),
            attention_mask=torch.tensor(mask, device=device),
        ).logits
        return [given[_spread(len(row))].float() for given, row in zip(logits, rows, strict=True)]


def _spread(length: int) -> Tensor:
    """Indices of the positions that count, of so many: evenly from the first to the last."""
    return torch.linspace(0, length - 1, min(POSITIONS, length)).round().long()
