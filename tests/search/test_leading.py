"""One number for who is ahead, whoever is asked and whenever."""

import io
import json
import math
import re
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from rich.console import Console

from runs.ranking.lead import Lead, lead
from runs.storage.store import Store
from search.commands import run_command
from search.commands.run_handle import Run
from search.engine import loop
from search.engine.spending import sessions
from search.engine.trials.leading import Leading
from search.inputs.overrides import Overrides
from search.inputs.stored_study.study_config import config_of
from search.monitoring.callbacks import Finished, Resulted, Started
from search.monitoring.live.live_view import span
from search.monitoring.live.study_watcher import Watcher
from search.monitoring.study_summary import show_status
from search.samplers.estimation.posterior import judged


class Beside:
    """Looks at the study from outside, at every third result that came back."""

    def __init__(self, study: Path) -> None:
        self.study = study
        self.pairs: list[tuple[tuple[float, float, int], Lead, str]] = []

    def on_start(self, event: Started) -> None:
        pass

    def on_result(self, event: Resulted) -> None:
        if event.step % 3:
            return
        with closing(Store.open(str(self.study))) as store:
            found = (event.best, event.best_parent, event.best_of)
            self.pairs.append((found, Watcher(store).standing().lead, said(store)))

    def on_finish(self, event: Finished) -> None:
        pass


def said(store: Store) -> str:
    """What `search status` says."""
    console = Console(file=(text := io.StringIO()), width=200)
    show_status(store, config_of(store), console)
    return text.getvalue()


SEARCHES: dict[str, dict[str, Any]] = {
    "all": {"trials": 12, "sampler": "tpe"},
    "growing": {"questions": 1600, "validate": 1, "sampler": "surrogate", "asking": "growing"},
    "pareto": {"trials": 12, "objective": "pareto"},
}


@pytest.mark.parametrize("kind", SEARCHES)
def test_driver_status_watch_and_files_say_the_same(
    project: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(loop, "LOOKING_SHARE", math.inf)  # after every result
    out = tmp_path / "mix"
    beside = Beside(out / "study.db")
    config = project(search=SEARCHES[kind] | {"seed": 1})
    run_command.run(config, out=out, overrides=Overrides(), dry_run=True, callbacks=[beside])
    assert len(beside.pairs) >= 5
    for told, seen, status in beside.pairs:
        assert told == pytest.approx((seen.best, seen.best_parent, seen.scored), nan_ok=True)
        assert re.search(rf"^best +{re.escape(seen.text())}$", status, re.MULTILINE)
    run = Run(out)
    first = run.leaderboard().iloc[0]
    with closing(Store.open(str(out / "study.db"))) as store:
        ahead = Watcher(store).standing().lead
    assert (first["candidate"], first["expected"]) == (ahead.candidate, pytest.approx(ahead.best))
    assert f"best {ahead.text()}" in repr(run)
    table = pd.read_csv(out / "leaderboard.csv")
    assert table["expected"][0] == pytest.approx(ahead.best)
    noted = yaml.safe_load((out / "best.yaml").read_text())["merge_search"]
    assert (noted["candidate"], noted["expected"]["value"]) == (
        ahead.candidate,
        pytest.approx(ahead.best),
    )
    report = json.loads((out / "leaderboard.json").read_text())
    assert report["insights"]["best_so_far"][-1]["best"] == pytest.approx(ahead.best)
    assert report["candidates"][0]["expected_stderr"] == pytest.approx(ahead.stderr)


def test_the_score_alone_is_judged_as_with_all_objectives(
    project: Callable[..., Path], tmp_path: Path
) -> None:
    out = tmp_path / "mix"
    run_command.run(project(), out=out, overrides=Overrides(trials=14), dry_run=True)
    with closing(Store.open(str(out / "study.db"))) as store:
        whole, short = judged(store), judged(store, apart=False)
        assert [record.posterior for record in whole] == [record.posterior for record in short]
        assert lead(whole) == lead(short)
        assert all(record.objectives for record in whole if record.posterior)
        leading = Leading(store, share=1e-9)
        assert leading.look(1) == lead(short)
        store_before, leading._store = store, None  # type: ignore[assignment] # not looked at again
        assert leading.look(2) == leading.look(1, at_once=True) == lead(short)
        leading._store = store_before
        assert leading.look(2, at_once=True) == lead(short)


def test_time_is_that_of_all_drivers_everywhere(
    project: Callable[..., Path], tmp_path: Path
) -> None:
    """The time of a resumed run goes on where it stopped, in every place that shows it."""
    out, seconds = tmp_path / "mix", []

    class Clock(Beside):
        def on_result(self, event: Resulted) -> None:
            seconds.append(event.seconds)

    config, study = project(), out / "study.db"
    run_command.run(config, out=out, overrides=Overrides(trials=6), dry_run=True)
    with closing(Store.open(str(study))) as store:
        store.hold()
        began = time.time() - 400  # as if it had taken 200 s, and then been left alone as long
        store.set_facts({"seconds": "200", "session:0": json.dumps([began, began + 200])})
    run_command.resume(
        study, overrides=Overrides(trials=8), consent=lambda _: True, callbacks=[Clock(study)]
    )
    assert seconds == sorted(seconds)
    assert 200 <= seconds[0] < 300
    with closing(Store.open(str(study))) as store:
        used = store.number("seconds")
        assert used >= round(seconds[-1], 1) - 0.1
        assert re.search(rf"^time +{span(used)}$", said(store), re.MULTILINE)
        watcher = Watcher(store)
        assert watcher.standing().seconds == used
        assert sum(end - start for start, end in sessions(store)) == pytest.approx(used, abs=0.1)
    report = json.loads((out / "leaderboard.json").read_text())
    assert report["facts"]["run"]["hours"] == pytest.approx(used / 3600, abs=1e-3)
    last = report["insights"]["best_so_far"][-1]
    assert 200 < 3600 * last["hours"] <= used + 0.1
