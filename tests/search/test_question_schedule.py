"""Which questions come next, and when a candidate is not asked on."""

from collections import Counter

import numpy as np
import pytest

from evaluators.protocol import Catalogue, Question, TaskInfo
from search.engine.trials.question_schedule import FEWEST, SMALLEST, QuestionSchedule
from search.engine.trials.racing import ERROR, behind, chosen_p_value, looks, next_step


def catalogue(sizes: dict[str, tuple[int, float]], *, whole: str = "") -> Catalogue:
    return Catalogue(
        tasks=tuple(
            TaskInfo(name=n, metric="acc", higher_is_better=True, weight=w, mean=n != whole)
            for n, (_, w) in sizes.items()
        ),
        questions=tuple(
            Question(id=f"{name}/{at}", task=name, position=at)
            for name, (size, _) in sizes.items()
            for at in range(size)
        ),
    )


def rotation(sizes: dict[str, tuple[int, float]], **options: object) -> QuestionSchedule:
    known = catalogue(sizes, whole=str(options.pop("whole", "")))
    ids = [question.id for question in known.questions]
    return QuestionSchedule(known, ids, **{"all_at_once": False, **options})


def tasks(block: tuple[str, ...]) -> Counter[str]:
    return Counter(name.split("/")[0] for name in block)


def test_blocks_go_round_and_ask_every_question_alike() -> None:
    deal = rotation({"a": (300, 1.0), "b": (300, 1.0)})
    seen: Counter[str] = Counter()
    for _ in range(20):  # of 60 questions, as none are counted as asked
        block = deal.block()
        assert len(set(block)) == len(block) == SMALLEST
        assert tasks(block) == {"a": 30, "b": 30}
        seen.update(block)
    assert set(seen.values()) == {2}


def test_shares_follow_the_weights_as_far_as_there_are_questions() -> None:
    deal = rotation({"a": (400, 3.0), "b": (400, 1.0)})
    assert tasks(deal.block()) == {"a": 45, "b": 15}
    short = rotation({"a": (12, 3.0), "b": (400, 1.0)})
    assert tasks(short.block()) == {"a": 12, "b": 48}
    tiny = rotation({"a": (400, 0.001), "b": (400, 1.0)})
    assert tasks(tiny.block())["a"] == FEWEST


def test_every_head_of_a_block_holds_all_tasks() -> None:
    block = rotation({"a": (400, 3.0), "b": (400, 1.0)}).block()
    assert tasks(block[:20]) == {"a": 15, "b": 5}


def test_blocks_grow_with_the_root_of_what_was_asked() -> None:
    deal = rotation({"a": (2000, 1.0)})
    sizes = []
    for _ in range(300):
        sizes.append(len(deal.block()))
        deal.count(sizes[-1])
    assert sizes[0] == sizes[40] == SMALLEST
    assert sizes == sorted(sizes)
    assert sizes[-1] == pytest.approx(np.sqrt(sum(sizes[:-1])), abs=1)


def test_a_block_of_nearly_all_is_all() -> None:
    deal = rotation({"a": (70, 1.0)})
    assert len(deal.block()) == 70
    assert len(rotation({"a": (900, 1.0)}, all_at_once=True).block()) == 900


def test_a_block_may_be_all_questions() -> None:
    deal = rotation({"a": (300, 1.0), "b": (100, 1.0)})
    block = deal.block(whole=True)
    assert sorted(block) == sorted(
        [*(f"a/{at}" for at in range(300)), *(f"b/{at}" for at in range(100))]
    )
    assert tasks(block[:40]) == {"a": 30, "b": 10}
    assert len(deal.block()) == 60


def test_a_resumed_rotation_goes_on_where_it_was() -> None:
    through, first = (rotation({"a": (500, 2.0), "b": (77, 1.0)}) for _ in range(2))
    blocks = [first.block() for _ in range(5)]
    assert [through.block() for _ in range(5)] == blocks
    second = rotation({"a": (500, 2.0), "b": (77, 1.0)})
    second.resume(blocks[::-1], asked=0)
    assert second.block() == through.block()


def test_more_and_the_rest() -> None:
    deal = rotation({"a": (100, 1.0), "b": (100, 1.0)})
    answered = set(deal.block())
    more = deal.more(answered)
    assert tasks(more) == {"a": 30, "b": 30}
    assert not answered & set(more)
    rest = deal.rest(answered | set(more))
    assert len(rest) == 80
    assert deal.more(answered | set(more) | set(rest)) == ()


def test_a_metric_of_the_whole_task_is_asked_at_once() -> None:
    deal = rotation({"a": (400, 1.0), "f1": (150, 1.0)}, whole="f1")
    block = deal.block()
    assert tasks(block)["f1"] == 150
    assert not deal.grows
    assert tasks(deal.more(block)) == {"a": SMALLEST}


def test_steps_of_a_block() -> None:
    assert looks(60) == ()
    assert looks(85) == ()
    assert looks(100) == (60,)
    assert looks(300) == (60, 120)
    block = tuple(map(str, range(300)))
    steps, done = [], 0
    while done < 300:
        steps.append(next_step(block, done))
        done += len(steps[-1])
    assert [len(step) for step in steps] == [60, 60, 180]
    assert sum(steps, ()) == block


def stopped(skill: float, leader: float, *, runs: int, size: int = 300) -> float:
    """Share of candidates that are stopped at any look, by true accuracies."""
    rng = np.random.default_rng(5)
    info = [TaskInfo(name="t", metric="acc", higher_is_better=True, weight=1.0)]
    count = 0
    for _ in range(runs):
        hard = rng.random(size)
        draw = 0.5 * hard + 0.5 * rng.random((2, size))  # answers to one question are alike
        ours, theirs = draw[0] < skill, draw[1] < leader
        table = [{"t": {str(n): float(v[n]) for n in range(size)}} for v in (theirs, ours)]
        for look in looks(size):
            part = {"t": dict(list(table[1]["t"].items())[:look])}
            if behind(table[0], part, info, size=size):
                count += 1
                break
    return count / runs


def test_an_equal_candidate_is_rarely_stopped_and_a_bad_one_mostly() -> None:
    assert stopped(0.6, 0.6, runs=300) <= ERROR + 0.02
    assert stopped(0.35, 0.6, runs=60) > 0.8


@pytest.mark.parametrize(("size", "recipes"), [(120, 50), (480, 200)])
def test_a_leader_that_was_chosen_for_its_luck_stops_no_equal(size: int, recipes: int) -> None:
    rng, runs, count = np.random.default_rng(7), 300, 0
    info = [TaskInfo(name="t", metric="acc", higher_is_better=True, weight=1.0)]
    for _ in range(runs):
        hard = 0.5 * rng.random(size)
        answers = 0.5 * rng.random((recipes + 1, size)) + hard < 0.6
        best, new = answers[answers[:-1].sum(axis=1).argmax()], answers[-1]
        leader = {"t": {str(n): float(best[n]) for n in range(size)}}
        count += any(
            behind(
                leader,
                {"t": {str(n): float(new[n]) for n in range(look)}},
                info,
                size=size,
                rivals=recipes,
            )
            for look in looks(size)
        )
    assert count / runs <= ERROR


def test_the_correction_for_the_choice_grows_with_rivals_and_with_what_is_shared() -> None:
    assert chosen_p_value(0.01, rivals=1, share=1.0) == pytest.approx(0.01, rel=0.02)
    found = [chosen_p_value(0.01, rivals=r, share=f) for r, f in ((5, 0.2), (5, 1.0), (50, 1.0))]
    assert 0.01 < found[0] < found[1] < found[2] < 0.5
    # Many rivals, all answers shared: Dunnett's many-to-one comparison, by simulation.
    draws = np.random.default_rng(0).normal(size=(20_000, 51))
    best = (draws[:, :50].max(axis=1) - draws[:, 50]) / np.sqrt(2)
    z = 2.326
    assert found[2] == pytest.approx(np.mean(best > z), abs=0.01)


def test_too_few_common_questions_stop_nobody() -> None:
    info = [TaskInfo(name="t", metric="acc", higher_is_better=True, weight=1.0)]
    leader = {"t": {str(n): 1.0 for n in range(20)}}
    assert not behind(leader, {"t": {str(n): 0.0 for n in range(20)}}, info, size=300)
