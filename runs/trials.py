"""Optuna's storage as the driver of a run uses it: read from memory, written a trial at a time.

Optuna writes every parameter of a trial in a transaction of its own and reads running trials anew
for each proposal: with twenty parameters that takes longer than all else the driver does. A driver
is the only writer of its study, so it can keep the trials in memory, and write a trial with all its
parameters at once when it becomes a candidate. Until then it has cost nothing: what a crash takes
with it is proposed again, by the same sampler for the same number. What it is told is written with
whatever the run writes next: the run's own tables know it by then.
"""

from __future__ import annotations

import json
from copy import copy
from functools import cache
from typing import Any

import sqlalchemy as sa
from optuna.distributions import distribution_to_json
from optuna.storages import InMemoryStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import Engine

from evaluators.base import LARGEST


class TrialBook(InMemoryStorage):
    """The trials of one study; what it knows stays readable for Optuna and its dashboard.

    Args:
        kept: Where the study is kept.
        name: Of the study.
    """

    def __init__(self, kept: RDBStorage, name: str) -> None:
        super().__init__()
        self._kept = kept
        self._kept_study = kept.get_study_id_from_name(name)
        self._rows: dict[int, int] = {}  # ids in the database by those here
        self._new_rows: dict[int, int] = {}  # of a transaction that may yet fail
        self._unwritten: list[int] = []  # in the order of their numbers
        self._told: list[int] = []  # those that were written before they were told a result
        self._study_attrs: dict[str, Any] = {}
        self._tables: _Tables | None = None
        directions = kept.get_study_directions(self._kept_study)
        self._study = super().create_new_study(directions, study_name=name)
        for key, value in kept.get_study_user_attrs(self._kept_study).items():
            super().set_study_user_attr(self._study, key, value)
        for key, value in kept.get_study_system_attrs(self._kept_study).items():
            super().set_study_system_attr(self._study, key, value)
        for trial in kept.get_all_trials(self._kept_study, deepcopy=False):
            super().create_new_trial(self._study, template_trial=_sound(trial))

    @property
    def remembers(self) -> bool:
        """Whether samplers have remembered something that is not written."""
        return bool(self._study_attrs)

    def flush(self) -> None:
        """Write what is not written: trials that were asked for, and what samplers remember."""
        if self._unwritten or self._told:
            with self._kept.engine.begin() as connection:
                self.write(connection, running=True)
            self.written()
        for key in list(self._study_attrs):
            value = self._study_attrs[key]
            self._kept.set_study_system_attr(self._kept_study, key, value)
            del self._study_attrs[key]

    def write(self, connection: sa.Connection, *, running: bool) -> None:
        """Write the trials that are not written, in a transaction that may yet fail.

        Args:
            connection: To the same database.
            running: Whether to write those too that were not told a result. Later ones wait for
                them otherwise, since trials are written in the order of their numbers.
        """
        self._new_rows = {}
        if self._unwritten or self._told:
            if self._tables is None:
                self._tables = _Tables(self._kept.engine)
            for number in self._told:
                self._tables.tell(connection, self._row(number), self.get_trial(number))
        for number in self._unwritten:
            trial = self.get_trial(number)
            if not running and not trial.state.is_finished():
                return
            assert self._tables is not None
            self._new_rows[number] = self._tables.write(connection, self._kept_study, trial)

    def written(self) -> None:
        """What was written is in the database now."""
        self._rows |= self._new_rows
        self._unwritten = self._unwritten[len(self._new_rows) :]
        self._told, self._new_rows = [], {}

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        number = super().create_new_trial(study_id, template_trial)
        self._unwritten.append(number)
        return number

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Any = None) -> bool:
        done = super().set_trial_state_values(trial_id, state, values)
        if done and trial_id not in self._unwritten:
            row = self._row(trial_id)
            if state.is_finished():
                self._told.append(trial_id)
            else:
                self._kept.set_trial_state_values(row, state, values)
        return done

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        super().set_trial_user_attr(trial_id, key, value)
        if trial_id not in self._unwritten:
            self._kept.set_trial_user_attr(self._row(trial_id), key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        super().set_trial_system_attr(trial_id, key, value)
        if trial_id not in self._unwritten:
            self._kept.set_trial_system_attr(self._row(trial_id), key, value)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        super().set_study_user_attr(study_id, key, value)
        self._kept.set_study_user_attr(self._kept_study, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        super().set_study_system_attr(study_id, key, value)
        self._study_attrs[key] = value

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: Any
    ) -> None:
        super().set_trial_param(trial_id, param_name, param_value_internal, distribution)
        if trial_id not in self._unwritten:  # a trial that a dead driver had begun to draw
            row = self._row(trial_id)
            self._kept.set_trial_param(row, param_name, param_value_internal, distribution)

    def _row(self, trial_id: int) -> int:
        """The id of a trial in the database."""
        if trial_id not in self._rows:
            number = self.get_trial_number_from_id(trial_id)
            self._rows[trial_id] = self._kept.get_trial_id_from_study_id_trial_number(
                self._kept_study, number
            )
        return self._rows[trial_id]


def _sound(trial: FrozenTrial) -> FrozenTrial:
    """A trial as samplers can reckon with it: failed, where it was told what they cannot square."""
    if all(abs(value) <= LARGEST for value in trial.values or ()):
        return trial
    failed = copy(trial)
    failed.values, failed.state = None, TrialState.FAIL
    return failed


class _Tables:
    """Optuna's tables, as they are in the database."""

    def __init__(self, engine: Engine) -> None:
        known = sa.MetaData()
        self._trials, self._params, self._values, self._users, self._systems = (
            sa.Table(name, known, autoload_with=engine)
            for name in (
                "trials",
                "trial_params",
                "trial_values",
                "trial_user_attributes",
                "trial_system_attributes",
            )
        )

        trials, params, values = self._trials, self._params, self._values
        self._new_trial, self._new_params = sa.insert(trials), sa.insert(params)
        self._new_values = sa.insert(values)
        self._new_attrs = (sa.insert(self._users), sa.insert(self._systems))
        self._finished = sa.update(trials).where(trials.c.trial_id == sa.bindparam("row"))
        self._json = cache(distribution_to_json)

    def write(self, connection: sa.Connection, study: int, trial: FrozenTrial) -> int:
        """Write a trial as Optuna would, and give the id of its row."""
        known = {
            "number": trial.number,
            "study_id": study,
            "state": trial.state.name,
            "datetime_start": trial.datetime_start,
            "datetime_complete": trial.datetime_complete,
        }
        row = int(connection.execute(self._new_trial, known).inserted_primary_key[0])  # type: ignore[index]
        params = [
            {
                "trial_id": row,
                "param_name": name,
                "param_value": distribution.to_internal_repr(trial.params[name]),
                "distribution_json": self._json(distribution),
            }
            for name, distribution in trial.distributions.items()
        ]
        if params:
            connection.execute(self._new_params, params)
        self._write_values(connection, row, trial)
        attrs = (trial.user_attrs, trial.system_attrs)
        for insert, found in zip(self._new_attrs, attrs, strict=True):
            if found:
                rows = [
                    {"trial_id": row, "key": key, "value_json": json.dumps(value)}
                    for key, value in found.items()
                ]
                connection.execute(insert, rows)
        return row

    def tell(self, connection: sa.Connection, row: int, trial: FrozenTrial) -> None:
        """Write what a trial was told whose row is there."""
        known = {"state": trial.state.name, "datetime_complete": trial.datetime_complete}
        connection.execute(self._finished, {"row": row, **known})
        self._write_values(connection, row, trial)

    def _write_values(self, connection: sa.Connection, row: int, trial: FrozenTrial) -> None:
        values = [
            {"trial_id": row, "objective": at, "value": value, "value_type": "FINITE"}
            for at, value in enumerate(trial.values or ())
        ]
        if values:
            connection.execute(self._new_values, values)
