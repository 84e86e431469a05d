"""From a trial to a recipe, and back: ``draw`` and its inverse ``params``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from spaces.catalogue.method_catalogue import METHODS, BaseRule
from spaces.recipes.parameter_values import numbers
from spaces.recipes.recipe import (
    ByFilter,
    Case,
    Gradient,
    Level,
    Merge,
    Model,
    Parameter,
    Recipe,
    Slice,
    Source,
    unchecked,
)
from spaces.sampling.distributions import (
    Choices,
    Domain,
    Fixed,
    Floats,
    Integers,
    NotInSpace,
    Trial,
    Value,
)
from spaces.sampling.inverse_draw import difference, values_of
from spaces.sampling.search_parameters import (
    DRAWN,
    PER_INPUT,
    SearchParameter,
    depths,
    dials,
    filters,
    in_recipes,
    joinable,
    parameters,
    value_names,
)
from spaces.search_space.bounds import MERGED, Stacking
from spaces.search_space.layer_stacking import Part, condensed, follow, settle
from spaces.search_space.merge_trees import Tree, tree_from_digits
from spaces.search_space.space import Space

__all__ = [
    "SMALLEST_SUM",
    "Choices",
    "SearchParameter",
    "Domain",
    "Fixed",
    "Floats",
    "Integers",
    "NotInSpace",
    "Trial",
    "Value",
    "dials",
    "draw",
    "parameters",
    "params",
]

SMALLEST_SUM = 1e-3
"""A merge is divided by its sum of weights only where that is at least this everywhere."""


def draw(space: Space, trial: Trial, *, flat: bool = False, check: bool = True) -> Recipe:
    """A recipe from the space.

    Args:
        space: What may be drawn.
        trial: Where the values come from: an Optuna trial, or ``Fixed``.
        flat: Ask for every parameter of the space, always in the same order, and ignore those that
            this recipe has no use for (samplers that know only fixed spaces need it). Otherwise
            only what the recipe uses is asked for.
        check: Check the merges of the recipe as those of any other; all that a space draws are
            legal, so that hundreds that are only compared need not be.

    Returns:
        A legal recipe; the same one for the same values, whether flat or not.
    """
    if flat:
        known = parameters(space).items()
        trial = Fixed({name: domain.suggest(trial, name) for name, domain in known})
    return _RecipeDraw(space, trial, check=check).recipe()


def params(recipe: Recipe, space: Space) -> dict[str, Value]:
    """The values with which ``draw`` gives this recipe: its exact inverse.

    ``draw(space, Fixed(params(recipe, space)))`` is the recipe for every recipe that can be drawn,
    and the values are those it was drawn with, but for stacked layers that had to be brought within
    bounds: there they are the layers it has.

    Raises:
        NotInSpace: If the space cannot draw the recipe; the message says why.
    """
    values = values_of(recipe, space)
    drawn = draw(space, Fixed(values))
    if drawn.key != recipe.key:
        raise NotInSpace(difference(drawn.to_dict(), recipe.to_dict()) or "recipe: not drawn so")
    return {name: values[name] for name in parameters(space) if name in values}


T = TypeVar("T")

_Layout = tuple[tuple[str, ...], int, tuple[str | None, ...]]
"""Names of a value by filter, then over depth; number of depths; filters."""


@lru_cache(maxsize=64)
def _layouts(_: Space) -> dict[tuple[str, str], _Layout]:
    """The layouts of a space that were needed so far, by parameter and stem."""
    return {}


class _RecipeDraw:
    """One recipe on its way from a trial."""

    def __init__(self, space: Space, trial: Trial, *, check: bool) -> None:
        self._space = space
        self._trial = trial
        self._dials: Mapping[str, SearchParameter] = dials(space)
        self._layouts = _layouts(space)
        self._make = _checked if check else unchecked

    def recipe(self) -> Recipe:
        return self._space.finished(self._root())

    def _root(self) -> Merge:
        stacking = self._space.stacking
        if stacking is None:
            return self._merged()
        if stacking.sources == "merged" and not stacking.in_order:
            merged = self._merged()
            return _stack(self._parts(stacking), merged)
        # Runs of parents alone need no merge, and then nothing of one is asked for.
        parts = self._parts(stacking)
        needed = not parts or MERGED in (source for source, _ in parts)
        return _stack(parts, self._merged() if needed else None)

    def _merged(self) -> Merge:
        paired = self._word("order") == "pairwise"
        return self._pairs(self._tree()) if paired else self._at_once()

    def _pick(self, name: str) -> Value:
        domain = self._dials[name].domain
        return domain.suggest(self._trial, name) if domain.only is None else domain.only

    def _word(self, name: str) -> str:
        return str(self._pick(name))

    def _at_once(self) -> Merge:
        method = self._word("method")
        if method != "passthrough":
            return self._merge(method, [(name, Model(name)) for name in self._space.parents])
        parent = Model(self._word("parent"))
        scale = (("scale", self._value("scale", "scale")),)
        return Merge(method=method, sources=(Source(of=parent, parameters=scale),))

    def _tree(self) -> Tree:
        space = self._space
        leaves = range(2, len(space.parents))
        digits = [joinable(space, leaf).index(self._word(f"tree.{leaf + 1}")) for leaf in leaves]
        return tree_from_digits(digits, leaves=len(space.parents))

    def _pairs(self, root: Tree) -> Merge:
        """The merges of a tree; children are drawn before their parent."""

        def build(tree: Tree) -> tuple[str, Model | Merge]:
            if isinstance(tree, int):
                name = self._space.parents[tree]
                return name, Model(name)
            inputs = [build(tree.left), build(tree.right)]
            node = f"node{tree.node}"
            return node, self._merge(self._word(f"{node}.method"), inputs, prefix=f"{node}.")

        merged = build(root)[1]
        assert isinstance(merged, Merge)
        return merged

    def _merge(
        self, method: str, inputs: Sequence[tuple[str, Model | Merge]], *, prefix: str = ""
    ) -> Merge:
        """One merge of inputs that have a name each."""
        own = [name for name in DRAWN[method] if name in PER_INPUT]
        shared = [name for name in DRAWN[method] if name not in PER_INPUT]
        tables = [
            {
                in_recipes(parameter): self._value(parameter, f"{parameter}.{name}")
                for parameter in own
            }
            for name, _ in inputs
        ]
        common = {in_recipes(name): self._value(name, f"{prefix}{name}") for name in shared}
        divides = METHODS[method].divides
        if divides and not self._can_normalize([table["weight"] for table in tables]):
            common[divides] = False
        rule = METHODS[method].base
        base: Model | Merge | None = None
        if rule.apart and self._space.base is not None:
            base = Model(self._space.base)
        elif rule is BaseRule.ENDPOINT:
            base = inputs[0][1]
        return self._make(
            Merge,
            method=method,
            sources=tuple(
                self._make(Source, of=node, parameters=tuple(sorted(table.items())))
                for (_, node), table in zip(inputs, tables, strict=True)
            ),
            base=base,
            parameters=tuple(sorted(common.items())),
        )

    def _value(self, parameter: str, stem: str) -> Parameter:
        """A value by filter and over depth, as the space has it."""
        names, count, cases = self._layout(parameter, stem)
        values = [float(self._pick(name)) for name in names]
        levels = [self._level(values[at : at + count]) for at in range(0, len(values), count)]
        if not cases:
            return levels[0]
        return ByFilter(tuple(Case(level, case) for level, case in zip(levels, cases, strict=True)))

    def _layout(self, parameter: str, stem: str) -> _Layout:
        found = self._layouts.get((parameter, stem))
        if found is None:
            space = self._space
            names = tuple(value_names(space, parameter, stem))
            found = names, len(depths(space, parameter)), filters(space, parameter)
            self._layouts[parameter, stem] = found
        return found

    def _level(self, values: list[float]) -> Level:
        if len(values) == 1:
            return values[0]
        if self._space.depth.knots:
            return self._make(Gradient, anchors=tuple(values))
        layers = self._space.layers
        # One anchor per layer: the position of layer k is k / (layers - 1), so it meets anchor k.
        anchors = tuple(values[layer * len(values) // layers] for layer in range(layers))
        return self._make(Gradient, anchors=anchors)

    def _can_normalize(self, weights: Sequence[Parameter]) -> bool:
        """Whether the weights of a merge keep clear of a sum of 0 in every layer."""
        ends = [(min(found), max(found)) for found in (tuple(numbers(w)) for w in weights)]
        # Between these sums lie those of all layers; twice the bound leaves room for rounding.
        if sum(low for low, _ in ends) >= 2 * SMALLEST_SUM:
            return True
        if sum(high for _, high in ends) <= -2 * SMALLEST_SUM:
            return True
        layers = self._space.layers
        positions = [layer / (layers - 1) if layers > 1 else 1.0 for layer in range(layers)]
        cases = range(len(filters(self._space, "weight")) or 1)
        for case in cases:
            levels = [w.cases[case].value if isinstance(w, ByFilter) else w for w in weights]
            for position in (0.0, *positions):
                if abs(sum(_at(level, position) for level in levels)) < SMALLEST_SUM:
                    return False
        return True

    def _parts(self, stacking: Stacking) -> tuple[Part, ...]:
        """The runs of layers to stack and what they are taken from; none for the merged model."""
        layers = self._space.layers
        count = int(self._pick("slices"))
        if count == 1:
            return ()
        places = range(1, count + 1)
        if stacking.in_order:
            ends = [self._number(f"slice{place}.end") for place in places[:-1]]
            shifts = [self._number(f"slice{place}.shift") for place in places[1:]]
            runs = follow(ends, shifts, stacking, layers=layers)
        else:
            drawn = [
                (self._number(f"slice{place}.start"), self._number(f"slice{place}.end"))
                for place in places
            ]
            runs = settle(drawn, stacking, layers=layers)
        if stacking.sources == "merged":
            sources = [MERGED for _ in places]
        else:
            sources = [self._word(f"slice{place}.source") for place in places]
        parts = tuple(zip(sources, runs, strict=True))
        return condensed(parts) if stacking.in_order else parts

    def _number(self, name: str) -> int:
        return int(self._pick(name))


def _stack(parts: Sequence[Part], merged: Merge | None) -> Merge:
    """Passthrough over runs of layers; the merged model itself where there are none."""
    nodes: dict[str, Model | Merge] = {name: Model(name) for name, _ in parts if name != MERGED}
    if merged is not None:
        if not parts:
            return merged
        nodes[MERGED] = merged
    return Merge(
        method="passthrough",
        slices=tuple(Slice(sources=(Source(of=nodes[name], layers=run),)) for name, run in parts),
    )


def _checked(kind: type[T], **fields: Any) -> T:
    return kind(**fields)


def _at(level: Level, position: float) -> float:
    return level.at(position) if isinstance(level, Gradient) else float(level)
