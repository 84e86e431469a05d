"""Drawing recipes: legal, reproducible, and exactly invertible."""

import math
from dataclasses import replace
from itertools import pairwise

import optuna
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from spaces.catalogue.method_catalogue import METHODS, Kind
from spaces.recipes.parameter_values import numbers
from spaces.recipes.recipe import (
    ByFilter,
    Case,
    Gradient,
    Merge,
    Model,
    Recipe,
    Slice,
    Source,
    merges,
    resolve,
)
from spaces.recipes.recipe import parameters as table
from spaces.sampling.draw import (
    Choices,
    Fixed,
    Floats,
    Integers,
    NotInSpace,
    draw,
    parameters,
    params,
)
from spaces.sampling.search_parameters import DRAWN, PER_INPUT, PER_MERGE, in_recipes, orders
from spaces.sampling.seed_recipes import seeds
from spaces.search_space.bounds import MERGED
from spaces.search_space.layer_stacking import follow, settle
from spaces.search_space.merge_trees import count
from spaces.search_space.space import Depth, Order, Range, Space, Stacking

SEEDS = st.integers(0, 2**32)


def small(**changes) -> Space:
    values = {"parents": ("math", "code", "chat"), "base": "base", "layers": 4}
    return Space(**(values | {"methods": ("linear", "slerp", "ties")} | changes))


@given(data=st.data(), seed=SEEDS)
def test_params_is_the_inverse(any_space, random_trial, data, seed: int) -> None:
    space, trial = data.draw(any_space), random_trial(seed)
    recipe = draw(space, trial)
    found = params(recipe, space)
    assert draw(space, Fixed(found)).key == recipe.key
    assert list(found) == [name for name in parameters(space) if name in found]
    # Runs of layers may have had to be brought within bounds, and those in order that change
    # nothing are joined; nothing else may differ.
    joins = space.stacking is not None and space.stacking.in_order
    kept, drawn = (
        {
            k: v
            for k, v in values.items()
            if not k.startswith("slice") or (k == "slices" and not joins)
        }
        for values in (found, trial.values)
    )
    assert kept == drawn
    assert found.keys() <= trial.values.keys()
    assert joins or found.keys() == trial.values.keys()


@given(data=st.data(), seed=SEEDS)
def test_recipes_drawn_unchecked_pass_every_check(any_space, random_trial, data, seed: int) -> None:
    space = data.draw(any_space)
    recipe = draw(space, random_trial(seed), check=False)
    assert Recipe.from_dict(recipe.to_dict()) == recipe == draw(space, random_trial(seed))


@given(data=st.data(), seed=SEEDS)
def test_flat_draws_ask_for_everything(any_space, random_trial, data, seed: int) -> None:
    space, trial = data.draw(any_space), random_trial(seed)
    recipe = draw(space, trial, flat=True)
    assert list(trial.values) == list(parameters(space))
    found = params(recipe, space)
    assert draw(space, Fixed(found)).key == recipe.key
    # The same values, asked for one by one, give the same recipe.
    assert draw(space, Fixed(trial.values)).key == recipe.key


@given(data=st.data(), seed=SEEDS)
def test_drawn_recipes_are_as_the_space_says(any_space, random_trial, data, seed: int) -> None:
    space = data.draw(any_space)
    recipe = draw(space, random_trial(seed))
    assert (recipe.dtype, recipe.seed, recipe.tokenizer) == (
        space.dtype, space.seed, space.tokenizer,
    )  # fmt: skip
    assert set(recipe.models) <= {*space.parents, space.base}
    stacked = bool(recipe.root.slices)
    used = {merge.method for merge in merges(recipe.root) if not merge.slices}
    assert used <= set(space.methods)
    if stacked:
        total = sum(part.length for part in recipe.root.slices)
        assert space.stacking.min_layers <= total <= space.stacking.max_layers
        assert len(recipe.root.slices) <= space.stacking.max_slices
        for part in recipe.root.slices:
            start, end = part.sources[0].layers
            assert 0 <= start < end <= space.layers
    elif space.stacking is not None:
        assert space.stacking.min_layers <= space.layers <= space.stacking.max_layers
    assert Recipe.from_dict(recipe.to_dict()) == recipe


@given(data=st.data(), seed=SEEDS)
def test_merges_are_never_divided_by_nothing(any_space, random_trial, data, seed) -> None:
    space = data.draw(any_space)
    for merge in merges(draw(space, random_trial(seed)).root):
        if not METHODS[merge.method].divides:
            continue
        positions = [0.0, 1.0, *(k / max(1, space.layers - 1) for k in range(space.layers))]
        weights = [dict(source.parameters)["weight"] for source in merge.sources]
        filters = [case.filter or "" for case in getattr(weights[0], "cases", [Case(0.0)])]
        sums = [
            sum(resolve(weight, tensor=tensor, position=position) for weight in weights)
            for tensor in filters
            for position in positions
        ]
        normalize = dict(merge.parameters).get(METHODS[merge.method].divides, True)
        assert normalize is (min(map(abs, sums)) >= 1e-3)


@given(layers=st.integers(2, 100), data=st.data())
def test_groups_give_every_layer_its_group_value(layers: int, data: st.DataObject) -> None:
    groups = data.draw(st.integers(2, layers))
    space = small(layers=layers, depth=Depth(groups=groups), parents=("a", "b"))
    values = data.draw(st.lists(st.floats(0, 1), min_size=groups, max_size=groups))
    given_values = {f"t.g{number}": value for number, value in enumerate(values, start=1)}
    recipe = draw(space, Fixed({"method": "slerp", **given_values}))
    (value,) = (value for name, value in recipe.root.parameters if name == "t")
    found = [resolve(value, tensor="x", position=layer / (layers - 1)) for layer in range(layers)]
    wanted = [values[layer * groups // layers] for layer in range(layers)]
    assert all(math.isclose(f, w, abs_tol=1e-12) for f, w in zip(found, wanted, strict=True))
    sizes = [layer * groups // layers for layer in range(layers)]
    runs = [sizes.count(group) for group in range(groups)]
    assert max(runs) - min(runs) <= 1


@pytest.mark.parametrize("parents", [3, 4, 5])
def test_every_merge_order_can_be_drawn(parents: int, random_trial) -> None:
    names = tuple("abcdefgh"[:parents])
    space = small(parents=names, methods=("slerp",), t=Range(low=0.5, high=0.5))
    assert orders(space) == ("pairwise",)
    keys = {draw(space, random_trial(seed)).key for seed in range(40 * count(parents))}
    assert len(keys) == count(parents)


def test_sixteen_parents_in_pairs(max_parents: int, random_trial) -> None:
    space = small(parents=tuple(f"p{n}" for n in range(max_parents)))
    for seed in range(20):
        recipe = draw(space, random_trial(seed))
        assert draw(space, Fixed(params(recipe, space))) == recipe


def test_names_and_domains(mixed_space: Space) -> None:
    found = parameters(mixed_space)
    assert found["order"] == Choices(("all-at-once", "pairwise"))
    assert found["tree.3"] == Choices(("math", "code", "node1"))
    pairs_only = ("slerp", "nuslerp", "nearswap", "arcee_fusion")
    assert found["method"] == Choices(tuple(name for name in METHODS if name not in pairs_only))
    assert found["node1.method"] == Choices(tuple(m for m in METHODS if m != "passthrough"))
    assert found["parent"] == Choices(mixed_space.parents)
    assert found["weight.math[mlp].k1"] == Floats(low=0.0, high=1.5)
    assert found["weight.node1[*].k2"] == Floats(low=0.0, high=1.5)
    assert found["density.math"] == Floats(low=0.1, high=1.0)
    assert found["node2.t[mlp].k2"] == Floats(low=0.0, high=1.0)
    assert found["lambda"] == found["node1.lambda"] == found["scale"] == Floats(low=0.5, high=1.5)
    assert found["della_density.node1"] == Floats(low=0.2 + 0.01, high=1 - (0.2 + 0.01))
    assert found["epsilon"] == found["node2.epsilon"] == Floats(low=0.05, high=0.2)
    assert found["node1.nearswap_t"] == Floats(low=1e-5, high=1e-2, log=True)
    assert found["ram_epsilon"] == Floats(low=1e-6, high=1e-3, log=True)
    assert {"nearswap_t", "density.gamma", "gamma.math"}.isdisjoint(found)
    assert found["slices"] == Integers(low=1, high=3)
    assert found["slice3.start"] == Integers(low=0, high=5)
    assert found["slice3.end"] == Integers(low=1, high=6)
    assert "t" not in {name.partition("[")[0] for name in found}  # slerp takes no three at once


def test_everything_drawn_is_in_the_catalogue() -> None:
    assert DRAWN.keys() == METHODS.keys()
    for method, names in DRAWN.items():
        assert all(METHODS[method].parameter(in_recipes(name)) for name in names)
        required = {p.name for p in METHODS[method].parameters if p.default is None}
        assert required <= {in_recipes(name) for name in names}
        assert set(names) <= {*PER_INPUT, *PER_MERGE}


def test_every_number_of_a_method_is_drawn() -> None:
    """But for what only guards against rounding, and the density that changes nothing."""
    guards = {"eps", "tol", "max_iter"}
    for method, names in DRAWN.items():
        numbers = {p.name for p in METHODS[method].parameters if p.kind is not Kind.FLAG} - guards
        if method == "task_arithmetic":
            numbers.remove("density")
        assert {in_recipes(name) for name in names} == numbers


@given(data=st.data(), seed=SEEDS)
def test_drawn_values_are_legal_together(any_space, random_trial, data, seed: int) -> None:
    """DELLA's densities keep clear of 0 and 1 by epsilon in every layer, for every tensor."""
    space = data.draw(any_space)
    for merge in merges(draw(space, random_trial(seed)).root):
        if not merge.method.startswith("della"):
            continue
        epsilons = list(numbers(dict(merge.parameters)["epsilon"]))
        for source in merge.sources:
            for density in numbers(dict(source.parameters)["density"]):
                assert density == 1 or all(e + 0.009 < density < 0.991 - e for e in epsilons)


def test_a_base_is_used_where_there_is_one() -> None:
    for base in ("base", None):
        space = small(methods=("multislerp",), base=base, order=Order.ALL_AT_ONCE)
        values = {f"weight.{name}": 1.0 for name in space.parents}
        assert draw(space, Fixed(values)).root.base == (Model("base") if base else None)


def test_two_model_methods_start_at_the_first_input() -> None:
    space = small(methods=("nearswap",), parents=("a", "b"))
    root = draw(space, Fixed({"nearswap_t": 1e-3})).root
    assert root.base == Model("a")
    assert dict(root.parameters) == {"t": 1e-3}


def test_a_logarithmic_value_is_kept_within_its_range() -> None:
    class Rounding(Fixed):
        def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
            return math.nextafter(low, 0.0) if log else high

    space = small(methods=("nearswap",), parents=("a", "b"))
    recipe = draw(space, Rounding({}))
    assert params(recipe, space) == {"nearswap_t": space.nearswap_t.low}


def test_weights_are_shared_by_methods_and_orders() -> None:
    space = small()
    weights = {"weight.math": 0.25, "weight.code": 0.5, "weight.chat": 1.0, "weight.node1": 0.75}
    linear = draw(space, Fixed({"order": "all-at-once", "method": "linear", **weights}))
    pairs = draw(
        space,
        Fixed({"order": "pairwise", "tree.3": "node1", "node1.method": "linear",
               "node2.method": "linear", **weights}),
    )  # fmt: skip
    inner = Merge(
        method="linear",
        sources=(
            Source(of=Model("math"), parameters=table(weight=0.25)),
            Source(of=Model("code"), parameters=table(weight=0.5)),
        ),
    )
    assert pairs.root.sources == (
        Source(of=inner, parameters=table(weight=0.75)),
        Source(of=Model("chat"), parameters=table(weight=1.0)),
    )
    assert [dict(s.parameters)["weight"] for s in linear.root.sources] == [0.25, 0.5, 1.0]


def test_a_range_of_one_value_is_not_asked_for() -> None:
    space = small(methods=("ties",), weight=Range(low=1, high=1), density=Range(low=0.5, high=0.5),
                  scale=Range(low=1, high=1), order=Order.ALL_AT_ONCE)  # fmt: skip
    assert parameters(space) == {}
    recipe = draw(space, Fixed({}))
    assert params(recipe, space) == {}
    assert dict(recipe.root.sources[0].parameters) == {"density": 0.5, "weight": 1.0}


def test_a_negative_zero_is_drawn_as_zero() -> None:
    space = small(
        weight=Range(low=-0.0, high=1), order=Order.ALL_AT_ONCE, methods=("ties", "linear")
    )
    values = {"method": "linear", "weight.math": -0.0, "weight.code": 1.0, "weight.chat": 0.0}
    recipe = draw(space, Fixed(values))
    assert recipe.key == draw(space, Fixed(values | {"weight.math": 0.0})).key


@pytest.mark.parametrize(
    ("weights", "normalize"), [((1, -1, 0), False), ((0, 0, 0), False), ((1, -1, 0.5), True)]
)
def test_linear_keeps_clear_of_a_sum_of_zero(weights: tuple, normalize: bool) -> None:
    space = small(weight=Range(low=-1, high=1), order=Order.ALL_AT_ONCE, methods=("linear",))
    names = ("weight.math", "weight.code", "weight.chat")
    recipe = draw(space, Fixed(dict(zip(names, weights, strict=True))))
    assert dict(recipe.root.parameters).get("normalize", True) is normalize
    assert params(recipe, space) == dict(zip(names, weights, strict=True))


@pytest.mark.parametrize(
    ("runs", "settled"),
    [
        ([(0, 4), (2, 6)], ((0, 4), (2, 6))),  # legal: as it is
        ([(4, 4), (5, 2)], ((3, 5), (1, 6))),  # empty, backwards
        ([(0, 6), (0, 6)], ((0, 4), (1, 6))),  # too many: 12 of at most 9
        ([(0, 1), (0, 1)], ((0, 3), (0, 3))),  # too few: 2 of at least 6
        ([(5, 6), (5, 6)], ((3, 6), (3, 6))),
    ],
)
def test_runs_are_brought_within_bounds(runs: list, settled: tuple) -> None:
    stacking = Stacking(max_slices=2, min_layers=6, max_layers=9)
    assert settle(runs, stacking, layers=6) == settled
    assert settle(settled, stacking, layers=6) == settled


@given(data=st.data(), layers=st.integers(2, 12), count_=st.integers(2, 5))
def test_settled_runs_are_legal_and_stay(data: st.DataObject, layers: int, count_: int) -> None:
    least = data.draw(st.integers(1, count_ * layers))
    most = data.draw(st.integers(max(least, count_), count_ * layers))
    stacking = Stacking(max_slices=count_, min_layers=least, max_layers=most)
    run = st.tuples(st.integers(0, layers - 1), st.integers(1, layers))
    runs = data.draw(st.lists(run, min_size=count_, max_size=count_))
    settled = settle(runs, stacking, layers=layers)
    assert all(0 <= start < end <= layers for start, end in settled)
    assert least <= sum(end - start for start, end in settled) <= most
    assert settle(settled, stacking, layers=layers) == settled


@given(data=st.data(), layers=st.integers(2, 10), most=st.integers(2, 5))
def test_runs_in_order_are_legal_and_stay(data: st.DataObject, layers: int, most: int) -> None:
    least = data.draw(st.integers(1, 2 * layers))
    stacking = Stacking(
        max_slices=most,
        min_layers=least,
        max_layers=data.draw(st.integers(least, 2 * layers)),
        max_repeated=data.draw(st.integers(0, layers)),
        max_removed=data.draw(st.integers(0, layers)),
    )
    assume(not list(stacking.problems(layers)))
    low, high = stacking.slices(layers)
    joins = data.draw(st.integers(max(2, low), high)) - 1
    back, ahead = stacking.shifts
    ends = data.draw(st.lists(st.integers(1, layers), min_size=joins, max_size=joins))
    shifts = data.draw(st.lists(st.integers(back, ahead), min_size=joins, max_size=joins))
    runs = follow(ends, shifts, stacking, layers=layers)
    assert runs[0][0] == 0
    assert runs[-1][1] == layers
    assert all(0 <= start < end <= layers for start, end in runs)
    assert stacking.min_layers <= sum(end - start for start, end in runs) <= stacking.max_layers
    settled = [after[0] - before[1] for before, after in pairwise(runs)]
    assert all(back <= shift <= ahead for shift in settled)
    assert follow([end for _, end in runs[:-1]], settled, stacking, layers=layers) == runs


def stacked_space(**values: object) -> Space:
    bounds = {"max_slices": 3, "min_layers": 4, "max_layers": 9, **values}
    return Space(
        parents=("a", "b"),
        base=None,
        layers=6,
        methods=("linear",),
        stacking=Stacking(**bounds),
    )


def layers_of(recipe: Recipe) -> list[tuple[str, tuple[int, int]]]:
    """Source and layers of every run."""
    runs = [part.sources[0] for part in recipe.root.slices]
    return [(run.of.name if isinstance(run.of, Model) else MERGED, run.layers) for run in runs]


@pytest.mark.parametrize(
    ("shift", "runs"),
    [
        (-2, [(MERGED, (0, 4)), (MERGED, (2, 6))]),  # two layers again
        (-1, [(MERGED, (0, 4)), (MERGED, (3, 6))]),
        (0, []),  # the merged model as it is
        (1, [(MERGED, (0, 4)), (MERGED, (5, 6))]),  # one left out
    ],
)
def test_a_shift_repeats_or_removes_layers(shift: int, runs: list) -> None:
    space = stacked_space(max_repeated=2, max_removed=1)
    values = {"weight.a": 1.0, "weight.b": 0.5, "slices": 2}
    recipe = draw(space, Fixed({**values, "slice1.end": 4, "slice2.shift": shift}))
    assert layers_of(recipe) == runs
    assert draw(space, Fixed(params(recipe, space))) == recipe


def test_runs_of_parents_need_no_merge() -> None:
    space = stacked_space(sources="any", max_repeated=2)
    runs = {"slices": 2, "slice1.end": 3, "slice2.shift": -1}
    values = runs | {"slice1.source": "a", "slice2.source": "b"}
    recipe = draw(space, Fixed(values))
    assert layers_of(recipe) == [("a", (0, 3)), ("b", (2, 6))]
    assert params(recipe, space) == values
    mixed = draw(space, Fixed(values | {"slice1.source": MERGED, "weight.a": 1.0, "weight.b": 0.5}))
    assert layers_of(mixed) == [(MERGED, (0, 3)), ("b", (2, 6))]


def test_one_parent_all_the_way_is_one_recipe() -> None:
    space = stacked_space(sources="parents", max_repeated=2)
    sources = {f"slice{number}.source": "b" for number in (1, 2, 3)}
    ends = {"slice1.end": 2, "slice2.end": 5, "slice2.shift": 0, "slice3.shift": 0}
    recipe = draw(space, Fixed({"slices": 3, **ends, **sources}))
    assert layers_of(recipe) == [("b", (0, 1)), ("b", (1, 6))]
    assert draw(space, Fixed(params(recipe, space))) == recipe


def test_a_share_of_draws_is_not_stacked(random_trial) -> None:
    space = stacked_space(sources="any", max_repeated=2, max_removed=2)
    plain = sum(not draw(space, random_trial(seed)).root.slices for seed in range(300))
    assert plain >= 300 / 3 * 0.8
    assert all(seed.params is not None for seed in seeds(space) if seed.name == "plain average")


# What cannot be drawn


def linear(**weights) -> Merge:
    sources = tuple(
        Source(of=Model(name), parameters=table(weight=weight)) for name, weight in weights.items()
    )
    return Merge(method="linear", sources=sources)


OK = {"math": 1.0, "code": 1.0, "chat": 1.0}


@pytest.mark.parametrize(
    ("root", "changes", "message"),
    [
        (linear(**OK | {"chat": 2.0}), {}, r"weight.chat: .* in \[0, 1.5\], got 2.0"),
        (linear(math=1.0, chat=1.0, code=1.0), {}, "of: expected 'code', got 'chat'"),
        (linear(math=1.0, code=1.0), {}, "merge.sources: expected .*chat.*, got"),
        (linear(**OK), {"methods": ("slerp", "ties")}, "method: expected one of ties, got"),
        (linear(**OK), {"order": Order.PAIRWISE}, "order: expected one of pairwise, got"),
        (linear(**OK), {"depth": Depth(knots=2)}, r"weight: expected \[1.0, 1.0\], got 1.0"),
        (linear(**OK), {"filters": ("mlp",)}, "weight: expected .*mlp.*, got 1.0"),
        (linear(**OK), {"dtype": "float16"}, "dtype: expected 'float16', got none"),
        (linear(**OK), {"seed": 3}, "seed: expected 3, got none"),
        (linear(**OK), {"tokenizer": "code"}, "tokenizer: expected 'code', got none"),
        (linear(**OK | {"math": Gradient((1.0, 1.0))}), {}, "weight: expected 1.0, got .1.0, 1.0"),
        (
            linear(**OK | {"math": ByFilter((Case(1.0, "mlp"), Case(1.0)))}),
            {},
            "weight: expected 1.0, got .*mlp",
        ),
        (
            linear(**{name: Gradient((1.0, 1.0, 1.0)) for name in OK}),
            {"depth": Depth(knots=2)},
            r"weight: expected \[1.0, 1.0\], got \[1.0, 1.0, 1.0\]",
        ),
        (
            linear(**{name: Gradient((1.0, 0.5, 1.0, 1.0)) for name in OK}),
            {"depth": Depth(groups=2)},
            r"weight\[1\]: expected 1.0, got 0.5",
        ),
        (linear(**OK | {"math": True}), {}, "weight: expected 1.0, got True"),
        (linear(**OK | {"math": -0.0}), {}, "weight: expected 0.0, got -0.0"),
        (
            replace(linear(**OK), parameters=table(normalize=False)),
            {},
            "merge.parameters: expected none, got {'normalize': False}",
        ),
        (
            Merge(method="linear", sources=tuple(Source(of=Model(n)) for n in OK),
                  parameters=table(weight=1.0)),
            {},
            "merge.parameters: expected none, got {'weight': 1.0}",
        ),
        (
            Merge(method="passthrough", sources=(Source(of=Model("math")),)),
            {"methods": ("linear",)},
            "method: expected one of linear, got 'passthrough'",
        ),
        (
            Merge(method="linear", sources=(
                Source(of=Model("chat"), parameters=table(weight=1.0)),
                Source(of=linear(math=1.0, code=1.0), parameters=table(weight=1.0)),
            )),
            {},
            r"merge.sources\[0\].of: expected .*, got 'chat'",
        ),
        (
            Merge(method="linear", sources=(
                Source(of=linear(math=1.0, other=1.0), parameters=table(weight=1.0)),
                Source(of=Model("chat"), parameters=table(weight=1.0)),
            )),
            {},
            "inputs: expected math, code, chat, got other",
        ),
        (
            Merge(method="linear", sources=(
                Source(of=linear(math=1.0, code=1.0), parameters=table(weight=1.0)),
                Source(of=Model("chat"), parameters=table(weight=1.0)),
            )),
            {"parents": ("math", "code", "chat", "more")},
            "inputs: expected all of math, code, chat, more, got fewer",
        ),
        (
            Merge(method="passthrough", slices=(
                Slice(sources=(Source(of=linear(**OK), layers=(0, 4)),)),
                Slice(sources=(Source(of=linear(**OK), layers=(0, 4)),)),
            )),
            {},
            "slices: expected none .stacking is off., got some",
        ),
        (
            Merge(method="passthrough", slices=(
                Slice(sources=(Source(of=linear(**OK), layers=(0, 4)),)),
                Slice(sources=(Source(of=linear(**OK), layers=(0, 4)),)),
            )),
            {"stacking": Stacking(min_layers=4, max_layers=6)},
            r"merge.slices\[0\].sources\[0\].layers\[1\]: expected 3, got 4",
        ),
        (
            Merge(method="passthrough", slices=(
                Slice(sources=(Source(of=Model("math"), layers=(0, 4)),)),
                Slice(sources=(Source(of=Model("code"), layers=(0, 1)),)),
            )),
            {"stacking": Stacking(min_layers=4, max_layers=6)},
            "slices: expected passthrough over two or more layer runs of one merge",
        ),
    ],
)  # fmt: skip
def test_params_says_why_a_recipe_is_not_in_the_space(root, changes: dict, message: str) -> None:
    with pytest.raises(NotInSpace, match=message):
        params(Recipe(root=root), small(**changes))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "order: expected one of all-at-once, pairwise, got none"),
        ({"order": "up"}, "order: expected one of all-at-once, pairwise, got 'up'"),
        (
            {"order": "all-at-once", "method": "ties"},
            r"weight.math: expected a number in \[0, 1.5\]",
        ),
        (
            {"order": "all-at-once", "method": "linear", "weight.math": float("nan")},
            r"weight.math: expected a number in \[0, 1.5\], got nan",
        ),
    ],
)
def test_fixed_says_what_is_missing_or_out_of_range(values: dict, message: str) -> None:
    with pytest.raises(NotInSpace, match=message):
        draw(small(), Fixed(values))


# With Optuna


def test_optuna_asks_and_enqueues(mixed_space: Space) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(
        seed=1, multivariate=True, group=True, n_startup_trials=5, warn_independent_sampling=False
    )
    study = optuna.create_study(sampler=sampler, direction="maximize")
    for number in range(30):
        trial = study.ask()
        recipe = draw(mixed_space, trial)
        found = params(recipe, mixed_space)
        assert found.keys() == trial.params.keys()
        study.enqueue_trial(found)
        again = study.ask()
        assert draw(mixed_space, again).key == recipe.key
        study.tell(trial, number % 7)
        study.tell(again, number % 7)
    names: dict[str, object] = {}
    for trial in study.trials:  # one name, one distribution
        for name, distribution in trial.distributions.items():
            assert names.setdefault(name, distribution) == distribution
    assert {"order", "weight.node1[mlp].k1", "slice2.end"} <= names.keys()


@pytest.mark.parametrize("name", ["CmaEsSampler", "NSGAIISampler", "RandomSampler", "GPSampler"])
def test_flat_draws_suit_samplers_with_fixed_spaces(name: str) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = small(parents=("math", "code", "chat"), methods=("linear", "ties"))
    options = {"n_startup_trials": 3} if name in ("CmaEsSampler", "GPSampler") else {}
    study = optuna.create_study(sampler=getattr(optuna.samplers, name)(seed=3, **options))
    for number in range(8):
        trial = study.ask()
        recipe = draw(space, trial, flat=True)
        assert trial.params.keys() == parameters(space).keys()
        assert params(recipe, space).items() <= trial.params.items()
        study.tell(trial, float(number % 3))
    study.enqueue_trial(params(recipe, space))
    assert draw(space, study.ask(), flat=True).key == recipe.key
