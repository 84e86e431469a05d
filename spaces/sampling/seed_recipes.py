"""The recipes a run starts with: what anyone would try by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from spaces.catalogue.method_catalogue import METHODS, Method
from spaces.recipes.recipe import Merge, Model, Recipe, Source
from spaces.recipes.recipe import parameters as table
from spaces.sampling.distributions import Fixed, NotInSpace, Value
from spaces.sampling.draw import SMALLEST_SUM, draw, params
from spaces.sampling.inverse_draw import values_of
from spaces.sampling.projection import adopt, fit
from spaces.sampling.search_parameters import SearchParameter, dials, orders
from spaces.search_space.space import Space

SPECIALIST = 0.65
"""Share of a specialist in a linear merge; the other parents have equal shares of the rest."""

_TRIED_APART = frozenset(
    {"linear", "slerp", "task_arithmetic", "ties", "dare_linear", "dare_ties", "passthrough"}
)
_NEAR = 1e-4  # nearswap's t, which has no default


def _once(method: Method) -> dict[str, Value]:
    """Values to try a method with, by what is drawn: half of a thinned delta, else the defaults."""
    weight = 1.0 if method.parameter("density") is None else 0.5
    values: dict[str, Value] = {}
    for spec in method.parameters:
        if spec.search is None:
            continue
        given = {"weight": weight, "density": 0.5}.get(spec.name, spec.default)
        values[spec.search.name] = _NEAR if given is None else given
    return values


_ONCE = tuple((name, _once(method)) for name, method in METHODS.items() if name not in _TRIED_APART)
"""Values to try each further method with, by what is drawn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seed:
    """A recipe to try first.

    Attributes:
        name: What it is: ``parent math``, ``plain average``, ``ties density 0.5 weight 1``.
        recipe: The recipe.
        params: Values with which the space draws it; ``None`` where it cannot.
        reason: Why it cannot, where it was asked to.
    """

    name: str
    recipe: Recipe
    params: dict[str, Value] | None
    reason: str = ""

    @classmethod
    def of(cls, recipe: Recipe, space: Space, *, name: str) -> Seed:
        """A recipe from elsewhere: as the space draws the same merge, else as it stands."""
        try:
            fitted = fit(recipe, space)
        except NotInSpace as error:
            return cls(name=name, recipe=adopt(recipe, space), params=None, reason=str(error))
        return cls(name=name, recipe=fitted, params=params(fitted, space))

    def to_dict(self) -> dict[str, Any]:
        """The seed as JSON-able values; ``from_dict`` is the inverse."""
        return asdict(self) | {"recipe": self.recipe.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Seed:
        """A seed from what ``to_dict`` gave."""
        return cls(**{**data, "recipe": Recipe.from_dict(data["recipe"])})


def seeds(space: Space) -> tuple[Seed, ...]:
    """The seeds of a space, in the order to try them; all recipes are different.

    Each parent alone and the plain average are always there, drawn by the space where it can, so
    that a sampler learns from them (a single parent is its own average, listed once). Of the
    others only those that the space can draw:

    - each parent as the specialist: 0.65 of it, equal shares of the rest (linear);
    - TIES at density 0.5 and weight 1, DARE-TIES at density 0.5 and weight 0.5;
    - task arithmetic with weights 1, where real fine-tunes are often best, and between these and
      the average's with 1/sqrt(k): the sum of k orthogonal deltas is then as long as one of them;
    - slerp half way, for two parents;
    - each further method once, at density and weight 0.5 or weight 1, and mergekit's defaults.
    """
    found: dict[str, Seed] = {}
    for seed in (*_baselines(space), *_known_good(space)):
        found.setdefault(seed.recipe.key, seed)
    return tuple(found.values())


def base_alone(space: Space) -> Seed | None:
    """The base as it is, to see where everything comes from; ``None`` for a space without one."""
    if space.base is None:
        return None
    return _outside(space, "base", Merge(method="passthrough", sources=(_input(space.base),)))


def _baselines(space: Space) -> Iterator[Seed]:
    count = len(space.parents)
    for at, parent in enumerate(space.parents):
        name = f"parent {parent}"
        alone: dict[str, Value] = {"method": "passthrough", "parent": parent, "scale": 1.0}
        shares = [float(other == at) for other in range(count)]
        drawn = _drawn(space, name, alone) or _mixture(space, name, shares)
        yield drawn or _outside(space, name, Merge(method="passthrough", sources=(_input(parent),)))
    average = Merge(method="linear", sources=tuple(_input(p, weight=1.0) for p in space.parents))
    shares = [1.0 / count] * count
    drawn = _mixture(space, "plain average", shares, scales=(float(count), 1.0))
    yield drawn or _outside(space, "plain average", average)


def _known_good(space: Space) -> Iterator[Seed]:
    count = len(space.parents)
    found: list[Seed | None] = []
    for at, parent in enumerate(space.parents if count > 1 else ()):
        rest = (1.0 - SPECIALIST) / (count - 1)
        shares = [SPECIALIST if other == at else rest for other in range(count)]
        found.append(_mixture(space, f"specialist {parent}", shares))
    fixed: tuple[tuple[str, dict[str, Value]], ...] = (
        ("ties density 0.5 weight 1", {"method": "ties", "density": 0.5, "weight": 1.0}),
        (
            "dare_ties density 0.5 weight 0.5",
            {"method": "dare_ties", "density": 0.5, "weight": 0.5},
        ),
        *_sums(count),
        ("slerp t 0.5", {"method": "slerp", "t": 0.5}),
        *((method, {"method": method, **values}) for method, values in _ONCE),
    )
    found += [_drawn(space, name, wanted) for name, wanted in fixed]
    return (seed for seed in found if seed is not None)


def _sums(count: int) -> Iterator[tuple[str, dict[str, Value]]]:
    """Task arithmetic to try; with weights 1/k it would be the plain average again."""
    weights = {f"1/sqrt({count})": round(1.0 / math.sqrt(count), 2)} if count > 1 else {}
    for name, weight in {**weights, "1": 1.0}.items():
        yield f"task_arithmetic weight {name}", {"method": "task_arithmetic", "weight": weight}


def _drawn(space: Space, name: str, wanted: Mapping[str, Value]) -> Seed | None:
    """A seed with one merge of all parents, or ``None`` where the space cannot draw it.

    Args:
        space: The space.
        name: Name of the seed.
        wanted: Values by parameter, the same for every input, depth and filter.
    """
    answers: dict[str, Value] = {"order": "all-at-once", "slices": 1, "lambda": 1.0, **wanted}
    values = {dial.name: answers.get(dial.parameter) for dial in dials(space).values()}
    return _seed(space, name, values)


def _mixture(
    space: Space, name: str, shares: Sequence[float], *, scales: Sequence[float] = (1.0,)
) -> Seed | None:
    """A linear merge with these shares; in pairs, one parent after the other, if it must be.

    Args:
        space: The space.
        name: Name of the seed.
        shares: One per parent; they sum to 1.
        scales: Factors of the shares to try, since only their ratios matter. Last of all comes the
            one that takes the largest share to the far end of the range.
    """
    count = len(shares)
    merged = range(2, count) if orders(space)[0] == "pairwise" else ()
    sums = [sum(shares[:number]) for number in (*merged, count)]
    far = max(space.weight.high, space.weight.low, key=abs)
    largest = max(*shares, *sums[:-1]) if merged else max(shares)
    for scale in (*scales, float(far) / largest):
        # What is not divided by its sum is no mixture with these shares, unless nothing is in it.
        if any(0.0 < abs(scale * total) < SMALLEST_SUM for total in sums):
            continue
        values = {d.name: _answer(space, d, shares, scale) for d in dials(space).values()}
        seed = _seed(space, name, values)
        if seed is not None:
            return seed
    return None


def _answer(
    space: Space, dial: SearchParameter, shares: Sequence[float], scale: float
) -> Value | None:
    """What a dial is set to for a linear merge with these shares."""
    match dial.parameter:
        case "order":
            return orders(space)[0]
        case "method":
            return "linear"
        case "tree":
            # The latest join is the root so far: parents come in one after the other.
            return f"node{space.parents.index(dial.of) - 1}"
        case "slices":
            return 1
        case "weight" if dial.of in space.parents:
            return scale * shares[space.parents.index(dial.of)]
        case "weight":
            number = int(dial.of.removeprefix("node"))
            return scale * sum(shares[: number + 1])
        case _:
            return None


def _seed(space: Space, name: str, values: Mapping[str, Value | None]) -> Seed | None:
    """The recipe of these values, unless the space cannot draw them or draws something else."""
    given = {key: value for key, value in values.items() if value is not None}
    try:
        recipe = draw(space, Fixed(given))
    except NotInSpace:
        return None
    # What leaves the space no choice was not asked for, and may not be what is wanted.
    if any(value != given.get(key) for key, value in values_of(recipe, space).items()):
        return None
    return Seed(name=name, recipe=recipe, params=params(recipe, space))


def _input(name: str, **values: float) -> Source:
    return Source(of=Model(name), parameters=table(**values))


def _outside(space: Space, name: str, root: Merge) -> Seed:
    """A seed that the space cannot draw."""
    return Seed(name=name, recipe=space.finished(root), params=None)
