"""Number of parameters of a recipe's model."""

from __future__ import annotations

from spaces.recipes.parameter_count import ParameterCount
from spaces.recipes.recipe import Merge, Model, Recipe, Slice, Source, parameters

SIZES = ParameterCount(outside=1000, layers=(1, 10, 100))


def linear(*of: Model | Merge) -> Merge:
    return Merge(
        method="linear",
        sources=tuple(Source(of=one, parameters=parameters(weight=1.0)) for one in of),
    )


def stacked(of: Model | Merge, *runs: tuple[int, int]) -> Merge:
    slices = tuple(Slice(sources=(Source(of=of, layers=run),)) for run in runs)
    return Merge(method="passthrough", slices=slices)


def test_only_stacked_layers_change_it() -> None:
    whole = linear(Model("a"), Model("b"))
    assert SIZES.of(Recipe(root=whole)) == 1111
    assert SIZES.of(Recipe(root=stacked(Model("a"), (0, 2), (1, 3)))) == 1121
    assert SIZES.of(Recipe(root=stacked(whole, (1, 2)))) == 1010
    again = stacked(stacked(Model("a"), (2, 3), (0, 1)), (1, 2), (0, 2))
    assert SIZES.of(Recipe(root=again)) == 1000 + 1 + 100 + 1
    assert ParameterCount.from_dict(SIZES.to_dict()) == SIZES
