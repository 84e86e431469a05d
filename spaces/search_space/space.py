"""What may be drawn: the bounds of a search."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from spaces.catalogue.method_catalogue import METHODS, BaseRule
from spaces.recipes.recipe import DTYPES, Merge, Recipe, RecipeError, check_name
from spaces.recipes.vision import Vision
from spaces.recipes.vocabulary import Vocabulary
from spaces.search_space.bounds import (
    EVEN,
    VARIABLE,
    Depth,
    Order,
    Range,
    SpaceError,
    Stacking,
    is_count,
    parameter_problems,
    repeat_problems,
)
from spaces.search_space.parameter_ranges import FURTHER, RANGES, range_problems

__all__ = ["VARIABLE", "Depth", "Order", "Range", "Space", "SpaceError", "Stacking"]

MAX_PAIRWISE = 16
"""Most parents that can be merged in pairs."""

NODE = re.compile(r"node[0-9]+\Z")
"""Names of the joins of a pairwise merge; no parent may have one where pairs can be drawn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Space:
    """The bounds of a search; a space that leaves nothing legal to draw cannot be made.

    Attributes:
        parents: Names of the models to merge, in a fixed order; at least one (two to merge).
        base: Name of the base model; ``None`` rules out methods that need one.
        layers: Number of layers of the parents.
        methods: Names from the catalogue that may be drawn.
        weight: Range of every weight.
        density: Range of every density, within (0, 1].
        t: Range of slerp's position.
        scale: Range of the factor of the summed delta (``lambda``), and of passthrough's ``scale``.
        gamma: Range of the share of outliers that Model Breadcrumbs drops, within [0, 1].
        epsilon: Range of DELLA's half range of probabilities, within [0, 0.5). Densities for DELLA
            are drawn where they are legal with all of it.
        select_topk: Range of the share of entries that SCE selects, within [0, 1].
        nearswap_t: Range of nearswap's ``t``, above 0; drawn on a logarithmic scale.
        ram_epsilon: Range of RAM's ``epsilon``, above 0; drawn on a logarithmic scale.
        ram_r: Range of RAM+'s ``r``.
        ram_alpha: Range of RAM+'s ``alpha``, from 0.
        ranges: Ranges of the parameters of other packages' methods, by name; their own defaults
            where one is not given.
        depth: How values vary over depth.
        filters: Parts of tensor names that get values of their own, besides the rest.
        filter_parameters: Names of the parameters that vary by filter.
        order: How three or more parents come together.
        stacking: Bounds for layer stacking; ``None`` for off.
        dtype: Output dtype of every recipe; ``None`` keeps the inputs'.
        seed: Mask seed of every recipe.
        tokenizer: Model that gives config and tokenizer to every merge; ``None`` for ``giver``.
        giver: Model that does so where ``tokenizer`` names none; ``None`` leaves it to the method
            of each recipe, as in studies of before there was one.
        vocabulary: Of every recipe, where the models' vocabularies differ.
        vision: What the vision tower of every merge is; ``None`` where it is merged as all else.

    Raises:
        SpaceError: With every problem there is, one line each.
    """

    parents: tuple[str, ...]
    base: str | None
    layers: int
    methods: tuple[str, ...]
    weight: Range = RANGES["weight"].default
    density: Range = RANGES["density"].default
    t: Range = RANGES["t"].default
    scale: Range = RANGES["scale"].default
    gamma: Range = RANGES["gamma"].default
    epsilon: Range = RANGES["epsilon"].default
    select_topk: Range = RANGES["select_topk"].default
    nearswap_t: Range = RANGES["nearswap_t"].default
    ram_epsilon: Range = RANGES["ram_epsilon"].default
    ram_r: Range = RANGES["ram_r"].default
    ram_alpha: Range = RANGES["ram_alpha"].default
    ranges: tuple[tuple[str, Range], ...] = ()
    depth: Depth = EVEN
    filters: tuple[str, ...] = ()
    filter_parameters: tuple[str, ...] = ("weight", "t")
    order: Order = Order.ANY
    stacking: Stacking | None = None
    dtype: str | None = None
    seed: int = 0
    tokenizer: str | None = None
    giver: str | None = None
    vocabulary: Vocabulary | None = None
    vision: Vision | None = None

    def finished(self, root: Merge) -> Recipe:
        """The recipe of a merge, with what every recipe of this space has.

        A parent that stands alone stays as it is, with its own config, tokenizer, vocabulary and
        vision tower.
        """
        recipe = Recipe(root=root, dtype=self.dtype, seed=self.seed)
        if self.giver is not None and recipe.alone is not None:
            return recipe
        tokenizer = self.tokenizer
        if tokenizer is None and recipe.donor != self.giver:
            tokenizer = self.giver
        if recipe.alone is not None:
            return replace(recipe, tokenizer=tokenizer, vocabulary=self.vocabulary)
        return replace(recipe, tokenizer=tokenizer, vocabulary=self.vocabulary, vision=self.vision)

    def __post_init__(self) -> None:
        problems = list(_problems(self))
        if problems:
            raise SpaceError(problems)
        drawn = {name for method in self.methods for name in METHODS[method].drawn}
        ranges = tuple((name, self.range(name)) for name in FURTHER if name in drawn)
        object.__setattr__(self, "ranges", ranges)

    def range(self, name: str) -> Range:
        """The range of that name, in ``RANGES``."""
        if name in FURTHER:
            return dict(self.ranges).get(name, RANGES[name].default)
        found = getattr(self, name)
        assert isinstance(found, Range)
        return found

    @property
    def all_at_once(self) -> tuple[str, ...]:
        """Methods that may merge all parents in one step; empty where the order forbids it."""
        if self.order == Order.PAIRWISE and len(self.parents) > 2:
            return ()
        return tuple(name for name in self.methods if _fits_all_at_once(self, name))

    @property
    def pairwise(self) -> tuple[str, ...]:
        """Methods that may merge two inputs on the way; empty where nothing is merged in pairs."""
        if self.order == Order.ALL_AT_ONCE or len(self.parents) < 3:
            return ()
        return tuple(name for name in self.methods if METHODS[name].takes(2))

    def to_dict(self) -> dict[str, Any]:
        """The space as JSON-able values; ``from_dict`` is the inverse."""
        result: dict[str, Any] = {}
        for field in fields(self):
            result[field.name] = _to_json(getattr(self, field.name))
        return result | {name: _to_json(bounds) for name, bounds in result.pop("ranges")}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Space:
        """A space from what ``to_dict`` gave.

        Raises:
            SpaceError: If the data does not describe a legal space.
        """
        known = {field.name for field in fields(cls)} - {"ranges"} | set(FURTHER)
        unknown = sorted(set(data) - known)
        missing = sorted({"parents", "base", "layers", "methods"} - set(data))
        problems = [f"{name}: expected a field of a space, got an unknown name" for name in unknown]
        problems += [f"{name}: expected a value, got none" for name in missing]
        values = {}
        for name in known & set(data):
            try:
                values[name] = _from_json(name, data[name])
            except (TypeError, ValueError, AttributeError) as error:
                problems.append(f"{name}: expected what a space holds, got {data[name]!r}: {error}")
        if problems:
            raise SpaceError(problems)
        further = tuple((name, values.pop(name)) for name in FURTHER if name in values)
        try:
            return cls(**values, ranges=further)
        except TypeError as error:
            raise SpaceError([f"space: expected the fields of a space: {error}"]) from error


_PARTS: dict[str, type[Range | Depth | Stacking]] = {
    **dict.fromkeys(RANGES, Range),
    "depth": Depth,
    "stacking": Stacking,
}


def _to_json(value: Any) -> Any:
    match value:
        case Range() | Depth() | Stacking():
            return {field.name: _to_json(getattr(value, field.name)) for field in fields(value)}
        case Order():
            return value.value
        case Vocabulary() | Vision():
            return value.to_dict()
        case tuple():
            return list(value)
        case _:
            return value


def _from_json(name: str, value: Any) -> Any:
    if name in _PARTS and value is not None:
        return _PARTS[name](**{key: _from_json(key, inner) for key, inner in value.items()})
    if name == "order":
        return Order(value)
    if name == "vocabulary" and value is not None:
        return Vocabulary.from_dict(value)
    if name == "vision" and value is not None:
        return Vision.from_dict(value)
    return tuple(value) if isinstance(value, list) else value


def _fits_all_at_once(space: Space, name: str) -> bool:
    # Passthrough takes one input and leaves the others out: it is drawn with the parent it takes.
    return name == "passthrough" or METHODS[name].takes(len(space.parents))


def _problems(space: Space) -> Iterator[str]:
    """Everything that is wrong with a space, field by field."""
    yield from _model_problems(space)
    if not is_count(space.layers, 1):
        yield f"layers: expected a whole number of at least 1, got {space.layers!r}"
    yield from _method_problems(space)
    for name in sorted(dict(space.ranges).keys() - set(FURTHER)):
        yield f"ranges: expected names from {', '.join(FURTHER) or 'no package'}, got {name!r}"
    yield from range_problems({name: space.range(name) for name in RANGES}, space.methods)
    yield from space.depth.problems(space.layers)
    yield from _filter_problems(space.filters)
    yield from parameter_problems("filter_parameters", space.filter_parameters)
    if space.order not in tuple(Order):
        yield f"order: expected one of {', '.join(Order)}, got {space.order!r}"
    elif space.order != Order.ALL_AT_ONCE and len(space.parents) > MAX_PAIRWISE:
        yield (
            f"parents: expected at most {MAX_PAIRWISE} to merge in pairs, "
            f"got {len(space.parents)}; set order to all-at-once"
        )
    if space.stacking is not None:
        yield from space.stacking.problems(space.layers)
    if space.dtype is not None and space.dtype not in DTYPES:
        yield f"dtype: expected one of {', '.join(DTYPES)}, got {space.dtype!r}"
    if not is_count(space.seed, 0) or space.seed >= 2**31:
        yield f"seed: expected 0 to {2**31 - 1}, got {space.seed!r}"
    names = (*space.parents, *([space.base] if space.base is not None else []))
    for field, model in (("tokenizer", space.tokenizer), ("giver", space.giver)):
        if model is not None and model not in names:
            yield f"{field}: expected one of {', '.join(names)}, got {model!r}"
    if space.vocabulary is not None:
        for name in space.vocabulary.models:
            if name not in names:
                yield f"vocabulary: expected one of {', '.join(names)} or union, got {name!r}"
    if space.vision is not None and space.vision.model not in (None, *names):
        yield f"vision: expected one of {', '.join(names)}, got {space.vision.model!r}"


def _model_problems(space: Space) -> Iterator[str]:
    if not space.parents:
        yield "parents: expected at least one model, got none"
    yield from repeat_problems("parents", space.parents)
    names = [("parents", name) for name in space.parents]
    names += [("base", space.base)] if space.base is not None else []
    for field, name in names:
        try:
            check_name(name)
        except (RecipeError, TypeError) as error:
            yield f"{field}: {error}"
    if space.base is not None and space.base in space.parents:
        yield f"parents: expected models other than the base, got {space.base!r}"
    if space.order != Order.ALL_AT_ONCE and len(space.parents) > 2:
        for name in filter(NODE.match, map(str, space.parents)):
            yield (
                "parents: expected names other than node1, node2 and so on, which stand for the "
                f"joins of a pairwise merge, got {name!r}; rename it or set order to all-at-once"
            )


def _method_problems(space: Space) -> Iterator[str]:
    if not space.methods:
        yield "methods: expected at least one method, got none"
    yield from repeat_problems("methods", space.methods)
    for name in dict.fromkeys(space.methods):
        method = METHODS.get(name)
        if method is None:
            yield f"methods: expected names from {', '.join(METHODS)}, got {name!r}"
        elif method.base is BaseRule.REQUIRED and space.base is None:
            yield f"methods: expected a base for {name}, got none; give a base or leave it out"
        elif space.parents and not _can_be_drawn(space, name):
            yield f"methods: expected methods that fit, got {name}: {_misfit(space, name)}"


def _can_be_drawn(space: Space, name: str) -> bool:
    count = len(space.parents)
    paired = count > 2 and space.order != Order.ALL_AT_ONCE
    at_once = count <= 2 or space.order != Order.PAIRWISE
    return (at_once and _fits_all_at_once(space, name)) or (paired and METHODS[name].takes(2))


def _misfit(space: Space, name: str) -> str:
    method, count = METHODS[name], len(space.parents)
    if space.order == Order.PAIRWISE and count > 2:
        return f"it takes {method.max_inputs} input, pairwise merges have 2; use another order"
    remedy = "; use order pairwise or any" if method.takes(2) and count > 2 else ""
    return f"it takes {method.min_inputs} inputs, got {count}{remedy}"


def _filter_problems(filters: tuple[str, ...]) -> Iterator[str]:
    yield from repeat_problems("filters", filters)
    for at, name in enumerate(filters):
        if not isinstance(name, str) or not name or name == "*":
            yield f"filters: expected part of a tensor name, got {name!r}"
            continue
        for earlier in filters[:at]:
            if isinstance(earlier, str) and earlier and earlier != name and earlier in name:
                yield (
                    f"filters: expected {name!r} before {earlier!r}, got it after: every tensor "
                    "it matches goes to the earlier one"
                )
