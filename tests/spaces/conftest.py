"""Random spaces and random trials."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import strategies as st

from spaces.catalogue.method_catalogue import METHODS, BaseRule
from spaces.recipes.recipe import DTYPES
from spaces.recipes.vocabulary import Vocabulary
from spaces.search_space.bounds import SOURCES
from spaces.search_space.merge_trees import MAX_LEAVES
from spaces.search_space.parameter_ranges import della_density
from spaces.search_space.space import VARIABLE, Depth, Order, Range, Space, Stacking

NAMES = ("math", "code", "chat-v0.1", "math.k1", "a_b", "Qwen.2", "x1")


class RandomTrial:
    """A trial that draws at random, the ends of a range more often than their share."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.values: dict[str, float | int | str] = {}

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        inside = self._random.uniform(low, high)
        if log:
            assert low > 0
            power = self._random.uniform(math.log(low), math.log(high))
            inside = min(max(math.exp(power), low), high)
        return self._note(name, self._random.choice([low, high, *[inside] * 8]))

    def suggest_int(self, name: str, low: int, high: int) -> int:
        return self._note(name, self._random.randint(low, high))

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str:
        return self._note(name, self._random.choice(choices))

    def _note(self, name, value):
        assert name not in self.values, f"{name} was asked for twice"
        self.values[name] = value
        return value


@st.composite
def ranges(draw: st.DrawFn, low: float, high: float) -> Range:
    ends = sorted(draw(st.tuples(*[st.floats(low, high, allow_subnormal=False)] * 2)))
    return Range(low=ends[0], high=draw(st.sampled_from([ends[1], ends[1], ends[1], ends[0]])))


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    parents = tuple(draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=5, unique=True)))
    base = draw(st.sampled_from([None, "base"]))
    order = draw(st.sampled_from(list(Order)))
    layers = draw(st.integers(1, 9))
    paired = len(parents) > 2 and order is not Order.ALL_AT_ONCE
    at_once = len(parents) < 3 or order is not Order.PAIRWISE
    legal = [
        name
        for name, method in METHODS.items()
        if (base is not None or method.base is not BaseRule.REQUIRED)
        and ((at_once and (name == "passthrough" or method.takes(len(parents))))
             or (paired and method.takes(2)))
    ]  # fmt: skip
    names = st.lists(st.sampled_from(VARIABLE), unique=True).map(tuple)
    depth = Depth(parameters=draw(names))
    if layers > 1 and draw(st.booleans()):
        kind = draw(st.sampled_from(["knots", "groups"]))
        depth = Depth(**{kind: draw(st.integers(2, layers))}, parameters=draw(names))
    stacking = None
    if layers > 1 and draw(st.booleans()):
        most, least = draw(st.integers(2, 4)), draw(st.integers(1, layers + 3))
        stacking = Stacking(
            max_slices=most,
            min_layers=least,
            max_layers=draw(st.integers(max(2, least), 3 * layers)),
            sources=draw(st.sampled_from(SOURCES)),
            max_repeated=draw(st.none() | st.integers(0, layers)),
            max_removed=draw(st.none() | st.integers(0, layers)),
        )
        if stacking.slices(layers)[0] > stacking.slices(layers)[1]:
            stacking = None
    density, epsilon = draw(ranges(0.001, 1.0)), draw(ranges(0.0, 0.45))
    margins = della_density(density, epsilon)
    if margins.low > margins.high:
        legal = [name for name in legal if not name.startswith("della")]
    return Space(
        parents=parents,
        base=base,
        layers=layers,
        methods=tuple(draw(st.lists(st.sampled_from(legal), min_size=1, unique=True))),
        weight=draw(ranges(-1.0, 2.0).filter(lambda r: (r.low, r.high) != (0, 0))),
        density=density,
        t=draw(ranges(-0.5, 1.5)),
        scale=draw(ranges(0.0, 2.0)),
        gamma=draw(ranges(0.0, 1.0)),
        epsilon=epsilon,
        select_topk=draw(ranges(0.0, 1.0)),
        nearswap_t=draw(ranges(1e-6, 0.1)),
        ram_epsilon=draw(ranges(1e-9, 0.1)),
        ram_r=draw(ranges(-1.0, 1.0)),
        ram_alpha=draw(ranges(0.0, 2.0)),
        depth=depth,
        filters=tuple(
            draw(st.lists(st.sampled_from(["mlp", "self_attn", "layers.0.", "[x]"]), unique=True))
        ),
        filter_parameters=draw(names),
        order=order,
        stacking=stacking,
        dtype=draw(st.sampled_from([None, *DTYPES])),
        seed=draw(st.sampled_from([0, 7, 2**31 - 1])),
        tokenizer=draw(st.sampled_from([None, parents[-1]])),
        vocabulary=draw(
            st.sampled_from(
                [None, Vocabulary(), Vocabulary(model=parents[0], pad_to_multiple_of=8)]
            )
        ),
    )


@pytest.fixture(scope="session")
def any_space() -> st.SearchStrategy[Space]:
    """Spaces of every shape."""
    return spaces()


@pytest.fixture(scope="session")
def random_trial() -> Callable[[int], RandomTrial]:
    """Makes a random trial from a seed; ``values`` holds what it was asked for."""
    return RandomTrial


@pytest.fixture(scope="session")
def max_parents() -> int:
    return MAX_LEAVES


@pytest.fixture(scope="session")
def mixed_space() -> Space:
    """Three parents, every method, every order, values by depth and filter, layer stacking."""
    return Space(
        parents=("math", "code", "chat"),
        base="base",
        layers=6,
        methods=tuple(METHODS),
        depth=Depth(knots=2),
        filters=("mlp",),
        stacking=Stacking(max_slices=3, min_layers=6, max_layers=9),
        dtype="bfloat16",
        seed=11,
    )
