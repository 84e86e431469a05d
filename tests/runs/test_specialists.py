"""The winner task by task, against the parent that is best there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest

from evaluators.protocol import TaskInfo, TaskScore
from runs.ranking.finalists import Entry, WinnerStanding
from runs.ranking.specialists import OnTask, TaskChange, _change, on_tasks
from runs.ranking.verdict import Verdict, verdict
from runs.ranking.verdict_text import told
from runs.records.record import Role
from runs.report.html.headline import headline
from runs.report.report_files import Report
from runs.report.task_tables import (
    FRAME,
    by_task_frame,
    by_task_table,
    specialists_table,
    task_difference,
)
from runs.statistics.comparisons import Comparison
from runs.statistics.intervals import Interval
from runs.statistics.resampling import Resampling

HOW = Resampling(resamples=2000)
REVERSE, LARGEST = (
    TaskInfo(name=name, metric="acc", higher_is_better=True, weight=weight)
    for name, weight in (("reverse", 3.0), ("largest", 1.0))
)
COUNT = 200


def entry(name: str, role: Role, right: Mapping[str, int], search: Mapping[str, float]) -> Entry:
    """So many of the first questions of each task right; search scores as given."""
    return Entry(
        name=name,
        role=role,
        search=tuple(TaskScore(task=t, value=v, stderr=0.03, n=100) for t, v in search.items()),
        outcomes={
            task: {f"{task}/{at}": float(at < count) for at in range(COUNT)}
            for task, count in right.items()
        },
    )


def run(winner: Mapping[str, int], **changes: object) -> list[Entry]:
    """A winner, and a parent for each task that is poor at the other one."""
    rev = entry(
        "parent rev", Role.PARENT,
        {"reverse": 150, "largest": 40}, {"reverse": 0.75, "largest": 0.2},
    )  # fmt: skip
    big = entry(
        "parent big", Role.PARENT,
        {"reverse": 60, "largest": 140}, {"reverse": 0.3, "largest": 0.7},
    )  # fmt: skip
    first = entry("candidate 7", Role.SEARCHED, winner, {"reverse": 0.8, "largest": 0.6})
    return [replace(first, **changes), rev, big]


def judged(entries: list[Entry]) -> Verdict:
    return verdict(entries, tasks=(REVERSE, LARGEST), how=HOW)


def test_a_win_on_average_names_what_it_loses() -> None:
    found = judged(run({"reverse": 190, "largest": 120}))
    assert found.standing is WinnerStanding.BEATS
    gained, lost = found.on_tasks
    assert (gained.task, gained.specialist, gained.change) == ("reverse", "parent rev", "gains")
    assert (lost.task, lost.specialist, lost.change) == ("largest", "parent big", "loses")
    assert lost.difference.value == pytest.approx(-0.1)
    assert lost.kept == pytest.approx(120 / 140)
    low, high = 100 * lost.difference.low, 100 * lost.difference.high
    assert found.sentence.startswith("the winner beats every parent on average: +0.")
    assert (
        f"), but loses 10.0 points on 'largest' ({low:+.1f} to {high:+.1f}) against parent 'big' "
        "and gains 20.0 points on 'reverse' ("
    ) in found.sentence


def test_another_finalist_that_beats_the_parents_names_its_losses_too() -> None:
    first, rev, big = run({"reverse": 100, "largest": 100})
    second = entry(
        "candidate 3", Role.SEARCHED,
        {"reverse": 190, "largest": 110}, {"reverse": 0.8, "largest": 0.6},
    )  # fmt: skip
    found = judged([first, second, rev, big])
    assert found.standing is WinnerStanding.NOT_BETTER
    note = found.notes[0]
    assert note.startswith("Candidate 3 beats every parent on average: +0.")
    assert ", corrected for 2 finalists), but loses 15.0 points on 'largest' (-" in note
    assert [one.change for one in found.on_tasks] == [TaskChange.LOSES, TaskChange.LOSES]


def test_an_interval_without_0_that_the_test_does_not_share_is_a_doubt() -> None:
    behind = Interval(value=-0.05, stderr=0.02, low=-0.1, high=-0.001, n=120)
    ahead = replace(behind, value=0.05, low=0.001, high=0.1)
    how = Resampling(confidence=0.95)
    for difference, losing, expected in (
        (behind, 0.001, TaskChange.LOSES),
        (behind, 0.2, TaskChange.MAY_LOSE),
        (ahead, 0.9, TaskChange.MAY_GAIN),
        (replace(behind, high=0.01), 0.001, TaskChange.KEEPS),
    ):
        found = Comparison(difference=difference, p_value=0.3, tasks={}, left_out=())
        assert _change(found, partial(float, losing), how) is expected
    doubt = OnTask(
        task="sort", specialist="parent s", difference=behind, change=TaskChange.MAY_LOSE,
        kept=0.95, points=True,
    )  # fmt: skip
    assert told((doubt,), contrast=True) == (
        ", but may lose 5.0 points on 'sort' (-10.0 to -0.1, not confirmed by the test) "
        "against parent 's'"
    )


def test_a_loss_that_may_be_chance_is_not_called_one() -> None:
    found = judged(run({"reverse": 195, "largest": 138}))
    assert [one.change for one in found.on_tasks] == [TaskChange.GAINS, TaskChange.KEEPS]
    assert "lose" not in found.sentence
    assert (
        "keeps 99 % of 'largest' (-1.0 points against parent 'big', within the noise)"
    ) in found.sentence


def test_the_headline_says_the_loss_too(run_tasks) -> None:
    found = judged(run({"reverse": 190, "largest": 120}))
    frame = pd.DataFrame({"rank": [], "state": []})
    shown = headline(Report(title="t", frame=frame, failures=frame, tasks=run_tasks, verdict=found))
    assert shown.text == (
        "Candidate 7 beats every parent on average, but loses 10.0 points on 'largest' "
        "to parent 'big'"
    )
    found = replace(
        found, on_tasks=tuple(replace(one, change=TaskChange.MAY_LOSE) for one in found.on_tasks)
    )
    doubted = Report(title="t", frame=frame, failures=frame, tasks=run_tasks, verdict=found)
    assert "may lose 10.0 points on 'largest' to parent 'big'" in headline(doubted).text


def test_the_specialist_is_chosen_by_search_questions() -> None:
    """Held-out answers decide nothing: not even where they would name another parent."""
    first, rev, big = run({"reverse": 190, "largest": 120})
    lucky = replace(rev, outcomes={**rev.outcomes, "largest": big.outcomes["largest"]})
    poor = replace(big, outcomes={**big.outcomes, "largest": rev.outcomes["largest"]})
    found = on_tasks([first, lucky, poor], tasks=(LARGEST,), how=HOW)
    assert [(one.specialist, one.change) for one in found] == [("parent big", TaskChange.GAINS)]
    comparable = replace(lucky, expected={"largest": 0.9})
    found = on_tasks([first, comparable, poor], tasks=(LARGEST,), how=HOW)
    assert [(one.specialist, one.change) for one in found] == [("parent rev", TaskChange.LOSES)]


def test_a_task_that_was_not_searched_on_is_compared_with_every_parent() -> None:
    entries = [replace(one, search=()) for one in run({"reverse": 190, "largest": 120})]
    found = {one.task: one for one in on_tasks(entries, tasks=(REVERSE, LARGEST), how=HOW)}
    assert (found["largest"].specialist, found["largest"].change) == (
        "parent big",
        TaskChange.LOSES,
    )
    assert (found["reverse"].specialist, found["reverse"].change) == (
        "parent rev",
        TaskChange.GAINS,
    )
    named = on_tasks(run({"reverse": 190, "largest": 120}), tasks=(REVERSE, LARGEST), how=HOW)
    wide, narrow = (found["largest"].difference, named[1].difference)
    assert wide.high - wide.low > narrow.high - narrow.low  # four comparisons instead of two


def test_less_may_be_better_and_a_unit_stays_its_own() -> None:
    loss = replace(LARGEST, name="bits", higher_is_better=False)
    rng = np.random.default_rng(0)
    hard = rng.normal(3.0, 0.5, 80)

    def graded(name: str, role: Role, more: float) -> Entry:
        values = {str(at): value + more for at, value in enumerate(hard)}
        seen = (TaskScore(task="bits", value=3.0 + more, stderr=0.1, n=80),)
        return Entry(name=name, role=role, search=seen, outcomes={"bits": values})

    parents = [graded(f"parent {at}", Role.PARENT, float(at)) for at in range(2)]
    (one,) = on_tasks([graded("candidate 1", Role.SEARCHED, 0.25), *parents], tasks=(loss,))
    assert (one.specialist, one.change, one.points) == ("parent 0", TaskChange.LOSES, False)
    assert one.difference.value == pytest.approx(-0.25)
    assert math.isnan(one.kept)


def test_many_tasks_are_counted_and_losses_named() -> None:
    tasks = [replace(REVERSE, name=f"t{at}") for at in range(9)]
    counts = {task.name: 100 + 2 * (at > 2) for at, task in enumerate(tasks)}
    counts |= {"t0": 20, "t1": 190}
    seen = {task.name: 0.5 for task in tasks}
    entries = [
        entry("candidate 7", Role.SEARCHED, counts, seen),
        entry("parent rev", Role.PARENT, {task.name: 100 for task in tasks}, seen),
    ]
    sentence = verdict(entries, tasks=tasks, how=HOW).sentence
    assert "loses 40.0 points on 't0' (" in sentence
    assert " against parent 'rev', gains on 1 task and is within the noise on 7 tasks" in sentence


def test_a_parent_is_not_compared_with_itself() -> None:
    _, rev, big = run({})
    found = on_tasks([rev, big], tasks=(REVERSE, LARGEST), how=HOW)
    assert [(one.task, one.specialist) for one in found] == [("largest", "parent big")]


def test_losses_are_seldom_said_where_there_are_none() -> None:
    """Six tasks at which the winner is exactly as good as its specialist, correlated answers."""
    rng = np.random.default_rng(1)
    tasks = [replace(REVERSE, name=f"t{at}") for at in range(6)]
    how, runs, said = Resampling(resamples=400), 120, 0
    for _ in range(runs):
        hard = rng.random((6, 60))
        lucky = rng.random((2, 6, 60)) < 0.4
        right = np.where(lucky, rng.random((2, 6, 60)) < 0.6, hard < 0.6).astype(float)
        entries = [
            Entry(
                name=name,
                role=role,
                search=tuple(TaskScore(task=t.name, value=0.6, stderr=0, n=9) for t in tasks),
                outcomes={
                    task.name: {str(q): v for q, v in enumerate(row)}
                    for task, row in zip(tasks, rows, strict=True)
                },
            )
            for (name, role), rows in zip(
                [("candidate 1", Role.SEARCHED), ("parent a", Role.PARENT)], right, strict=True
            )
        ]
        said += any(
            one.change is TaskChange.LOSES for one in on_tasks(entries, tasks=tasks, how=how)
        )
    assert said / runs <= 0.05


def base() -> Entry:
    right, search = {"reverse": 50, "largest": 50}, {"reverse": 0.2, "largest": 0.3}
    return entry("base", Role.BASE, right, search)


def test_the_base_is_shown_and_is_no_rival() -> None:
    entries = run({"reverse": 190, "largest": 120})
    without, found = judged(entries), judged([*entries, base()])
    assert found.sentence == without.sentence
    assert (found.standing, found.missing) == (without.standing, ())
    assert found.comparisons["base"].tasks["reverse"].value == pytest.approx(0.7)
    table = by_task_table(found, (REVERSE, LARGEST))
    assert table.headers == (
        "task", "winner", "best parent at it", "parent 'rev'", "parent 'big'", "the base",
    )  # fmt: skip
    assert [row[0] for row in table.rows] == ["reverse", "largest", "all, weighted"]
    assert table.rows[1][4].startswith("0.700 (0.")
    assert "\nwinner -0.100 (-0." in table.rows[1][4]
    assert table.rows[0][5].startswith("0.250 (0.")
    assert [row[2] for row in table.rows] == [
        "gains over parent 'rev'",
        "loses to parent 'big'",
        "",
    ]
    short = specialists_table(found, (REVERSE, LARGEST))
    assert short.headers[-1] == "base, winner minus it"
    assert short.rows[1][:3] == ("largest", "0.600", "parent 'big' 0.700")
    assert short.rows[1][3].startswith("loses -0.100 (-0.")
    assert short.rows[1][4].startswith("0.250, +0.350 (+0.")


def test_many_parents_have_rows() -> None:
    first, rev, big = run({"reverse": 190, "largest": 120})
    crowd = [replace(rev, name=f"parent {at:02}") for at in range(14)]
    found = judged([first, rev, big, *crowd, base()])
    table = by_task_table(found, (REVERSE, LARGEST))
    assert table.headers == ("task", "model", "held-out", "winner minus it", "best parent at it")
    assert len(table.rows) == 3 * 18
    assert table.rows[0][:2] == ("reverse", "winner")
    assert table.rows[17][:2] == ("", "the base")
    assert table.rows[18][-1] == "loses to parent 'big'"


def test_the_table_as_a_frame() -> None:
    frame = by_task_frame(
        judged([*run({"reverse": 190, "largest": 120}), base()]), (REVERSE, LARGEST)
    )
    assert {name: str(kind) for name, kind in frame.dtypes.items()} == FRAME
    assert list(frame["model"][:4]) == ["candidate 7", "parent rev", "parent big", "base"]
    lost = frame[frame["change"] == "loses"]
    assert lost[["task", "model"]].values.tolist() == [["largest", "parent big"]]
    assert lost["difference"].iloc[0] == pytest.approx(-0.1)
    assert math.isnan(frame["difference"].iloc[0])
    nothing = by_task_frame(None, (REVERSE,))
    assert len(nothing) == 0
    assert list(nothing.columns) == list(FRAME)


def test_a_comparison_has_one_interval_wherever_it_is_shown() -> None:
    """That of the verdict; a pair that the verdict says nothing of has its own."""
    found = judged([*run({"reverse": 190, "largest": 120}), base()])
    frame = by_task_frame(found, (REVERSE, LARGEST)).set_index(["task", "model"])
    for one in found.on_tasks:
        row = frame.loc[one.task, one.specialist]
        shown = (row["difference_low"], row["difference_high"])
        assert shown == (one.difference.low, one.difference.high)
        alone = found.comparisons[one.specialist].tasks[one.task]
        assert alone.high - alone.low < shown[1] - shown[0]
    models = {one.name: one for one in found.finalists}
    parents = found.finalists[0].parents
    assert parents is not None
    assert task_difference(found, models[parents.best], "") == parents.difference
    assert task_difference(found, models["base"], "") == found.comparisons["base"].difference


def test_a_parent_that_wins_stands_beside_the_others() -> None:
    _, rev, big = run({})
    table = by_task_table(judged([rev, big]), (REVERSE, LARGEST))
    assert table.headers == ("task", "winner", "best parent at it", "parent 'big'")
    assert "winner +0.450" in table.rows[0][3]
    assert table.rows[1][2] == "loses to parent 'big'"
