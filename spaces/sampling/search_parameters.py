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
``della_density.math``   density of an input of DELLA, which has bounds of its own
``t``, ``node1.t``       position of slerp; likewise all of ``PER_MERGE``
``slices``               number of layer runs that are stacked; 1 for none
``slice1.start``         first layer of a run; ``slice1.end`` is the layer after the last
``slice2.shift``         from the end of the run before to this one's start, instead of ``start``
``slice1.source``        what the layers of a run are taken from, a parent or ``MERGED``
=======================  ===========================================================

A value that varies by filter carries the filter in brackets, ``[*]`` for the rest; one that varies
over depth ends in ``.k1``, ``.k2`` (knots) or ``.g1``, ``.g2`` (groups), from the first layers to
the last: ``weight.math[mlp].k1``. Model names hold no brackets, and whether a suffix is there is
the same for all names of a parameter in a space, so a name can be read in one way only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from spaces.catalogue.method_catalogue import METHODS
from spaces.sampling.distributions import Choices, Domain, Floats, Integers
from spaces.search_space.bounds import MERGED
from spaces.search_space.merge_trees import radices
from spaces.search_space.parameter_ranges import RANGES, della_density
from spaces.search_space.space import VARIABLE, Range, Space

DRAWN: dict[str, tuple[str, ...]] = {name: method.drawn for name, method in METHODS.items()}
"""What is drawn for each method; the rest stays at the catalogue's defaults.

Those per input but weights and densities are drawn once and hold for all inputs.
"""

PER_INPUT = ("weight", "density", "della_density")
"""Drawn once per input and shared by all methods; the others are drawn once per merge."""

PER_MERGE = tuple(name for name in VARIABLE if name not in PER_INPUT)
"""Drawn once per merge."""

_IN_RECIPES = {
    spec.search.name: spec.name
    for method in METHODS.values()
    for spec in method.parameters
    if spec.search is not None
}


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchParameter:
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


@lru_cache(maxsize=64)
def dials(space: Space) -> Mapping[str, SearchParameter]:
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
    parameter = _varies_as(parameter)
    if parameter in space.filter_parameters and space.filters:
        return (*space.filters, None)
    return ()


def depths(space: Space, parameter: str) -> tuple[str, ...]:
    """Suffixes of a parameter over depth; one empty suffix where it does not vary."""
    if _varies_as(parameter) not in space.depth.parameters or space.depth.values == 1:
        return ("",)
    letter = "k" if space.depth.knots else "g"
    return tuple(f".{letter}{number}" for number in range(1, space.depth.values + 1))


def value_names(space: Space, parameter: str, stem: str) -> Iterator[str]:
    """All names of one value: by filter, then over depth."""
    cases = [f"[{name or '*'}]" for name in filters(space, parameter)] or [""]
    return (f"{stem}{case}{depth}" for case in cases for depth in depths(space, parameter))


def range_of(space: Space, parameter: str) -> Range:
    """The range of a parameter; ``lambda`` and ``scale`` are factors with a common one."""
    if parameter == "della_density":
        return della_density(space.density, space.epsilon)
    return space.range("scale" if parameter == "lambda" else parameter)


def in_recipes(parameter: str) -> str:
    """What a drawn parameter is called in a recipe.

    Names differ where one name of mergekit means several things: they are drawn from different
    ranges, and what suits one says nothing about the other.
    """
    return _IN_RECIPES[parameter]


def _varies_as(parameter: str) -> str:
    """The parameter that says whether this one varies over depth and by filter."""
    return "density" if parameter == "della_density" else parameter


def _values(space: Space, parameter: str, stem: str, of: str) -> Iterator[SearchParameter]:
    bounds = range_of(space, parameter)
    log = parameter in RANGES and RANGES[parameter].log
    domain = Floats(low=float(bounds.low) + 0.0, high=float(bounds.high) + 0.0, log=log)
    for name in value_names(space, parameter, stem):
        yield SearchParameter(name=name, domain=domain, parameter=parameter, of=of)


def _structure(space: Space) -> Iterator[SearchParameter]:
    yield SearchParameter(name="order", domain=Choices(orders(space)), parameter="order")
    if space.all_at_once:
        yield SearchParameter(name="method", domain=Choices(space.all_at_once), parameter="method")
    if "passthrough" in space.all_at_once:
        yield SearchParameter(name="parent", domain=Choices(space.parents), parameter="parent")
    if not space.pairwise:
        return
    for leaf, _ in enumerate(radices(len(space.parents)), start=2):
        words = Choices(joinable(space, leaf))
        yield SearchParameter(
            name=f"tree.{leaf + 1}", domain=words, parameter="tree", of=space.parents[leaf]
        )
    for node in nodes(space):
        domain = Choices(space.pairwise)
        yield SearchParameter(name=f"{node}.method", domain=domain, parameter="method", of=node)


def _stacking(space: Space) -> Iterator[SearchParameter]:
    if space.stacking is None:
        return
    fewest, most = space.stacking.slices(space.layers)
    yield SearchParameter(name="slices", domain=Integers(low=fewest, high=most), parameter="slices")
    starts = Integers(low=0, high=space.layers - 1)
    ends = Integers(low=1, high=space.layers)
    in_order = space.stacking.in_order
    back, ahead = space.stacking.shifts
    for number in range(1, most + 1):
        of = f"slice{number}"
        if not in_order:
            yield SearchParameter(name=f"{of}.start", domain=starts, parameter="start", of=of)
        elif number > 1:
            shifts = Integers(low=back, high=ahead)
            yield SearchParameter(name=f"{of}.shift", domain=shifts, parameter="shift", of=of)
        if not in_order or number < most:
            yield SearchParameter(name=f"{of}.end", domain=ends, parameter="end", of=of)
        if space.stacking.sources != "merged":
            yield SearchParameter(
                name=f"{of}.source", domain=sources(space), parameter="source", of=of
            )


def sources(space: Space) -> Choices:
    """What a run of stacked layers can be taken from."""
    kind = space.stacking.sources if space.stacking is not None else "merged"
    parents = space.parents if kind != "merged" else ()
    return Choices((*parents, MERGED) if kind != "parents" else parents)


def _inputs(space: Space) -> Iterator[SearchParameter]:
    for parameter in PER_INPUT:
        at_once = any(parameter in DRAWN[method] for method in space.all_at_once)
        paired = any(parameter in DRAWN[method] for method in space.pairwise)
        for name in (*space.parents, *nodes(space)):
            if paired or (at_once and name in space.parents):
                yield from _values(space, parameter, f"{parameter}.{name}", name)


def _merges(space: Space) -> Iterator[SearchParameter]:
    for parameter in PER_MERGE:
        if any(parameter in DRAWN[method] for method in space.all_at_once):
            yield from _values(space, parameter, parameter, "")
        if any(parameter in DRAWN[method] for method in space.pairwise):
            for node in nodes(space):
                yield from _values(space, parameter, f"{node}.{parameter}", node)
