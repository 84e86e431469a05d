"""Which vocabulary a merged model gets where its inputs have different ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spaces.recipes.parameter_values import RecipeError


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenRule:
    """Where a token's row of embeddings and head comes from, instead of the usual.

    Attributes:
        token: The token; one that the vocabulary lacks is added to it.
        model: Model that gives the row; ``None`` for zeros.
        source: Another token of that model to take, or the number of one; ``None``: the same token.
        force: Also for models that have the token; else only for those that lack it.
    """

    token: str
    model: str | None = None
    source: str | int | None = None
    force: bool = False

    def __post_init__(self) -> None:
        if not self.token:
            raise RecipeError("tokens: expected a token, got an empty one")
        if isinstance(self.source, bool) or (isinstance(self.source, int) and self.source < 0):
            raise RecipeError(f"tokens: {self.token}: expected a number from 0, got {self.source}")
        if self.model is None and self.source is not None:
            raise RecipeError(f"tokens: {self.token}: expected the token's model, got none")


@dataclass(frozen=True, kw_only=True, slots=True)
class Vocabulary:
    """The output's vocabulary, and the rows of tokens that an input lacks.

    A token that an input lacks gets the row of the only input that has it; else the base's, if it
    has it; else the mean of those that have it; zeros if none has.

    Attributes:
        model: The model whose tokenizer the output gets; ``None`` for the union of all.
        tokens: Exceptions, each token once.
        pad_to_multiple_of: Rows are added, as the mean of all, up to such a number; ``None``: none.
    """

    model: str | None = None
    tokens: tuple[TokenRule, ...] = ()
    pad_to_multiple_of: int | None = None

    def __post_init__(self) -> None:
        names = [rule.token for rule in self.tokens]
        if len(set(names)) != len(names):
            raise RecipeError("tokens: expected each token once, got one twice")
        if self.pad_to_multiple_of is not None and self.pad_to_multiple_of < 1:
            raise RecipeError(
                f"pad_to_multiple_of: expected a number from 1, got {self.pad_to_multiple_of}"
            )

    @property
    def models(self) -> tuple[str, ...]:
        """Every model it names."""
        named = [self.model, *(rule.model for rule in self.tokens)]
        return tuple(dict.fromkeys(name for name in named if name is not None))

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values; ``from_dict`` is the inverse."""
        result: dict[str, Any] = {}
        if self.model is not None:
            result["model"] = self.model
        if self.tokens:
            result["tokens"] = [
                {
                    key: value
                    for key in ("token", "model", "source", "force")
                    if (value := getattr(rule, key)) is not None and value is not False
                }
                for rule in self.tokens
            ]
        if self.pad_to_multiple_of is not None:
            result["pad_to_multiple_of"] = self.pad_to_multiple_of
        return result

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Vocabulary:
        """From what ``to_dict`` gave.

        Raises:
            RecipeError: If it is not legal.
        """
        return cls(
            model=data.get("model"),
            tokens=tuple(TokenRule(**rule) for rule in data.get("tokens", ())),
            pad_to_multiple_of=data.get("pad_to_multiple_of"),
        )
