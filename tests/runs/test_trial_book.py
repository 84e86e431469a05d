"""What the driver keeps of trials in memory is what Optuna reads from the database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.samplers import BaseSampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from runs.storage.trial_book import TrialBook

SAMPLERS: list[BaseSampler] = [
    optuna.samplers.RandomSampler(seed=1),
    optuna.samplers.NSGAIISampler(seed=1, population_size=4),
    optuna.samplers.CmaEsSampler(seed=1, n_startup_trials=3),
]


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/study.db"
    optuna.create_study(storage=url, study_name="x", direction="maximize")
    return url


def opened(url: str, sampler: BaseSampler | None = None) -> tuple[optuna.Study, TrialBook]:
    book = TrialBook(RDBStorage(url), "x")
    return optuna.load_study(study_name="x", storage=book, sampler=sampler), book


def draw(trial: optuna.Trial) -> float:
    method = trial.suggest_categorical("method", ["ties", "linear"])
    trial.suggest_int("seed", 0, 9)
    return trial.suggest_float("weight", 0.0, 1.0) + (method == "ties")


def write(book: TrialBook, url: str, *, running: bool = False) -> None:
    """What a run does with everything it writes of its own, and does not with what failed."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        book.write(connection, running=running)
        connection.rollback()
    with engine.begin() as connection:
        book.write(connection, running=running)
    book.written()
    engine.dispose()


def content(trials: list[FrozenTrial]) -> list[tuple[Any, ...]]:
    return [
        (t.number, t.state, t.values, t.params, t.distributions, t.user_attrs, t.system_attrs,
         t.datetime_start, t.datetime_complete)
        for t in trials
    ]  # fmt: skip


def rounded(trials: list[FrozenTrial]) -> list[tuple[Any, ...]]:
    """Without the moment a trial was told, which each storage takes for itself."""
    return [row[:-1] for row in content(trials)]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
def test_the_database_holds_what_memory_does(url: str, sampler: BaseSampler) -> None:
    study, book = opened(url, sampler)
    study.enqueue_trial({"method": "ties", "weight": 0.25})
    for number in range(12):
        trial = study.ask()
        value = draw(trial)
        trial.set_user_attr("candidate", number)
        write(book, url, running=True)
        if number % 5 == 4:
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, value)
        if number % 2:
            write(book, url)
    running = study.ask()
    draw(running)
    write(book, url, running=True)
    kept = optuna.load_study(study_name="x", storage=url)
    assert rounded(kept.trials) == rounded(study.trials)
    assert kept.trials[0].params["weight"] == 0.25
    assert kept.best_value == study.best_value
    system = kept._storage.get_study_system_attrs(kept._study_id)
    assert system == book.get_study_system_attrs(study._study_id)
    for trial in kept.trials[:-1]:
        assert trial.datetime_complete is not None
    again, _ = opened(url)  # as a resumed run finds it
    assert rounded(again.trials) == rounded(study.trials)


def test_what_never_became_a_candidate_is_not_there(url: str) -> None:
    study, book = opened(url)
    study.tell(study.ask(), 1.0)
    draw(study.ask())
    study.tell(study.ask(), 2.0)  # waits for the one before it
    write(book, url)
    assert [t.state for t in optuna.load_study(study_name="x", storage=url).trials] == [
        TrialState.COMPLETE
    ]
    write(book, url, running=True)
    kept = optuna.load_study(study_name="x", storage=url).trials
    assert [t.state for t in kept] == [
        TrialState.COMPLETE,
        TrialState.RUNNING,
        TrialState.COMPLETE,
    ]
    assert set(kept[1].params) == {"method", "seed", "weight"}


def test_trials_of_an_earlier_driver_go_on(url: str) -> None:
    """One that was running there is told here, and one half drawn is drawn to its end."""
    earlier = optuna.load_study(study_name="x", storage=url)
    draw(earlier.ask())
    earlier.ask().suggest_categorical("method", ["ties", "linear"])
    study, book = opened(url)
    study.tell(0, 0.5)
    half = optuna.Trial(study, study.trials[1]._trial_id)
    value = draw(half)
    half.set_user_attr("candidate", 7)
    study.tell(1, value)
    write(book, url)
    kept = optuna.load_study(study_name="x", storage=url).trials
    assert [t.value for t in kept] == [0.5, value]
    assert kept[1].user_attrs == {"candidate": 7}
    assert rounded(kept) == rounded(study.trials)


def test_several_objectives(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/front.db"
    optuna.create_study(storage=url, study_name="x", directions=["maximize", "maximize"])
    study, book = opened(url, optuna.samplers.NSGAIISampler(seed=1, population_size=4))
    for _ in range(6):
        trial = study.ask()
        value = draw(trial)
        study.tell(trial, [value, -value])
    write(book, url, running=True)
    kept = optuna.load_study(study_name="x", storage=url)
    assert rounded(kept.trials) == rounded(study.trials)
    assert len(kept.best_trials) == 6
