"""Scores from different questions, made comparable."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.protocol import Catalogue, Outcome, Question, TaskInfo, TaskScore, least_stderr
from runs.records.record import Estimate
from search.samplers.estimation.comparable_scores import ComparableScores
from search.samplers.estimation.task_answers import IMAGINED


def catalogue(
    sizes: dict[str, int], *, lower: tuple[str, ...] = (), whole: tuple[str, ...] = ()
) -> Catalogue:
    return Catalogue(
        tasks=tuple(
            TaskInfo(
                name=name,
                metric="acc,none",
                higher_is_better=name not in lower,
                weight=1.0 + at,
                mean=name not in whole,
            )
            for at, name in enumerate(sizes)
        ),
        questions=tuple(
            Question(id=f"{name}/{n}", task=name, position=n)
            for name, size in sizes.items()
            for n in range(size)
        ),
    )


def outcomes(task: str, values: dict[int, float]) -> list[Outcome]:
    return [Outcome(question=f"{task}/{n}", value=value) for n, value in values.items()]


def scores_of(answers: ComparableScores) -> dict[int, Estimate]:
    return {number: found[0] for number, found in answers.table().items()}


TABLES = st.integers(0, 2**32 - 1).map(np.random.default_rng)


@given(rng=TABLES, rows=st.integers(1, 8), columns=st.integers(2, 12))
def test_estimates_are_those_of_the_formula(
    rng: np.random.Generator, rows: int, columns: int
) -> None:
    values = rng.integers(0, 2, (rows, columns)).astype(float)
    asked = rng.random((rows, columns)) < 0.6
    asked[np.arange(rows), rng.integers(0, columns, rows)] = True
    known = catalogue({"t": columns})
    answers = ComparableScores(known, [question.id for question in known.questions])
    for row in range(rows):
        answers.add(row, outcomes("t", {n: values[row, n] for n in np.flatnonzero(asked[row])}))
    for row, estimate in scores_of(answers).items():
        others = [at for at in range(rows) if at != row]
        count, right = asked[others].sum(axis=0), (values * asked)[others].sum(axis=0)
        usual = right.sum() / max(1, count.sum())
        difficulty = (right + IMAGINED * usual) / (count + IMAGINED)
        own = (values[row] - difficulty)[asked[row]].mean()
        assert estimate.value == pytest.approx(own + difficulty.mean(), abs=1e-9)


def test_a_full_answer_is_its_own_estimate() -> None:
    known = catalogue({"a": 4, "b": 5})
    answers = ComparableScores(known, [question.id for question in known.questions])
    answers.add(
        0, [*outcomes("a", {0: 1, 1: 0, 2: 1, 3: 1}), *outcomes("b", dict.fromkeys(range(5), 1))]
    )
    answers.add(1, [*outcomes("a", {0: 0.0}), *outcomes("b", {2: 0.0})])
    assert scores_of(answers)[0].value == pytest.approx((0.75 + 2 * 1.0) / 3)


def test_hard_questions_are_no_disadvantage() -> None:
    """Two candidates of one skill, one asked the easy half and one the hard half."""
    rng = np.random.default_rng(0)
    hardness = np.linspace(-2, 2, 200)
    known = catalogue({"t": 200})
    answers = ComparableScores(known, [question.id for question in known.questions])

    def right(n: int, skill: float = 0.0) -> float:
        return float(rng.random() < 1 / (1 + math.exp(hardness[n] - skill)))

    for other in range(40):
        answers.add(other, outcomes("t", {n: right(n) for n in rng.permutation(200)[:60].tolist()}))
    answers.add(100, outcomes("t", {n: right(n) for n in range(100)}))
    answers.add(101, outcomes("t", {n: right(n) for n in range(100, 200)}))
    easy, hard = scores_of(answers)[100], scores_of(answers)[101]
    assert abs(easy.value - hard.value) < 4 * easy.stderr
    assert abs(easy.value - 0.5) < 4 * easy.stderr
    assert abs(hard.value - 0.5) < 4 * hard.stderr


def test_more_answers_make_an_estimate_surer() -> None:
    rng = np.random.default_rng(1)
    known = catalogue({"t": 100})
    answers = ComparableScores(known, [question.id for question in known.questions])
    for row, count in enumerate((10, 40, 90)):
        answers.add(row, outcomes("t", {n: float(rng.integers(2)) for n in range(count)}))
    few, some, many = (scores_of(answers)[row].stderr for row in range(3))
    assert few == pytest.approx(2 * some)
    assert some > many > 0


def test_answers_add_up() -> None:
    known = catalogue({"t": 6})
    once, twice = (ComparableScores(known, [q.id for q in known.questions]) for _ in range(2))
    once.add(7, outcomes("t", {0: 1, 1: 0, 4: 1}))
    twice.add(7, outcomes("t", {0: 1}))
    twice.add(7, outcomes("t", {1: 0, 4: 1}))
    assert scores_of(once) == scores_of(twice)
    assert twice.answered(7) == {"t/0", "t/1", "t/4"}
    assert dict(twice.of(7)["t"]) == {"t/0": 1.0, "t/1": 0.0, "t/4": 1.0}


def test_metrics_of_a_whole_task_and_metrics_to_keep_small() -> None:
    known = catalogue({"loss": 3, "f1": 2}, lower=("loss",), whole=("f1",))
    answers = ComparableScores(known, [question.id for question in known.questions])
    answers.add(
        0,
        [*outcomes("loss", {0: 2.0, 1: 3.0, 2: 4.0}), *outcomes("f1", {0: math.nan, 1: math.nan})],
        [TaskScore(task="f1", value=0.5, stderr=0.1, n=2)],
    )
    assert scores_of(answers)[0].value == pytest.approx((-3.0 + 2 * 0.5) / 3)
    assert dict(answers.of(0)["loss"]) == {"loss/0": 2.0, "loss/1": 3.0, "loss/2": 4.0}


def test_a_task_without_answers_leaves_no_estimate() -> None:
    known = catalogue({"a": 2, "b": 2})
    answers = ComparableScores(known, [question.id for question in known.questions])
    answers.add(0, outcomes("a", {0: 1.0}))
    assert scores_of(answers) == {}
    assert 0 in answers
    assert 1 not in answers


def test_what_is_set_apart_counts_for_nothing_until_it_is_let_in() -> None:
    known = catalogue({"t": 6})
    without, apart, all_in = (
        ComparableScores(known, [q.id for q in known.questions]) for _ in range(3)
    )
    for answers in (without, apart, all_in):
        answers.add(1, outcomes("t", {0: 1, 1: 0, 4: 1}))
        answers.add(2, outcomes("t", {0: 0, 1: 0, 2: 1}))
    apart.set_apart(3)
    apart.set_apart(1)
    apart.let_in(1)
    assert scores_of(apart) == scores_of(without)
    for answers in (apart, all_in):
        answers.add(3, outcomes("t", {0: 1, 1: 1, 5: 1}))
    assert scores_of(apart) == scores_of(without) != scores_of(all_in)
    assert apart.answered(3) == {"t/0", "t/1", "t/5"}
    apart.let_in(3)
    assert scores_of(apart) == scores_of(all_in)


@given(rng=TABLES, rows=st.integers(2, 40), columns=st.integers(20, 130))
def test_what_is_set_apart_does_not_change_how_sums_are_rounded(
    rng: np.random.Generator, rows: int, columns: int
) -> None:
    """Estimates that are equal stay so, and who leads does not depend on when somebody looks."""
    known = catalogue({"t": columns, "u": columns})
    answers = ComparableScores(known, [q.id for q in known.questions])

    def answer(number: int) -> None:
        for task in ("t", "u"):
            some = rng.permutation(columns)[: rng.integers(10, columns + 1)].tolist()
            answers.add(number, outcomes(task, {n: float(rng.integers(2)) for n in some}))

    for number in range(rows):
        answer(number)
    before = answers.table()
    answers.set_apart(rows)
    answer(rows)
    answers.set_apart(rows)  # forgets what was computed before
    after = answers.table()
    assert after is not before
    assert after.numbers.tolist() == before.numbers.tolist()
    assert np.array_equal(after.value, before.value)
    assert np.array_equal(after.stderr, before.stderr)


def test_all_right_is_no_certainty() -> None:
    known = catalogue({"t": 280})
    answers = ComparableScores(known, [question.id for question in known.questions])
    for row in range(5):
        answers.add(row, outcomes("t", dict.fromkeys(range(280), 1.0)))
    for estimate in scores_of(answers).values():
        assert estimate.value == pytest.approx(1.0)
        assert estimate.stderr == pytest.approx(least_stderr(280))
        assert 0.002 < estimate.stderr < 0.003


def test_all_right_on_few_documents_is_less_certain_still() -> None:
    plain = catalogue({"t": 280})
    known = Catalogue(
        tasks=plain.tasks,
        questions=tuple(
            replace(question, document=f"passage {question.position // 4}")
            for question in plain.questions
        ),
    )
    answers = ComparableScores(known, [question.id for question in known.questions])
    answers.add(0, outcomes("t", dict.fromkeys(range(280), 1.0)))
    answers.add(1, outcomes("t", dict.fromkeys(range(0, 280, 4), 1.0)))
    for estimate in scores_of(answers).values():
        assert estimate.stderr == pytest.approx(least_stderr(70))


def test_all_of_a_graded_metric_alike_is_left_as_it_is() -> None:
    known = catalogue({"t": 20})
    answers = ComparableScores(known, [question.id for question in known.questions])
    for row in range(3):
        answers.add(row, outcomes("t", dict.fromkeys(range(20), 0.25)))
    assert all(estimate.stderr == 0.0 for estimate in scores_of(answers).values())
