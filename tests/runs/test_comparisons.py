import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from evaluators.protocol import Catalogue, Outcome, Question, TaskInfo
from runs.statistics.comparisons import by_task, holm, paired, score
from runs.statistics.intervals import Interval
from runs.statistics.resampling import Resampling

QUICK = Resampling(resamples=400)
ONE = (TaskInfo(name="a", metric="acc", higher_is_better=True, weight=1.0),)
TWO = (*ONE, TaskInfo(name="b", metric="loss", higher_is_better=False, weight=3.0))

answers = st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=40)
numbers = st.lists(st.floats(-100, 100), min_size=2, max_size=40)


def interval(values, *, resamples: int = 10_000) -> Interval:
    """That of one task's mean."""
    how = Resampling(resamples=resamples)
    return score({"a": named(values)}, ONE, how=how).combined


def named(values, start: int = 0) -> dict[str, float]:
    return {f"q{start + at}": float(value) for at, value in enumerate(values)}


@given(numbers)
@settings(max_examples=50)
def test_mean_and_stderr_are_the_textbook_ones(values) -> None:
    assume(set(values) not in ({0.0}, {1.0}))
    found = interval(values, resamples=200)
    assert found.value == pytest.approx(np.mean(values), abs=1e-9)
    expected = np.std(values, ddof=1) / math.sqrt(len(values))
    assert found.stderr == pytest.approx(expected, abs=1e-9)
    assert found.low <= found.value + 1e-9
    assert found.value <= found.high + 1e-9
    assert found.n == len(values)


@pytest.mark.parametrize(("values", "n"), [([], 0), ([0.5], 1)])
def test_too_few_values_have_no_interval(values, n: int) -> None:
    found = interval(values)
    assert found.n == n
    assert math.isnan(found.stderr)
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_equal_values_have_no_width() -> None:
    found = interval([2.5] * 9)
    assert (found.low, found.value, found.high, found.stderr) == (2.5, 2.5, 2.5, 0.0)


@pytest.mark.parametrize("size", [1e-170, 1e-100, 1e100])
def test_values_of_any_size(size: float) -> None:
    found = interval(np.array([0.0, 1.0, 2.0, 4.0]) * size)
    plain = interval([0.0, 1.0, 2.0, 4.0])
    if size < 1e-160:  # squares vanish: no spread can be seen
        assert found.low == found.high == found.value
    else:
        assert found.low / size == pytest.approx(plain.low, abs=1e-9)
        assert found.high / size == pytest.approx(plain.high, abs=1e-9)


@given(answers, st.integers(0, 5))
@settings(max_examples=30)
def test_same_seed_same_numbers_whatever_the_order(values, seed: int) -> None:
    how = Resampling(resamples=200, seed=seed)
    ours = named(values)
    theirs = named(values[::-1])
    back = dict(reversed(ours.items()))
    assert paired({"a": ours}, {"a": theirs}, ONE, how=how) == paired(
        {"a": back}, {"a": theirs}, ONE, how=how
    )


def test_the_seed_matters() -> None:
    rng = np.random.default_rng(5)
    ours, theirs = {"a": named(rng.random(50))}, {"a": named(rng.random(50))}
    one, two = (paired(ours, theirs, ONE, how=Resampling(resamples=200, seed=s)) for s in (0, 1))
    assert one.difference.value == two.difference.value
    assert one.difference.low != two.difference.low


@given(answers, answers)
@settings(max_examples=40)
def test_swapping_the_two_flips_the_sign(first, second) -> None:
    ours, theirs = {"a": named(first)}, {"a": named(second)}
    forth, back = paired(ours, theirs, ONE, how=QUICK), paired(theirs, ours, ONE, how=QUICK)
    assert forth.difference.value == pytest.approx(-back.difference.value, abs=1e-12)
    assert forth.difference.stderr == pytest.approx(back.difference.stderr, abs=1e-12)
    assert forth.difference.n == min(len(first), len(second))


@given(answers)
@settings(max_examples=20)
def test_nobody_is_better_than_themselves(values) -> None:
    same = paired({"a": named(values)}, {"a": named(values)}, ONE, how=QUICK)
    assert same.difference.value == 0.0
    # Agreement on a few questions is no proof of agreement on all: the interval has a width.
    assert same.difference.low < 0.0 < same.difference.high
    assert same.p_value == 1.0
    assert not same.clear(0.95)


@given(numbers, st.floats(0.1, 10))
@settings(max_examples=30)
def test_weights_scale_out(values, factor: float) -> None:
    ours = {"a": named(values), "b": named(values)}
    theirs = {"a": named(np.zeros(len(values))), "b": named(np.zeros(len(values)))}
    scaled = tuple(
        TaskInfo(
            name=t.name,
            metric=t.metric,
            higher_is_better=t.higher_is_better,
            weight=t.weight * factor,
        )
        for t in TWO
    )
    one, two = paired(ours, theirs, TWO, how=QUICK), paired(ours, theirs, scaled, how=QUICK)
    assert one.difference.value == pytest.approx(two.difference.value, abs=1e-9)
    # Shares 1/4 and -3/4 of the same mean.
    assert one.difference.value == pytest.approx(-0.5 * np.mean(values), abs=1e-9)
    assert one.tasks["b"].value == pytest.approx(-np.mean(values), abs=1e-9)


def test_only_common_finite_questions_count() -> None:
    ours = {"a": {"x": 1.0, "y": 1.0, "z": math.nan, "only": 0.0}}
    theirs = {"a": {"x": 0.0, "y": 1.0, "z": 0.0, "other": 1.0}}
    found = paired(ours, theirs, ONE, how=QUICK)
    assert found.difference.n == 2
    assert found.difference.value == 0.5


def test_tasks_without_values_per_question_are_named() -> None:
    tasks = (*TWO, TaskInfo(name="ppl", metric="p", higher_is_better=False, weight=9.0, mean=False))
    ours = {"a": named([1, 1, 0]), "ppl": named([1, 2, 3])}
    theirs = {"a": named([0, 1, 0]), "ppl": named([3, 2, 1])}
    found = paired(ours, theirs, tasks, how=QUICK)
    assert found.left_out == ("b", "ppl")
    assert found.difference.value == pytest.approx(1 / 3)
    assert list(found.tasks) == ["a"]


def test_nothing_in_common() -> None:
    found = paired({"a": named([1])}, {"a": named([1], start=5)}, ONE, how=QUICK)
    assert found.difference.n == 0
    assert math.isnan(found.difference.value)
    assert math.isnan(found.p_value)
    assert found.left_out == ("a",)
    assert not found.clear(0.95)


def test_few_questions_never_prove_anything() -> None:
    found = paired({"a": named([2, 2, 2])}, {"a": named([0, 0, 0])}, ONE, how=QUICK)
    assert found.difference.low == 2.0  # no spread seen: the interval alone would be sure
    assert found.p_value == pytest.approx(1 / 8, abs=0.05)
    assert not found.clear(0.95)


def test_a_large_difference_is_clear() -> None:
    found = paired({"a": named([1] * 30)}, {"a": named([0] * 20 + [1] * 10)}, ONE)
    assert found.p_value < 0.001
    assert found.clear(0.95)


@given(answers, answers)
@settings(max_examples=25)
def test_p_value_is_the_exact_sign_test_for_right_and_wrong(first, second) -> None:
    from scipy.stats import binom

    pairs = list(zip(first, second, strict=False))
    wins, losses = sum(a > b for a, b in pairs), sum(a < b for a, b in pairs)
    assume(wins + losses > 0)
    exact = float(binom.sf(wins - 1, wins + losses, 0.5))
    found = paired({"a": named(first)}, {"a": named(second)}, ONE, how=Resampling(resamples=4000))
    assert found.p_value == pytest.approx(exact, abs=0.04)


def test_score_combines_like_the_leaderboard() -> None:
    outcomes = {"a": named([1, 0, 1, 1]), "b": named([0.5, 0.25])}
    found = score(outcomes, TWO, how=QUICK)
    assert found.combined.value == pytest.approx(0.25 * 0.75 - 0.75 * 0.375)
    assert found.combined.n == 6


def test_many_distinct_values_come_in_blocks() -> None:
    values = np.random.default_rng(0).normal(size=3000)
    found = interval(values, resamples=1500)
    half = 1.96 * found.stderr
    assert found.low == pytest.approx(found.value - half, rel=0.1, abs=0.005)
    assert found.high == pytest.approx(found.value + half, rel=0.1, abs=0.005)


@pytest.mark.parametrize(("n", "most"), [(15, 1.0), (40, 0.97), (120, 0.97)])
def test_intervals_cover_what_they_promise(n: int, most: float) -> None:
    """Two tasks, one lower-is-better, with answers that share the difficulty of a question."""
    rng = np.random.default_rng(n)
    chances = {"a": (0.6, 0.45), "b": (0.5, 0.4)}
    truth = 0.25 * (0.6 - 0.45) - 0.75 * (0.5 - 0.4)
    runs, hits = 1000, 0
    how = Resampling(resamples=600)
    for _ in range(runs):
        ours, theirs = {}, {}
        for task, (p, q) in chances.items():
            level = rng.random(n)  # one level for both: their answers are correlated
            ours[task], theirs[task] = named(level < p), named(level < q)
        found = paired(ours, theirs, TWO, how=how).difference
        hits += found.low <= truth <= found.high
    assert 0.93 <= hits / runs <= most


def test_false_alarms_are_as_rare_as_promised() -> None:
    rng = np.random.default_rng(2)
    runs = 500
    alarms = sum(
        paired(
            {"a": named(rng.random(60) < 0.5)}, {"a": named(rng.random(60) < 0.5)}, ONE, how=QUICK
        ).clear(0.95)
        for _ in range(runs)
    )
    assert alarms / runs <= 0.045


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"confidence": 1.0}, r"confidence: expected a value in \(0, 1\), got 1.0"),
        ({"confidence": math.nan}, "confidence: expected"),
        ({"resamples": 10}, "resamples: expected at least 100, got 10"),
        ({"seed": -1}, "seed: expected at least 0, got -1"),
    ],
)
def test_settings_are_checked(settings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Resampling(**settings)


def test_by_task_groups_in_the_order_of_the_catalogue() -> None:
    questions = tuple(
        Question(id=f"{task}/{at}", task=task, position=at) for task in "ba" for at in range(2)
    )
    catalogue = Catalogue(tasks=TWO, questions=questions)
    outcomes = [Outcome(question=q.id, value=float(at)) for at, q in enumerate(questions)]
    assert by_task(outcomes, catalogue) == {
        "a": {"a/0": 2.0, "a/1": 3.0},
        "b": {"b/0": 0.0, "b/1": 1.0},
    }
    assert list(by_task(outcomes, catalogue)) == ["a", "b"]
    assert by_task(outcomes[:1], catalogue) == {"b": {"b/0": 0.0}}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_never_kinder_than_no_correction(p_values) -> None:
    adjusted = holm(p_values)
    assert all(
        p <= q <= min(1.0, len(p_values) * p) for p, q in zip(p_values, adjusted, strict=True)
    )
    ordered = [q for _, q in sorted(zip(p_values, adjusted, strict=True))]
    assert ordered == sorted(ordered)


def test_holm_as_in_the_book() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    first, second, third = holm([0.02, math.nan, 0.01])
    assert (first, third) == (0.02, 0.02)
    assert math.isnan(second)


def test_a_score_of_right_answers_has_wilsons_interval() -> None:
    from scipy.stats import binomtest

    for count in (0, 1, 9, 30):
        found = score({"a": named([1] * count + [0] * (30 - count))}, ONE).tasks["a"]
        expected = binomtest(count, 30).proportion_ci(0.95, method="wilson")
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
        assert found.low <= found.value <= found.high
        assert found.low < found.high


def test_a_combined_score_keeps_each_tasks_own_direction() -> None:
    found = score({"a": named([1, 0, 1, 1]), "b": named([0.5, 0.25, 1.0])}, TWO, how=QUICK)
    assert found.tasks["b"].value == pytest.approx(7 / 12)
    assert found.tasks["b"].low < 7 / 12 < found.tasks["b"].high
    assert found.combined.low < found.combined.value < found.combined.high
    alone = score({"b": named([0.5, 0.25, 1.0])}, TWO, how=QUICK)
    assert alone.combined.low == pytest.approx(-alone.tasks["b"].high)
    assert score({}, TWO).combined.n == 0


@pytest.mark.parametrize("n", [20, 100])
def test_intervals_of_scores_cover_what_they_promise(n: int) -> None:
    rng = np.random.default_rng(n)
    runs = 1500
    hits = 0
    for _ in range(runs):
        answers = {t: named(rng.random(n) < p) for t, p in (("a", 0.8), ("b", 0.3))}
        combined = score(answers, TWO).combined
        hits += combined.low <= 0.25 * 0.8 - 0.75 * 0.3 <= combined.high
    assert 0.93 <= hits / runs <= 0.97


def clustered(rng, g: int, each: int, p: float, likeness: float) -> np.ndarray:
    """Right or wrong answers to so many questions on each of ``g`` documents."""
    from scipy.stats import norm

    level = math.sqrt(likeness) * rng.normal(size=(g, 1))
    level = level + math.sqrt(1 - likeness) * rng.normal(size=(g, each))
    return (level < norm.ppf(p)).ravel()


@pytest.mark.parametrize("likeness", [0.3, 0.6])
def test_questions_on_one_document_are_no_independent_evidence(likeness: float) -> None:
    rng, g, each, runs = np.random.default_rng(0), 50, 4, 600
    documents = {f"q{at}": f"d{at // each}" for at in range(g * each)}
    hits, claims, score_hits = 0, 0, 0
    for _ in range(runs):
        ours, theirs = (clustered(rng, g, each, 0.6, likeness) for _ in range(2))
        found = paired(
            {"a": named(ours)}, {"a": named(theirs)}, ONE, documents=documents, how=QUICK
        )
        hits += found.difference.low <= 0 <= found.difference.high
        claims += found.clear(0.95)
        alone = score({"a": named(ours)}, ONE, documents=documents, how=QUICK).combined
        score_hits += alone.low <= 0.6 <= alone.high
    assert 0.925 <= hits / runs <= 0.975
    assert 0.925 <= score_hits / runs <= 0.975
    assert claims / runs <= 0.035


def test_the_same_documents_in_two_tasks_are_one_cluster() -> None:
    rng, n, runs = np.random.default_rng(1), 200, 600
    infos = (*ONE, TaskInfo(name="b", metric="acc", higher_is_better=True, weight=1.0))
    documents = {f"{task}{at}": f"d{at}" for task in "ab" for at in range(n)}
    hits, claims, score_hits = 0, 0, 0
    for _ in range(runs):
        both = []
        for _ in range(2):
            first = rng.random(n) < 0.6
            second = np.where(rng.random(n) < 0.1, ~first, first)
            both.append(
                {
                    "a": {f"a{at}": float(value) for at, value in enumerate(first)},
                    "b": {f"b{at}": float(value) for at, value in enumerate(second)},
                }
            )
        found = paired(*both, infos, documents=documents, how=QUICK)
        hits += found.difference.low <= 0 <= found.difference.high
        claims += found.clear(0.95)
        alone = score(both[0], infos, documents=documents, how=QUICK).combined
        score_hits += alone.low <= 0.59 <= alone.high
    assert 0.925 <= hits / runs <= 0.975
    assert 0.925 <= score_hits / runs <= 0.975
    assert claims / runs <= 0.035


@pytest.mark.parametrize("n", [30, 60, 200])
def test_skewed_values_are_no_reason_for_false_alarms(n: int) -> None:
    rng, runs = np.random.default_rng(n), 1000
    alarms, hits = 0, 0
    for _ in range(runs):
        values = 0.1 * (1 - rng.exponential(1, n))
        found = paired({"a": named(values)}, {"a": named(np.zeros(n))}, ONE, how=QUICK)
        alarms += found.p_value < 0.025
        hits += found.difference.low <= 0 <= found.difference.high
    assert alarms / runs <= 0.035
    assert 0.93 <= hits / runs <= 0.97


@pytest.mark.parametrize("weights", [(1.0,), (3.0, 1.0)])
def test_differences_of_right_answers_end_at_1(weights: tuple[float, ...]) -> None:
    tasks = [
        TaskInfo(name=f"t{at}", metric="acc", higher_is_better=True, weight=weight)
        for at, weight in enumerate(weights)
    ]
    right, wrong = (
        {task.name: {f"{task.name}/{at}": value for at in range(30)} for task in tasks}
        for value in (1.0, 0.0)
    )
    found = paired(right, wrong, tasks)
    for one in (found.difference, *found.tasks.values()):
        assert one.value == one.high == 1.0
        assert 0.8 < one.low < 1.0
    mirrored = paired(wrong, right, tasks).difference
    assert (mirrored.low, mirrored.high) == (-1.0, -found.difference.low)


def test_all_right_is_no_certainty() -> None:
    found = score({"a": named([1] * 280)}, ONE).tasks["a"]
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(280 / (280 + 1.96**2), abs=1e-4)
    assert 0.002 < found.stderr < 0.003
    documents = {f"q{at}": f"d{at // 4}" for at in range(280)}
    fewer = score({"a": named([1] * 280)}, ONE, documents=documents).tasks["a"]
    assert fewer.low == pytest.approx(70 / (70 + 1.96**2), abs=1e-4)
    assert fewer.stderr > 3 * found.stderr


def test_documents_of_their_own_change_nothing() -> None:
    rng = np.random.default_rng(3)
    ours, theirs = ({"a": named(rng.random(80) < p)} for p in (0.7, 0.5))
    apart = {f"q{at}": f"d{at}" for at in range(80)}
    assert paired(ours, theirs, ONE, documents=apart) == paired(ours, theirs, ONE)
    assert score(ours, ONE, documents=apart) == score(ours, ONE)
