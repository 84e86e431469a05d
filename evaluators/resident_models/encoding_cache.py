"""Tokenized prompts, kept from one candidate to the next."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable
from typing import Any

CACHED_TOKENS = 32_000_000
"""Most tokens kept per tokenizer, at 4 bytes each."""


class EncodingCache:
    """Token ids of texts; takes no more when it is full."""

    def __init__(self, room: int = CACHED_TOKENS) -> None:
        self._tokens: dict[tuple[bytes, Any], array[int]] = {}
        self._room = room

    def get(self, text: str, how: Any, encode: Callable[[], list[int]]) -> list[int]:
        """The ids of a text; ``encode`` makes them where they are not known."""
        key = (hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest(), how)
        known = self._tokens.get(key)
        if known is not None:
            return known.tolist()
        made = encode()
        if len(made) <= self._room:
            self._room -= len(made)
            self._tokens[key] = array("i", made)
        return made
