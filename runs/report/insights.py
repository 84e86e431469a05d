"""What a run says about recipes in general: plain values, computed by who knows the space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Importance:
    """How much one part of the recipes decides about their scores.

    Attributes:
        name: The part in words, such as ``method`` or ``weight of math``.
        share: Sobol's total index over all recipes that the space draws: the share of the
            variance of their expected scores that is left while all but this part is known. From
            0; parts that act together count in each of them, so shares sum up to 1 or more.
    """

    name: str
    share: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ParentShares:
    """How one recipe mixes its parents, over all layers and tensors.

    Attributes:
        weights: Mean effective weight of each parent by name: after normalisation, multiplied
            along the merge tree.
        densities: Mean density of each parent by name; empty where no method in it has one.
    """

    weights: Mapping[str, float]
    densities: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Insights:
    """What a run's scores say about the parts of its recipes.

    Attributes:
        importance: The parts, the most important first; empty with too few recipes.
        explained: Share of the variance of scores that the model behind ``importance`` predicts
            for recipes it did not see, at most 1; NaN where that is not known.
        dials: Of every candidate in the space that has a score, by id.
    """

    importance: tuple[Importance, ...] = ()
    explained: float = float("nan")
    dials: Mapping[int, ParentShares] = field(default_factory=dict)
