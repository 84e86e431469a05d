"""Orders of pairwise merging: binary trees over numbered leaves, and their digits.

A tree over leaves 0, 1, ..., k-1 is built by adding one leaf after the other. Leaf 1 joins leaf 0.
Leaf i then cuts into one of the 2i - 1 edges there are (each ends below in a leaf or a join, the
root's edge included), so the choices for leaves 2, 3, ... are independent digits of bases 3, 5,
7, ...; every unordered tree comes from exactly one sequence of digits, (2k - 3)!! in all.

The join that leaf i makes is *node i*, also when later leaves cut in below or above it. Children
have no order of their own; the one that holds the smallest leaf is kept on the left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MAX_LEAVES = 16
"""Most leaves of a tree."""


@dataclass(frozen=True, slots=True)
class Join:
    """Two subtrees put together; the left one holds the smallest leaf of both."""

    left: Tree
    right: Tree

    @property
    def node(self) -> int:
        """Number of the join: the leaf whose arrival made it, the smallest on the right."""
        return _first(self.right)


Tree = int | Join
"""A leaf by its number, or a join of two trees."""


def radices(leaves: int) -> tuple[int, ...]:
    """Number of places for leaves 2, 3, ...: 3, 5, 7, ...; empty for one or two leaves.

    Raises:
        ValueError: Unless there are 1 to 16 leaves.
    """
    if not 1 <= leaves <= MAX_LEAVES:
        raise ValueError(f"leaves: expected 1 to {MAX_LEAVES}, got {leaves}")
    return tuple(2 * leaf - 1 for leaf in range(2, leaves))


def count(leaves: int) -> int:
    """Number of trees: (2k - 3)!! for k leaves, 1 for one leaf."""
    result = 1
    for radix in radices(leaves):
        result *= radix
    return result


def tree_from_digits(digits: Sequence[int], *, leaves: int) -> Tree:
    """The tree of these digits.

    Args:
        digits: One per leaf from 2 on. Below the leaf's number it is the leaf that is joined, from
            there on the node: ``digit - leaf + 1``.
        leaves: Number of leaves.

    Raises:
        ValueError: If the digits are too many, too few or out of range.
    """
    bases = radices(leaves)
    if len(digits) != len(bases):
        raise ValueError(f"digits: expected {len(bases)}, got {len(digits)}")
    tree: Tree = 0 if leaves == 1 else Join(0, 1)
    for leaf, (digit, base) in enumerate(zip(digits, bases, strict=True), start=2):
        if not 0 <= digit < base:
            raise ValueError(f"digit of leaf {leaf}: expected 0 to {base - 1}, got {digit}")
        tree = _insert(tree, digit, leaf)
    return tree


def digits_from_tree(tree: Tree) -> tuple[int, ...]:
    """The digits of a tree; ``tree_from_digits`` is the inverse.

    Raises:
        ValueError: If the leaves are not 0 to k - 1 once each, or the larger leaf is on the left.
    """
    found = sorted(leaves_of(tree))
    if found != list(range(len(found))):
        raise ValueError(f"leaves: expected 0 to {len(found) - 1} once each, got {found}")
    if any(_first(join.left) > _first(join.right) for join in joins(tree)):
        raise ValueError("tree: expected the smallest leaf on the left of every join, got another")
    radices(len(found))  # refuses more leaves than there may be
    digits = []
    for leaf in range(len(found) - 1, 1, -1):
        tree, sibling = _remove(tree, leaf)
        digits.append(sibling if isinstance(sibling, int) else leaf + sibling.node - 1)
    return tuple(reversed(digits))


def leaves_of(tree: Tree) -> Iterator[int]:
    """The leaves from left to right."""
    if isinstance(tree, int):
        yield tree
    else:
        yield from leaves_of(tree.left)
        yield from leaves_of(tree.right)


def joins(tree: Tree) -> Iterator[Join]:
    """The joins, children before their parent, left before right."""
    if isinstance(tree, Join):
        yield from joins(tree.left)
        yield from joins(tree.right)
        yield tree


def _first(tree: Tree) -> int:
    return tree if isinstance(tree, int) else min(leaves_of(tree))


def _insert(tree: Tree, digit: int, leaf: int) -> Tree:
    """The tree with ``leaf`` joined to the subtree that the digit names."""
    number = tree if isinstance(tree, int) else leaf + tree.node - 1
    if number == digit:
        return Join(tree, leaf)
    if isinstance(tree, int):
        return tree
    return Join(_insert(tree.left, digit, leaf), _insert(tree.right, digit, leaf))


def _remove(tree: Tree, leaf: int) -> tuple[Tree, Tree]:
    """The tree without its largest leaf, and what that leaf was joined to."""
    if isinstance(tree, int):
        raise ValueError(f"leaf: expected {leaf} in the tree, got a tree without it")
    if tree.right == leaf:
        return tree.left, tree.left
    if leaf in leaves_of(tree.left):
        rest, sibling = _remove(tree.left, leaf)
        return Join(rest, tree.right), sibling
    rest, sibling = _remove(tree.right, leaf)
    return Join(tree.left, rest), sibling
