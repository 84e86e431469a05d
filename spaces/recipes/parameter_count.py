"""How many parameters a recipe's model has, which only stacked layers change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from spaces.recipes.recipe import Merge, Model, Recipe


@dataclass(frozen=True, kw_only=True, slots=True)
class ParameterCount:
    """Parameters of the models of a run, which all have the same shape.

    Attributes:
        outside: Number outside the layers: embeddings, norm, head.
        layers: Number of each layer of a model that is not stacked, at least one.
    """

    outside: int
    layers: tuple[int, ...]

    def of(self, recipe: Recipe) -> int:
        """Parameters of the model that a recipe makes."""
        return self.outside + sum(self.layers[at] for at in self._origins(recipe.root))

    def _origins(self, node: Model | Merge) -> Sequence[int]:
        """Which layer of the models each layer of the output is made of."""
        if isinstance(node, Model):
            return range(len(self.layers))
        if not node.slices:
            return self._origins(node.sources[0].of)
        found: list[int] = []
        for part in node.slices:
            start, end = part.sources[0].layers or (0, 0)
            found += self._origins(part.sources[0].of)[start:end]
        return found

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values; ``from_dict`` is the inverse."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ParameterCount:
        """What ``to_dict`` gave."""
        return cls(outside=data["outside"], layers=tuple(data["layers"]))
