"""What a study promises, whichever database it is in: SQLite and a real PostgreSQL server."""

import math
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import optuna
import psycopg
import pytest
import sqlalchemy as sa

from evaluators.protocol import Failure, FailureKind, QuestionText
from runs.records.manifest import FORMAT
from runs.records.record import Split, State
from runs.storage.database import study_lock
from runs.storage.database.connection import StudyWriteError, optuna_storage, url_of
from runs.storage.database.study_lock import LockedError, LockLostError
from runs.storage.store import NotUnderWayError, Store, StoreError
from runs.storage.study_creation import STUDY_NAME
from tests.made_studies import manifest, recipe, score


@pytest.fixture(params=["sqlite", "postgresql"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where no study is yet."""
    if request.param == "sqlite":
        return str(tmp_path / "study.db")
    return request.getfixturevalue("postgres").database()


@pytest.fixture
def unheld(location: str):
    """A study that nobody drives."""
    made = Store.create(location, manifest())
    yield made
    made.close()


@pytest.fixture
def store(unheld: Store) -> Store:
    """A study that this process drives."""
    unheld.hold()
    return unheld


def write(store: Store, statement: str) -> None:
    """Change a table of the study behind its back."""
    engine = sa.create_engine(store.url)
    with engine.begin() as connection:
        connection.execute(sa.text(statement))
    engine.dispose()


def test_the_manifest_comes_back(store: Store, location: str) -> None:
    with_another = Store.open(location)
    assert with_another.manifest == manifest()
    with_another.close()


@pytest.mark.parametrize("lengths", [(None,), (12.5, None, 0.0)])
def test_a_score_comes_back_exactly(store: Store, lengths: tuple[float | None, ...]) -> None:
    number = store.add(recipe(0.25), origin="parent a", trial=7)
    names = store.manifest.questions.search
    store.finish(number, Split.SEARCH, score(names, lengths=lengths), worker="node/1")
    (record,) = store.records()
    evaluation = record.evaluations[Split.SEARCH]
    assert (record.recipe, record.origin, record.trial) == (recipe(0.25), "parent a", 7)
    assert evaluation.state is State.COMPLETE
    assert evaluation.value == 0.1 + 0.2
    assert evaluation.tasks[0].value == 0.1 + 0.2
    assert math.isnan(evaluation.tasks[0].stderr)
    assert store.outcomes(number, Split.SEARCH) == score(names, lengths=lengths).outcomes
    assert store.outcomes(number, Split.HELD_OUT) == ()
    assert store.fingerprint(number) == "f" * 32


def test_a_failure_comes_back_whatever_is_in_its_text(store: Store) -> None:
    number = store.add(recipe(0.5), origin="seed " + "long" * 100, trial=None)
    failure = Failure(kind=FailureKind.TIMEOUT, message="zero \0, half \ud800", detail="trace\0")
    store.finish(number, Split.SEARCH, failure, worker="w" * 300)
    (record,) = store.records()
    assert record.origin == "seed " + "long" * 100
    evaluation = record.evaluations[Split.SEARCH]
    assert evaluation.state is State.FAILED
    assert evaluation.failure_kind is FailureKind.TIMEOUT
    assert evaluation.failure_message == "zero \\x00, half \\ud800"
    assert math.isnan(evaluation.value)


def test_ids_count_up_and_recipes_are_distinct(store: Store) -> None:
    assert [store.add(recipe(w), origin="tpe", trial=None) for w in (0.1, 0.2, 0.3)] == [0, 1, 2]
    with pytest.raises(StudyWriteError, match=r"(?i)unique"):
        store.add(recipe(0.1), origin="tpe", trial=None)
    assert len(store.records()) == 3


def test_attempts_are_counted_once_a_worker_begins(store: Store) -> None:
    first, second = (store.add(recipe(w), origin="tpe", trial=None) for w in (0.1, 0.2))

    def attempts() -> list[int]:
        return [record.evaluations[Split.SEARCH].attempts for record in store.records()]

    store.begin(first, Split.SEARCH)  # as after a crash of who handed it out
    assert attempts() == [0, 0]
    store.began([first])
    store.began([])
    assert attempts() == [1, 0]
    store.begin(first, Split.SEARCH)
    names = store.manifest.questions.search
    store.finish(second, Split.SEARCH, score(names), worker="w", begun=[first, second])
    assert attempts() == [2, 1]
    store.finish(first, Split.SEARCH, score(names), worker="w")
    store.began([first])  # nothing of it is under way
    assert attempts() == [2, 1]


def test_who_was_evaluated_was_begun_with(store: Store) -> None:
    number = store.add(recipe(0.1), origin="tpe", trial=None)
    store.finish(number, Split.SEARCH, score(store.manifest.questions.search), worker="w")
    store.begin(number, Split.HELD_OUT)
    evaluations = store.records()[0].evaluations
    assert evaluations[Split.SEARCH].attempts == 1
    assert evaluations[Split.HELD_OUT].attempts == 0
    assert evaluations[Split.HELD_OUT].questions == evaluations[Split.HELD_OUT].asked == 3


def test_what_was_asked_counts_where_it_failed(store: Store) -> None:
    names = store.manifest.questions.search
    number = store.add(recipe(0.1), origin="tpe", trial=None, questions=names[:2])
    store.finish(number, Split.SEARCH, score(names[:2]), worker="w", further=names[2:5])
    lost = Failure(kind=FailureKind.LOST_WORKER, message="died")
    store.finish(number, Split.SEARCH, lost, worker="w")
    evaluation = store.records()[0].evaluations[Split.SEARCH]
    assert (evaluation.questions, evaluation.asked) == (2, 5)


def test_parts_add_up(store: Store) -> None:
    names = store.manifest.questions.search
    number = store.add(recipe(0.1), origin="tpe", trial=None, questions=names[:2])
    store.finish(number, Split.SEARCH, score(names[:2]), worker="w", further=names[2:5])
    assert [asking.questions for asking in store.under_way()] == [names[2:5]]
    store.finish(number, Split.SEARCH, score(names[2:5]), worker="w")
    assert [outcome.question for outcome in store.outcomes(number, Split.SEARCH)] == [*names[:5]]
    assert store.records()[0].evaluations[Split.SEARCH].questions == 5


def test_the_search_comes_before_the_check_whatever_was_written_last(store: Store) -> None:
    """PostgreSQL gives rows that were changed last, and sorts none that are equal."""
    number = store.add(recipe(0.25), origin="parent a", trial=None)
    store.begin(number, Split.HELD_OUT)
    store.finish(number, Split.HELD_OUT, score(store.manifest.questions.held_out), worker="w")
    store.finish(number, Split.SEARCH, score(store.manifest.questions.search), worker="w")
    (record,) = store.records()
    assert list(record.evaluations) == [Split.SEARCH, Split.HELD_OUT]


def test_facts_can_change(store: Store, location: str) -> None:
    assert store.fact("seconds") is None
    store.set_fact("seconds", "1")
    store.set_fact("seconds", "2")
    store.set_facts({"fit:0:10": "a", "fit:0:9": "c", "fit:1:2": "d", "fit_0:1": "b"})
    other = Store.open(location)
    assert other.fact("seconds") == "2"
    assert other.facts("fit:") == {"fit:0:10": "a", "fit:0:9": "c", "fit:1:2": "d"}
    assert other.numbered("fit:0:", lambda at, text: (at, text)) == [(9, "c"), (10, "a")]
    other.close()


def test_create_keeps_what_is_there(store: Store, location: str) -> None:
    number = store.add(recipe(0.1), origin="tpe", trial=None)
    with pytest.raises(StoreError, match="search resume"):
        Store.create(location, manifest())
    assert [record.id for record in store.records()] == [number]


def test_what_a_run_left_that_died_while_it_made_the_study_is_not_in_the_way(location: str) -> None:
    if "://" in location:
        storage = optuna_storage(url_of(location))
        optuna.create_study(storage=storage, study_name=STUDY_NAME)
        storage.engine.dispose()
    else:
        Path(location + ".new").write_bytes(b"half")
    made = Store.create(location, manifest())
    assert made.manifest == manifest()
    made.close()


@pytest.mark.parametrize("other", ["1", "99"])
def test_another_format_is_refused(store: Store, location: str, other: str) -> None:
    write(store, f"update merge_search_run set value = '{other}' where key = 'format'")
    with pytest.raises(
        StoreError, match=f"expected a study of format {FORMAT}, got format {other}"
    ):
        Store.open(location)


def test_optuna_opens_the_same_database(store: Store, location: str) -> None:
    trial = store.study.ask()
    trial.suggest_float("weight.a", 0, 1)
    store.study.tell(trial, 0.5)
    store.set_fact("seconds", "1")  # what Optuna is told is written with whatever comes next
    other = Store.open(location)
    assert other.study.best_value == 0.5
    other.close()


def test_a_second_driver_is_refused(store: Store, location: str) -> None:
    other = Store.open(location)
    for take in (other.lock.check_free, other.hold):
        with pytest.raises(LockedError, match=f"process {os.getpid()} on .*; wait for it or stop"):
            take()
    store.lock.beat()
    store.lock.release()
    other.hold()
    with pytest.raises(LockLostError, match="expected to hold its lock before writing, got none"):
        store.set_fact("seconds", "1")
    other.close()


def test_who_was_taken_for_dead_writes_nothing_more(store: Store, location: str) -> None:
    number = store.add(recipe(0.1), origin="tpe", trial=None)
    write(store, "delete from merge_search_lock")
    other = Store.open(location)
    other.hold()
    names = store.manifest.questions.search
    for late in (
        store.lock.beat,
        lambda: store.add(recipe(0.2), origin="tpe", trial=None),
        lambda: store.finish(number, Split.SEARCH, score(names), worker="w"),
    ):
        with pytest.raises(LockLostError, match="another driver"):
            late()
    (record,) = other.records()
    assert record.evaluations[Split.SEARCH].state is State.RUNNING
    store.close()
    assert other.lock.holder().pid == os.getpid()
    other.close()


SAMPLERS = {
    "nsga2": lambda: optuna.samplers.NSGAIISampler(population_size=2),
    "nsga3": lambda: optuna.samplers.NSGAIIISampler(population_size=2),
    "qmc": optuna.samplers.QMCSampler,
    "cmaes": lambda: optuna.samplers.CmaEsSampler(n_startup_trials=1),
}


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_nor_does_it_write_what_its_sampler_remembers(
    store: Store, location: str, sampler: str
) -> None:
    """Optuna's rows go into the same transaction, in which the lock is looked at."""
    study = store.study
    study.sampler = SAMPLERS[sampler]()

    def ask_and_tell() -> None:
        trial = study.ask()
        study.tell(trial, trial.suggest_float("x", 0, 1) + trial.suggest_float("y", 0, 1))

    for _ in range(5):
        ask_and_tell()
    running = study.ask()
    study._storage.set_study_system_attr(study._study_id, "remembered", 1)
    store.set_fact("seconds", "1")
    before = rows_of_optuna(store)
    assert len(before["trials"]) == 6
    ask_and_tell()
    running.set_user_attr("late", 1)
    running.suggest_float("late", 0, 1)
    study.set_user_attr("late", 1)
    write(store, "update merge_search_lock set token = 'other', birth = '', host = 'far', pid = 1")
    with pytest.raises(LockLostError):
        store.set_fact("seconds", "2")
    store.close()
    assert rows_of_optuna(store) == before
    assert store.lock.holder().host == "far"


def rows_of_optuna(store: Store) -> dict[str, list[tuple[object, ...]]]:
    engine = sa.create_engine(store.url)
    with engine.connect() as connection:
        found = {
            name: sorted(map(tuple, connection.execute(sa.text(f"select * from {name}"))), key=str)
            for name in ("trials", "trial_params", "trial_system_attributes",
                         "study_system_attributes", "study_user_attributes")
        }  # fmt: skip
    engine.dispose()
    return found


def test_what_samplers_remember_is_written_with_the_next_transaction(
    store: Store, location: str
) -> None:
    study = store.study
    study.tell(study.ask(), 1.0)
    running = study.ask()
    for value in (1, 2):
        study._storage.set_study_system_attr(study._study_id, "remembered", [value])
        study.set_user_attr("said", value)
        running.set_user_attr("late", value)
        store.set_fact("seconds", "1")
    other = Store.open(location)
    kept = other.study
    assert kept._storage.get_study_system_attrs(kept._study_id)["remembered"] == [2]
    assert kept.user_attrs["said"] == 2
    assert kept.trials[1].user_attrs == {"late": 2}
    assert kept.trials[0].value == 1.0
    other.close()


def test_a_result_of_what_nobody_was_asked_is_refused(store: Store) -> None:
    names = store.manifest.questions.search
    number = store.add(recipe(0.1), origin="tpe", trial=None)
    store.finish(number, Split.SEARCH, score(names), worker="w")
    before = store.records()
    late = Failure(kind=FailureKind.ERROR, message="a second result")
    for of, split in ((number, Split.SEARCH), (number, Split.HELD_OUT), (7, Split.SEARCH)):
        with pytest.raises(NotUnderWayError, match=f"candidate {of}: expected {split} questions"):
            store.finish(of, split, late, worker="w", further=names[:1])
    assert store.records() == before


def test_a_commit_of_which_nobody_heard_is_made_once(postgres) -> None:
    """The server commits and goes away before it says so; or goes away before it commits."""
    store = Store.create(postgres.database(), manifest())
    store.hold()
    dialect = store._engine.dialect
    commit = dialect.do_commit
    names = store.manifest.questions.search
    for committed in (True, False):
        lost = [committed]

        def failing(connection, lost=lost) -> None:
            if lost:
                if lost.pop():
                    commit(connection)
                connection.dbapi_connection.close()
                raise psycopg.OperationalError("server closed the connection unexpectedly")
            commit(connection)

        dialect.do_commit = failing
        try:
            number = store.add(recipe(0.1 + committed), origin="tpe", trial=None)
            lost.append(committed)
            store.finish(
                number, Split.SEARCH, score(names[:2]), worker="w", further=names[2:]
            )  # fmt: skip
            lost.append(committed)
            store.began([number])
        finally:
            del dialect.do_commit
    for record in store.records():
        assert record.evaluations[Split.SEARCH].attempts == 1
        assert record.evaluations[Split.SEARCH].asked == len(names)
    assert [asking.questions for asking in store.under_way()] == [names[2:]] * 2
    store.close()


def test_a_clock_that_is_set_back_gives_no_negative_times(store: Store) -> None:
    names = store.manifest.questions.search
    for weight, span in ((0.1, (2000.0, 1000.0)), (0.2, (math.nan, 1000.0))):
        number = store.add(recipe(weight), origin="tpe", trial=None)
        store.finish(number, Split.SEARCH, score(names), worker="w", span=span)
    for record in store.records():
        evaluation = record.evaluations[Split.SEARCH]
        assert evaluation.finished == evaluation.started
    write(store, "update merge_search_evaluation set finished = started - 3600")
    for record in store.records():  # as an earlier version left it
        evaluation = record.evaluations[Split.SEARCH]
        assert evaluation.finished == evaluation.started


HOLD = """
import os, sys, time
from runs.storage.store import Store
store = Store.open(sys.argv[1])
store.hold()
if sys.argv[2] == "die":
    os.kill(os.getpid(), 9)
print("held", flush=True)
time.sleep(1000)
"""


def test_the_lock_of_a_killed_driver_is_taken_over(unheld: Store, location: str) -> None:
    killed = subprocess.run([sys.executable, "-c", HOLD, location, "die"], check=False)
    assert killed.returncode == -9
    assert unheld.lock.holder() is not None
    unheld.hold()
    assert unheld.lock.holder().pid == os.getpid()


def test_a_stopped_driver_is_alive_and_a_zombie_is_dead(unheld: Store, location: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, location, "live"], stdout=subprocess.PIPE
    ) as driver:
        assert driver.stdout.readline() == b"held\n"
        driver.send_signal(signal.SIGSTOP)
        with pytest.raises(LockedError, match=f"process {driver.pid}"):
            unheld.lock.check_free()
        driver.kill()  # not waited for: its parent, this test, keeps it as a zombie
        while Path(f"/proc/{driver.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)
        unheld.lock.check_free()


def elsewhere(store: Store, *, silent: float, birth: str = "77@another-boot@4026531836") -> None:
    """Make the holder a process of this id on another machine."""
    where = f"birth = '{birth}', host = 'far', beat = beat - {silent}"
    write(store, f"update merge_search_lock set {where}")


def test_a_silent_holder_elsewhere_counts_as_dead_after_a_while(
    unheld: Store, location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_lock, "WATCH_SECONDS", 0.2)
    monkeypatch.setattr(
        study_lock, "BEAT_SECONDS", 1000.0
    )  # this test may take longer than a real beat
    unheld.hold()
    other, store = Store.open(location), unheld
    elsewhere(store, silent=100)
    with pytest.raises(LockedError, match=r"on far writing it \(sign of life 1\d\d s ago\).*300 s"):
        other.hold()
    elsewhere(store, silent=1000)
    other.hold()
    other.close()


def test_clocks_that_differ_do_not_kill_a_driver(
    store: Store, location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives signs of life, which look an hour old by the clock of this machine."""
    elsewhere(store, silent=3600)

    def watched(seconds: float) -> None:
        assert seconds == study_lock.WATCH_SECONDS > study_lock.BEAT_SECONDS
        write(store, "update merge_search_lock set beat = beat + 15")

    other = Store.open(location)
    monkeypatch.setattr(study_lock.time, "sleep", watched)
    with pytest.raises(LockedError, match="on far"):
        other.hold()
    other.close()


@pytest.mark.parametrize("what", ["pid", "boot", "namespace"])
def test_a_process_is_known_by_more_than_its_id(store: Store, location: str, what: str) -> None:
    """Another process under the id is not the driver; on another machine nothing is known of it."""
    ticks, boot, space = store.lock.holder().birth.split("@")
    other = Store.open(location)
    if what == "pid":  # this very machine: a later process was given the id
        elsewhere(store, silent=0, birth=f"{int(ticks) - 1}@{boot}@{space}")
        other.hold()
    else:  # rebooted, or another container with the same name: only silence tells
        changed = {"boot": f"{ticks}@x@{space}", "namespace": f"{ticks}@{boot}@1"}[what]
        write(store, f"update merge_search_lock set birth = '{changed}', pid = 999999999")
        with pytest.raises(LockedError, match="process 999999999"):
            other.hold()
    other.close()


def test_signs_of_life_are_given_by_a_thread(
    unheld: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_lock, "BEAT_SECONDS", 0.05)
    store = unheld
    store.hold()
    before = store.lock.holder().beat
    end = time.monotonic() + 100
    while store.lock.holder().beat == before:
        assert time.monotonic() < end
        time.sleep(0.05)


def answered(
    store: Store, origin: str, weight: float, *, words: int = 0, value: float = 0.5
) -> int:
    """A candidate that answered all search questions with so many random words to each."""
    number = store.add(recipe(weight), origin=origin, trial=None)
    names = store.manifest.questions.search
    some = random.Random(weight)
    texts = {name: " ".join(f"{some.random()}" for _ in range(words)) for name in names}
    found = score(names)
    outcomes = tuple(replace(one, text=texts[one.question]) for one in found.outcomes)
    found = replace(found, outcomes=outcomes, value=value)
    store.finish(number, Split.SEARCH, found, worker="node/1")
    return number


def test_what_questions_say_comes_back(store: Store, location: str) -> None:
    assert store.question_texts() == {}
    said = {
        "t/3": QuestionText(prompt="2 + 2 =\n", expected="4"),
        "t/7": QuestionText(prompt="\x00\ud800\U0001f41d" * 3, expected="b", choices=("a", "b")),
        "t/9": QuestionText(prompt="x" * 5000),
    }
    store.keep_questions(said)
    with Store.open(location) as reader:
        found = reader.question_texts()
    assert found.keys() == said.keys()
    assert (found["t/3"], found["t/7"]) == (said["t/3"], said["t/7"])
    assert len(found["t/9"].prompt) == 2000
    assert " characters left out ...] x" in found["t/9"].prompt


def test_answers_come_back_part_by_part(store: Store, location: str) -> None:
    store.room = 1e6
    names = store.manifest.questions.search
    number = store.add(recipe(0.25), origin="tpe", trial=0, questions=names[:2])
    for asked, further in ((names[:2], names[2:]), (names[2:], ())):
        found = score(asked[::-1])  # in another order than they were asked
        said = tuple(replace(one, text=f"{one.question}: \U0001f41d") for one in found.outcomes)
        found = replace(found, outcomes=said)
        store.finish(number, Split.SEARCH, found, worker="", further=further)
    with Store.open(location) as reader:
        assert reader.answered_in_words() == {number}
        assert reader.answer_texts(number, Split.SEARCH) == {n: f"{n}: \U0001f41d" for n in names}
        assert reader.answer_texts(number, Split.HELD_OUT) == {}


def test_nothing_is_kept_without_room(store: Store) -> None:
    number = answered(store, "tpe", 0.5, words=3)
    assert store.answered_in_words() == frozenset()
    assert store.answer_texts(number, Split.SEARCH) == {}


def test_where_room_is_short_the_best_the_parents_and_the_finalists_stay(store: Store) -> None:
    store.room = 20_000
    parent = answered(store, "parent a", 9.0, words=10, value=0.0)
    finalist = answered(store, "tpe", 8.0, words=10, value=0.1)
    store.begin(finalist, Split.HELD_OUT)
    held_out = score(store.manifest.questions.held_out)
    said = tuple(replace(one, text="x") for one in held_out.outcomes)
    store.finish(finalist, Split.HELD_OUT, replace(held_out, outcomes=said), worker="")
    values = [0.2 + (7 * at % 40) / 100 for at in range(40)]
    searched = {
        answered(store, "tpe", at / 64, words=10, value=value): value
        for at, value in enumerate(values)
    }
    with sa.create_engine(store.url).connect() as connection:
        size = sa.text("SELECT sum(length(texts)) FROM merge_search_answer_text")
        assert 10_000 < connection.execute(size).scalar() <= 20_000
    kept = store.answered_in_words()
    assert {parent, finalist} < kept
    assert max(searched, key=searched.__getitem__) in kept
    assert min(searched, key=searched.__getitem__) not in kept
    gone = [value for number, value in searched.items() if number not in kept]
    assert sum(gone) / len(gone) < sum(values) / len(values)


def test_answers_that_do_not_fit_at_all_are_left_out(store: Store) -> None:
    store.room = 100
    number = answered(store, "parent a", 0.5, words=10)
    assert store.answered_in_words() == frozenset()
    assert len(store.outcomes(number, Split.SEARCH)) == len(store.manifest.questions.search)
    store.room = math.inf
    assert answered(store, "parent b", 0.25, words=10) in store.answered_in_words()


def test_a_study_of_an_earlier_version_gets_the_tables_when_it_is_driven(
    unheld: Store, location: str
) -> None:
    for table in ("merge_search_question_text", "merge_search_answer_text"):
        write(unheld, f"DROP TABLE {table}")
    with Store.open(location) as reader:
        assert (reader.question_texts(), reader.answered_in_words()) == ({}, frozenset())
        assert reader.answer_texts(0, Split.SEARCH) == {}
    unheld.hold()
    unheld.room = 1e6
    assert answered(unheld, "tpe", 0.5, words=1) in unheld.answered_in_words()
