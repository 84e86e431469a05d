"""Search and held-out questions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.base import Catalogue, Question, TaskInfo
from runs.split import divide


def catalogue(**sizes: int) -> Catalogue:
    return Catalogue(
        tasks=tuple(
            TaskInfo(name=name, metric="acc,none", higher_is_better=True, weight=1.0)
            for name in sizes
        ),
        questions=tuple(
            Question(id=f"{name}/{number:x}", task=name, position=number)
            for name, size in sizes.items()
            for number in range(size)
        ),
    )


@given(
    a=st.integers(1, 40), b=st.integers(1, 40), share=st.floats(0, 0.9), seed=st.integers(0, 2**31)
)
def test_every_question_is_in_exactly_one_split(a: int, b: int, share: float, seed: int) -> None:
    questions = catalogue(a=a, b=b)
    split = divide(questions, share, seed=seed)
    assert sorted(split.search + split.held_out) == sorted(q.id for q in questions.questions)


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.3, 30), (0.001, 1), (0.999, 99)])
def test_the_share_holds_per_task(share: float, expected: int) -> None:
    split = divide(catalogue(a=100, b=100), share, seed=1)
    for task in "ab":
        assert sum(name.startswith(task) for name in split.held_out) == expected


def test_a_task_of_one_question_stays_with_the_search() -> None:
    assert divide(catalogue(a=1), 0.5, seed=0).held_out == ()


def test_whole_tasks_can_be_held_out() -> None:
    split = divide(catalogue(a=3, b=4), ("b",), seed=0)
    assert {name[0] for name in split.search} == {"a"}
    assert {name[0] for name in split.held_out} == {"b"}


def test_split_and_order_depend_on_the_seed_only() -> None:
    both = divide(catalogue(a=30, b=30), 0.3, seed=5)
    swapped = catalogue(b=30, a=30)
    assert divide(swapped, 0.3, seed=5) == both
    assert divide(swapped, 0.3, seed=6).search != both.search


def test_tasks_are_mixed_in_the_order() -> None:
    order = divide(catalogue(a=50, b=50), 0.0, seed=2).search
    assert {name[0] for name in order[:20]} == {"a", "b"}
