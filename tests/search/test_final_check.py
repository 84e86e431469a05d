"""Who is checked at the end of a run."""

import math
from datetime import UTC, datetime

import pytest

from runs.records.record import Estimate, Evaluation, Record, Split, State
from search.engine.final_check import places, to_complete, to_judge
from spaces.recipes.recipe import Merge, Model, Recipe, Source, parameters

TASKS = ("one", "two", "three")
REFERENCES = (
    ("parent a", 0.6, (0.9, 0.2, 0.2)),  # the best in the first task
    ("parent b", 0.5, (0.2, 0.8, 0.2)),
    ("plain average", 0.5, (0.5, 0.5, 0.5)),
    ("ties density 0.5 weight 1", 0.59, (0.5, 0.6, 0.5)),
    ("seed mine/good.yaml", 0.58, (0.5, 0.5, 0.5)),
    ("slerp t 0.5", 0.57, (0.5, 0.5, 0.5)),
)
SEARCHED = (
    ("auto", 0.7, (0.7, 0.7, 0.7)),  # the first in rank, and the best in no task
    ("auto", 0.69, (0.6, 0.6, 0.6)),  # the second, and not on the front
    ("auto", 0.65, (0.85, 0.5, 0.6)),
    ("auto", 0.64, (0.6, 0.85, 0.4)),
    ("auto", 0.63, (0.4, 0.6, 0.95)),
    ("learned by layer", 0.62, (0.3, 0.3, 0.3)),
)


def candidate(number: int, origin: str, value: float, tasks: tuple[float, ...]) -> Record:
    """A candidate of which all is known for certain."""
    weight = parameters(weight=1.0 + number)
    asked = Evaluation(
        split=Split.SEARCH,
        state=State.COMPLETE,
        value=value,
        stderr=0.01,
        tasks=(),
        questions=10,
        asked=10,
        build_seconds=math.nan,
        score_seconds=math.nan,
        worker="w",
        fingerprint="",
        failure_kind=None,
        failure_message="",
        started=datetime(2026, 1, 1, tzinfo=UTC),
        finished=None,
        attempts=1,
    )
    return Record(
        id=number,
        recipe=Recipe(
            root=Merge(method="linear", sources=(Source(of=Model("a"), parameters=weight),))
        ),
        origin=origin,
        trial=None,
        evaluations={Split.SEARCH: asked},
        posterior=Estimate(value=value, stderr=0.01),
        objectives={
            name: Estimate(value=one, stderr=0.01) for name, one in zip(TASKS, tasks, strict=True)
        },
    )


RECORDS = [candidate(at, *row) for at, row in enumerate((*REFERENCES, *SEARCHED))]


@pytest.mark.parametrize("asked", [1, 2, 3, 5])
def test_the_first_in_rank_is_checked_and_references_take_no_place(asked: int) -> None:
    top = places(asked, ())
    assert top == asked
    best = [6, 7, 8, 9, 10][:asked]
    assert [record.id for record in to_complete(RECORDS, top=top)] == best
    references = [0, 1, 2, *[3, 4, 5][:asked]]
    chosen = to_judge(RECORDS, top=top)
    assert {record.id for record in chosen} == {*best, *references}
    assert [record.id for record in chosen][: len(best)] == best  # by rank


@pytest.mark.parametrize("asked", [1, 3, 4, 5, 6])
def test_of_a_front_the_first_in_rank_and_the_best_in_every_task_are_checked(asked: int) -> None:
    top = places(asked, TASKS)
    assert top == max(asked, 4)
    best = [record.id for record in to_complete(RECORDS, top=top, objectives=TASKS)]
    # parent a is the best in the first task, and asked anyway: the best others come by rank
    assert best == [6, 9, 10, 8, 7, 11][:top]
    assert {*best} < {record.id for record in to_judge(RECORDS, top=top, objectives=TASKS)}


def test_measures_take_no_places() -> None:
    assert places(3, ("score", "answer_length", "parameters")) == 3
    assert places(1, ("one", "answer_length")) == 2
    assert places(0, TASKS) == 0


def test_a_reference_that_is_the_first_in_rank_is_asked_all_search_questions_too() -> None:
    first = candidate(20, "parent c", 0.9, (0.5, 0.5, 0.5))
    assert [record.id for record in to_complete([*RECORDS, first], top=2)] == [20, 6, 7]
    assert [record.id for record in to_judge([*RECORDS, first], top=2)][:3] == [20, 6, 7]
