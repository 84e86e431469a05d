"""The books of a run: which recipe is next, what is under way, what came back.

Keeps study.db and the Optuna study in step. Each in-space candidate has one Optuna trial; a recipe
that the sampler proposes again is told the known result and not evaluated twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import optuna
from optuna.trial import TrialState

from evaluators.base import Candidate, Score
from evaluators.pool import Result
from runs.records import PARENT, Record, Split, State
from runs.store import Store
from search.samplers import Sampler
from spaces.draw import draw
from spaces.recipe import Recipe
from spaces.seeds import Seed
from spaces.space import Space

MAX_REPEATS = 200
"""Proposals in a row that were all known before the space counts as exhausted."""


class Ledger:
    """Proposes candidates and records results; the only code that touches the Optuna study."""

    def __init__(
        self, store: Store, space: Space, *, sampler: Sampler, seeds: Sequence[Seed]
    ) -> None:
        self._store = store
        self._space = space
        self._sampler = sampler
        self._trials = len(store.study.get_trials(deepcopy=False))
        self._by_key: dict[str, int] = {}
        self._recipes: dict[int, Recipe] = {}
        self._trial_of: dict[int, int | None] = {}
        self._results: dict[int, float | None] = {}  # score, or None for a failure
        self._followers: dict[int, list[int]] = {}  # trials that wait for a running candidate
        self._parents: set[int] = set()
        self._split: dict[int, Split] = {}  # what is asked of the candidates under way
        for record in store.records():
            self._know(record)
        self._seeds = deque(seeds)
        self._origins = {seed.recipe.key: seed.name for seed in reversed(seeds)}

    def _know(self, record: Record) -> None:
        self._by_key[record.recipe.key] = record.id
        self._recipes[record.id] = record.recipe
        self._trial_of[record.id] = record.trial
        self._note_origin(record.id, record.origin)
        evaluation = record.evaluations[Split.SEARCH]
        if evaluation.state is State.COMPLETE:
            self._results[record.id] = evaluation.value
            self._learn(record.id, evaluation.value, evaluation.stderr)
        elif evaluation.state is State.FAILED:
            self._results[record.id] = None

    def _note_origin(self, number: int, origin: str) -> None:
        if origin.startswith(PARENT):
            self._parents.add(number)

    def _learn(self, number: int, value: float, stderr: float) -> None:
        """Let the sampler know how sure a score is; repeats of a recipe say nothing new."""
        trial = self._trial_of[number]
        if trial is not None:
            self._sampler.learn(trial, value=value, stderr=stderr)

    @property
    def taken_up(self) -> int:
        """Number of distinct recipes that were handed out or finished."""
        return len(self._recipes)

    def is_parent(self, number: int) -> bool:
        """Whether a candidate is one parent alone."""
        return number in self._parents

    def recover(self) -> list[Candidate]:
        """Put the books in order after a crash; what was under way comes back, to be asked again.

        A trial whose result was committed but not told is told now. A trial that was asked for but
        never became a candidate is closed as failed; it cost nothing and counts for nothing.
        """
        by_trial = {trial: number for number, trial in self._trial_of.items() if trial is not None}
        for trial in self._store.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            candidate = by_trial.get(trial.number, trial.user_attrs.get("candidate"))
            if candidate is None:
                self._tell(trial.number, None)
            elif candidate in self._results:
                self._tell(trial.number, self._results[candidate])
            elif by_trial.get(trial.number) is None:
                self._followers.setdefault(candidate, []).append(trial.number)
        unfinished = [number for number in self._recipes if number not in self._results]
        for number in unfinished:
            self._store.begin(number, Split.SEARCH)
        return [self._candidate(number, Split.SEARCH) for number in unfinished]

    def next(self) -> Candidate | None:
        """The next recipe to evaluate, seeds first; ``None`` when the space holds no new one."""
        for _ in range(MAX_REPEATS):
            seed = self._next_seed()
            if seed is not None:
                if seed.params is None:
                    # Outside the space: scored and shown like any other, but no Optuna trial.
                    return self._take_up(seed.recipe, trial=None)
                self._store.study.enqueue_trial(seed.params)
            # A crash may have left an older enqueued trial, so what comes next is looked at anew.
            trial = self._ask()
            recipe = draw(self._space, trial, flat=self._sampler.flat)
            known = self._by_key.get(recipe.key)
            if known is None:
                return self._take_up(recipe, trial=trial.number)
            self._repeat(trial, known)
        return None

    def _next_seed(self) -> Seed | None:
        while self._seeds:
            seed = self._seeds.popleft()
            if seed.recipe.key not in self._by_key:
                return seed
        return None

    def _ask(self) -> optuna.Trial:
        study = self._store.study
        study.sampler = self._sampler.for_trial(self._trials)
        trial = study.ask()
        self._trials = max(self._trials, trial.number + 1)
        return trial

    def _take_up(self, recipe: Recipe, *, trial: int | None) -> Candidate:
        origin = self._origins.get(recipe.key, self._sampler.name)
        number = self._store.add(recipe, origin=origin, trial=trial)
        self._by_key[recipe.key] = number
        self._recipes[number] = recipe
        self._trial_of[number] = trial
        self._note_origin(number, origin)
        return self._candidate(number, Split.SEARCH)

    def _repeat(self, trial: optuna.Trial, known: int) -> None:
        """Give a trial whose recipe is known the result there is, or is going to be."""
        trial.set_user_attr("candidate", known)
        if known in self._results:
            self._tell(trial.number, self._results[known])
        else:
            self._followers.setdefault(known, []).append(trial.number)

    def validate(self, number: int) -> Candidate:
        """A known candidate to be asked the held-out questions."""
        self._store.begin(number, Split.HELD_OUT)
        return self._candidate(number, Split.HELD_OUT)

    def _candidate(self, number: int, split: Split) -> Candidate:
        self._split[number] = split
        return Candidate(
            id=number,
            recipe=self._recipes[number],
            questions=self._store.manifest.questions.of(split),
        )

    def finish(self, result: Result) -> None:
        """Record a result, first in our tables, then in the Optuna study."""
        number, outcome = result.candidate.id, result.outcome
        split = self._split.pop(number)
        self._store.finish(number, split, outcome, worker=result.worker)
        if split is Split.HELD_OUT:
            return  # never shown to the sampler
        value = outcome.value if isinstance(outcome, Score) else None
        self._results[number] = value
        if isinstance(outcome, Score):
            self._learn(number, outcome.value, outcome.stderr)
        trials = self._followers.pop(number, [])
        own = self._trial_of[number]
        for trial in trials if own is None else [own, *trials]:
            self._tell(trial, value)

    def _tell(self, trial: int, value: float | None) -> None:
        if value is None:
            self._store.study.tell(trial, state=TrialState.FAIL)
        else:
            self._store.study.tell(trial, value)
