"""Merge orders: every tree once, and back."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaces.search_space.merge_trees import (
    MAX_LEAVES,
    Join,
    count,
    digits_from_tree,
    joins,
    leaves_of,
    radices,
    tree_from_digits,
)


@pytest.mark.parametrize(
    ("leaves", "trees"),
    [(1, 1), (2, 1), (3, 3), (4, 15), (5, 105), (6, 945), (16, 6190283353629375)],
)
def test_count_is_the_double_factorial(leaves: int, trees: int) -> None:
    assert count(leaves) == trees


def shape(tree) -> frozenset | int:
    """A tree without any order of children."""
    return tree if isinstance(tree, int) else frozenset({shape(tree.left), shape(tree.right)})


@pytest.mark.parametrize("leaves", range(1, 7))
def test_every_unordered_tree_comes_once(leaves: int) -> None:
    digits = list(product(*map(range, radices(leaves))))
    trees = [tree_from_digits(each, leaves=leaves) for each in digits]
    assert len({shape(tree) for tree in trees}) == len(trees) == count(leaves)
    assert [digits_from_tree(tree) for tree in trees] == digits


@st.composite
def digits_of_trees(draw: st.DrawFn) -> tuple[int, ...]:
    leaves = draw(st.integers(2, MAX_LEAVES))
    return tuple(draw(st.integers(0, radix - 1)) for radix in radices(leaves))


@given(digits=digits_of_trees())
def test_trees_and_digits_are_inverses(digits: tuple[int, ...]) -> None:
    leaves = len(digits) + 2
    tree = tree_from_digits(digits, leaves=leaves)
    assert sorted(leaves_of(tree)) == list(range(leaves))
    assert digits_from_tree(tree) == digits


@given(digits=digits_of_trees())
def test_smallest_leaf_is_on_the_left_and_nodes_are_numbered_once(digits: tuple[int, ...]) -> None:
    tree = tree_from_digits(digits, leaves=len(digits) + 2)
    found = list(joins(tree))
    assert all(min(leaves_of(join.left)) < min(leaves_of(join.right)) for join in found)
    assert sorted(join.node for join in found) == list(range(1, len(digits) + 2))


def test_digits_name_what_a_leaf_joins() -> None:
    assert tree_from_digits([0], leaves=3) == Join(Join(0, 2), 1)
    assert tree_from_digits([1], leaves=3) == Join(0, Join(1, 2))
    assert tree_from_digits([2], leaves=3) == Join(Join(0, 1), 2)
    # Leaf 3 joins node 2, the join that leaf 2 made with leaf 1.
    assert tree_from_digits([1, 4], leaves=4) == Join(0, Join(Join(1, 2), 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: count(0), "leaves: expected 1 to 16, got 0"),
        (lambda: count(17), "leaves: expected 1 to 16, got 17"),
        (lambda: tree_from_digits([], leaves=3), "digits: expected 1, got 0"),
        (lambda: tree_from_digits([3], leaves=3), "digit of leaf 2: expected 0 to 2, got 3"),
        (lambda: digits_from_tree(Join(1, 0)), "expected the smallest leaf on the left"),
        (lambda: digits_from_tree(Join(0, 2)), "leaves: expected 0 to 1 once each"),
        (lambda: digits_from_tree(Join(0, 0)), "leaves: expected 0 to 1 once each"),
    ],
)
def test_what_is_no_tree_is_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
