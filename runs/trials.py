"""Optuna's storage as the driver of a run uses it: read from memory, written a trial at a time.

Optuna writes every parameter of a trial in a transaction of its own and reads running trials anew
for each proposal: with twenty parameters that takes longer than all else the driver does. A driver
is the only writer of its study, so it can keep the trials in memory, and write a trial with all its
parameters at once when it becomes a candidate. Until then it has cost nothing: what a crash takes
with it is proposed again, by the same sampler for the same number.
"""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from optuna.distributions import distribution_to_json
from optuna.storages import InMemoryStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import Engine


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
        self._unwritten: list[int] = []  # in the order of their numbers
        self._study_attrs: dict[str, Any] = {}
        self._tables: _Tables | None = None
        directions = kept.get_study_directions(self._kept_study)
        self._study = super().create_new_study(directions, study_name=name)
        for key, value in kept.get_study_user_attrs(self._kept_study).items():
            super().set_study_user_attr(self._study, key, value)
        for key, value in kept.get_study_system_attrs(self._kept_study).items():
            super().set_study_system_attr(self._study, key, value)
        for trial in kept.get_all_trials(self._kept_study, deepcopy=False):
            super().create_new_trial(self._study, template_trial=trial)

    def flush(self) -> None:
        """Write what is not written: trials that were asked for, and what samplers remember."""
        if self._unwritten:
            if self._tables is None:
                self._tables = _Tables(self._kept.engine)
            with self._kept.engine.begin() as connection:
                for number in self._unwritten:
                    trial = self.get_trial(number)
                    self._rows[number] = self._tables.write(connection, self._kept_study, trial)
            self._unwritten = []
        for key in list(self._study_attrs):
            value = self._study_attrs[key]
            self._kept.set_study_system_attr(self._kept_study, key, value)
            del self._study_attrs[key]

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        number = super().create_new_trial(study_id, template_trial)
        self._unwritten.append(number)
        return number

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Any = None) -> bool:
        done = super().set_trial_state_values(trial_id, state, values)
        written = trial_id not in self._unwritten
        if done and written:
            self._kept.set_trial_state_values(self._row(trial_id), state, values)
        if done and state.is_finished():
            self.flush()
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

    def write(self, connection: sa.Connection, study: int, trial: FrozenTrial) -> int:
        """Write a trial as Optuna would, and give the id of its row."""
        done = connection.execute(
            sa.insert(self._trials).values(
                number=trial.number,
                study_id=study,
                state=trial.state.name,
                datetime_start=trial.datetime_start,
                datetime_complete=trial.datetime_complete,
            )
        )
        row = int(done.inserted_primary_key[0])  # type: ignore[index]
        params = [
            {
                "trial_id": row,
                "param_name": name,
                "param_value": distribution.to_internal_repr(trial.params[name]),
                "distribution_json": distribution_to_json(distribution),
            }
            for name, distribution in trial.distributions.items()
        ]
        values = [
            {"trial_id": row, "objective": at, "value": value, "value_type": "FINITE"}
            for at, value in enumerate(trial.values or ())
        ]
        rows = [(self._params, params), (self._values, values)]
        for table, attrs in ((self._users, trial.user_attrs), (self._systems, trial.system_attrs)):
            rows.append(
                (
                    table,
                    [
                        {"trial_id": row, "key": key, "value_json": json.dumps(value)}
                        for key, value in attrs.items()
                    ],
                )
            )
        for table, written in rows:
            if written:
                connection.execute(sa.insert(table), written)
        return row
