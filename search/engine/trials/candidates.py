"""The candidates of a run: their recipes and answers, who is ahead, and what to expect of them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from evaluators.protocol import Failure, Score, TaskInfo
from runs.ranking.floors import floored, is_moving, limits, shortfalls
from runs.ranking.pareto_front import front
from runs.records.pooled_evaluations import NOT_ITS_OWN
from runs.records.record import PARAMETERS, PARENT, SCORE, Record, Split, State
from runs.statistics.comparisons import Outcomes
from runs.storage.store import Store
from search.engine.trials import racing
from search.samplers.estimation.comparable_scores import ComparableScores
from search.samplers.estimation.estimates import Estimates
from search.samplers.estimation.objectives import objective_table
from search.samplers.estimation.posterior import Posterior
from search.samplers.features.recipe_features import RecipeFeatures
from search.samplers.surrogate.hyperparameters import Fits
from spaces.recipes.recipe import Recipe
from spaces.search_space.space import Space

Array = NDArray[np.float64]


class Candidates:
    """What is known of every candidate; decides nothing and writes nothing.

    Args:
        store: The study, whose records and answers are taken over.
        space: What is searched.
        fits: Where fits of the posterior are kept, one for each objective; ``None`` keeps them in
            memory.
        still_open: Trials that have not been told a result.

    Attributes:
        recipes: Of every candidate that was handed out.
        trial_of: Its Optuna trial; ``None`` where it lies outside the space.
        planned: The questions of its first block.
        failed: Whether it failed, for the candidates that are decided.
        scores: Of those that answered all questions.
    """

    def __init__(
        self,
        store: Store,
        space: Space,
        *,
        fits: Sequence[Fits] | None,
        still_open: Collection[int],
    ) -> None:
        self.recipes: dict[int, Recipe] = {}
        self.trial_of: dict[int, int | None] = {}
        self.planned: dict[int, tuple[str, ...]] = {}
        self.failed: dict[int, bool] = {}
        self.scores: dict[int, float] = {}
        self._parameters: dict[int, float] = {}
        self._by_key: dict[str, int] = {}
        self._parents: set[int] = set()
        self._tasks = store.manifest.catalogue.tasks
        self._documents = store.manifest.catalogue.documents()
        self._total = len(store.manifest.questions.search)
        records = store.records()
        self._answers = ComparableScores.of_study(store, records)
        self._names = store.manifest.objectives or (SCORE,)
        self._floors = floored(self._answers.tasks)
        self._sizes = store.manifest.sizes
        self.pareto = bool(store.manifest.objectives)
        groups = RecipeFeatures(space).groups
        count = len(self._names) + len(self._floors)
        self._fits = fits if fits is not None else [Fits(groups) for _ in range(count)]
        self._posterior = Posterior(space, fits=self._fits)
        self._place: dict[int, int] = {}  # in the order they were decided
        self._leader: int | None = None
        self._leader_known = False
        self._keeps = True  # whether the leader keeps every floor
        asked = {it.candidate: it for it in store.under_way() if it.split is Split.SEARCH}
        for record in records:
            if record.trial is not None:
                first = record.trial in still_open
            else:  # what goes beyond the block is asked of those that are done with it
                first = record.id in asked and {*asked[record.id].questions} <= {*record.planned}
            self._take_over(record, first=first)

    def _take_over(self, record: Record, *, first: bool) -> None:
        self.add(
            record.id,
            record.recipe,
            trial=record.trial,
            planned=record.planned,
            origin=record.origin,
        )
        evaluation = record.evaluations[Split.SEARCH]
        answered = evaluation.questions if evaluation.tasks else 0
        if evaluation.state is not State.RUNNING or not first:
            self.failed[record.id] = evaluation.state is State.FAILED
            self._place[record.id] = len(self._place)
            self._answers.let_in(record.id)
        if answered == self._total and evaluation.state is State.COMPLETE:
            self.scores[record.id] = evaluation.value

    def add(
        self,
        number: int,
        recipe: Recipe,
        *,
        trial: int | None,
        planned: tuple[str, ...],
        origin: str,
    ) -> None:
        """A candidate that is handed out for the first time.

        What it answers counts once it is decided: how others are judged meanwhile does not depend
        on how far it has come.
        """
        self._answers.set_apart(number)
        self._by_key[recipe.key] = number
        self.recipes[number] = recipe
        self.trial_of[number] = trial
        if PARAMETERS in self._names and self._sizes is not None:
            self._parameters[number] = float(self._sizes.of(recipe))
        self.planned[number] = planned
        if origin.startswith(PARENT):
            self._parents.add(number)

    def find(self, recipe: Recipe) -> int | None:
        """The candidate that has a recipe."""
        return self._by_key.get(recipe.key)

    def answered(self, number: int) -> frozenset[str]:
        """The questions that a candidate has answered."""
        return self._answers.answered(number)

    def take(self, number: int, outcome: Score | Failure) -> None:
        """What came back from a candidate."""
        if number in self.failed:
            self._forget()
        if isinstance(outcome, Score):
            self._answers.add(number, outcome.outcomes, outcome.tasks)

    def decide(self, number: int, outcome: Score | Failure) -> bool:
        """A candidate came to an end, or was stopped, or failed.

        Returns:
            Whether that is new: further questions may have been asked of one decided before.
        """
        self._answers.let_in(number)
        self._forget()  # now it counts, or no more
        new = number not in self.failed
        self._place.setdefault(number, len(self._place))
        self.failed[number] = isinstance(outcome, Failure) and not (
            number in self._answers and outcome.kind in NOT_ITS_OWN
        )
        if isinstance(outcome, Score) and len(outcome.outcomes) == self._total:
            self.scores[number] = outcome.value
        if self.failed[number] and number == self._leader:
            self.look_again()
        return new

    def _forget(self) -> None:
        """Have everything that rests on answers computed again: there are others now."""
        for name in ("estimates", "_ahead"):
            self.__dict__.pop(name, None)

    def look_again(self) -> None:
        """Have the leader looked for anew, by what is known now."""
        self._leader_known = False

    def fit_if_due(self) -> None:
        """Fit here and now if it is time, so that no one else's looking decides when."""
        scored = sum(
            not failed and self.trial_of[number] is not None
            for number, failed in self.failed.items()
        )
        if any(fits.due(scored) for fits in self._fits):
            self._ahead  # noqa: B018 - fits on the way

    @cached_property
    def _ahead(self) -> Mapping[int, tuple[float, ...]]:
        """What to expect of those who may be the best in each objective; floors come last."""
        inside = {n: self.recipes[n] for n in self.estimates if self.trial_of[n] is not None}
        return self._posterior.means(inside, self.estimates)

    @cached_property
    def estimates(self) -> Estimates:
        """Every objective's score of the candidates that did not fail, in the order they ended.

        After the objectives come the tasks with floors. The order is that of the sampler's history
        too: both then need the same process.
        """
        rows = self._answers.table().rows
        fine = [(self._place[n], row) for n, row in rows.items() if self.failed.get(n) is False]
        return self._known(np.array([row for _, row in sorted(fine)], dtype=np.intp))

    def _known(self, rows: NDArray[np.bool_ | np.intp]) -> Estimates:
        """Every objective's score of some rows of the answers, of which all of them are known."""
        table = self._answers.table().only(rows)
        names = [*self._names, *(task.name for task in self._floors)]
        found = objective_table(table, self._answers, names, parameters=self._parameters)
        return found.only(np.asarray(np.isfinite(found.value).all(axis=1)))

    def estimates_by_trial(self) -> Estimates:
        """The scores of ``estimates`` by trial, of the candidates that have one."""
        table = self.estimates
        trials = [self.trial_of[number] for number in table]
        inside = np.array([trial is not None for trial in trials], dtype=bool)
        numbers = np.array([trial for trial in trials if trial is not None], dtype=np.int64)
        return Estimates(numbers, table.value[inside], table.stderr[inside])

    def values(self, number: int) -> list[float]:
        """What the Optuna study is told of a candidate; nothing where it failed."""
        if self.failed[number]:
            return []
        if not self.pareto and number in self.scores:
            return [self.scores[number]]  # of all questions, which needs no estimating
        row = self._answers.table().rows.get(number)
        if row is None:
            return []
        (*found,) = self._known(np.array([row])).value.tolist()
        return found[0][: len(self._names)] if found else []

    def limits(self) -> Array:
        """The floors, as ``floors.limits`` gives them, by what is expected of the parents."""
        if not self._floors:
            return np.zeros(0)
        known = dict(self._ahead)
        table, count = self.estimates, len(self._names)
        missing = [n for n in self._parents if n not in known and n in table.rows]
        known |= {n: tuple(table.value[table.rows[n]].tolist()) for n in missing}
        return limits(self._floors, [known[n][count:] for n in self._parents if n in known])

    def below(self, number: int) -> dict[str, float]:
        """By how much a scored candidate is below each floor, by task; negative above it."""
        row = self._answers.table().rows.get(number)
        known = Estimates.none(0) if row is None else self._known(np.array([row]))
        if not len(known):
            return {}
        missing = self.limits() - known.value[0, len(self._names) :]
        pairs = zip(self._floors, missing.tolist(), strict=True)
        return {task.name: value if math.isfinite(value) else 0.0 for task, value in pairs}

    def _short(self, means: Mapping[int, Sequence[float]]) -> dict[int, float]:
        """How far candidates are from keeping every floor, by what is expected of them."""
        if not self._floors:
            return dict.fromkeys(means, 0.0)
        values = np.array([[*one[len(self._names) :]] for one in means.values()])
        values = values.reshape(len(means), len(self._floors))
        return dict(zip(means, shortfalls(values, self.limits()).tolist(), strict=True))

    def leader(self) -> int | None:
        """Who may be promoted, and is raced against: of a front, who was asked the least.

        Of those that keep every floor, else of those nearest to it. The one that was found when it
        was last looked for; see ``look_again``.
        """
        if not self._leader_known:
            means = self._ahead
            short = self._short(means)
            least = min(short.values(), default=0.0)
            self._keeps = least == 0.0
            means = {n: it for n, it in means.items() if short[n] == least}
            best = front([it[: len(self._names)] for it in means.values()])
            ahead = [number for number, it in zip(means, best, strict=True) if it]
            self._leader = min(ahead, key=lambda n: (len(self.answered(n)), n), default=None)
            self._leader_known = True
        return self._leader

    def _rivals(self, leader: int) -> int:
        """How many candidates the leader may be no better than, itself included."""
        table = self.estimates
        values, errors = table.value[:, 0], table.stderr[:, 0]
        at = table.rows[leader]
        reach = racing.REACH * np.hypot(errors, errors[at])
        return int(np.count_nonzero(~(values < values[at] - reach)))  # NaN may be anything

    def behind(self, number: int, *, size: int) -> bool:
        """Whether a candidate is clearly behind the leader, or clearly below a floor.

        Nobody is while there is no leader that keeps every floor, and no parent is whose answers
        decide where a floor lies.
        """
        leader = self.leader()
        if leader is None or not self._keeps:
            return False
        if number in self._parents and any(is_moving(task) for task in self._floors):
            return False
        return self._breaks(number, size=size) or racing.behind(
            self._answers.of(leader),
            self._answers.of(number),
            self._tasks,
            size=size,
            documents=self._documents,
            rivals=self._rivals(leader),
        )

    def _breaks(self, number: int, *, size: int) -> bool:
        """Whether a candidate is clearly below a floor: one answers like a leader to race with."""
        own = self._answers.of(number)
        return any(
            racing.behind(
                {task.name: least},
                own,
                [task],
                size=size,
                documents=self._documents,
                rivals=max(1, len(self._parents)) if is_moving(task) else 1,
                shares=len(self._floors),
            )
            for task, least in self._least(own)
        )

    def _least(self, own: Outcomes) -> Iterator[tuple[TaskInfo, Mapping[str, float]]]:
        """Every floor as the worst answers that keep it, to the questions of a candidate."""
        table = self.estimates
        parents = [number for number in self._parents if number in table.rows]
        for at, task in enumerate(self._floors, start=len(self._names)):
            if task.floor is not None and task.floor.value is not None:
                yield task, dict.fromkeys(own.get(task.name, ()), task.floor.value)
            elif task.floor is not None and parents:
                best = max(parents, key=lambda n: (float(table.value[table.rows[n], at]), -n))
                less = task.sign * (task.floor.below_best_parent or 0.0)
                answers = self._answers.of(best)[task.name]
                yield task, {question: value - less for question, value in answers.items()}
