"""Files are whole or not there, no planted link is followed, and nothing is left for good."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runs.output_files import PlaceError, write_text
from spaces.atomic_files import replacing

ROOT = Path(__file__).parents[2]

WRITER = """
import sys, time
from pathlib import Path
from spaces.atomic_files import replacing
with replacing(Path(sys.argv[1])) as draft:
    draft.write_text("half")
    print(draft.name, flush=True)
    time.sleep(100)
"""


@pytest.fixture
def writer(tmp_path: Path) -> Callable[[], tuple[subprocess.Popen[str], Path]]:
    """Starts a process that is writing ``report.html`` until it is killed."""

    def start() -> tuple[subprocess.Popen[str], Path]:
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, tmp_path / "report.html"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        return process, tmp_path / process.stdout.readline().strip()

    return start


def test_what_killed_writers_left_goes_with_the_next_write(
    tmp_path: Path, writer: Callable[[], tuple[subprocess.Popen[str], Path]]
) -> None:
    killed, left = writer()
    living, under_way = writer()
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert left.is_file()
    other = tmp_path / left.name.replace("report", "other")
    other.touch()
    mine = tmp_path / ".report.html.notes.tmp"
    mine.touch()
    write_text(tmp_path / "report.html", "whole")
    assert not left.exists()
    assert under_way.is_file()  # somebody is at it
    assert other.is_file()  # of another file
    assert mine.is_file()  # a user's
    living.kill()
    living.wait()
    assert (tmp_path / "report.html").read_text() == "whole"


def test_a_draft_of_another_user_or_a_link_is_left_alone(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    precious = tmp_path / "precious"
    precious.write_text("kept")
    link = tmp_path / f".a.txt.{gone.pid}.{'0' * 16}.tmp"
    link.symlink_to(precious)
    theirs = tmp_path / f".a.txt.{gone.pid}.{'1' * 16}.tmp"
    theirs.touch()
    if os.geteuid() == 0:
        os.chown(theirs, 65534, -1)
    write_text(tmp_path / "a.txt", "new")
    assert precious.read_text() == "kept"
    assert link.is_symlink()
    assert theirs.exists() == (os.geteuid() == 0)


def test_planted_links_are_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    precious = tmp_path / "precious"
    precious.write_text("kept")
    (tmp_path / "a.txt").symlink_to(precious)
    write_text(tmp_path / "a.txt", "new")  # the link itself is replaced
    assert not (tmp_path / "a.txt").is_symlink()
    # where the very name of the draft was guessed
    monkeypatch.setattr("secrets.token_hex", lambda size: "0" * 2 * size)
    (tmp_path / f".b.txt.{os.getpid()}.{'0' * 16}.tmp").symlink_to(precious)
    with pytest.raises(PlaceError, match=r"b\.txt: cannot be written: File exists"):
        write_text(tmp_path / "b.txt", "new")
    assert precious.read_text() == "kept"


def test_an_exception_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as draft:
            draft.write_text("new")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["a.txt"]


def test_what_has_to_be_new_overwrites_nothing(tmp_path: Path) -> None:
    path = tmp_path / "study.db"

    def write(meanwhile: str | None) -> None:
        with replacing(path, new=True) as draft:
            draft.write_text("mine")
            if meanwhile is not None:
                path.write_text(meanwhile)

    with pytest.raises(FileExistsError):
        write("theirs")
    assert path.read_text() == "theirs"
    path.unlink()
    write(None)
    assert path.read_text() == "mine"
    assert [one.name for one in tmp_path.iterdir()] == ["study.db"]


def test_files_have_the_mode_that_the_user_wants(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a.txt", "")
    finally:
        os.umask(before)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o640
