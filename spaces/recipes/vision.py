"""What the vision tower of a merged model is, where it is not merged as the language model is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spaces.recipes.parameter_values import RecipeError


@dataclass(frozen=True, kw_only=True, slots=True)
class Vision:
    """The tensors beside the language model: a vision tower, its projector.

    Attributes:
        parts: Parts of the names of these tensors, such as ``visual.``; at least one.
        model: Model that they are taken from; ``None`` for the mean of the recipe's inputs.
    """

    parts: tuple[str, ...]
    model: str | None = None

    def __post_init__(self) -> None:
        if not self.parts or not all(self.parts):
            raise RecipeError("vision.parts: expected parts of tensor names, got none")

    def covers(self, tensor: str) -> bool:
        """Whether a tensor of that name is one of them."""
        return any(part in tensor for part in self.parts)

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values; ``from_dict`` is the inverse."""
        named = {} if self.model is None else {"model": self.model}
        return {"parts": list(self.parts), **named}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Vision:
        """What ``to_dict`` gave.

        Raises:
            RecipeError: If the data does not describe one.
        """
        return cls(parts=tuple(data["parts"]), model=data.get("model"))
