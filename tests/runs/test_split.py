"""Search and held-out questions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.base import Catalogue, Question, TaskInfo
from runs.split import divide, held_out_problems


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


def problems(held_out: float | tuple[str, ...], **sizes: int) -> list[str]:
    questions = catalogue(**sizes)
    return held_out_problems(divide(questions, held_out, seed=0), questions, held_out)


def test_too_few_held_out_questions_are_one_line() -> None:
    (line,) = problems(0.3, pick=24, write=300, sort=1)
    assert line == (
        "held_out: expected at least 20 questions of a task, got 7 of the 24 of 'pick', 0 of the 1 "
        "of 'sort'; take tasks with more questions (or a larger limit), or set held_out: 0"
    )
    (line,) = problems(0.1, pick=100)
    assert "got 10 of the 100 of 'pick'; hold out 0.2 or more, take tasks" in line
    assert problems(0.2, pick=100) == []
    (line,) = problems(("b",), a=300, b=19)
    assert "got 19 of the 19 of 'b'; take tasks" in line


@pytest.mark.parametrize(
    ("held_out", "sizes"),
    [(0.0, {"a": 5}), (0, {"a": 5}), (0.3, {"a": 65}), (("b",), {"a": 5, "b": 20})],
)
def test_enough_held_out_questions(
    held_out: float | tuple[str, ...], sizes: dict[str, int]
) -> None:
    assert problems(held_out, **sizes) == []
