"""Others are told of a run: callbacks, TensorBoard, MLflow, Weights & Biases."""

from __future__ import annotations

import importlib.util
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runs.storage.store import Store
from search.commands import run_command
from search.inputs.input_error import InputError
from search.inputs.overrides import Overrides
from search.monitoring.callbacks import Finished, Resulted, Started, run_id
from search.monitoring.loggers import LOGGERS, flat, loggers


class Remembering:
    def __init__(self, *, fail: str = "") -> None:
        self.events: list[Started | Resulted | Finished] = []
        self._fail = fail

    def _take(self, name: str, event: Started | Resulted | Finished) -> None:
        self.events.append(event)
        if name == self._fail:
            raise ConnectionError("no such host\nsecond line")

    def on_start(self, event: Started) -> None:
        self._take("on_start", event)

    def on_result(self, event: Resulted) -> None:
        self._take("on_result", event)

    def on_finish(self, event: Finished) -> None:
        self._take("on_finish", event)


@pytest.fixture
def run(project: Callable[..., Path], tmp_path: Path):
    """Runs a search with made-up scores, told to callbacks and the loggers of these names."""

    def search(*callbacks: Remembering, names: tuple[str, ...] = (), trials: int = 14) -> Path:
        config = project(output={"dtype": "float32", "loggers": list(names)})
        overrides = Overrides(trials=trials)
        out = tmp_path / "mix"
        run_command.run(config, out=out, overrides=overrides, dry_run=True, callbacks=callbacks)
        return out

    return search


def test_a_callback_is_told_everything_and_goes_on_after_a_resume(run) -> None:
    first, second = Remembering(), Remembering()
    out = run(first)
    start, *results, end = first.events
    assert isinstance(start, Started)
    assert start.results == 0
    assert start.config["search"]["trials"] == 14
    assert isinstance(end, Finished)
    assert end.complete
    assert "winner" in end.verdict or "recipe" in end.verdict
    assert {"report.html", "best.yaml"} <= {path.name for path in end.files}
    assert [one.step for one in results] == list(range(1, len(results) + 1))
    searched = [one for one in results if one.phase == "search"]
    assert {one.candidate for one in searched} == set(range(14))
    assert len(results) > len(searched)
    run_command.resume(
        str(out / "study.db"), overrides=Overrides(trials=16), consent=bool, callbacks=(second,)
    )
    again, more, *_ = second.events
    assert again.run == start.run
    assert again.results == len(results)
    assert more.step == len(results) + 1


@pytest.mark.parametrize("where", ["on_start", "on_result", "on_finish"])
def test_a_callback_that_fails_ends_nothing(run, where: str, capsys) -> None:
    failing, other = Remembering(fail=where), Remembering()
    out = run(failing, other)
    assert isinstance(other.events[-1], Finished)
    assert len(failing.events) < len(other.events) or where == "on_finish"
    said = " ".join(capsys.readouterr().out.split())
    assert said.count(f"Remembering failed in {where} and is switched off") == 1
    assert "ConnectionError: no such host" in said
    assert (out / "report.html").exists()


def events(folder: Path) -> list[tuple[str, int, float]]:
    """Scalars in TensorBoard's event files: records of length, checksum, message, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    found.append((value.tag, event.step, value.simple_value))
    return found


def test_tensorboard(run) -> None:
    out = run(told := Remembering(), names=("tensorboard",))
    scores = {
        step: value for tag, step, value in events(out / "tensorboard") if tag == "search/score"
    }
    expected = {
        one.step: one.outcome.value
        for one in told.events
        if isinstance(one, Resulted) and one.phase == "search"
    }
    assert scores == pytest.approx(expected)


@pytest.mark.slow
def test_mlflow(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    out = run(told := Remembering(), names=("mlflow",))
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{out / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "merge-search"]
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    assert found.data.params["search.trials"] == "14"
    assert found.data.tags["verdict"]
    store = Store.open(str(out / "study.db"))
    assert found.data.tags["merge_search_run"] == run_id(store)
    store.close()
    history = client.get_metric_history(found.info.run_id, "search/score")
    searched = [e for e in told.events if isinstance(e, Resulted) and e.phase == "search"]
    assert [one.value for one in sorted(history, key=lambda one: one.step)] == [
        one.outcome.value for one in searched
    ]
    assert "report.html" in {item.path for item in client.list_artifacts(found.info.run_id)}


@pytest.mark.slow
def test_wandb_offline(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    out = run(told := Remembering(), names=("wandb",))
    (folder,) = (out / "wandb").glob("offline-run-*")
    start = told.events[0]
    assert isinstance(start, Started)
    assert folder.name.endswith(start.run)
    assert (folder / f"run-{start.run}.wandb").stat().st_size > 1000


def test_a_missing_package_is_one_line_before_anything(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "mlflow" else real(name)
    )
    with pytest.raises(InputError, match=r"'mlflow' for mlflow, .* 'merge-search\[mlflow\]'"):
        run(names=("tensorboard", "mlflow"))
    assert not (tmp_path / "mix").exists()


def test_every_logger_of_a_config_is_there_and_none_is_loaded_unasked() -> None:
    from runs.records.record import LOGGERS as NAMES

    assert set(LOGGERS) == set(NAMES)
    assert loggers(()) == ()
    assert flat({"a": {"b": [1]}, "c": "x"}) == {"a.b": "[1]", "c": "x"}
    code = (
        "import sys, search.monitoring.loggers\n"
        "print({'mlflow', 'wandb', 'tensorboardX'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.strip() == "set()"
