"""Everything a space can draw, by name: one name means one thing, with one distribution.

The names (``math`` stands for a parent, ``node1`` for a join of a pairwise merge):

=======================  ===========================================================
``order``                all parents at once, or in pairs
``method``, ``parent``   method of the one merge; the parent that passthrough takes
``tree.3``, ``tree.4``   what the third, fourth, ... parent joins: a parent or a node
``node1.method``         method of a join
``weight.math``          weight of an input, in whatever merge it is an input of
``weight.node1``         weight of a join's result in the merge above it
``density.math``         density of an input, likewise
``t``, ``node1.t``       position of slerp; likewise ``lambda`` and ``scale``
``slices``               number of layer runs that are stacked; 1 for none
``slice1.start``         first layer of a run; ``slice1.end`` is the layer after the last
=======================  ===========================================================

A value that varies by filter carries the filter in brackets, ``[*]`` for the rest; one that varies
over depth ends in ``.k1``, ``.k2`` (knots) or ``.g1``, ``.g2`` (groups), from the first layers to
the last: ``weight.math[mlp].k1``. Model names hold no brackets, and whether a suffix is there is
the same for all names of a parameter in a space, so a name can be read in one way only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from spaces.order import radices
from spaces.space import Range, Space

DRAWN: dict[str, tuple[str, ...]] = {
    "linear": ("weight",),
    "slerp": ("t",),
    "task_arithmetic": ("weight", "lambda"),
    "ties": ("weight", "density", "lambda"),
    "dare_linear": ("weight", "density", "lambda"),
    "dare_ties": ("weight", "density", "lambda"),
    "passthrough": ("scale",),
}
"""What is drawn for each method; the rest stays at the catalogue's defaults.

Task arithmetic keeps every entry whatever its density, so none is drawn for it.
"""

PER_INPUT = ("weight", "density")
"""Drawn once per input and shared by all methods; the others are drawn once per merge."""


class NotInSpace(ValueError):  # noqa: N818 - a statement about a recipe, not a fault
    """A recipe, or a set of values, that the space cannot draw; the message says why."""


class Trial(Protocol):
    """What values are taken from; an Optuna trial is one."""

    def suggest_float(self, name: str, low: float, high: float, /) -> float:
        """A number in [low, high]."""
        ...

    def suggest_int(self, name: str, low: int, high: int, /) -> int:
        """A whole number in [low, high]."""
        ...

    def suggest_categorical(self, name: str, choices: Sequence[str], /) -> Any:
        """One of the choices."""
        ...


Value = float | int | str
"""What a parameter of a trial can be."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Floats:
    """Numbers in [low, high]."""

    low: float
    high: float

    @property
    def only(self) -> float | None:
        """The value, where there is just one."""
        return self.low if self.low == self.high else None

    def holds(self, value: Value) -> bool:
        """Whether a value belongs to it."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and self.low <= float(value) <= self.high

    def suggest(self, trial: Trial, name: str) -> float:
        """A value from a trial; never a negative zero, which would be a recipe of its own."""
        return float(trial.suggest_float(name, self.low, self.high)) + 0.0

    def __str__(self) -> str:
        return f"a number in [{self.low:g}, {self.high:g}]"


@dataclass(frozen=True, kw_only=True, slots=True)
class Integers:
    """Whole numbers in [low, high]."""

    low: int
    high: int

    @property
    def only(self) -> int | None:
        """The value, where there is just one."""
        return self.low if self.low == self.high else None

    def holds(self, value: Value) -> bool:
        """Whether a value belongs to it."""
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole and self.low <= int(value) <= self.high

    def suggest(self, trial: Trial, name: str) -> int:
        """A value from a trial."""
        return int(trial.suggest_int(name, self.low, self.high))

    def __str__(self) -> str:
        return f"a whole number in [{self.low}, {self.high}]"


@dataclass(frozen=True, slots=True)
class Choices:
    """One of a few words, always in the same order."""

    words: tuple[str, ...]

    @property
    def only(self) -> str | None:
        """The value, where there is just one."""
        return self.words[0] if len(self.words) == 1 else None

    def holds(self, value: Value) -> bool:
        """Whether a value belongs to it."""
        return value in self.words

    def suggest(self, trial: Trial, name: str) -> str:
        """A value from a trial."""
        return str(trial.suggest_categorical(name, self.words))

    def __str__(self) -> str:
        return f"one of {', '.join(self.words)}"


Domain = Floats | Integers | Choices
"""Where the values of one name lie."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dial:
    """One thing a space can draw.

    Attributes:
        name: Its name in a trial.
        domain: Where its values lie; where that is a single value, no trial is asked.
        parameter: What it is: ``weight``, ``method``, ``tree`` ... without any suffix.
        of: The input, join or slice it belongs to; empty for the merge of all parents.
    """

    name: str
    domain: Domain
    parameter: str
    of: str = ""


class Fixed:
    """A trial that replays given values.

    Args:
        values: By name; names that are not asked for do no harm.
    """

    def __init__(self, values: Mapping[str, Value]) -> None:
        self._values = dict(values)

    def suggest_float(self, name: str, low: float, high: float) -> float:
        """The number given for ``name``.

        Raises:
            NotInSpace: If there is none, or it is out of range; as for the methods below.
        """
        return float(self._value(name, Floats(low=low, high=high)))

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """The whole number given for ``name``."""
        return int(self._value(name, Integers(low=low, high=high)))

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str:
        """The word given for ``name``."""
        return str(self._value(name, Choices(tuple(choices))))

    def _value(self, name: str, domain: Domain) -> Value:
        if name not in self._values:
            raise NotInSpace(f"{name}: expected {domain}, got none")
        value = self._values[name]
        if not domain.holds(value):
            raise NotInSpace(f"{name}: expected {domain}, got {value!r}")
        return value


@lru_cache(maxsize=64)
def dials(space: Space) -> Mapping[str, Dial]:
    """Every dial of a space by name, in a fixed order, those with a single value included."""
    found = (*_structure(space), *_stacking(space), *_inputs(space), *_merges(space))
    return {dial.name: dial for dial in found}


def parameters(space: Space) -> dict[str, Domain]:
    """Names and domains of everything a trial can be asked for, in a fixed order.

    What leaves no choice (one method, a range of one value) is not asked for and not listed.
    """
    return {name: dial.domain for name, dial in dials(space).items() if dial.domain.only is None}


def orders(space: Space) -> tuple[str, ...]:
    """The orders that can be drawn; just one for one or two parents."""
    both = (("all-at-once", space.all_at_once), ("pairwise", space.pairwise))
    return tuple(name for name, methods in both if methods)


def nodes(space: Space) -> tuple[str, ...]:
    """Names of the joins of a pairwise merge, in order; empty where none can be drawn."""
    if not space.pairwise:
        return ()
    return tuple(f"node{number}" for number in range(1, len(space.parents)))


def joinable(space: Space, leaf: int) -> tuple[str, ...]:
    """What the parent with this number (from 2) can join, in the order of its digit."""
    return (*space.parents[:leaf], *nodes(space)[: leaf - 1])


def filters(space: Space, parameter: str) -> tuple[str | None, ...]:
    """The filters of a parameter, the rest as ``None`` at the end; empty without filters."""
    if parameter in space.filter_parameters and space.filters:
        return (*space.filters, None)
    return ()


def depths(space: Space, parameter: str) -> tuple[str, ...]:
    """Suffixes of a parameter over depth; one empty suffix where it does not vary."""
    if parameter not in space.depth.parameters or space.depth.values == 1:
        return ("",)
    letter = "k" if space.depth.knots else "g"
    return tuple(f".{letter}{number}" for number in range(1, space.depth.values + 1))


def value_names(space: Space, parameter: str, stem: str) -> Iterator[str]:
    """All names of one value: by filter, then over depth."""
    cases = [f"[{name or '*'}]" for name in filters(space, parameter)] or [""]
    return (f"{stem}{case}{depth}" for case in cases for depth in depths(space, parameter))


def range_of(space: Space, parameter: str) -> Range:
    """The range of a parameter; ``lambda`` and ``scale`` are factors with a common one."""
    ranges = {"weight": space.weight, "density": space.density, "t": space.t}
    return ranges.get(parameter, space.scale)


def _values(space: Space, parameter: str, stem: str, of: str) -> Iterator[Dial]:
    bounds = range_of(space, parameter)
    domain = Floats(low=float(bounds.low) + 0.0, high=float(bounds.high) + 0.0)
    for name in value_names(space, parameter, stem):
        yield Dial(name=name, domain=domain, parameter=parameter, of=of)


def _structure(space: Space) -> Iterator[Dial]:
    yield Dial(name="order", domain=Choices(orders(space)), parameter="order")
    if space.all_at_once:
        yield Dial(name="method", domain=Choices(space.all_at_once), parameter="method")
    if "passthrough" in space.all_at_once:
        yield Dial(name="parent", domain=Choices(space.parents), parameter="parent")
    if not space.pairwise:
        return
    for leaf, _ in enumerate(radices(len(space.parents)), start=2):
        words = Choices(joinable(space, leaf))
        yield Dial(name=f"tree.{leaf + 1}", domain=words, parameter="tree", of=space.parents[leaf])
    for node in nodes(space):
        domain = Choices(space.pairwise)
        yield Dial(name=f"{node}.method", domain=domain, parameter="method", of=node)


def _stacking(space: Space) -> Iterator[Dial]:
    if space.stacking is None:
        return
    fewest, most = space.stacking.slices(space.layers)
    yield Dial(name="slices", domain=Integers(low=fewest, high=most), parameter="slices")
    for number in range(1, most + 1):
        of = f"slice{number}"
        starts = Integers(low=0, high=space.layers - 1)
        ends = Integers(low=1, high=space.layers)
        yield Dial(name=f"{of}.start", domain=starts, parameter="start", of=of)
        yield Dial(name=f"{of}.end", domain=ends, parameter="end", of=of)


def _inputs(space: Space) -> Iterator[Dial]:
    for parameter in PER_INPUT:
        at_once = any(parameter in DRAWN[method] for method in space.all_at_once)
        paired = any(parameter in DRAWN[method] for method in space.pairwise)
        for name in (*space.parents, *nodes(space)):
            if paired or (at_once and name in space.parents):
                yield from _values(space, parameter, f"{parameter}.{name}", name)


def _merges(space: Space) -> Iterator[Dial]:
    for parameter in ("t", "lambda", "scale"):
        if any(parameter in DRAWN[method] for method in space.all_at_once):
            yield from _values(space, parameter, parameter, "")
        if any(parameter in DRAWN[method] for method in space.pairwise):
            for node in nodes(space):
                yield from _values(space, parameter, f"{node}.{parameter}", node)
