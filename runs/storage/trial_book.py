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
from collections.abc import Mapping
from copy import copy
from functools import cache
from typing import Any

import sqlalchemy as sa
from optuna.distributions import distribution_to_json
from optuna.storages import InMemoryStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState

from evaluators.protocol import LARGEST


class TrialBook(InMemoryStorage):
    """The trials of one study; what it knows stays readable for Optuna and its dashboard.

    It writes only where it is given a transaction to write in: whoever opens that makes sure that
    they may.
    """

    def __init__(self, kept: RDBStorage, name: str) -> None:
        super().__init__()
        self._kept = kept
        self._kept_study = kept.get_study_id_from_name(name)
        self._rows: dict[int, int] = {}  # ids in the database by those here
        self._new_rows: dict[int, int] = {}  # of a transaction that may yet fail
        self._unwritten: list[int] = []  # in the order of their numbers
        # Those that were written before they changed: whether by more than what they were told.
        self._changed: dict[int, bool] = {}
        self._user_attrs: dict[str, Any] = {}  # of the study
        self._system_attrs: dict[str, Any] = {}
        self._tables: _Tables | None = None
        directions = kept.get_study_directions(self._kept_study)
        self._study = super().create_new_study(directions, study_name=name)
        for key, value in kept.get_study_user_attrs(self._kept_study).items():
            super().set_study_user_attr(self._study, key, value)
        for key, value in kept.get_study_system_attrs(self._kept_study).items():
            super().set_study_system_attr(self._study, key, value)
        for trial in kept.get_all_trials(self._kept_study, deepcopy=False):
            super().create_new_trial(self._study, template_trial=_sound(trial))

    def write(self, connection: sa.Connection, *, running: bool) -> None:
        """Write what is not written, in a transaction that may yet fail.

        Args:
            connection: To the same database.
            running: Whether to write those trials too that were not told a result. Later ones wait
                for them otherwise, since trials are written in the order of their numbers. What
                samplers remember is of all trials: with it all are written.
        """
        self._new_rows = {}
        attrs = (self._user_attrs, self._system_attrs)
        if not (self._unwritten or self._changed or any(attrs)):
            return
        if self._tables is None:
            self._tables = _Tables(connection)
        for number, anew in self._changed.items():
            row, trial = self._row(connection, number), self.get_trial(number)
            if anew:
                self._tables.rewrite(connection, row, trial)
            else:
                self._tables.tell(connection, row, trial)
        for number in self._unwritten:
            trial = self.get_trial(number)
            if not (running or self._system_attrs or trial.state.is_finished()):
                break
            self._new_rows[number] = self._tables.write(connection, self._kept_study, trial)
        for system, values in enumerate(attrs):
            self._tables.set_study_attrs(connection, self._kept_study, values, system=bool(system))

    def written(self) -> None:
        """What was written is in the database now."""
        self._rows |= self._new_rows
        self._unwritten = self._unwritten[len(self._new_rows) :]
        self._changed, self._new_rows = {}, {}
        self._user_attrs, self._system_attrs = {}, {}

    def note(self, connection: sa.Connection, attrs: Mapping[int, Mapping[str, Any]]) -> None:
        """Write user attributes of trials that are there, in place of those of the same keys.

        Optuna takes none of a trial that has ended. These are for who looks at the study: nothing
        here reads them.
        """
        if self._tables is None:
            self._tables = _Tables(connection)
        self._tables.note(connection, self._kept_study, attrs)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        number = super().create_new_trial(study_id, template_trial)
        self._unwritten.append(number)
        return number

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Any = None) -> bool:
        done = super().set_trial_state_values(trial_id, state, values)
        if done and trial_id not in self._unwritten:
            self._changed.setdefault(trial_id, False)
        return done

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        super().set_trial_user_attr(trial_id, key, value)
        self._change(trial_id)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        super().set_trial_system_attr(trial_id, key, value)
        self._change(trial_id)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        super().set_study_user_attr(study_id, key, value)
        self._user_attrs[key] = value

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        super().set_study_system_attr(study_id, key, value)
        self._system_attrs[key] = value

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: Any
    ) -> None:
        super().set_trial_param(trial_id, param_name, param_value_internal, distribution)
        self._change(trial_id)  # of a trial that a dead driver had begun to draw

    def _change(self, trial_id: int) -> None:
        if trial_id not in self._unwritten:
            self._changed[trial_id] = True

    def _row(self, connection: sa.Connection, trial_id: int) -> int:
        """The id of a trial in the database."""
        assert self._tables is not None
        if trial_id not in self._rows:
            number = self.get_trial_number_from_id(trial_id)
            self._rows[trial_id] = self._tables.row(connection, self._kept_study, number)
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

    def __init__(self, connection: sa.Connection) -> None:
        known = sa.MetaData()
        self._trials, *of_trials, users, systems = (
            sa.Table(name, known, autoload_with=connection)
            for name in (
                "trials",
                "trial_params",
                "trial_values",
                "trial_user_attributes",
                "trial_system_attributes",
                "study_user_attributes",
                "study_system_attributes",
            )
        )
        self._of_trials = tuple(of_trials)
        self._of_study = (users, systems)
        self._new_trial = sa.insert(self._trials)
        self._told = sa.update(self._trials).where(self._trials.c.trial_id == sa.bindparam("row"))
        self._inserts = tuple(sa.insert(table) for table in of_trials)
        self._json = cache(distribution_to_json)

    def write(self, connection: sa.Connection, study: int, trial: FrozenTrial) -> int:
        """Write a trial as Optuna would, and give the id of its row."""
        known = {"number": trial.number, "study_id": study, **_moments(trial)}
        row = int(connection.execute(self._new_trial, known).inserted_primary_key[0])  # type: ignore[index]
        self._write_parts(connection, row, trial)
        return row

    def tell(self, connection: sa.Connection, row: int, trial: FrozenTrial) -> None:
        """Write what a trial was told whose row is there."""
        connection.execute(self._told, {"row": row, **_moments(trial)})
        if trial.values:
            connection.execute(self._inserts[1], _values(row, trial))

    def rewrite(self, connection: sa.Connection, row: int, trial: FrozenTrial) -> None:
        """Write a trial anew whose row is there."""
        connection.execute(self._told, {"row": row, **_moments(trial)})
        for table in self._of_trials:
            connection.execute(sa.delete(table).where(table.c.trial_id == row))
        self._write_parts(connection, row, trial)

    def row(self, connection: sa.Connection, study: int, number: int) -> int:
        """The id of the row of a trial."""
        trials = self._trials
        query = sa.select(trials.c.trial_id).where(
            (trials.c.study_id == study) & (trials.c.number == number)
        )
        return int(connection.execute(query).scalar_one())

    def note(
        self, connection: sa.Connection, study: int, attrs: Mapping[int, Mapping[str, Any]]
    ) -> None:
        """Write user attributes of trials, given by their numbers."""
        trials, table = self._trials, self._of_trials[2]
        query = sa.select(trials.c.number, trials.c.trial_id).where(trials.c.study_id == study)
        rows = [
            {"trial_id": row, "key": key, "value_json": json.dumps(value)}
            for number, row in connection.execute(query).all()
            for key, value in attrs.get(number, {}).items()
        ]
        if rows:
            same = (table.c.trial_id == sa.bindparam("row")) & (table.c.key == sa.bindparam("name"))
            old = [{"row": row["trial_id"], "name": row["key"]} for row in rows]
            connection.execute(sa.delete(table).where(same), old)
            connection.execute(sa.insert(table), rows)

    def set_study_attrs(
        self, connection: sa.Connection, study: int, values: Mapping[str, Any], *, system: bool
    ) -> None:
        """Write attributes of the study, new ones and others in place of those that are there."""
        table = self._of_study[system]
        if values:
            old = (table.c.study_id == study) & table.c.key.in_(list(values))
            connection.execute(sa.delete(table).where(old))
            rows = [
                {"study_id": study, "key": key, "value_json": json.dumps(value)}
                for key, value in values.items()
            ]
            connection.execute(sa.insert(table), rows)

    def _write_parts(self, connection: sa.Connection, row: int, trial: FrozenTrial) -> None:
        """Parameters, values and attributes of a trial of which none is there."""
        params = [
            {
                "trial_id": row,
                "param_name": name,
                "param_value": distribution.to_internal_repr(trial.params[name]),
                "distribution_json": self._json(distribution),
            }
            for name, distribution in trial.distributions.items()
        ]
        attrs = [
            [
                {"trial_id": row, "key": key, "value_json": json.dumps(value)}
                for key, value in found.items()
            ]
            for found in (trial.user_attrs, trial.system_attrs)
        ]
        for insert, rows in zip(self._inserts, (params, _values(row, trial), *attrs), strict=True):
            if rows:
                connection.execute(insert, rows)


def _values(row: int, trial: FrozenTrial) -> list[dict[str, Any]]:
    return [
        {"trial_id": row, "objective": at, "value": value, "value_type": "FINITE"}
        for at, value in enumerate(trial.values or ())
    ]


def _moments(trial: FrozenTrial) -> dict[str, Any]:
    """What the row of a trial holds that changes."""
    return {
        "state": trial.state.name,
        "datetime_start": trial.datetime_start,
        "datetime_complete": trial.datetime_complete,
    }
