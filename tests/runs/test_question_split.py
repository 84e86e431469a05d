"""Search and held-out questions."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.protocol import Catalogue, Question, TaskInfo
from runs.records.question_split import divide, document_notes, emptied, held_out_problems


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


def about(**documents: list[str]) -> Catalogue:
    """Tasks whose questions are about these documents."""
    return Catalogue(
        tasks=catalogue(**dict.fromkeys(documents, 1)).tasks,
        questions=tuple(
            Question(id=f"{name}/{number:x}", task=name, position=number, document=document)
            for name, listed in documents.items()
            for number, document in enumerate(listed)
        ),
    )


DOCUMENTS = st.lists(st.integers(0, 60).map(str), min_size=1, max_size=80)


@given(a=DOCUMENTS, b=DOCUMENTS, share=st.floats(0.01, 0.9), seed=st.integers(0, 2**31))
def test_no_document_is_on_both_sides(a: list[str], b: list[str], share: float, seed: int) -> None:
    questions = about(a=a, b=b)
    split, document = divide(questions, share, seed=seed), questions.documents()
    sides = [{document[name] for name in ids} for ids in (split.search, split.held_out)]
    assert not sides[0] & sides[1]
    assert sorted(split.search + split.held_out) == sorted(q.id for q in questions.questions)
    for task, listed in (("a", a), ("b", b)):
        assert any(name.startswith(task) for name in split.search)
        if len(set(listed)) > 1 and not set(a) & set(b):
            assert any(name.startswith(task) for name in split.held_out)


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        ({"a": [f"{i % 100}" for i in range(200)]}, {"a": 60}),
        (
            {"a": [f"{i}" for i in range(100)], "b": [f"{i}" for i in range(100)]},
            {"a": 30, "b": 30},
        ),
        ({"a": [f"{i // 4}" for i in range(400)]}, {"a": 120}),
        (
            {"a": [f"{i}" for i in range(1000)], "b": [f"{i}" for i in range(50)]},
            {"a": 300, "b": 15},
        ),
        ({"a": [f"{i // 7}" for i in range(70)] + [f"x{i}" for i in range(30)]}, {"a": 30}),
    ],
)
def test_shares_are_kept_where_documents_are_shared(
    documents: dict[str, list[str]], expected: dict[str, int]
) -> None:
    for seed in range(5):
        held_out = divide(about(**documents), 0.3, seed=seed).held_out
        for task, count in expected.items():
            assert sum(name.startswith(task) for name in held_out) == pytest.approx(count, abs=2)


def test_a_question_more_moves_few_others() -> None:
    before = about(a=[f"{i}" for i in range(200)], b=[f"{i // 2}" for i in range(100)])
    after = about(a=[f"{i}" for i in range(201)], b=[f"{i // 2}" for i in range(100)])
    one, other = (set(divide(each, 0.3, seed=3).held_out) for each in (before, after))
    assert len(one ^ other) <= 4


def test_questions_set_aside_count_for_the_share() -> None:
    questions = catalogue(a=61)
    (task,) = questions.tasks
    asked = replace(questions, tasks=(replace(task, aside=9),))
    assert len(divide(asked, 0.3, seed=0).held_out) == 21


def test_documents_of_tasks_held_out_are_not_searched_on() -> None:
    questions = about(a=["1", "2", "3", "x"], b=["2", "3", "y"])
    split = divide(questions, ("b",), seed=0)
    assert sorted(split.search) == ["a/0", "a/3"]
    assert sorted(split.held_out) == ["b/0", "b/1", "b/2"]
    assert emptied(split, questions, ("b",)) == []
    assert document_notes(split, questions, ("b",)) == [
        "a and b share 2 documents, each kept in one split for both.",
        "2 questions about documents of held-out tasks not asked (b).",
    ]


def test_a_task_about_nothing_else_than_those_held_out_is_refused() -> None:
    questions = about(a=["1", "2"], b=["1", "2", "3"])
    (line,) = emptied(divide(questions, ("b",), seed=0), questions, ("b",))
    assert "got b, which share all documents with a; hold out a share" in line


def test_notes_on_documents() -> None:
    questions = about(a=["1", "1", "2"], b=["3", "4"])
    assert document_notes(divide(questions, 0.3, seed=0), questions, 0.3) == [
        "a: 3 questions about 2 documents; those about one document are kept in one split and "
        "count as one in statistics."
    ]


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
        "held_out: expected at least 20 questions of a task, got 7 of 24 from 'pick', 0 of 1 "
        "from 'sort'; take tasks with more questions (or a larger limit), or set held_out: 0"
    )
    (line,) = problems(0.1, pick=100)
    assert "got 10 of 100 from 'pick'; hold out 0.2 or more, take tasks" in line
    assert problems(0.2, pick=100) == []
    (line,) = problems(("b",), a=300, b=19)
    assert "got 19 of 19 from 'b'; take tasks" in line


@pytest.mark.parametrize(
    ("held_out", "sizes"),
    [(0.0, {"a": 5}), (0, {"a": 5}), (0.3, {"a": 65}), (("b",), {"a": 5, "b": 20})],
)
def test_enough_held_out_questions(
    held_out: float | tuple[str, ...], sizes: dict[str, int]
) -> None:
    assert problems(held_out, **sizes) == []
