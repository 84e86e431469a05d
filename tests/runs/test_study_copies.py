"""study.db taken by itself: copied, linked and moved, after its driver ended well or was killed."""

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from runs.records.record import Split, State
from runs.storage.database import durability
from runs.storage.database.connection import StoreError
from runs.storage.store import Store
from tests.made_studies import manifest, recipe, score

RESULTS = 20

DRIVER = f"""
import sys, time
from runs.records.record import Split
from runs.storage.store import Store
from tests.made_studies import recipe, score
store = Store.open(sys.argv[1])
store.hold()
names = store.manifest.questions.search
for weight in range({RESULTS}):
    number = store.add(recipe(weight), origin="tpe", trial=None)
    store.finish(number, Split.SEARCH, score(names), worker="w")
print("written", flush=True)
time.sleep(300)
"""


def finished(path: Path) -> int:
    """How many results a file holds by itself; 0 of one that was copied while it was changed."""
    try:
        with closing(sqlite3.connect(path)) as connection:
            query = "select count(*) from merge_search_evaluation where state = 'complete'"
            return int(connection.execute(query).fetchone()[0])
    except sqlite3.DatabaseError:
        return 0


def alone(path: Path, folder: Path) -> Path:
    """A copy of the file without what lies beside it, in a new folder."""
    folder.mkdir()
    return Path(shutil.copy(path, folder / "study.db"))


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """The study of a driver that was killed a few seconds after its last result."""
    place = tmp_path / "run" / "study.db"
    place.parent.mkdir()
    Store.create(str(place), manifest()).close()
    command = [sys.executable, "-c", DRIVER, str(place)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == b"written\n"
        until, look = time.monotonic() + durability.CHECKPOINT_SECONDS + 60, 0
        while finished(alone(place, tmp_path / f"look{look}")) < RESULTS:
            assert time.monotonic() < until, "the file by itself never held all"
            look += 1
            time.sleep(0.2)
        driver.kill()
    assert Path(f"{place}-wal").stat().st_size > 0
    return place


def test_a_copy_of_the_file_alone_holds_every_result_after_sigkill(
    killed: Path, tmp_path: Path
) -> None:
    copy = alone(killed, tmp_path / "copy")
    store = Store.open(str(copy))
    (note,) = store.notes
    assert f"without its write-ahead log ({copy}-wal)" in note
    states = [record.evaluations[Split.SEARCH].state for record in store.records()]
    assert states == [State.COMPLETE] * RESULTS
    assert store.hold() == (note,)
    store.add(recipe(99), origin="tpe", trial=None)
    store.close()
    again = Store.open(str(copy))
    assert again.notes == ()
    assert len(again.records()) == RESULTS + 1
    again.close()


def test_a_hard_link_becomes_a_copy_before_it_is_written(killed: Path, tmp_path: Path) -> None:
    """The log under the first name would otherwise come over what is written under the other."""
    link = tmp_path / "link" / "study.db"
    link.parent.mkdir()
    os.link(killed, link)
    store = Store.open(str(link))
    assert len(store.records()) == RESULTS
    before = killed.read_bytes()
    notes = store.hold()
    assert len(notes) == 2
    assert "it is a separate copy from now on" in notes[1]
    store.add(recipe(99), origin="tpe", trial=None)
    store.close()
    assert killed.read_bytes() == before
    assert not killed.samefile(link)
    for path, count in ((killed, RESULTS), (link, RESULTS + 1)):
        store = Store.open(str(path))
        assert len(store.records()) == count
        store.hold()  # which checks the file
        store.close()


@pytest.mark.parametrize("where", ["in place", "with its log", "looked at before"])
def test_a_killed_study_that_is_whole_needs_no_note(
    killed: Path, tmp_path: Path, where: str
) -> None:
    place = killed
    if where == "with its log":
        place = Path(shutil.copytree(killed.parent, tmp_path / "whole")) / "study.db"
    elif where == "looked at before":  # the last who reads puts the log into the file
        Store.open(str(killed)).close()
    store = Store.open(str(place))
    assert store.notes == ()
    assert len(store.records()) == RESULTS
    assert store.hold() == ()
    store.close()


def test_a_symbolic_link_is_the_file_itself(killed: Path, tmp_path: Path) -> None:
    link = tmp_path / "latest.db"
    link.symlink_to(killed)
    store = Store.open(str(link))
    assert store.notes == ()
    assert len(store.records()) == RESULTS
    store.close()


def test_a_reader_that_never_ends_keeps_nothing_from_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checkpoints come with the next one after it has gone."""
    monkeypatch.setattr(durability, "CHECKPOINT_SECONDS", 0.05)
    place = tmp_path / "study.db"
    store = Store.create(str(place), manifest())
    store.hold()
    names = store.manifest.questions.search
    with closing(sqlite3.connect(place, isolation_level=None)) as reader:
        reader.execute("begin")
        reader.execute("select count(*) from merge_search_run").fetchone()
        number = store.add(recipe(0.5), origin="tpe", trial=None)
        store.finish(number, Split.SEARCH, score(names), worker="w")
        time.sleep(0.3)
        assert finished(alone(place, tmp_path / "held")) == 0
        reader.execute("rollback")
    until, look = time.monotonic() + 60, 0
    while finished(alone(place, tmp_path / f"look{look}")) < 1:
        assert time.monotonic() < until
        look += 1
        time.sleep(0.1)
    store.close()


def test_a_clean_copy_needs_no_note(tmp_path: Path) -> None:
    place = tmp_path / "study.db"
    store = Store.create(str(place), manifest())
    store.hold()
    with closing(sqlite3.connect(place)) as reader:  # so that the log is not given up at the end
        reader.execute("select count(*) from merge_search_run").fetchone()
        store.add(recipe(0.5), origin="tpe", trial=None)
        store.close()
        copy = Store.open(str(alone(place, tmp_path / "copy")))
        assert copy.notes == ()
        assert len(copy.records()) == 1
        copy.close()


def test_views_of_a_stranger_are_refused(tmp_path: Path) -> None:
    """A view may make gigabytes of a small file; studies hold plain tables."""
    place = tmp_path / "study.db"
    Store.create(str(place), manifest()).close()
    with closing(sqlite3.connect(place)) as connection:
        connection.execute("alter table merge_search_run rename to hidden")
        connection.execute(
            "create view merge_search_run as select key, value from hidden "
            "union all select 'x', zeroblob(1000000000)"
        )
        connection.commit()
    with pytest.raises(StoreError, match="expected plain tables, got view merge_search_run"):
        Store.open(str(place))
