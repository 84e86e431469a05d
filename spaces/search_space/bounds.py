"""The parts of a space: ranges, depths, stacking, orders; each can say what is wrong with it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from spaces.catalogue.method_catalogue import SEARCHED
from spaces.errors import UserError

VARIABLE = tuple(SEARCHED)
"""Parameters that a space can draw, and that may vary over depth and by filter."""

SOURCES = ("merged", "parents", "any")
"""What a run of stacked layers may be taken from: the merged model, one parent, either."""

MERGED = "(merged)"
"""The merged model as the source of a run of layers; no model can have this name."""


class SpaceError(UserError, ValueError):
    """Bounds that leave nothing to draw, or that no merge allows.

    Attributes:
        problems: One line each, ``field: expected ..., got ...``.
    """


class Order(StrEnum):
    """How three or more parents come together."""

    ALL_AT_ONCE = "all-at-once"
    PAIRWISE = "pairwise"
    ANY = "any"


def is_number(value: Any) -> bool:
    """Whether a value is a finite number; booleans are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_count(value: Any, low: int) -> bool:
    """Whether a value is a whole number of at least ``low``."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """A closed interval of numbers, low <= high; checked by the space that holds it."""

    low: float
    high: float

    def problems(self, name: str) -> Iterator[str]:
        """What is wrong with it, one line each."""
        if not (is_number(self.low) and is_number(self.high)):
            yield f"{name}: expected two finite numbers, got [{self.low!r}, {self.high!r}]"
        elif self.low > self.high:
            yield f"{name}: expected low <= high, got [{self.low:g}, {self.high:g}]"


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

    @property
    def values(self) -> int:
        """Number of values over depth; 1 where nothing varies."""
        return self.knots or self.groups or 1

    def problems(self, layers: int) -> Iterator[str]:
        """What is wrong with it for models of so many layers, one line each."""
        if self.knots is not None and self.groups is not None:
            yield "depth: expected knots or groups, got both"
        for name, value in (("knots", self.knots), ("groups", self.groups)):
            if value is None:
                continue
            if not is_count(value, 2):
                yield f"depth.{name}: expected a whole number of at least 2, got {value!r}"
            elif is_count(layers, 1) and value > layers:
                yield f"depth.{name}: expected at most one per layer ({layers}), got {value}"
        yield from parameter_problems("depth.parameters", self.parameters)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stacking:
    """Bounds for stacking layers of the merged model, of the parents, or of both.

    Attributes:
        max_slices: Most runs of layers in the output; at least 2.
        max_layers: Most layers in the output.
        min_layers: Fewest layers in the output.
        sources: What a run of layers is taken from, one of ``SOURCES``.
        max_repeated: Most layers that a run repeats of those before it. With this or
            ``max_removed`` the output goes from the first layer to the last one, run by run (the
            other is then 0); without both, runs lie anywhere.
        max_removed: Most layers left out between two runs.
    """

    max_slices: int = 2
    max_layers: int
    min_layers: int
    sources: str = "merged"
    max_repeated: int | None = None
    max_removed: int | None = None

    @property
    def in_order(self) -> bool:
        """Whether runs follow each other from the first layer to the last one."""
        return self.max_repeated is not None or self.max_removed is not None

    @property
    def shifts(self) -> tuple[int, int]:
        """From how far before the end of a run to how far after it the next one may start."""
        return -(self.max_repeated or 0), self.max_removed or 0

    def slices(self, layers: int) -> tuple[int, int]:
        """Fewest and most slices of an output; 1 stands for the merged model as it is.

        Args:
            layers: Number of layers of the merged model.
        """
        if self.in_order:
            return self._joined(layers)
        as_it_is = self.min_layers <= layers <= self.max_layers
        fewest = 1 if as_it_is else max(2, -(-self.min_layers // layers))
        return fewest, min(self.max_slices, self.max_layers)

    def _joined(self, layers: int) -> tuple[int, int]:
        """Fewest and most slices where each run starts near the end of the one before."""
        back, ahead = self.shifts
        most = min(self.max_slices, self.max_layers, layers)
        fewest = 1
        while fewest <= most and not (
            layers - (fewest - 1) * back >= self.min_layers
            and layers - (fewest - 1) * ahead <= self.max_layers
        ):
            fewest += 1
        return fewest, most

    def problems(self, layers: int) -> Iterator[str]:
        """What is wrong with it for models of so many layers, one line each."""
        counts = (("max_slices", 2), ("min_layers", 1), ("max_layers", 1))
        wrong = [
            f"stacking.{name}: expected a whole number of at least {low}, got {value!r}"
            for name, low in counts
            if not is_count(value := getattr(self, name), low)
        ]
        wrong += [
            f"stacking.{name}: expected a whole number of at least 0, or none, got {value!r}"
            for name in ("max_repeated", "max_removed")
            if (value := getattr(self, name)) is not None and not is_count(value, 0)
        ]
        if self.sources not in SOURCES:
            wrong.append(
                f"stacking.sources: expected one of {', '.join(SOURCES)}, got {self.sources!r}"
            )
        yield from wrong
        if wrong or not is_count(layers, 1):
            return
        if self.min_layers > self.max_layers:
            yield (
                "stacking: expected min_layers <= max_layers, "
                f"got {self.min_layers} and {self.max_layers}"
            )
            return
        for name in ("max_repeated", "max_removed"):
            if (value := getattr(self, name) or 0) > layers:
                yield f"stacking.{name}: expected at most the layers ({layers}), got {value}"
                return
        yield from self._count_problems(layers)

    def _count_problems(self, layers: int) -> Iterator[str]:
        fewest, most = self.slices(layers)
        if most < 2 and self.in_order:
            yield (
                "stacking: expected max_layers, and layers of the parents, of at least 2, "
                f"got {self.max_layers} and {layers}"
            )
        elif most < 2:
            yield f"stacking.max_layers: expected at least 2 layers to stack, got {self.max_layers}"
        elif fewest > most and self.in_order:
            back, ahead = ((most - 1) * shift for shift in self.shifts)
            yield (
                f"stacking: expected min_layers to max_layers to meet {layers - ahead} to "
                f"{layers - back} ({most} slices), got {self.min_layers} to {self.max_layers}; "
                "allow more slices, max_repeated or max_removed"
            )
        elif fewest > most:
            yield (
                f"stacking.min_layers: expected at most {most * layers} "
                f"({most} slices of {layers} layers), got {self.min_layers}"
            )


def parameter_problems(name: str, parameters: tuple[str, ...]) -> Iterator[str]:
    """What is wrong with a list of parameters that vary, one line each."""
    for unknown in dict.fromkeys(p for p in parameters if p not in VARIABLE):
        yield f"{name}: expected names from {', '.join(VARIABLE)}, got {unknown!r}"
    yield from repeat_problems(name, parameters)


def repeat_problems(name: str, values: tuple[str, ...]) -> Iterator[str]:
    """One line for each value that is there more than once."""
    for value in dict.fromkeys(v for at, v in enumerate(values) if v in values[:at]):
        yield f"{name}: expected every name once, got {value!r} more than once"


EVEN = Depth()
"""One value for all layers."""
