"""The trials of a study as the default sampler sees them, kept from one proposal to the next.

What a proposal goes by is a function of the study alone, whatever was read before: finished trials
never change, so that only those that were open are looked at again.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search.samplers.estimation.estimates import Estimates
from search.samplers.features.recipe_features import RecipeFeatures
from search.samplers.surrogate.gaussian_process import variances
from spaces.sampling.draw import Fixed, NotInSpace, draw
from spaces.search_space.space import Space

Array = NDArray[np.float64]


ALIKE = 1e-9
"""Squared distance, as a share of the features' own size, that may come of rounding."""


class GrowingTable:
    """A table that grows by a row at a time."""

    def __init__(self, columns: int) -> None:
        self._room = np.empty((64, columns))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, row: Array) -> None:
        """Add a row, ``(columns,)``."""
        if self._count == len(self._room):
            self._room = np.concatenate([self._room, np.empty_like(self._room)])
        self._room[self._count] = row
        self._count += 1

    @property
    def table(self) -> Array:
        """The rows so far, ``(n, columns)``."""
        return self._room[: self._count]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialHistory:
    """Trials in the order they finished, each recipe once.

    Attributes:
        trials: Numbers of those with a score.
        params: What every trial that finished was drawn with, by its number.
        x: Their features.
        y: ``(n, objectives + floors)``, larger is better.
        noise: ``(n, objectives + floors)`` variances of ``y``.
        failed: Features of recipes that failed.
        pending: Features of recipes under way.
        known: All these recipes.
        repeats: How many of the latest to finish were recipes that had been known before.
    """

    trials: NDArray[np.int64]
    params: Mapping[int, Mapping[str, Any]]
    x: Array
    y: Array
    noise: Array
    failed: Array
    pending: Array
    known: KnownRecipes
    repeats: int


class KnownRecipes:
    """Recipes that were scored or failed, or are under way.

    Args:
        places: Where finished trials with a recipe stand in the order they finished, by its key.
        counting: Whether each of them has a score or failed.
        pending: Keys of recipes under way.
        x: ``(n, columns)`` features of all these recipes.
    """

    def __init__(
        self,
        places: dict[str, list[int]],
        counting: NDArray[np.bool_],
        pending: Iterable[str],
        x: Array,
    ) -> None:
        self._places, self._counting, self._pending = places, counting, frozenset(pending)
        self._x, self._squares = x, np.einsum("ij,ij->i", x, x)

    def __contains__(self, key: str) -> bool:
        return key in self._pending or self.before(key, len(self._counting))

    def resembles(self, x: Array) -> bool:
        """Whether one of them has these features, ``(columns,)``, but for rounding.

        A recipe with other features is another one, and need not be drawn to be told apart.
        """
        apart = self._squares + x @ x - 2.0 * (self._x @ x)
        return bool((apart < ALIKE * (1.0 + x @ x)).any())

    def before(self, key: str, place: int) -> bool:
        """Whether a recipe had a score or had failed before the trial at a place finished."""
        return any(at < place and self._counting[at] for at in self._places.get(key, ()))


@dataclass(frozen=True, kw_only=True, slots=True)
class _EndedTrial:
    """A finished trial with a recipe.

    Attributes:
        when: When it finished, in seconds since 1970, and its number: the order of a history.
        key: Of its recipe.
        x: Features of its recipe.
        told: ``(objectives,)`` that the study was told, NaN where it failed.
        failed: Whether it failed.
    """

    when: tuple[float, int]
    key: str
    x: Array
    told: Array
    failed: bool


class HistoryReader:
    """Reads the history of one study, again and again."""

    def __init__(self, space: Space, features: RecipeFeatures) -> None:
        self._space, self._features = space, features
        self._recipes: dict[int, tuple[str, Array]] = {}  # key and features by trial
        self._params: dict[int, Mapping[str, Any]] = {}
        self._open: list[int] = []
        self._looked_at = 0
        self._done: list[_EndedTrial] = []
        self._forget()

    def _forget(self) -> None:
        """Begin the tables of what is done anew."""
        self._x = GrowingTable(self._features.columns)
        self._told: GrowingTable | None = None  # how many objectives there are, the study knows
        self._numbers: list[int] = []
        self._failed: list[bool] = []
        self._places: dict[str, list[int]] = {}
        self._repeated: dict[str, None] = {}  # keys with several places

    def read(
        self, study: optuna.Study, number: int, estimates: Estimates, *, floors: int = 0
    ) -> TrialHistory:
        """The history that the trial of a number is proposed from.

        Args:
            study: The study; always the same one.
            number: Of the trial, which is no part of it.
            estimates: Every objective's score and standard error by number of the trial; one that
                is not in it counts with its own values, and standard errors that are not known.
            floors: How many tasks with floors the estimates hold after the objectives. A trial that
                is not in them then counts for nothing: the study was not told of these tasks.
        """
        signs = [-1.0 if one == StudyDirection.MINIMIZE else 1.0 for one in study.directions]
        pending = self._update(study.get_trials(deepcopy=False), number, len(signs))
        numbers, failed = (
            np.array(self._numbers, dtype=np.int64),
            np.array(self._failed, dtype=bool),
        )
        value, stderr = self._estimated(numbers, estimates, len(signs) + floors)
        signs += [1.0] * floors
        scored = np.isfinite(value).all(axis=1) & ~failed
        everything = np.vstack([self._x.table, *(row[None] for _, row in pending)])
        known = KnownRecipes(self._places, scored | failed, [key for key, _ in pending], everything)
        self._once(scored, failed)
        rows, x = np.flatnonzero(scored), self._x.table
        places = self._places
        waiting = {
            key: row for key, row in pending if not any(scored[at] for at in places.get(key, ()))
        }
        return TrialHistory(
            trials=numbers[rows],
            params=self._params,
            x=x if len(rows) == len(x) else x[rows],
            y=value[rows] * signs,
            noise=np.column_stack([variances(column) for column in stderr[rows].T]),
            failed=x[failed],
            pending=np.array([*waiting.values()]).reshape(len(waiting), x.shape[1]),
            known=known,
            repeats=self._repeats(known, [key for key, _ in pending]),
        )

    def _update(
        self, trials: Sequence[FrozenTrial], number: int, objectives: int
    ) -> list[tuple[str, Array]]:
        """Take in what has finished since the last time; key and features of what is under way."""
        pending: list[tuple[str, Array]] = []
        still, done = [], []
        for at in [*self._open, *range(self._looked_at, len(trials))]:
            trial = trials[at]
            finished = trial.state.is_finished()
            if not finished:
                still.append(at)
            recipe = self._recipe(trial) if at != number else None
            if recipe is not None and finished:
                self._params[at] = trial.params
                done.append(_done(trial, *recipe, objectives))
            elif recipe is not None:
                pending.append(recipe)
        self._open, self._looked_at = still, len(trials)
        for one in sorted(done, key=lambda one: one.when):
            self._add(one)
        return pending

    def _recipe(self, trial: FrozenTrial) -> tuple[str, Array] | None:
        """Key and features of a trial's recipe; ``None`` where it has none (yet)."""
        if trial.state in (TrialState.WAITING, TrialState.PRUNED):
            return None
        if trial.number in self._recipes:
            return self._recipes[trial.number]
        try:
            recipe = draw(self._space, Fixed(trial.params), check=False)
        except NotInSpace:
            return None
        self._recipes[trial.number] = found = recipe.key, self._features.vector(recipe)
        return found

    def _add(self, done: _EndedTrial) -> None:
        place = bisect_left(self._done, done.when, key=lambda one: one.when)
        self._done.insert(place, done)
        if place == len(self._done) - 1:
            self._append(done)
            return
        self._forget()  # the clock was set back, or another driver's is behind
        for one in self._done:
            self._append(one)

    def _append(self, done: _EndedTrial) -> None:
        places = self._places.setdefault(done.key, [])
        if places:
            self._repeated[done.key] = None
        places.append(len(self._x))
        self._x.append(done.x)
        if self._told is None:
            self._told = GrowingTable(len(done.told))
        self._told.append(done.told)
        self._numbers.append(done.when[1])
        self._failed.append(done.failed)

    def _estimated(
        self, numbers: NDArray[np.int64], estimates: Estimates, columns: int
    ) -> tuple[Array, Array]:
        """Values and standard errors of all that finished, ``(n, columns)``."""
        if self._told is None:
            return np.empty((0, columns)), np.empty((0, columns))
        told = self._told.table
        value = np.pad(told, ((0, 0), (0, columns - told.shape[1])), constant_values=math.nan)
        stderr = np.full_like(value, math.nan)
        last = max(self._looked_at, int(estimates.numbers.max(initial=0)))
        place = np.full(last + 1, -1)
        place[numbers] = np.arange(len(numbers))
        at = place[estimates.numbers]
        known = at >= 0
        value[at[known]], stderr[at[known]] = estimates.value[known], estimates.stderr[known]
        return value, stderr

    def _once(self, scored: NDArray[np.bool_], failed: NDArray[np.bool_]) -> None:
        """Let every recipe count once: its first score, or its first failure without any."""
        for key in self._repeated:
            places = np.array(self._places[key])
            for which in (scored, failed):
                first = places[which[places]][:1]
                which[places] = False
                which[first] = True
            if scored[places].any():
                failed[places] = False

    def _repeats(self, known: KnownRecipes, pending: Sequence[str]) -> int:
        """How many of the latest trials, those under way last, had recipes known before."""
        done = len(self._done)
        for count in range(done + len(pending)):
            place = done + len(pending) - 1 - count
            key = self._done[place].key if place < done else pending[place - done]
            if not known.before(key, min(place, done)):
                return count
        return done + len(pending)


def _done(trial: FrozenTrial, key: str, x: Array, objectives: int) -> _EndedTrial:
    done, failed = trial.datetime_complete, trial.state == TrialState.FAIL
    unknown = failed or trial.values is None
    return _EndedTrial(
        when=(math.inf if done is None else done.timestamp(), trial.number),
        key=key,
        x=x,
        told=np.array([math.nan] * objectives if unknown else trial.values, dtype=np.float64),
        failed=failed,
    )
