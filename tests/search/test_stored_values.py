"""Studies that hold values nothing can be reckoned with, as earlier versions kept them."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import search
from runs.storage.tables import pack, unpack

Project = Callable[..., Path]


def spoil(study: Path, candidate: int, value: float) -> None:
    """Give a candidate's score and answers that value, in the run's tables and in Optuna's."""
    with closing(sqlite3.connect(study)) as connection, connection:
        ((tasks, outcomes, trial),) = connection.execute(
            "SELECT tasks, outcomes, trial FROM merge_search_evaluation e "
            "JOIN merge_search_candidate c ON c.id = e.candidate "
            "WHERE e.candidate = ? AND split = 'search' AND part = 0",
            (candidate,),
        )
        spoilt = [task | {"value": value, "stderr": value} for task in json.loads(tasks)]
        answers = pack(np.full_like(unpack(outcomes, "<f8", most=1 << 20), value))
        connection.execute(
            "UPDATE merge_search_evaluation SET value = ?, stderr = ?, tasks = ?, outcomes = ? "
            "WHERE candidate = ? AND split = 'search' AND part = 0",
            (value, value, json.dumps(spoilt), answers, candidate),
        )
        connection.execute(
            "UPDATE trial_values SET value = ? WHERE trial_id IN "
            "(SELECT trial_id FROM trials WHERE number = ?)",
            (value, trial),
        )


@pytest.mark.parametrize("sampler", ["auto", "tpe", "gp"])
def test_a_study_that_holds_what_cannot_be_squared_goes_on(
    project: Project, command: Callable[..., object], tmp_path: Path, sampler: str
) -> None:
    config = project(search={"trials": 12, "sampler": sampler, "seed": 1})
    done = command("run", config, "--dry-run")
    assert done.returncode == 0, done.stderr
    study = tmp_path / "mix" / "study.db"
    spoil(study, 6, 1e308)
    spoil(study, 7, -1e200)
    done = command("resume", study, "--trials", 16)
    assert done.returncode == 0, done.stderr
    for words in ("status", "report"):
        done = command(words, study)
        assert done.returncode == 0, done.stderr
    frame = search.open_run(study.parent).leaderboard().set_index("candidate")
    assert list(frame.loc[[6, 7], "state"]) == ["failed", "failed"]
    assert list(frame.loc[[6, 7], "failure"]) == ["non_finite", "non_finite"]
    assert "1e+308" in frame.loc[6, "message"]
    assert (frame["state"] == "complete").sum() == 14
