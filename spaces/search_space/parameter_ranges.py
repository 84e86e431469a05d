"""The ranges of numbers that a space draws from: defaults, and what is legal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from spaces.catalogue.method import ParameterSpec
from spaces.catalogue.method_catalogue import METHODS, SEARCHED
from spaces.catalogue.shared_parameters import DELLA_DENSITY, IN_ORDER, LAMBDA
from spaces.search_space.bounds import Range

CLEAR = 0.01
"""How far the probabilities of DELLA keep from 0 and 1 in what is drawn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Legal:
    """What a range may reach.

    Attributes:
        default: Where a space says nothing.
        low: Least number, or what all are above if ``low_open``.
        high: Largest number, or what all are below if ``high_open``.
        low_open: The lower limit itself is not legal.
        high_open: The upper limit itself is not legal.
        log: Drawn on a logarithmic scale, since it spans orders of magnitude.
    """

    default: Range
    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False
    log: bool = False

    def holds(self, bounds: Range) -> bool:
        """Whether all of a range is legal."""
        above = bounds.low > self.low if self.low_open else bounds.low >= self.low
        below = bounds.high < self.high if self.high_open else bounds.high <= self.high
        return above and below

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"above {self.low:g}" if self.low_open else f"from {self.low:g}"
        left, right = "(" if self.low_open else "[", ")" if self.high_open else "]"
        return f"within {left}{self.low:g}, {self.high:g}{right}"


def _legal(spec: ParameterSpec) -> Legal:
    search = spec.search
    assert search is not None
    return Legal(
        default=Range(low=search.low, high=search.high),
        low=-math.inf if spec.low is None else spec.low,
        high=math.inf if spec.high is None else spec.high,
        low_open=spec.low_open or search.log,
        high_open=search.below_high,
        log=search.log,
    )


RANGES: Mapping[str, Legal] = {
    name: _legal(spec) for name, spec in SEARCHED.items() if name != LAMBDA.name
}
"""Every range that a space has, by name; ``lambda`` is drawn from that of ``scale``."""


FURTHER = tuple(name for name in RANGES if SEARCHED[name] not in IN_ORDER)
"""Those of the parameters of other packages' methods, which have no field of their own."""


def della_density(density: Range, epsilon: Range) -> Range:
    """Densities that are legal for DELLA with every epsilon; low > high where there are none."""
    if density.low >= 1.0:  # keeps everything, whatever epsilon is
        return density
    margin = epsilon.high + CLEAR
    return Range(low=max(density.low, margin), high=min(density.high, 1.0 - margin))


def range_problems(ranges: Mapping[str, Range], methods: tuple[str, ...]) -> Iterator[str]:
    """What is wrong with the ranges of a space, one line each.

    Args:
        ranges: By the names in ``RANGES``.
        methods: Methods of the space.
    """
    sound = set()
    for name, bounds in ranges.items():
        found = list(bounds.problems(name))
        yield from found
        if not found and RANGES[name].holds(bounds):
            sound.add(name)
        elif not found:
            yield f"{name}: expected a range {RANGES[name]}, got {_shown(bounds)}"
    if ranges["weight"] == Range(low=0.0, high=0.0):
        yield "weight: expected a range with more than 0, got [0, 0]"
    if not sound >= {"density", "epsilon"} or not any(_has_della_density(name) for name in methods):
        return
    density, epsilon = ranges["density"], ranges["epsilon"]
    left = della_density(density, epsilon)
    if left.low > left.high:
        yield (
            f"epsilon: expected a range that leaves della a density within {_shown(density)} that "
            f"is {CLEAR:g} or more inside (epsilon, 1 - epsilon), got {_shown(epsilon)}"
        )


def _has_della_density(method: str) -> bool:
    return method in METHODS and METHODS[method].parameter("density") is DELLA_DENSITY


def _shown(bounds: Range) -> str:
    return f"[{bounds.low:g}, {bounds.high:g}]"
