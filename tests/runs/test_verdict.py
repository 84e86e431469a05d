from __future__ import annotations

import math

import pytest

from evaluators.base import Catalogue, Outcome, Question, TaskInfo
from runs.records import AVERAGE, Split
from runs.statistics import Resampling
from runs.verdict import Standing, judge, verdict

TASKS = (TaskInfo(name="a", metric="acc", higher_is_better=True, weight=1.0),)
HOW = Resampling(resamples=2000)
BASELINES = (AVERAGE, "parent math", "parent code")


def right(count: int, of: int = 100) -> dict[str, dict[str, float]]:
    return {"a": {f"q{at}": float(at < count) for at in range(of)}}


def decide(**scores: int):
    names = {"math": "parent math", "code": "parent code", "average": AVERAGE}
    outcomes = {names.get(name, name): right(count) for name, count in scores.items()}
    return verdict("winner", BASELINES, outcomes=outcomes, tasks=TASKS, how=HOW)


def test_beats_everyone() -> None:
    found = decide(winner=90, math=60, code=30, average=70)
    assert found.standing is Standing.BEATS
    assert found.best_parent == "parent math"
    assert list(found.comparisons) == ["parent math", "parent code", AVERAGE]
    assert found.missing == ()
    best = found.comparisons["parent math"].difference
    average = found.comparisons[AVERAGE].difference
    assert found.sentence == (
        "beats every parent and the plain average: +0.300 over the best parent 'math' "
        f"(95 % interval {best.low:+.3f} to {best.high:+.3f}) and +0.200 over the plain average "
        f"(95 % interval {average.low:+.3f} to {average.high:+.3f}), on 100 held-out questions"
    )
    assert 0.2 < best.low < 0.3 < best.high < 0.4


def test_ahead_is_not_beyond_doubt() -> None:
    found = decide(winner=62, math=60, code=30, average=40)
    assert found.standing is Standing.AHEAD
    assert found.sentence.startswith(
        "ahead of every parent and the plain average, but not beyond doubt: +0.020 over the best "
        "parent 'math' (95 % interval -0."
    )


def test_not_better_names_who_is_as_good() -> None:
    found = decide(winner=60, math=60, code=30, average=70)
    assert found.standing is Standing.NOT_BETTER
    assert found.sentence.startswith("not better than parent 'math' (+0.000, 95 % interval ")
    assert " or the plain average (-0.100, " in found.sentence
    assert "code" not in found.sentence


def test_missing_baselines_are_named() -> None:
    found = decide(winner=90, math=60)
    assert found.missing == ("parent code", AVERAGE)
    assert found.sentence.startswith("beats every compared parent: +0.300 over the best parent")
    assert found.sentence.endswith("; not compared: parent 'code', the plain average")
    only = decide(winner=90, average=60)
    assert only.best_parent is None
    assert only.sentence.startswith("beats the plain average: +0.300 over the plain average (")


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({"winner": 9}, "not compared: neither a parent nor the plain average was scored on"),
        ({"math": 9}, "not compared: the winner was not scored on held-out questions"),
        ({}, "not compared: the winner was not scored on held-out questions"),
    ],
)
def test_nothing_to_compare(scores: dict[str, int], expected: str) -> None:
    found = decide(**scores)
    assert found.standing is Standing.UNKNOWN
    assert found.sentence.startswith(expected)


def test_tasks_left_out_are_named() -> None:
    tasks = (
        *TASKS,
        TaskInfo(name="ppl", metric="p", higher_is_better=False, weight=1, mean=False),
    )
    whole = {"ppl": {f"q{at}": math.nan for at in range(9)}}
    outcomes = {"winner": right(90) | whole, "parent math": right(60) | whole}
    found = verdict("winner", ["parent math"], outcomes=outcomes, tasks=tasks, how=HOW)
    assert found.sentence.endswith("; without 'ppl' (no values per question)")


def test_tasks_that_were_not_asked_are_not_mentioned() -> None:
    tasks = (*TASKS, TaskInfo(name="b", metric="acc", higher_is_better=True, weight=5))
    outcomes = {"winner": right(90), "parent math": right(60)}
    found = verdict("winner", ["parent math"], outcomes=outcomes, tasks=tasks, how=HOW)
    assert found.comparisons["parent math"].left_out == ()
    assert found.sentence.endswith("on 100 held-out questions")


def test_one_question_has_no_interval() -> None:
    outcomes = {"winner": right(1, 1), "parent math": right(0, 1)}
    found = verdict("winner", ["parent math"], outcomes=outcomes, tasks=TASKS, how=HOW)
    assert found.standing is Standing.AHEAD
    assert found.sentence.endswith(
        "+1.000 over the best parent 'math' (too few questions for an interval), "
        "on 1 held-out question"
    )
    assert math.isnan(found.comparisons["parent math"].difference.low)


@pytest.fixture
def catalogue(run_tasks) -> Catalogue:
    return Catalogue(
        tasks=run_tasks,
        questions=tuple(
            Question(id=f"{task.name}/{at}", task=task.name, position=at)
            for task in run_tasks
            for at in range(60)
        ),
    )


def answered(catalogue: Catalogue, right: int) -> list[Outcome]:
    """The first ``right`` questions of each task go well, whatever the direction."""
    better = {task.name: task.higher_is_better for task in catalogue.tasks}
    return [
        Outcome(question=q.id, value=float((q.position < right) == better[q.task]))
        for q in catalogue.questions
    ]


def test_judge_takes_the_winner_of_the_search(run_records, catalogue) -> None:
    outcomes = {
        0: answered(catalogue, 20),
        1: answered(catalogue, 25),
        2: answered(catalogue, 30),
        4: answered(catalogue, 50),
        5: answered(catalogue, 60),  # better still on these questions, but not in the search
    }
    found = judge(run_records, outcomes, catalogue, how=HOW)
    assert found is not None
    assert found.winner == "candidate 4"
    assert found.standing is Standing.BEATS
    assert found.best_parent == "parent code"
    assert found.comparisons[AVERAGE].difference.value == pytest.approx(1 / 3)
    assert found.comparisons[AVERAGE].tasks["loss"].value == pytest.approx(1 / 3)


def test_judge_of_a_baseline_that_wins(run_records, catalogue) -> None:
    baselines = run_records[:3]
    found = judge(baselines, {2: answered(catalogue, 30)}, catalogue, how=HOW)
    assert found is not None
    assert found.standing is Standing.BASELINE
    assert found.sentence == "no other recipe did better in the search than the plain average"


def test_judge_without_any_score(run_records, catalogue) -> None:
    assert judge((run_records[3],), {}, catalogue) is None
    assert Split.SEARCH in run_records[3].evaluations
