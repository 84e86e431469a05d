"""What may be drawn: the bounds of a search."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class SpaceError(ValueError):
    """Bounds that leave nothing to draw, or that no merge allows.

    Attributes:
        problems: One line each.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class Order(StrEnum):
    """How three or more parents come together."""

    ALL_AT_ONCE = "all-at-once"
    PAIRWISE = "pairwise"
    ANY = "any"


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """A closed interval of numbers, low <= high."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Depth:
    """How values may change over the layers; at most one of the two is set, none means one value.

    Attributes:
        knots: Number of values at evenly spaced depths, interpolated in between; at least 2.
        groups: Number of equal runs of layers with a value each; at least 2.
        parameters: Names of the parameters that vary over depth.
    """

    knots: int | None = None
    groups: int | None = None
    parameters: tuple[str, ...] = ("weight", "t")


@dataclass(frozen=True, kw_only=True, slots=True)
class Stacking:
    """Bounds for stacking layers of the merged model.

    Attributes:
        max_slices: Most runs of layers in the output; at least 2.
        max_layers: Most layers in the output.
        min_layers: Fewest layers in the output.
    """

    max_slices: int = 2
    max_layers: int
    min_layers: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Space:
    """The bounds of a search.

    Attributes:
        parents: Names of the models to merge, in a fixed order; at least one (two to merge).
        base: Name of the base model; ``None`` rules out methods that need one.
        layers: Number of layers of the parents.
        methods: Names from the catalogue that may be drawn.
        weight: Range of every weight.
        density: Range of every density, within (0, 1].
        t: Range of slerp's position.
        scale: Range of the factor of the summed delta (``lambda``).
        depth: How values vary over depth.
        filters: Parts of tensor names that get values of their own, besides the rest.
        filter_parameters: Names of the parameters that vary by filter.
        order: How three or more parents come together.
        stacking: Bounds for layer stacking; ``None`` for off.
        dtype: Output dtype of every recipe; ``None`` keeps the inputs'.
        seed: Mask seed of every recipe.
        tokenizer: Model that gives config and tokenizer; ``None`` for the default.
    """

    parents: tuple[str, ...]
    base: str | None
    layers: int
    methods: tuple[str, ...]
    weight: Range = Range(low=0.0, high=1.5)
    density: Range = Range(low=0.1, high=1.0)
    t: Range = Range(low=0.0, high=1.0)
    scale: Range = Range(low=0.5, high=1.5)
    depth: Depth = Depth()
    filters: tuple[str, ...] = ()
    filter_parameters: tuple[str, ...] = ("weight", "t")
    order: Order = Order.ANY
    stacking: Stacking | None = None
    dtype: str | None = None
    seed: int = 0
    tokenizer: str | None = None
