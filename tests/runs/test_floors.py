"""Floors: limits, shortfalls, the order of candidates, and what the verdict says of them."""

from dataclasses import replace

import numpy as np
import pytest

from evaluators.protocol import Catalogue, Floor, TaskInfo, attention
from runs.config.run_config import ConfigError, RunConfig, json_schema
from runs.ranking.finalists import Entry
from runs.ranking.floor_verdict import Kept
from runs.ranking.floors import broken_text, limits, shortfalls
from runs.ranking.leaderboard import columns, contenders, fronts, leaderboard, ranked
from runs.ranking.verdict import judge, verdict
from runs.records.record import Estimate, Role
from runs.report.html.headline import _lost

CONFIG = """
base: ./base
models: {a: ./a, b: ./b}
tasks:
  - {name: one}
  - {name: two, weight: WEIGHT, floor: FLOOR}
"""


def read(floor: str = "0.8", weight: str = "0", more: str = "") -> RunConfig:
    return RunConfig.from_text(CONFIG.replace("FLOOR", floor).replace("WEIGHT", weight) + more)


def info(name: str = "keep", *, higher: bool = True, weight: float = 1.0, **floor) -> TaskInfo:
    return TaskInfo(
        name=name, metric="m", higher_is_better=higher, weight=weight,
        floor=Floor(**floor) if floor else None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0.8", Floor(value=0.8)),
        ("3", Floor(value=3.0)),
        ("{below_best_parent: 0.02}", Floor(below_best_parent=0.02)),
        ("null", None),
    ],
)
def test_a_config_has_two_kinds_of_floors(text: str, found: Floor | None) -> None:
    config = read(text, weight="1")
    assert config.harness_spec().tasks[1].floor == found
    assert RunConfig.from_text(config.to_yaml()) == config


@pytest.mark.parametrize(
    ("floor", "weight", "more", "message"),
    [
        ("high", "1", "", r"tasks\[1\].floor: expected a number, or {below_best_parent"),
        ("true", "1", "", r"tasks\[1\].floor: expected a number, or {below_best_parent"),
        ("{below_best_parent: -1}", "1", "", r"tasks\[1\].floor: expected a number, or"),
        ("{below: 1}", "1", "", r"tasks\[1\].floor: expected a number, or"),
        (".nan", "1", "", r"tasks\[1\].floor: expected a number, or"),
        ("null", "0", "", r"tasks\[1\].weight: expected a number above 0 without a floor, got 0"),
        ("0.8", "-1", "", r"tasks\[1\].weight: expected a number of at least 0, got -1"),
        ("0.8", "1", "held_out: [two]", r"tasks\[1\].floor: expected a floor for a task to search"),
        ("0.8", "0", "search: {objective: pareto}", r"search.objective: expected two tasks or"),
    ],
)
def test_what_no_floor_can_be(floor: str, weight: str, more: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read(floor, weight, more)
    assert len(caught.value.problems) == 1


def test_something_has_to_be_searched_for() -> None:
    text = "models: {a: ./a, b: ./b}\ntasks: [{name: one, weight: 0, floor: 0.5}]"
    with pytest.raises(ConfigError, match="tasks: expected at least one task with a weight above"):
        RunConfig.from_text(text)


def test_the_schema_knows_both_kinds() -> None:
    kinds = json_schema()["$defs"]["TaskSection"]["properties"]["floor"]["anyOf"]
    assert {"type": "number"} in kinds
    assert any("FloorSection" in kind.get("$ref", "") for kind in kinds)


def test_limits_follow_direction_and_parents() -> None:
    tasks = (
        info(value=0.8),
        info(higher=False, value=3.0),
        info(below_best_parent=0.1),
        info(higher=False, below_best_parent=0.5),
    )
    parents = [(0.9, -2.0, 0.7, -4.0), (0.5, -1.0, 0.6, -3.0)]
    assert limits(tasks, parents).tolist() == [0.8, -3.0, pytest.approx(0.6), -3.5]
    assert limits(tasks, []).tolist() == [0.8, -3.0, -np.inf, -np.inf]
    assert limits([], [(), ()]).shape == (0,)  # no floors at all
    assert shortfalls(np.zeros((3, 0)), np.zeros(0)).tolist() == [0.0, 0.0, 0.0]


def test_shortfalls_of_different_units_add_up() -> None:
    values = np.array([[0.5, 100.0], [0.7, 300.0], [0.6, 50.0]])
    short = shortfalls(values, np.array([0.6, 75.0]))
    spread = values.std(axis=0)
    assert short == pytest.approx([0.1 / spread[0], 0.0, 25.0 / spread[1]])


def test_a_kept_task_gets_the_attention_of_an_average_one() -> None:
    tasks = [info("a", weight=3.0), info("b", weight=1.0), info("k", weight=0.0, value=0.5)]
    assert attention(tasks) == {"a": 3.0, "b": 1.0, "k": 2.0}
    group = [replace(info(n, weight=0.0, value=0.5), asked_as="g") for n in "xy"]
    assert attention([*tasks[:2], *group]) == {"a": 3.0, "b": 1.0, "x": 1.0, "y": 1.0}


def with_margin(record, score: float, margin: float | None, *, spread: float = 0.1):
    margins = {} if margin is None else {"sort": Estimate(value=margin, stderr=0.01)}
    expected = Estimate(value=score, stderr=0.0)
    return replace(
        record, posterior=expected, objectives={"sort": expected}, margins=margins,
        shortfall=max(0.0, -(margin or 0.0)) / spread,
    )  # fmt: skip


def test_who_keeps_the_floors_comes_first(run_records) -> None:
    scores = [(0.9, -0.2), (0.5, 0.0), (0.6, 0.3), (None, None), (0.8, -0.05), (0.4, 0.1)]
    records = [
        record if score is None else with_margin(record, score, margin)
        for record, (score, margin) in zip(run_records, scores, strict=False)
    ]
    assert [record.id for record in ranked(records)] == [2, 1, 5, 4, 0]
    assert [r.id for r in contenders(records, objectives=["sort"])] == [2, 1, 5, 4, 0]
    assert fronts(ranked(records)) == {2}


def test_among_those_that_keep_none_the_nearest_leads(run_records) -> None:
    records = [with_margin(run_records[0], 0.9, -0.3), with_margin(run_records[1], 0.2, -0.1)]
    assert [record.id for record in ranked(records)] == [1, 0]
    assert contenders(records, objectives=["sort"])[0].id == 1


def test_the_leaderboard_says_which_floor_is_broken(run_records, run_tasks) -> None:
    tasks = (replace(run_tasks[0], floor=Floor(value=0.6)), run_tasks[1])
    records = [with_margin(run_records[0], 0.9, -0.031), with_margin(run_records[1], 0.2, 0.1)]
    frame = leaderboard(records, tasks)
    assert list(frame["broken"]) == ["", "sort by 0.031"]
    assert list(frame["margin:sort"]) == [0.1, -0.031]
    assert broken_text(records[0]) == "sort by 0.031"
    assert "broken" not in columns(run_tasks)
    assert {"broken", "margin:sort"} < {*columns(tasks)}


def entries(winner: float, parent: float, *, n: int = 200) -> list[Entry]:
    """A winner that is right about so many of the questions to keep, and a parent likewise."""

    def answers(share: float) -> dict[str, dict[str, float]]:
        right = {f"q{at}": float(at < share * n) for at in range(n)}
        return {"goal": {f"g{at}": float(at < 150) for at in range(n)}, "keep": right}

    found = Entry(name="candidate 9", role=Role.SEARCHED, rank=1, outcomes=answers(winner))
    first = Entry(name="parent a", role=Role.PARENT, rank=2, outcomes=answers(parent))
    worse = Entry(name="parent b", role=Role.PARENT, rank=3, outcomes=answers(parent / 2))
    for one in (first, worse):
        one.outcomes["goal"].update(dict.fromkeys(one.outcomes["goal"], 0.0))
    return [found, first, worse]


@pytest.mark.parametrize(
    ("winner", "kept"), [(0.95, Kept.KEPT), (0.8, Kept.NOT_DECIDED), (0.6, Kept.BROKEN)]
)
@pytest.mark.parametrize("higher", [True, False])
@pytest.mark.parametrize("floor", [{"value": 0.8}, {"below_best_parent": 0.1}])
def test_the_verdict_says_whether_each_floor_is_kept(
    winner: float, kept: Kept, higher: bool, floor: dict[str, float]
) -> None:
    known = entries(winner, 0.9)
    if not higher:
        known = [
            replace(one, outcomes=one.outcomes | {
                "keep": {name: 1.0 - value for name, value in one.outcomes["keep"].items()}
            })
            for one in known
        ]  # fmt: skip
        floor = {name: round(1 - value, 3) if name == "value" else value
                 for name, value in floor.items()}  # fmt: skip
    tasks = (info("goal"), info(higher=higher, weight=0.0, **floor))
    found = verdict(known, tasks=tasks)
    (one,) = found.floors
    assert (one.task, one.kept) == ("keep", kept)
    assert one.margin.value == pytest.approx(winner - 0.8)
    assert one.margin.low <= one.margin.value <= one.margin.high
    assert f"floor of 'keep' {kept}" in found.sentence
    assert found.sentence.startswith("floor of 'keep' broken") == (kept is Kept.BROKEN)
    assert bool(_lost(found)) == (kept is Kept.BROKEN)
    assert "beats every parent" in found.sentence  # by the goal alone: the other has no weight


def test_a_task_without_weight_is_no_part_of_the_score() -> None:
    tasks = (info("goal"), info(weight=0.0, value=0.5))
    alone = verdict(entries(0.1, 0.9), tasks=tasks[:1])
    both = verdict(entries(0.1, 0.9), tasks=tasks)
    assert both.finalists[0].held_out.combined == alone.finalists[0].held_out.combined
    first, second = (found.comparisons["parent a"] for found in (alone, both))
    assert (first.difference, first.p_value) == (second.difference, second.p_value)
    assert second.tasks["keep"].value == pytest.approx(-0.8)


def test_the_only_parent_keeps_its_own_floor() -> None:
    winner = entries(0.5, 0.5)[1]
    (one,) = verdict([winner], tasks=(info("goal"), info(below_best_parent=0.0))).floors
    assert one.kept is Kept.KEPT


def test_without_held_out_answers_nothing_is_decided() -> None:
    bare = [replace(entries(0.5, 0.5)[0], outcomes={})]
    tasks = (info("goal"), info("x", value=0.5), info("y", below_best_parent=0.5))
    assert {one.kept for one in verdict(bare, tasks=tasks).floors} == {Kept.NOT_DECIDED}


def test_the_verdict_says_so_where_nobody_keeps_every_floor(run_records) -> None:
    records = [with_margin(run_records[4], 0.9, -0.031)]
    catalogue = Catalogue(tasks=(info("sort", value=0.6),), questions=())
    found = judge(records, {}, catalogue)
    assert found is not None
    assert any("No recipe is expected to keep every floor" in note for note in found.notes)
    assert any("sort by 0.031" in note for note in found.notes)
