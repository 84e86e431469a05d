"""Compares a study with what its workers wrote down on their own, whoever was killed meanwhile.

``Witness`` wraps an evaluator and appends a line before and after each evaluation to a log that the
driver never touches. ``check`` reads both and asserts that nothing is missing, nothing double and
nothing other than it was.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from runs.records.record import Split, State
from runs.storage.store import Store


def lines(log: Path) -> Iterator[dict[str, Any]]:
    """What the workers wrote down, in the order they did; a line being written is not there yet.

    A line is written at once, but whoever reads meanwhile may see its first pages only.
    """
    if not log.exists():
        return
    whole, _, _ = log.read_text(encoding="utf-8").rpartition("\n")
    for text in whole.splitlines():
        yield json.loads(text)


Answers = dict[tuple[int, str, str], float]
"""Value by candidate, split and question."""


def answers_of(store: Store) -> Answers:
    """Every answer in a study; a question that a candidate answered twice fails the test."""
    found: Answers = {}
    names = [question.id for question in store.manifest.catalogue.questions]
    for split in Split:
        for candidate, positions, (values, _) in store.answers(split):
            for position, value in zip(positions, values, strict=True):
                place = (candidate, split.value, names[position])
                assert place not in found, f"answered twice: {place}"
                found[place] = float(value)
    return found


@dataclass(kw_only=True)
class Seen:
    """What a study held when a driver or worker was killed.

    Attributes:
        answers: All answers.
        keys: Key of every candidate's recipe by its id.
        best: Best search score of those that were complete.
    """

    answers: Answers
    keys: dict[int, str]
    best: float = float("-inf")

    @classmethod
    def of(cls, store: Store) -> "Seen":
        records = store.records()
        return cls(
            answers=answers_of(store),
            keys={record.id: record.recipe.key for record in records},
            best=max(
                (
                    record.evaluations[Split.SEARCH].value
                    for record in records
                    if record.evaluations[Split.SEARCH].state is State.COMPLETE
                ),
                default=float("-inf"),
            ),
        )


@dataclass(kw_only=True)
class Found:
    """What a check has seen, for the report.

    Attributes:
        candidates: Number of candidates.
        asked_again: Evaluations that were begun once more because of a kill.
        lost: Evaluations that a worker ended and nobody took down, so that they were asked again.
    """

    candidates: int
    asked_again: int
    lost: int
    notes: list[str] = field(default_factory=list)


def check(
    store: Store,
    log: Path,
    *,
    trials: int | None,
    kills: int,
    in_flight: int = 1,
    earlier: Sequence[Seen] = (),
) -> Found:
    """Compare a study whose run came to its end with the workers' log.

    Args:
        store: The study.
        log: What the workers wrote.
        trials: The budget in recipes; ``None`` if it is in other units.
        kills: How often a driver or a worker was killed.
        in_flight: Most evaluations that one kill can have cost.
        earlier: What the study held at each kill.
    """
    records, answers = store.records(), answers_of(store)
    written = list(lines(log))
    # The budget is exact, and every recipe is in it once.
    if trials is not None:
        assert len(records) == trials
    assert [record.id for record in records] == list(range(len(records)))
    assert len({record.recipe.key for record in records}) == len(records)
    for record in records:
        assert all(e.state is not State.RUNNING for e in record.evaluations.values()), record.id
    # Nothing that was there once is missing or other than it was.
    now = Seen.of(store)
    for seen in earlier:
        assert seen.answers.items() <= answers.items()
        assert seen.keys.items() <= now.keys.items()
        assert seen.best <= now.best
    # Every answer is one that a worker gave to that recipe, and none was given for nothing.
    keys = {record.id: record.recipe.key for record in records}
    given: dict[tuple[str, str], set[float]] = {}
    begun: Counter[tuple[str, tuple[str, ...]]] = Counter()
    for line in written:
        assert keys[line["candidate"]] == line["key"], "a worker was given another recipe"
        if line["event"] == "begin":
            begun[line["key"], tuple(line["questions"])] += 1
        for question, value in line.get("answers", {}).items():
            given.setdefault((line["key"], question), set()).add(value)
    for (candidate, _, question), value in answers.items():
        assert value in given[keys[candidate], question]
    kept = {(keys[candidate], question) for candidate, _, question in answers}
    failed = {
        record.recipe.key
        for record in records
        if any(e.state is State.FAILED for e in record.evaluations.values())
    }
    assert {place for place in given if place[0] not in failed} <= kept, "an answer was lost"
    # Asked again is only what was under way at a kill, and it is counted.
    again = sum(count - 1 for count in begun.values())
    assert again <= kills * in_flight
    attempts = sum(e.attempts for record in records for e in record.evaluations.values())
    parts = sum(1 for _ in begun)
    assert attempts - len(_evaluations(store)) <= kills * in_flight
    # The sampler's study knows the same.
    trials_by_number = {trial.number: trial for trial in store.study.trials}
    left = [n for n, trial in trials_by_number.items() if trial.state is TrialState.RUNNING]
    assert not left, f"trials left running: {left}"
    told = [record.trial for record in records if record.trial is not None]
    assert len(set(told)) == len(told)
    ended = Counter(
        (line["key"], tuple(line["questions"])) for line in written if "answers" in line
    )
    return Found(
        candidates=len(records),
        asked_again=again,
        lost=sum(count - 1 for count in ended.values()),
        notes=[f"{parts} parts"],
    )


def _evaluations(store: Store) -> list[int]:
    """Number of parts by evaluation row."""
    with store._connected() as connection:
        rows = connection.exec_driver_sql("SELECT attempts FROM merge_search_evaluation")
        return [int(row[0]) for row in rows]


def seconds_to_first_new(log: Path, *, known: set[str], since: float) -> float | None:
    """Time from a resume to the first evaluation of a recipe that was not begun before.

    Args:
        log: What the workers wrote.
        known: Keys of the recipes begun before.
        since: When the new driver was started, seconds since the epoch.
    """
    for line in lines(log):
        if line["event"] == "begin" and line["time"] >= since and line["key"] not in known:
            return float(line["time"]) - since
    return None
