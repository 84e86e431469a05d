"""The Pareto front, against its definition."""

import math

from hypothesis import given
from hypothesis import strategies as st

from runs.front import front

VALUE = st.one_of(st.integers(-3, 3).map(float), st.just(math.nan), st.just(math.inf))
POINTS = st.integers(1, 3).flatmap(
    lambda size: st.lists(st.lists(VALUE, min_size=size, max_size=size), max_size=10)
)


def dominates(one: list[float], other: list[float]) -> bool:
    return all(a >= b for a, b in zip(one, other, strict=True)) and one != other


@given(points=POINTS)
def test_on_the_front_is_what_no_finite_point_dominates(points: list[list[float]]) -> None:
    known = [point for point in points if all(map(math.isfinite, point))]
    assert front(points) == tuple(
        point in known and not any(dominates(other, point) for other in known) for point in points
    )


def test_equal_points_are_on_the_front_together() -> None:
    assert front([(1.0, 2.0), (1.0, 2.0), (2.0, 1.0), (1.0, 1.0)]) == (True, True, True, False)


def test_one_objective_has_the_largest_on_its_front() -> None:
    assert front([(1.0,), (3.0,), (math.nan,), (2.0,)]) == (False, True, False, False)


def test_nothing_has_no_front() -> None:
    assert front([]) == ()
