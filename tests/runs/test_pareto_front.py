"""The Pareto front, against its definition."""

import math

from hypothesis import given
from hypothesis import strategies as st

from runs.ranking.pareto_front import clear_front, front

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


ERROR = st.one_of(st.just(math.nan), st.just(0.0), st.floats(0.1, 3.0))
UNSURE = st.integers(1, 3).flatmap(
    lambda size: st.lists(
        st.tuples(
            st.lists(VALUE, min_size=size, max_size=size),
            st.lists(ERROR, min_size=size, max_size=size),
        ),
        max_size=10,
    )
)


def clearly(one: tuple[list[float], list[float]], other: tuple[list[float], list[float]]) -> bool:
    """Whether the one is better in some objective by more than the error of the difference."""
    errors = [[0.0 if math.isnan(e) else e for e in errors] for _, errors in (one, other)]
    return any(
        a - b > math.hypot(*doubts)
        for a, b, doubts in zip(one[0], other[0], zip(*errors, strict=True), strict=True)
    )


@given(rows=UNSURE)
def test_the_clear_front_has_no_two_alike_and_leaves_out_nothing_clear(rows) -> None:
    points, errors = [point for point, _ in rows], [doubt for _, doubt in rows]
    plain, kept = front(points), clear_front(points, errors)
    assert any(kept) == any(plain)
    for at, is_kept in enumerate(kept):
        before = [rows[i] for i in range(at) if kept[i]]
        assert is_kept == (plain[at] and all(clearly(rows[at], other) for other in before))


@given(points=POINTS)
def test_without_errors_equal_points_are_on_it_once(points: list[list[float]]) -> None:
    plain = front(points)
    first = [
        on and point not in points[:at]
        for at, (on, point) in enumerate(zip(plain, points, strict=True))
    ]
    assert clear_front(points, [[0.0] * len(point) for point in points]) == tuple(first)


def test_a_lead_within_the_error_is_none() -> None:
    points, errors = [(0.9402, 0.5), (0.9417, 0.3), (0.2, 0.8)], [(0.01, 0.02)] * 3
    assert front(points) == (True, True, True)
    assert clear_front(points, errors) == (True, False, True)
    assert clear_front(points, [(0.001, 0.02)] * 3) == (True, True, True)
