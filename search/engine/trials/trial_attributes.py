"""What Optuna's dashboard and Optuna itself show of a trial, beside its parameters and value."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pandas as pd

from evaluators.protocol import TaskInfo
from runs.storage.store import Store

_LONGEST_KEY = 512  # that Optuna's tables hold
_COLUMNS = ("candidate", "method", "origin", "rank", "expected", "score", "held_out")


def note_trials(store: Store, board: pd.DataFrame, tasks: Sequence[TaskInfo]) -> None:
    """Write columns of the leaderboard as user attributes of its trials.

    Args:
        store: The study, whose lock is held.
        board: As ``leaderboard`` gives it; candidates without a trial are left out.
        tasks: Those whose scores are written too, on search and held-out questions.
    """
    of_tasks = [f"{split}:{task.name}" for task in tasks for split in ("task", "held_out")]
    columns = [name for name in (*_COLUMNS, *of_tasks) if len(name) <= _LONGEST_KEY]
    chosen = board.dropna(subset=["trial"]).set_index("trial")[columns]
    rows = json.loads(chosen.to_json(orient="index"))
    store.note_trials(
        {
            int(number): {key: value for key, value in row.items() if value is not None}
            for number, row in rows.items()
        }
    )
