"""Tokenizers of models: loading them, and making one that knows the tokens of all."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class TokenizerError(ValueError):
    """A tokenizer that does not load; one line."""


def load(folder: Path) -> Any:
    """The tokenizer in a folder, as transformers has it; no code of a model's own is run.

    Raises:
        TokenizerError: If there is none that loads.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, use_fast=True)
    except (OSError, ValueError, ImportError, KeyError, TypeError) as error:
        reason = str(error).strip().splitlines()
        text = reason[0] if reason else type(error).__name__
        raise TokenizerError(f"{folder}: cannot be loaded ({text})") from error


def united(
    first: Any, others: Sequence[tuple[Any, Mapping[str, int]]], extra: Sequence[str]
) -> tuple[Any, bool]:
    """A tokenizer with further tokens; numbers of the first one's tokens stay.

    New tokens follow model by model, each in the order of their numbers; then the tokens that a
    model adds to its vocabulary (special ones), with the settings of the first model that has them.

    Args:
        first: The tokenizer to extend; it is left as it is.
        others: Tokenizers with the tokens of theirs that count, and their numbers.
        extra: Tokens to add after those.

    Returns:
        The tokenizer, and whether it differs from the first.
    """
    result = copy.deepcopy(first)
    added: dict[str, Any] = {}
    for tokenizer in (first, *(one for one, _ in others)):
        for token in tokenizer.added_tokens_decoder.values():
            added.setdefault(token.content, token)
    known = set(first.get_vocab())
    plain: dict[str, None] = {}
    for _, numbers in others:
        plain |= dict.fromkeys(sorted(numbers, key=numbers.__getitem__))
    result.add_tokens([token for token in plain if token not in known and token not in added])
    counted = known.union(*(numbers for _, numbers in others))
    result.add_tokens([token for text, token in added.items() if text in counted])
    result.add_tokens([token for token in extra if token not in result.get_vocab()])
    same = result.get_vocab() == first.get_vocab()
    return result, not same or set(result.added_tokens_decoder) != set(first.added_tokens_decoder)
