"""Who is ahead, and why a higher score is not."""

import math
import random
from dataclasses import replace

import pytest

from runs.ranking.lead import Lead, lead, why_first
from runs.ranking.leaderboard import leaderboard, ranked
from runs.records.record import Estimate, Record


def expecting(record: Record, value: float, stderr: float = 0.01) -> Record:
    return replace(record, posterior=Estimate(value=value, stderr=stderr))


def test_nobody_is_ahead_of_nothing(run_records) -> None:
    assert lead(()) == lead((run_records[3], run_records[6])) == Lead()
    assert Lead().text() == "no score yet"
    assert why_first(()) == why_first(run_records[4:5]) == ""


def test_the_first_in_rank_is_ahead_whatever_it_scored(run_records, run_tasks) -> None:
    math_alone, code, average, _, ties, tree, _ = run_records
    records = [
        expecting(math_alone, 0.12),
        expecting(code, 0.21),
        expecting(average, 0.3),
        expecting(ties, 0.24, 0.1),  # scored 0.5
        expecting(tree, 0.26),
    ]
    found = lead(records)
    assert found == Lead(
        candidate=average.id,
        what="the plain average",
        best=0.3,
        stderr=0.01,
        best_parent=0.21,
        scored=5,
    )
    assert (
        found.text()
        == "0.3000 ± 0.0100 (the plain average), +0.0900 over the best parent, of 5 scored"
    )
    first = leaderboard(records, run_tasks).iloc[0]
    assert (first["candidate"], first["expected"]) == (found.candidate, found.best)
    assert why_first(records) == (
        "Ranked by expected score less its standard error: candidate 2 with 0.3000 ± 0.0100 (score "
        "0.2500 on 40 questions) comes before candidate 4 with 0.2400 ± 0.1000 (score 0.5000 on 40 "
        "questions), whose expected score, estimated from all results, is lower."
    )
    unsure = [*records[:3], expecting(ties, 0.35, 0.1), records[4]]
    assert lead(unsure).candidate == average.id
    assert why_first(unsure).endswith("(score 0.5000 on 40 questions), less sure.")
    broken = replace(expecting(ties, 0.6), shortfall=0.1)
    assert why_first([*records[:3], broken]).endswith(
        "(score 0.5000 on 40 questions), which is expected to break a floor."
    )
    parent = lead(records[:2])
    assert parent.text() == "0.2100 ± 0.0100 (parent 'code'), of 2 scored"
    level = lead([records[1], expecting(ties, 0.21 + 1e-6)])
    assert level.text() == "0.2100 ± 0.0100 (ties), level with the best parent, of 2 scored"
    sure = [*records[:3], expecting(ties, 0.35), records[4]]
    assert (lead(sure).candidate, why_first(sure)) == (ties.id, "")


@pytest.mark.parametrize("stderr", [0.0, math.nan])
def test_an_error_that_is_not_known_is_not_shown_as_a_number(run_records, stderr: float) -> None:
    text = lead([expecting(run_records[4], 0.5, stderr)]).text()
    assert text == f"0.5000{'' if math.isnan(stderr) else ' ± 0.0000'} (ties), of 1 scored"


@pytest.mark.parametrize("seed", range(20))
def test_who_is_ahead_is_who_ranks_first(run_records, seed: int) -> None:
    chance = random.Random(seed)
    records = [expecting(r, chance.random(), chance.random() / 5) for r in run_records]
    chance.shuffle(records)
    found, order = lead(records), ranked(records)
    assert (found.candidate, found.scored) == (order[0].id, len(order))
    assert found.best == order[0].posterior.value
