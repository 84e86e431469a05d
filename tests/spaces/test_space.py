"""Spaces: every problem at once, and a round trip through JSON."""

import json
import pickle
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaces.recipes.vocabulary import Vocabulary
from spaces.search_space.space import Depth, Order, Range, Space, SpaceError, Stacking


def space(**changes) -> Space:
    values = {
        "parents": ("math", "code", "chat"),
        "base": "base",
        "layers": 6,
        "methods": ("linear", "slerp", "ties"),
    }
    return Space(**(values | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parents": ()}, "parents: expected at least one model, got none"),
        ({"parents": ("a", "a")}, "parents: expected every name once, got 'a' more than once"),
        ({"parents": ("a", "b*")}, r"parents: model name: expected letters.*got 'b\*'"),
        ({"parents": ("a", "base")}, "parents: expected models other than the base, got 'base'"),
        ({"parents": ("a", "b", "node1")}, "parents: expected names other than node1.*'node1'"),
        ({"parents": tuple(map("p{}".format, range(17)))}, "expected at most 16 to merge in pairs"),
        ({"base": "-"}, "base: model name: expected letters"),
        ({"base": None}, "methods: expected a base for ties, got none"),
        ({"layers": 0}, "layers: expected a whole number of at least 1, got 0"),
        ({"methods": ()}, "methods: expected at least one method, got none"),
        ({"methods": ("linear", "linear")}, "methods: expected every name once, got 'linear'"),
        ({"methods": ("delta",)}, "methods: expected names from linear, .*got 'delta'"),
        (
            {"order": Order.ALL_AT_ONCE},
            "got slerp: it takes 2 inputs, got 3; use order pairwise or any",
        ),
        ({"parents": ("a",)}, "got slerp: it takes 2 inputs, got 1"),
        (
            {"methods": ("passthrough",), "order": Order.PAIRWISE},
            "got passthrough: it takes 1 input, pairwise merges have 2",
        ),
        ({"weight": Range(low=1, high=0)}, r"weight: expected low <= high, got \[1, 0\]"),
        ({"weight": Range(low=0, high=0)}, "weight: expected a range with more than 0"),
        ({"t": Range(low=0, high=float("nan"))}, "t: expected two finite numbers"),
        ({"scale": Range(low=float("-inf"), high=1)}, "scale: expected two finite numbers"),
        ({"density": Range(low=0, high=1)}, r"density: expected a range within \(0, 1\]"),
        ({"density": Range(low=0.5, high=1.1)}, r"density: expected a range within \(0, 1\]"),
        ({"gamma": Range(low=0, high=1.1)}, r"gamma: expected a range within \[0, 1\], got"),
        ({"epsilon": Range(low=0, high=0.5)}, r"epsilon: expected a range within \[0, 0.5\), got"),
        ({"select_topk": Range(low=-1, high=1)}, r"select_topk: expected a range within \[0, 1\]"),
        ({"nearswap_t": Range(low=0, high=1)}, "nearswap_t: expected a range above 0, got"),
        ({"ram_epsilon": Range(low=0, high=1)}, "ram_epsilon: expected a range above 0, got"),
        ({"ram_alpha": Range(low=-1, high=1)}, "ram_alpha: expected a range from 0, got"),
        ({"ram_r": Range(low=2, high=1)}, "ram_r: expected low <= high"),
        (
            {"methods": ("della",), "density": Range(low=0.9, high=1)},
            r"epsilon: expected a range that leaves della a density within \[0.9, 1\]",
        ),
        (
            {"methods": ("della_linear",), "epsilon": Range(low=0, high=0.495)},
            r"epsilon: expected a range that leaves della a density",
        ),
        ({"methods": ("model_stock",), "parents": ("a",)}, "model_stock: it takes 2 inputs, got 1"),
        ({"depth": Depth(knots=2, groups=2)}, "depth: expected knots or groups, got both"),
        ({"depth": Depth(knots=1)}, "depth.knots: expected a whole number of at least 2, got 1"),
        ({"depth": Depth(groups=7)}, r"depth.groups: expected at most one per layer \(6\), got 7"),
        ({"depth": Depth(parameters=("w",))}, "depth.parameters: expected names from .*got 'w'"),
        ({"depth": Depth(parameters=("t", "t"))}, "depth.parameters: expected every name once"),
        ({"filters": ("mlp", "mlp")}, "filters: expected every name once, got 'mlp'"),
        ({"filters": ("",)}, "filters: expected part of a tensor name, got ''"),
        ({"filters": ("*",)}, r"filters: expected part of a tensor name, got '\*'"),
        ({"filters": ("attn", "self_attn")}, "filters: expected 'self_attn' before 'attn'"),
        ({"filter_parameters": ("q",)}, "filter_parameters: expected names from .*got 'q'"),
        ({"order": "sideways"}, "order: expected one of all-at-once, pairwise, any"),
        (
            {"stacking": Stacking(max_slices=1, min_layers=1, max_layers=6)},
            "stacking.max_slices: expected a whole number of at least 2, got 1",
        ),
        (
            {"stacking": Stacking(min_layers=9, max_layers=8)},
            "stacking: expected min_layers <= max_layers, got 9 and 8",
        ),
        (
            {"stacking": Stacking(min_layers=13, max_layers=20)},
            r"stacking.min_layers: expected at most 12 \(2 slices of 6 layers\), got 13",
        ),
        (
            {"stacking": Stacking(min_layers=6, max_layers=9, sources="none")},
            "stacking.sources: expected one of merged, parents, any, got 'none'",
        ),
        (
            {"stacking": Stacking(min_layers=6, max_layers=9, max_removed=-1)},
            "stacking.max_removed: expected a whole number of at least 0, or none, got -1",
        ),
        (
            {"stacking": Stacking(min_layers=6, max_layers=9, max_repeated=7)},
            r"stacking.max_repeated: expected at most the layers \(6\), got 7",
        ),
        (
            {"stacking": Stacking(min_layers=9, max_layers=9, max_repeated=2)},
            r"stacking: expected min_layers to max_layers to meet 6 to 8 \(2 slices\), got 9 to 9",
        ),
        (
            {"stacking": Stacking(min_layers=1, max_layers=1)},
            "stacking.max_layers: expected at least 2 layers to stack, got 1",
        ),
        ({"dtype": "int8"}, "dtype: expected one of float32, float16, bfloat16, got 'int8'"),
        ({"seed": -1}, "seed: expected 0 to 2147483647, got -1"),
        ({"seed": 2**31}, "seed: expected 0 to 2147483647"),
        ({"tokenizer": "q"}, "tokenizer: expected one of math, code, chat, base, got 'q'"),
        (
            {"vocabulary": Vocabulary(model="q")},
            "vocabulary: expected one of math, code, chat, base or union, got 'q'",
        ),
    ],
)
def test_what_cannot_be_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(SpaceError, match=message) as caught:
        space(**changes)
    assert len(caught.value.problems) == 1


def test_all_problems_come_at_once() -> None:
    with pytest.raises(SpaceError) as caught:
        space(layers=0, methods=("linear", "delta"), weight=Range(low=1, high=0), seed=-1)
    starts = [problem.split(":")[0] for problem in caught.value.problems]
    assert starts == ["layers", "methods", "weight", "seed"]
    assert str(caught.value) == "\n".join(caught.value.problems)
    assert pickle.loads(pickle.dumps(caught.value)).problems == caught.value.problems


@pytest.mark.parametrize(
    ("changes", "at_once", "pairwise"),
    [
        ({}, ("linear", "ties"), ("linear", "slerp", "ties")),
        ({"order": Order.PAIRWISE}, (), ("linear", "slerp", "ties")),
        ({"parents": ("a", "b")}, ("linear", "slerp", "ties"), ()),
        ({"parents": ("a", "b"), "order": Order.PAIRWISE}, ("linear", "slerp", "ties"), ()),
        ({"methods": ("slerp",)}, (), ("slerp",)),
        ({"methods": ("passthrough",)}, ("passthrough",), ()),
    ],
)
def test_methods_by_order(changes: dict, at_once: tuple, pairwise: tuple) -> None:
    assert (space(**changes).all_at_once, space(**changes).pairwise) == (at_once, pairwise)


def test_names_of_joins_are_free_where_nothing_is_merged_in_pairs() -> None:
    assert space(parents=("node1", "node2"), methods=("linear",)).pairwise == ()


@given(data=st.data())
def test_round_trip_through_json(any_space: st.SearchStrategy[Space], data: st.DataObject) -> None:
    drawn = data.draw(any_space)
    again = Space.from_dict(json.loads(json.dumps(drawn.to_dict())))
    assert again == drawn
    assert hash(again) == hash(drawn)
    assert repr(again) == repr(drawn)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": 1}, "colour: expected a field of a space"),
        ({"order": "up"}, "order: expected what a space holds, got 'up'"),
        ({"weight": 3}, "weight: expected what a space holds, got 3"),
        ({"weight": {"low": 0}}, "weight: expected what a space holds"),
        ({"methods": None}, "space: expected the fields of a space"),
        ({"weight": {"low": 2, "high": 1}}, "weight: expected low <= high"),
    ],
)
def test_from_dict_says_what_is_wrong(changes: dict, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        Space.from_dict(space().to_dict() | changes)


def test_from_dict_names_all_that_is_missing() -> None:
    with pytest.raises(SpaceError, match="layers: expected a value, got none\nmethods: expected"):
        Space.from_dict({"parents": ["a"], "base": None})


def test_replace_checks_again() -> None:
    with pytest.raises(SpaceError, match="layers"):
        replace(space(), layers=-1)
