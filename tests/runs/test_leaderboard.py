import dataclasses
import io
import math
import random

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.protocol import TaskInfo
from runs.ranking.leaderboard import (
    FAILURE_COLUMNS,
    best,
    columns,
    contenders,
    failures,
    fronts,
    leaderboard,
    ranked,
    score_of,
)
from runs.records.record import Estimate, Record, Split, State


def test_columns_and_dtypes_are_pinned(run_records, run_tasks) -> None:
    expected = {
        "rank": "Int64",
        "front": "boolean",
        "expected": "float64",
        "expected_stderr": "float64",
        "score": "float64",
        "stderr": "float64",
        "estimate": "float64",
        "expected:sort": "float64",
        "expected_stderr:sort": "float64",
        "expected:loss": "float64",
        "expected_stderr:loss": "float64",
        "expected:answer_length": "float64",
        "expected_stderr:answer_length": "float64",
        "expected:parameters": "float64",
        "expected_stderr:parameters": "float64",
        "over_parents:sort": "float64",
        "over_parents:loss": "float64",
        "task:sort": "float64",
        "task_stderr:sort": "float64",
        "task:loss": "float64",
        "task_stderr:loss": "float64",
        "held_out": "float64",
        "held_out_stderr": "float64",
        "held_out_questions": "Int64",
        "held_out:sort": "float64",
        "held_out_stderr:sort": "float64",
        "held_out:loss": "float64",
        "held_out_stderr:loss": "float64",
        "answer_length": "float64",
        "answer_length_stderr": "float64",
        "parameters": "Int64",
        "method": "str",
        "origin": "str",
        "key": "str",
        "fingerprint": "str",
        "state": "str",
        "failure": "str",
        "message": "str",
        "build_seconds": "float64",
        "score_seconds": "float64",
        "worker": "str",
        "trial": "Int64",
        "candidate": "int64",
        "questions": "Int64",
        "unmarked": "Int64",
    }
    for records in (run_records, (), run_records[3:4], run_records[6:]):
        frame = leaderboard(records, run_tasks)
        assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == expected
        assert list(frame.columns) == list(expected) == list(columns(run_tasks))
        assert len(frame) == len(records)


@pytest.mark.parametrize("keep", [slice(0), slice(None)])
def test_failure_columns_and_dtypes(run_records, keep: slice) -> None:
    frame = failures(run_records[keep])
    assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == FAILURE_COLUMNS


def test_order_ranks_and_values(run_records, run_tasks) -> None:
    shuffled = list(run_records)
    random.Random(3).shuffle(shuffled)
    frame = leaderboard(shuffled, run_tasks)
    # Ties by lower id, then what still runs, then failures; only scored rows have a rank.
    assert frame["candidate"].tolist() == [4, 2, 5, 1, 0, 6, 3]
    assert frame["rank"].tolist()[:5] == [1, 2, 3, 4, 5]
    assert frame["rank"].isna().tolist() == [False] * 5 + [True] * 2
    assert frame["state"].tolist() == ["complete"] * 5 + ["running", "failed"]
    first = frame.iloc[0]
    assert (first["score"], first["task:sort"], first["task:loss"]) == (0.5, 0.8, 0.1)
    assert (first["held_out"], first["held_out:loss"], first["held_out_questions"]) == (
        0.25,
        0.25,
        20,
    )
    assert first["method"] == "ties"
    assert first["fingerprint"] == "ab12cd34"
    assert frame["method"].tolist()[2] == "linear+slerp"
    last = frame.iloc[-1]
    assert (last["failure"], math.isnan(last["score"])) == ("task", True)
    assert last["message"].startswith("bad <script>")
    assert frame["failure"].tolist()[:-1] == [""] * 6
    assert frame["trial"].isna().tolist() == [False, False, False, True, True, False, False]


def test_failures_lists_both_splits(run_records) -> None:
    frame = failures(run_records)
    assert frame[["candidate", "split", "kind"]].values.tolist() == [
        [1, "held_out", "lost_worker"],
        [3, "search", "task"],
    ]


def test_held_out_scores_never_choose(run_records) -> None:
    winner = best(run_records)
    assert winner is not None
    assert winner.id == 4
    search = run_records[0].evaluations[Split.SEARCH]
    held_out = dataclasses.replace(search, split=Split.HELD_OUT, value=99.0)
    tempting = dataclasses.replace(
        run_records[0], evaluations={Split.SEARCH: search, Split.HELD_OUT: held_out}
    )
    assert best((tempting, *run_records[1:])) == winner


def test_best_of_nothing(run_records) -> None:
    assert best(()) is None
    assert best((run_records[3], run_records[6])) is None


def test_score_of(run_records) -> None:
    assert score_of(run_records[4]) == 0.5
    assert score_of(run_records[4], Split.HELD_OUT) == 0.25
    assert math.isnan(score_of(run_records[1], Split.HELD_OUT))
    assert math.isnan(score_of(run_records[6]))


def test_a_score_that_is_no_number_has_no_rank(run_records, run_tasks) -> None:
    search = run_records[0].evaluations[Split.SEARCH]
    broken = dataclasses.replace(search, value=math.inf)
    odd = dataclasses.replace(run_records[0], evaluations={Split.SEARCH: broken})
    frame = leaderboard((odd, run_records[4]), run_tasks)
    assert frame["candidate"].tolist() == [4, 0]
    assert frame["rank"].isna().tolist() == [False, True]


def test_a_task_may_have_the_name_of_a_column(run_records) -> None:
    task = TaskInfo(name="score", metric="acc", higher_is_better=True, weight=1.0)
    assert leaderboard(run_records, (task,)).columns.is_unique


@given(st.lists(st.one_of(st.none(), st.integers(-3, 3)), max_size=12), st.randoms())
def test_ranking_is_total_and_ignores_the_order(values, shuffler) -> None:
    records = [_record(number, value) for number, value in enumerate(values)]
    order = [record.id for record in ranked(records)]
    shuffler.shuffle(records)
    assert [record.id for record in ranked(records)] == order
    keys = [(-values[number], number) for number in order]
    assert keys == sorted(keys)
    assert len(order) == sum(value is not None for value in values)


def _record(number: int, value: int | None) -> Record:
    from datetime import UTC, datetime

    from runs.records.record import Evaluation
    from spaces.recipes.recipe import Merge, Model, Recipe, Source

    evaluation = Evaluation(
        split=Split.SEARCH,
        state=State.FAILED if value is None else State.COMPLETE,
        value=math.nan if value is None else float(value),
        stderr=math.nan,
        tasks=(),
        questions=1,
        asked=1,
        build_seconds=0.0,
        score_seconds=0.0,
        worker="w",
        fingerprint="",
        failure_kind=None,
        failure_message="",
        started=datetime(2026, 1, 1, tzinfo=UTC),
        finished=None,
        attempts=1,
    )
    recipe = Recipe(root=Merge(method="passthrough", sources=(Source(of=Model("a")),)))
    return Record(
        id=number,
        recipe=recipe,
        origin="tpe",
        trial=None,
        evaluations={Split.SEARCH: evaluation},
    )


def test_frame_survives_parquet_and_csv(run_records, run_tasks) -> None:
    frame = leaderboard(run_records, run_tasks)
    buffer = io.BytesIO()
    frame.to_parquet(buffer)
    pd.testing.assert_frame_equal(pd.read_parquet(buffer), frame)


def judged_as(number: int, one: float, two: float, error: float = 0.1) -> Record:
    values = {
        "sort": Estimate(value=one, stderr=error),
        "loss": Estimate(value=two, stderr=error),
    }
    return dataclasses.replace(_record(number, one + two), objectives=values)


def test_a_row_says_what_it_has_over_the_specialist_of_each_task(run_tasks) -> None:
    parents = [judged_as(0, 0.75, -0.5), judged_as(1, 0.25, -0.25)]
    parents = [dataclasses.replace(one, origin=f"parent {one.id}") for one in parents]
    records = [*parents, judged_as(2, 1.0, -0.375), _record(3, 2)]
    frame = leaderboard(records, run_tasks).set_index("candidate")
    assert frame["over_parents:sort"].loc[[0, 1, 2]].tolist() == [0.0, -0.5, 0.25]
    assert frame["over_parents:loss"].loc[[0, 1, 2]].tolist() == [-0.25, 0.0, -0.125]
    assert frame.loc[3, ["over_parents:sort", "over_parents:loss"]].isna().all()
    alone = leaderboard(records[2:], run_tasks)
    assert alone["over_parents:sort"].isna().all()


def test_the_front_is_marked_and_comes_right_after_the_first_in_rank(run_tasks) -> None:
    records = [judged_as(0, 0.9, -0.9), judged_as(1, 0.5, 0.4), judged_as(2, 0.1, 0.7)]
    records += [judged_as(3, 0.4, 0.3), judged_as(4, 0.45, 0.41), _record(5, 2)]
    frame = leaderboard(records, run_tasks).set_index("candidate")
    # 4 is better than 1 in one task by a hair, and worse in the other.
    assert frame["front"].loc[[0, 1, 2, 3, 4]].tolist() == [True, True, True, False, False]
    assert frame["front"].isna().loc[5]
    assert frame.loc[2, "expected:loss"] == 0.7
    assert frame.loc[2, "expected_stderr:loss"] == 0.1
    assert fronts(records) == {0, 1, 2}
    order = [record.id for record in contenders(records, objectives=("sort", "loss"))]
    assert order == [5, 0, 2, 1, 4, 3]
    # the best in a measure is not looked for: of 0, 2 and 1 the first in rank comes first
    order = [record.id for record in contenders(records, objectives=("sort", "parameters"))]
    assert order == [5, 0, 1, 2, 4, 3]
    assert [r.id for r in contenders(records)] == [5, 1, 4, 2, 3, 0]


def test_unmarked_questions_of_both_splits_add_up(run_records, run_tasks) -> None:
    record = next(r for r in run_records if Split.HELD_OUT in r.evaluations)
    parts = {
        split: dataclasses.replace(
            part, tasks=tuple(dataclasses.replace(task, unmarked=3) for task in part.tasks)
        )
        for split, part in record.evaluations.items()
    }
    frame = leaderboard([dataclasses.replace(record, evaluations=parts)], run_tasks)
    assert list(frame["unmarked"]) == [3 * sum(len(part.tasks) for part in parts.values())]
    assert list(leaderboard([record], run_tasks)["unmarked"]) == [0]
