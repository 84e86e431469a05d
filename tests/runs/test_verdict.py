from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from evaluators.protocol import Catalogue, Outcome, Question, TaskInfo, TaskScore
from runs.ranking.finalists import Entry, WinnerStanding
from runs.ranking.verdict import Verdict, judge, verdict
from runs.records.record import AVERAGE, Role, Split, role_of
from runs.statistics.comparisons import Outcomes
from runs.statistics.intervals import Interval
from runs.statistics.resampling import Resampling

TASKS = (TaskInfo(name="a", metric="acc", higher_is_better=True, weight=1.0),)
HOW = Resampling(resamples=2000)


NAMES = {
    "winner": ("candidate 7", Role.SEARCHED),
    "second": ("candidate 3", Role.SEARCHED),
    "math": ("parent math", Role.PARENT),
    "code": ("parent code", Role.PARENT),
    "average": (AVERAGE, Role.AVERAGE),
    "ties": ("ties density 0.5 weight 1", Role.DEFAULT),
    "mine": ("seed earlier/study.db #1", Role.OWN),
    "file": ("seed recipes/good.yaml", Role.OWN),
}


def right(count: int, of: int = 100) -> dict[str, dict[str, float]]:
    return {"a": {f"q{at}": float(at < count) for at in range(of)}}


def entry(key: str, outcomes: dict[str, dict[str, float]], *, search: float = 0.9) -> Entry:
    name, role = NAMES[key]
    seen = (TaskScore(task="a", value=search, stderr=0.03, n=100),)
    return Entry(name=name, role=role, rank=1, search=seen, outcomes=outcomes)


def decide(*, tasks=TASKS, of: int = 100, **counts: int | None) -> Verdict:
    """The verdict on candidates that get so many questions right; the first is the winner."""
    return verdict(
        [entry(key, {} if n is None else right(n, of)) for key, n in counts.items()],
        tasks=tasks,
        how=HOW,
    )


def test_beats_everyone() -> None:
    found = decide(winner=90, average=70, code=30, math=60)
    assert found.standing is WinnerStanding.BEATS
    assert found.best_parent == "parent math"
    assert list(found.comparisons) == ["parent code", "parent math", AVERAGE]
    assert found.missing == ()
    best = found.comparisons["parent math"].difference
    average = found.comparisons[AVERAGE].difference
    assert found.sentence == (
        "the winner beats every parent: +0.300 over the best, parent 'math' "
        f"(95 % interval {best.low:+.3f} to {best.high:+.3f}, p < 0.001); it beats the plain "
        f"average: +0.200 (95 % interval {average.low:+.3f} to {average.high:+.3f}, p < 0.001), "
        "on 100 held-out questions"
    )
    assert 0.2 < best.low < 0.3 < best.high < 0.4


def test_ahead_is_not_beyond_doubt() -> None:
    found = decide(winner=62, math=60, code=30, average=40)
    assert found.standing is WinnerStanding.AHEAD
    assert found.sentence.startswith(
        "nothing beats the best parent beyond doubt: the winner is ahead of every parent, but not "
        "beyond doubt: +0.020 over the best, parent 'math' (95 % interval -0."
    )
    assert "; it beats the plain average: +0.220 (" in found.sentence


def test_nothing_beats_the_best_parent() -> None:
    found = decide(winner=60, second=61, math=60, code=30, average=70)
    assert found.standing is WinnerStanding.NOT_BETTER
    assert found.sentence.startswith(
        "nothing beats the best parent: the winner is not better than parent 'math': +0.000 (95 % "
    )
    assert "; it is not better than the plain average: -0.100 (" in found.sentence
    assert "code" not in found.sentence


def test_another_finalist_that_beats_the_parents_is_named() -> None:
    found = decide(winner=60, second=95, math=60, code=30)
    assert found.standing is WinnerStanding.NOT_BETTER
    assert found.sentence.startswith("the winner is not better than parent 'math': +0.000 (")
    (note, _) = found.notes
    assert note.startswith("Candidate 3 beats every parent: +0.350 over the best, parent 'math' (")
    assert note.endswith("p < 0.001, corrected for 2 finalists).")
    assert decide(winner=95, second=95, math=60).notes[:-1] == ()


def test_p_values_of_finalists_are_corrected_and_the_winners_is_there_as_it_is() -> None:
    found = decide(winner=66, second=68, math=60)
    winner, second, parent = found.finalists
    assert winner.parents is not None
    assert second.parents is not None
    assert parent.parents is parent.defaults is None
    assert second.parents.adjusted == 2 * second.parents.p_value < 0.025
    assert winner.parents.adjusted == winner.parents.p_value
    assert found.standing is WinnerStanding.BEATS


def test_recipes_of_the_users_are_called_theirs() -> None:
    assert role_of("seed recipes/good.yaml") is Role.OWN
    found = decide(winner=90, mine=88, average=70, math=60)
    assert "default" not in found.sentence
    assert (
        "; it is ahead of the plain average and every recipe of yours, but not beyond doubt: "
        "+0.020 over the best, your recipe 'earlier/study.db #1' ("
    ) in found.sentence
    found = decide(winner=90, mine=80, ties=70)
    both = "the winner beats every default recipe and every recipe of yours: +0.1"
    assert both in found.sentence
    assert (
        "the winner beats every recipe of yours: +0.1"
        in decide(winner=90, mine=80, file=7).sentence
    )
    found = decide(winner=90, math=70, ties=None, mine=None, file=None)
    assert "; not compared: 1 default recipe, 2 recipes of yours" in found.sentence
    found = decide(mine=90, math=70)
    assert found.sentence.startswith(
        "no other recipe did better in the search than your recipe 'earlier/study.db #1', which "
        "beats every parent: +0.200 over the best, parent 'math' ("
    )


def test_the_default_recipes_are_a_group_of_their_own() -> None:
    found = decide(winner=90, ties=88, average=70, math=60)
    assert found.standing is WinnerStanding.AHEAD
    assert found.sentence.startswith("the winner beats every parent: +0.300 over the best, parent")
    assert (
        "; it is ahead of every default recipe, but not beyond doubt: +0.020 over the best, "
        "default recipe 'ties density 0.5 weight 1' ("
    ) in found.sentence
    defaults = found.finalists[0].defaults
    assert defaults is not None
    assert defaults.best == "ties density 0.5 weight 1"
    assert defaults.p_value == max(item.p_value for item in defaults.comparisons.values())


def test_missing_baselines_are_named() -> None:
    found = decide(winner=90, math=60, code=None, average=None, ties=None)
    assert found.missing == ("parent code", AVERAGE, "ties density 0.5 weight 1")
    assert found.sentence.startswith("the winner beats every compared parent: +0.300 over the best")
    assert found.sentence.endswith(
        "; not compared: parent 'code', the plain average, 1 default recipe"
    )
    only = decide(winner=90, average=60)
    assert only.best_parent is None
    assert only.sentence.startswith("the winner beats the plain average: +0.300 (")


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({"winner": 9}, "not compared: neither a parent nor a default recipe was scored on"),
        (
            {"winner": None, "math": 9},
            "not compared: the winner was not scored on held-out questions",
        ),
        ({"winner": None}, "not compared: the winner was not scored on held-out questions"),
    ],
)
def test_nothing_to_compare(scores: dict[str, int | None], expected: str) -> None:
    found = decide(**scores)
    assert found.standing is WinnerStanding.UNKNOWN
    assert found.sentence.startswith(expected)


def test_tasks_left_out_are_named() -> None:
    tasks = (
        *TASKS,
        TaskInfo(name="ppl", metric="p", higher_is_better=False, weight=1, mean=False),
    )
    whole = {"ppl": {f"q{at}": math.nan for at in range(9)}}
    entries = [entry("winner", right(90) | whole), entry("math", right(60) | whole)]
    found = verdict(entries, tasks=tasks, how=HOW)
    assert found.sentence.endswith("; without 'ppl' (no values per question)")


def test_tasks_that_were_not_asked_are_not_mentioned() -> None:
    tasks = (*TASKS, TaskInfo(name="b", metric="acc", higher_is_better=True, weight=5))
    found = decide(tasks=tasks, winner=90, math=60)
    assert found.comparisons["parent math"].left_out == ()
    assert found.sentence.endswith("on 100 held-out questions")


def test_one_question_has_no_interval() -> None:
    found = decide(of=1, winner=1, math=0)
    assert found.standing is WinnerStanding.AHEAD
    assert "+1.000 over the best, parent 'math' (too few questions for an int" in found.sentence
    assert found.sentence.endswith("on 1 held-out question")
    assert math.isnan(found.comparisons["parent math"].difference.low)
    assert found.notes == ()


@pytest.mark.parametrize(
    ("right_answers", "expected"),
    [
        (60, "is 0.300 above its held-out score (95 % interval +0.209 to +0.398), so the search"),
        (88, "is 0.020 above its held-out score (95 % interval -0.030 to +0.098), which chance"),
        (99, "is 0.090 below its held-out score (95 % interval -0.098 to -0.046), so the search"),
    ],
)
def test_the_winners_curse(right_answers: int, expected: str) -> None:
    (note,) = decide(winner=right_answers, math=10).notes
    assert note.startswith(f"The winner's search score {expected}")


def test_the_gap_is_over_tasks_that_were_asked_in_both() -> None:
    tasks = (*TASKS, TaskInfo(name="b", metric="loss", higher_is_better=False, weight=3.0))
    seen = (
        TaskScore(task="a", value=0.75, stderr=0.1, n=9),
        TaskScore(task="b", value=0.5, stderr=0.1, n=9),
    )

    def gap(outcomes: Outcomes) -> Interval | None:
        entries = [Entry(name="candidate 1", role=Role.SEARCHED, search=seen, outcomes=outcomes)]
        return verdict(entries, tasks=tasks, how=HOW).finalists[0].gap

    both = gap(right(50) | {"b": {f"q{at}": float(at < 70) for at in range(100)}})
    assert both is not None
    assert both.value == pytest.approx(0.25 * (0.75 - 0.5) - 0.75 * (0.5 - 0.7))
    one = gap(right(50))
    assert one is not None
    assert one.value == pytest.approx(0.25)
    assert gap({}) is None


def test_parents_that_cannot_be_beaten_are_hardly_ever_said_to_be() -> None:
    """Three finalists that are exactly as good as the only parent."""
    rng = np.random.default_rng(0)
    how = Resampling(resamples=400)
    runs, wins, claims = 150, 0, 0
    for _ in range(runs):
        hard = rng.random(80)  # one level for everyone: answers are correlated
        lucky = rng.random((4, 80)) < 0.4
        answers = np.where(lucky, rng.random((4, 80)) < 0.6, hard < 0.6).astype(float)
        outcomes = [{"a": dict(zip(map(str, range(80)), row, strict=True))} for row in answers]
        entries = [
            Entry(name=f"candidate {at}", role=Role.SEARCHED, rank=at + 1, outcomes=outcomes[at])
            for at in range(3)
        ]
        parent = Entry(name="parent math", role=Role.PARENT, outcomes=outcomes[3])
        found = verdict([*entries, parent], tasks=TASKS, how=how)
        wins += found.standing is WinnerStanding.BEATS
        groups = [one.parents for one in found.finalists if one.parents is not None]
        assert len(groups) == 3
        claims += any(group.beats_after_correction(0.95) for group in groups)
    assert wins / runs <= 0.05
    assert claims / runs <= 0.05


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
    assert found.standing is WinnerStanding.BEATS
    assert found.best_parent == "parent code"
    assert found.comparisons[AVERAGE].difference.value == pytest.approx(1 / 3)
    assert found.comparisons[AVERAGE].tasks["loss"].value == pytest.approx(1 / 3)


def test_judge_of_a_baseline_that_wins(run_records, catalogue) -> None:
    baselines = run_records[:3]
    found = judge(baselines, {2: answered(catalogue, 30)}, catalogue, how=HOW)
    assert found is not None
    assert found.standing is WinnerStanding.BASELINE
    assert found.sentence == "no other recipe did better in the search than the plain average"
    outcomes = {2: answered(catalogue, 60), 1: answered(catalogue, 20)}
    found = judge(baselines, outcomes, catalogue, how=HOW)
    assert found is not None
    assert found.sentence.startswith(
        "no other recipe did better in the search than the plain average, which beats every "
        "compared parent on average: +0.667 over the best, parent 'code' ("
    )


def test_judge_of_a_parent_that_wins(run_records, catalogue) -> None:
    outcomes = {0: answered(catalogue, 30), 1: answered(catalogue, 20)}
    found = judge(run_records[:2], outcomes, catalogue, how=HOW)
    assert found is not None
    assert found.standing is WinnerStanding.BASELINE
    assert found.best_parent is None
    assert found.sentence == (
        "nothing beats the best parent: no other recipe did better in the search than parent 'code'"
    )


def test_answers_without_a_value_are_told(run_records, catalogue) -> None:
    search = run_records[0].evaluations[Split.SEARCH]
    tasks = tuple(replace(task, unmarked=2) for task in search.tasks)
    told = replace(run_records[0], evaluations={Split.SEARCH: replace(search, tasks=tasks)})
    outcomes = {0: answered(catalogue, 9), 1: answered(catalogue, 5)}
    found = judge((told, *run_records[1:]), outcomes, catalogue)
    assert found is not None
    assert found.notes[-1].startswith(
        f"The tasks gave no value for some answers: of 1 of {len(run_records)} candidates, for up "
        f"to {2 * len(tasks)} questions of one."
    )
    assert not any("no value" in note for note in judge(run_records, outcomes, catalogue).notes)


def test_judge_without_any_score(run_records, catalogue) -> None:
    assert judge((run_records[3],), {}, catalogue) is None
    assert Split.SEARCH in run_records[3].evaluations


@pytest.mark.parametrize(
    ("origin", "role"),
    [
        ("parent math", Role.PARENT),
        (AVERAGE, Role.AVERAGE),
        ("ties density 0.5 weight 1", Role.DEFAULT),
        ("specialist math", Role.DEFAULT),
        ("karcher", Role.DEFAULT),
        ("surrogate", Role.SEARCHED),
        ("tpe", Role.SEARCHED),
    ],
)
def test_role_of_an_origin(origin: str, role: Role) -> None:
    assert role_of(origin) is role


def test_the_difference_to_the_best_parent_allows_for_not_knowing_which_it_is() -> None:
    """The best of tied parents on the same questions looks better than it is."""
    clear = decide(winner=80, math=60, code=20).finalists[0].parents
    tied = decide(winner=80, math=60, code=59).finalists[0].parents
    assert clear is not None
    assert tied is not None
    assert clear.difference == clear.comparisons["parent math"].difference
    alone = tied.comparisons["parent math"].difference
    assert (tied.difference.value, tied.difference.low) == (alone.value, alone.low)
    assert tied.difference.high > alone.high
    few = decide(winner=1, math=0, code=0, of=1).finalists[0].parents
    assert few is not None
    assert math.isnan(few.difference.low)
    assert math.isnan(few.difference.high)
