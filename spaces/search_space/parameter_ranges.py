"""The ranges of numbers that a space draws from: defaults, and what is legal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

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


RANGES: Mapping[str, Legal] = {
    # Real fine-tunes often win near 1 and above.
    "weight": Legal(default=Range(low=0.0, high=1.5)),
    "density": Legal(default=Range(low=0.1, high=1.0), low=0.0, high=1.0, low_open=True),
    "t": Legal(default=Range(low=0.0, high=1.0)),
    "scale": Legal(default=Range(low=0.5, high=1.5)),
    "gamma": Legal(default=Range(low=0.0, high=0.1), low=0.0, high=1.0),
    "epsilon": Legal(default=Range(low=0.05, high=0.2), low=0.0, high=0.5, high_open=True),
    "select_topk": Legal(default=Range(low=0.1, high=1.0), low=0.0, high=1.0),
    # From a hundredth of the usual change of a weight by fine-tuning to ten times of it.
    "nearswap_t": Legal(default=Range(low=1e-5, high=1e-2), low=0.0, low_open=True, log=True),
    "ram_epsilon": Legal(default=Range(low=1e-6, high=1e-3), low=0.0, low_open=True, log=True),
    "ram_r": Legal(default=Range(low=0.0, high=1.0)),
    "ram_alpha": Legal(default=Range(low=0.0, high=1.0), low=0.0),
}
"""Every range that a space has, by the name of its field."""


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
    if not sound >= {"density", "epsilon"} or not {"della", "della_linear"} & set(methods):
        return
    density, epsilon = ranges["density"], ranges["epsilon"]
    left = della_density(density, epsilon)
    if left.low > left.high:
        yield (
            f"epsilon: expected a range that leaves della a density within {_shown(density)} that "
            f"is {CLEAR:g} or more inside (epsilon, 1 - epsilon), got {_shown(epsilon)}"
        )


def _shown(bounds: Range) -> str:
    return f"[{bounds.low:g}, {bounds.high:g}]"
