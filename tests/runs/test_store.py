"""study.db as a file: what is refused, and how it is kept."""

import os
import shutil
import sqlite3
import subprocess
import sys
import time
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from evaluators.workers import clock
from runs.records.record import Split
from runs.storage.database import durability
from runs.storage.database.filesystems import shared_over_network, type_of
from runs.storage.database.study_lock import LockedError
from runs.storage.store import Store, StoreError
from spaces.errors import RunFailed
from tests.made_studies import manifest, recipe, score


@pytest.fixture
def unheld(tmp_path: Path):
    """A study that nobody drives."""
    made = Store.create(str(tmp_path / "study.db"), manifest())
    yield made
    made.close()


@pytest.fixture
def store(unheld: Store) -> Store:
    """A study that this process drives."""
    unheld.hold()
    return unheld


def pragma(store: Store, name: str) -> object:
    with store._engine.connect() as connection:
        return connection.exec_driver_sql(f"PRAGMA {name}").scalar()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "another kind of file"),
        (b"not a database at all", "another kind of file"),
        (b"SQLite format 3\0" + b"\1" * 100, "the file was cut off"),
        (b"SQLite format 3\0" + bytes(84), "expected a study made by `search run`"),
    ],
)
def test_what_is_not_a_study_is_refused(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "x.db"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StoreError, match=message):
        Store.open(str(path))
    assert (path.read_bytes() if path.exists() else None) == content


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("create table t (x)")
    with pytest.raises(StoreError, match="expected a study made by `search run`"):
        Store.open(str(path))


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"name the study\.db in it"):
        Store.open(str(tmp_path))


def test_a_study_that_is_made_leaves_nothing_else(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    half = tmp_path / f".study.db.{gone.pid}.{'0' * 16}.tmp"
    half.write_bytes(b"half")
    half.with_name(half.name + "-journal").touch()
    Store.create(str(tmp_path / "study.db"), manifest()).close()
    assert [path.name for path in tmp_path.iterdir()] == ["study.db"]


def test_outcomes_are_small(store: Store) -> None:
    number = store.add(recipe(0.1), origin="tpe", trial=None)
    names = store.manifest.questions.search
    store.finish(number, Split.SEARCH, score(names), worker="w")
    with sqlite3.connect(store.name) as connection:
        (size,) = connection.execute(
            "select length(asked) + length(outcomes) from merge_search_evaluation"
        ).fetchone()
    assert size < 16 * len(names)
    assert np.isfinite(size)


# How it reaches the disk.


def test_a_local_file_is_logged_while_it_is_written_and_plain_afterwards(unheld: Store) -> None:
    assert unheld.hold() == ()
    store = unheld
    assert pragma(store, "journal_mode") == "wal"
    assert pragma(store, "synchronous") >= 2  # every commit of ours waits for the disk
    with store.study._storage._kept.engine.connect() as connection:  # Optuna's: with our next
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1
    store.add(recipe(0.1), origin="tpe", trial=None)
    store.close()
    assert [path.name for path in Path(store.name).parent.iterdir()] == ["study.db"]
    assert Path(store.name).read_bytes()[18:20] == b"\1\1"  # no log is needed to read it


def test_on_a_network_file_system_no_log_is_kept(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.close()
    monkeypatch.setattr(durability, "type_of", lambda path: "nfs4")
    (note,) = store.hold()
    assert "network file system (nfs4)" in note
    assert pragma(store, "journal_mode") == "delete"
    with store.study._storage._kept.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() >= 2
    store.add(recipe(0.1), origin="tpe", trial=None)
    assert not Path(store.name + "-wal").exists()


def test_where_no_log_can_be_kept_the_run_goes_on_and_says_so(unheld: Store) -> None:
    reader = sqlite3.connect(unheld.name)
    reader.execute("begin").connection.execute("select * from merge_search_run").fetchone()
    reader.execute("pragma journal_mode")
    with unheld._engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout=10")
        assert durability._switched(connection, "wal") == "delete"
    reader.close()


MOUNTS = [
    SimpleNamespace(mountpoint=mountpoint, fstype=fstype)
    for mountpoint, fstype in (
        ("/sys", "sysfs"),
        ("/", "ext4"),
        ("/home", "nfs4"),
        ("/home/me/disk", "xfs"),
        ("/mnt/with space", "cifs"),
        ("/mnt/far", "fuse.sshfs"),
        ("/mnt/layers", "fuse.fuse-overlayfs"),
        ("/mnt/twice", "ext4"),
        ("/mnt/twice", "lustre"),
    )
]


@pytest.mark.parametrize(
    ("path", "kind", "network"),
    [
        ("/etc/study.db", "ext4", False),
        ("/home/me/study.db", "nfs4", True),
        ("/home/me/disk/study.db", "xfs", False),
        ("/home/me/diskette/study.db", "nfs4", True),
        ("/mnt/with space/a/study.db", "cifs", True),
        ("/mnt/far/study.db", "fuse.sshfs", True),
        ("/mnt/layers/study.db", "fuse.fuse-overlayfs", False),
        ("/mnt/twice/study.db", "lustre", True),
    ],
)
def test_file_systems_are_known_by_the_mounts(
    monkeypatch: pytest.MonkeyPatch, path: str, kind: str, network: bool
) -> None:
    monkeypatch.setattr(psutil, "disk_partitions", lambda **_: MOUNTS)
    assert type_of(Path(path)) == kind
    assert shared_over_network(kind) is network


def test_this_machine_has_a_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert type_of(tmp_path)
    monkeypatch.setattr(psutil, "disk_partitions", lambda **_: [])
    assert type_of(tmp_path) == ""


# Damage, full disks and what cannot be written.


def test_a_damaged_study_is_not_written(tmp_path: Path) -> None:
    store = Store.create(str(tmp_path / "study.db"), manifest())
    store.hold()
    for weight in range(200):
        store.add(recipe(weight), origin="tpe", trial=None)
    store.close()
    content = bytearray(Path(store.name).read_bytes())
    page = len(content) // 4096 - 3
    content[page * 4096 : page * 4096 + 40] = b"\xff" * 40
    Path(store.name).write_bytes(content)
    store = Store.open(store.name)
    with pytest.raises(StoreError, match="expected a sound database, got a damaged one"):
        store.hold()
    store.close()


def test_a_schema_that_is_no_text_is_refused(unheld: Store) -> None:
    """SQLite then says what is wrong in bytes that Python cannot read."""
    with sqlite3.connect(unheld.name) as connection:
        connection.execute("pragma writable_schema = on")
        connection.execute(
            "update sqlite_master set name = cast(X'E9E9' as text), sql = cast(X'E9E9' as text) "
            "where name = 'merge_search_candidate'"
        )
    connection.close()
    with pytest.raises(StoreError, match=r"study\.db: expected a study made by `search run`"):
        Store.open(unheld.name)


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("candidate", "planned = X'00'"),
        ("candidate", "recipe = '{'"),
        ("candidate", "recipe = '{}'"),
        ("evaluation", "state = 'odd'"),
        ("evaluation", "asked = X'789c63606060000000040001'"),
        ("evaluation", "tasks = '[1]'"),
        ("evaluation", "started = 1e300"),
        ("evaluation", "split = 'held_out'"),
        ("run", "value = '[' where key = 'tasks'"),
        ("run", """value = replace(value, '"t"', '"T"') where key = 'catalogue'"""),
    ],
)
def test_values_that_nobody_wrote_are_damage(store: Store, table: str, change: str) -> None:
    number = store.add(recipe(0.5), origin="tpe", trial=None)
    names = store.manifest.questions.search
    store.finish(number, Split.SEARCH, score(names), worker="w")
    store.close()
    with sqlite3.connect(store.name) as connection:
        connection.execute(f"update merge_search_{table} set {change}")
    connection.close()
    damaged = Store.open(store.name)
    with pytest.raises(
        StoreError, match=r"study\.db: expected what `search run` wrote, got damage"
    ):
        list(damaged.records()), list(damaged.answers(Split.SEARCH))
    damaged.close()


def test_a_blob_that_swells_is_not_inflated(store: Store) -> None:
    """2.6 MB of zeros squeezed a thousand times; a study has no more answers than questions."""
    number = store.add(recipe(0.5), origin="tpe", trial=None)
    store.finish(number, Split.SEARCH, score(store.manifest.questions.search), worker="w")
    store.close()
    deflater, chunk = zlib.compressobj(9), bytes(2**24)
    bomb = b"".join(deflater.compress(chunk) for _ in range(16)) + deflater.flush()
    for column in ("outcomes", "asked"):
        with closing(sqlite3.connect(store.name)) as connection:
            connection.execute(f"update merge_search_evaluation set {column} = ?", (bomb,))
            connection.commit()
        swollen = Store.open(store.name)
        tracemalloc.start()
        with pytest.raises(StoreError, match="got damage: ValueError: expected at most"):
            list(swollen.answers(Split.SEARCH))
        assert tracemalloc.get_traced_memory()[1] < 20e6
        tracemalloc.stop()
        swollen.close()


def test_the_time_of_a_process_goes_on_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    assert abs(clock.now() - time.time()) < 3600
    before = clock.now()
    monkeypatch.setattr(time, "time", lambda: 0.0)  # set back to 1970
    assert 0 <= clock.now() - before < 3600


def test_a_disk_that_fills_up_ends_the_run_and_harms_nothing(store: Store) -> None:
    first = store.add(recipe(0.5), origin="tpe", trial=None)
    names = store.manifest.questions.search
    store.finish(first, Split.SEARCH, score(names), worker="w")
    with store._engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")

    def fill() -> None:
        for weight in range(10_000):
            store.add(recipe(weight), origin="x" * 5000, trial=None)

    with pytest.raises(RunFailed, match=r"is full; what was recorded before is safe.*`search res"):
        fill()
    before = store.records()
    store.close()
    store = Store.open(store.name)
    store.hold()  # which checks the file
    assert store.records() == before
    assert store.outcomes(first, Split.SEARCH) == score(names).outcomes
    store.add(recipe(0.25), origin="tpe", trial=None)
    store.close()


def as_nobody(work: Callable[[], str]) -> str:
    """What work says as somebody who owns nothing: as root nothing is read-only.

    It is forked, since nobody may not even read this Python.
    """
    if os.getuid() != 0:
        pytest.skip("needs to be root, to become somebody else")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        try:
            said = work()
        except BaseException as error:  # noqa: BLE001 - told, and asserted on, by the parent
            said = repr(error)
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


def read_and_try_to_hold(location: str) -> str:
    store = Store.open(location)
    seen = len(store.records())
    try:
        store.hold()
    except (StoreError, LockedError) as error:
        return f"{seen} {error}"
    finally:
        store.close()
    return f"{seen} held"


@pytest.mark.parametrize("log", [False, True])
def test_a_study_that_cannot_be_written_can_be_read(log: bool) -> None:
    folder = Path("/tmp") / f"merge-search-read-only-{os.getpid()}"
    folder.mkdir()
    try:
        store = Store.create(str(folder / "study.db"), manifest())
        store.hold()
        store.add(recipe(0.5), origin="tpe", trial=None)
        if not log:
            store.close()
        folder.chmod(0o555)
        said = as_nobody(lambda: read_and_try_to_hold(store.name))
        store.close()
    finally:
        shutil.rmtree(folder)
    assert said.startswith("1 ")
    assert "cannot be written: attempt to write" in said
