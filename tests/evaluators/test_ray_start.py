"""What keeps Ray from starting is one line that says what to do."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import ray

from evaluators.protocol import EvaluatorError
from evaluators.workers.cluster.ray_cluster import Cluster
from evaluators.workers.cluster.ray_start import check_folder


def folder_of(length: int) -> str:
    return "/" + "x" * (length - 1)


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_a_folder_whose_sockets_would_not_fit(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv(name, folder_of(60))
    with pytest.raises(EvaluatorError) as caught:
        Cluster(None)
    (line,) = caught.value.problems
    assert line.startswith(f"{name}: expected a path of at most 39 bytes (Ray's sockets lie below")
    assert "got 60: /xxx" in line
    assert "set RAY_TMPDIR to a shorter one, such as /tmp, or workers.ray: false" in line
    monkeypatch.setenv(name, folder_of(39))
    check_folder()
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    monkeypatch.setenv("TMPDIR", folder_of(60))
    check_folder()


@pytest.mark.parametrize(
    "error",
    [
        Exception("The current node timed out during startup. This could happen because\n x."),
        KeyError("node"),
    ],
)
def test_whatever_it_raises(
    monkeypatch: pytest.MonkeyPatch, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """A start that took too long is tried once more."""
    left = list[subprocess.Popen[bytes]]()

    def fail(**options: Any) -> None:
        left.append(subprocess.Popen(["sleep", "600"]))
        raise error

    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(EvaluatorError) as caught:
        Cluster(None)
    (line,) = caught.value.problems
    assert line.startswith("ray: did not start: ")
    assert "try again, or set workers.ray: false" in line
    assert "\n" not in line
    again = "timed out" in str(error)
    told = ["ray: did not start in time; the machine may be busy: trying once more"]
    assert [one.getMessage() for one in caplog.records] == told * again
    assert len(left) == 1 + again
    if again:
        assert left[0].wait(200) < 0  # what the first one left was ended
    left[-1].kill()
    left[-1].wait()


def test_a_run_with_a_long_folder_starts_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Told before Ray is started: no process, no folder of its own is left."""
    long = tmp_path / ("x" * 60)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    with pytest.raises(EvaluatorError, match="TMPDIR: expected a path"):
        Cluster(None)
    assert list(long.iterdir()) == []
