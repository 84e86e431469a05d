"""The books of a run: which recipe is next, what is under way, what came back.

Keeps study.db and the Optuna study in step. Each in-space candidate has one Optuna trial; a recipe
that the sampler proposes again is told the known result and not evaluated twice. What is asked of a
candidate beyond its first block of questions has no trial of its own: the sampler learns of it
through the candidate's estimate.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import optuna
from optuna.trial import TrialState

from evaluators.base import Candidate, Failure, FailureKind, Score
from evaluators.pool import Result
from runs.evaluations import NOT_ITS_OWN
from runs.front import front
from runs.records import PARENT, Estimate, Record, Split, State
from runs.store import Store
from search import racing
from search.answers import Answers
from search.features import Features
from search.posterior import Posterior
from search.rotation import Rotation
from search.samplers import Sampler
from search.surrogate import Fits
from spaces.draw import draw
from spaces.recipe import Recipe
from spaces.seeds import Seed
from spaces.space import Space

MAX_REPEATS = 200
"""Proposals in a row that were all known before the space counts as exhausted."""

PROMOTED_SHARE = 0.1
"""Share of the questions that may go to candidates which have answered their first block."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lead:
    """Who is ahead.

    Attributes:
        best: Score of the best recipe; NaN before the first.
        what: How it is made, in a word or two.
        best_parent: Score of the best parent alone; NaN before the first.
    """

    best: float
    what: str
    best_parent: float


class Ledger:
    """Proposes candidates and records results; the only code that touches the Optuna study.

    Args:
        store: The run's study.
        space: What is searched.
        sampler: Proposes recipes.
        seeds: Recipes to try first.
        all_at_once: Ask every candidate all search questions, instead of growing blocks.
        fits: Where fits of the posterior are kept, one for each objective; ``None`` keeps them in
            memory.
    """

    def __init__(
        self,
        store: Store,
        space: Space,
        *,
        sampler: Sampler,
        seeds: Sequence[Seed],
        all_at_once: bool = True,
        fits: Sequence[Fits] | None = None,
    ) -> None:
        self._store = store
        self._space = space
        self._sampler = sampler
        self._trials = len(store.study.get_trials(deepcopy=False))
        self._by_key: dict[str, int] = {}
        self._recipes: dict[int, Recipe] = {}
        self._trial_of: dict[int, int | None] = {}
        self._planned: dict[int, tuple[str, ...]] = {}
        self._failed: dict[int, bool] = {}  # of the candidates that are decided
        self._scores: dict[int, float] = {}  # of those that answered everything at once
        self._followers: dict[int, list[int]] = {}  # trials that wait for a running candidate
        self._parents: set[int] = set()
        self._under_way: dict[int, Split] = {}  # what is asked of the candidates under way
        questions = store.manifest.questions.search
        self._tasks = store.manifest.catalogue.tasks
        self._answers = Answers.of_study(store)
        self._rotation = Rotation(store.manifest.catalogue, questions, all_at_once=all_at_once)
        self._pareto = bool(store.manifest.objectives)
        objectives = max(1, len(store.manifest.objectives))
        groups = Features(space).groups
        self._fits = fits if fits is not None else [Fits(groups) for _ in range(objectives)]
        self._posterior = Posterior(space, fits=self._fits)
        self._expected: Mapping[int, tuple[Estimate, ...]] | None = None
        self.asked, self.promoted = 0, 0
        self._open = {  # trials that have not been told a result
            trial.number
            for trial in store.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        }
        for record in store.records():
            self._know(record)
        self._rotation.resume(tuple(self._planned.values()), asked=self.asked)
        self._seeds = deque(seeds)
        self._origins = {seed.recipe.key: seed.name for seed in reversed(seeds)}

    def _know(self, record: Record) -> None:
        self._by_key[record.recipe.key] = record.id
        self._recipes[record.id] = record.recipe
        self._trial_of[record.id] = record.trial
        self._planned[record.id] = record.planned
        self._note_origin(record.id, record.origin)
        evaluation = record.evaluations[Split.SEARCH]
        answered = evaluation.questions if evaluation.tasks else 0
        self.asked += answered
        self.promoted += max(0, answered - len(record.planned))
        first = (
            answered < len(record.planned) if record.trial is None else record.trial in self._open
        )
        if evaluation.state is not State.RUNNING or not first:
            self._failed[record.id] = evaluation.state is State.FAILED
        if answered == self._rotation.total and evaluation.state is State.COMPLETE:
            self._scores[record.id] = evaluation.value

    def _note_origin(self, number: int, origin: str) -> None:
        if origin.startswith(PARENT):
            self._parents.add(number)

    @property
    def taken_up(self) -> int:
        """Number of distinct recipes that were handed out or finished."""
        return len(self._recipes)

    @property
    def decided(self) -> int:
        """Number of those that came to an end, or were stopped, or failed."""
        return len(self._failed)

    @property
    def block_size(self) -> int:
        """Number of questions that the next new candidate is to be asked."""
        return self._rotation.size

    def lead(self) -> Lead:
        """Who is ahead: by the scores where all answered everything, else by what to expect."""
        if self._rotation.grows:
            values = {number: self._combined(known) for number, known in self.expected().items()}
        else:
            values = {n: score for n, score in self._scores.items() if not self._failed[n]}
        best = max(values, key=lambda number: (values[number], -number), default=None)
        parents = [values[number] for number in self._parents if number in values]
        return Lead(
            best=math.nan if best is None else values[best],
            what="" if best is None else self._recipes[best].title,
            best_parent=max(parents, default=math.nan),
        )

    def recover(self) -> list[Candidate]:
        """Put the books in order after a crash; what was under way comes back, to be asked again.

        A trial whose result was committed but not told is told now. A trial that was asked for but
        never became a candidate is closed as failed; it cost nothing and counts for nothing.
        """
        by_trial = {trial: number for number, trial in self._trial_of.items() if trial is not None}
        for trial in self._store.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            candidate = by_trial.get(trial.number, trial.user_attrs.get("candidate"))
            if candidate is None:
                self._store.study.tell(trial.number, state=TrialState.FAIL)
            elif candidate in self._failed:
                self._tell(trial.number, candidate)
            elif by_trial.get(trial.number) is None:
                self._followers.setdefault(candidate, []).append(trial.number)
        handed_out = [one for one in self._store.under_way() if one.split is Split.SEARCH]
        for asking in handed_out:
            self._store.begin(asking.candidate, asking.split)
        return [self._ask(one.candidate, one.split, one.questions) for one in handed_out]

    def next(self) -> Candidate | None:
        """The next questions: of the leader, or of a new recipe, seeds first.

        Returns:
            ``None`` when the space holds no new recipe.
        """
        promoted = self._promote()
        if promoted is not None:
            return promoted
        for _ in range(MAX_REPEATS):
            seed = self._next_seed()
            if seed is not None:
                if seed.params is None:
                    # Outside the space: scored and shown like any other, but no Optuna trial.
                    return self._take_up(seed.recipe, trial=None)
                self._store.study.enqueue_trial(seed.params)
            # A crash may have left an older enqueued trial, so what comes next is looked at anew.
            trial = self._next_trial()
            recipe = draw(self._space, trial, flat=self._sampler.flat)
            known = self._by_key.get(recipe.key)
            if known is None:
                return self._take_up(recipe, trial=trial.number)
            self._repeat(trial, known)
        return None

    def _promote(self) -> Candidate | None:
        """The leader with further questions, while it has any and others had their share."""
        if not self._rotation.grows or self.promoted >= PROMOTED_SHARE * self.asked:
            return None
        leader = self._leader()
        if leader is None or leader in self._under_way:
            return None
        questions = self._rotation.more(self._answers.answered(leader))
        if not questions:
            return None
        self.promoted += len(questions)
        return self._continue(leader, questions)

    def complete(self, number: int) -> Candidate | None:
        """A known candidate with the search questions it has not answered; ``None`` without any."""
        questions = self._rotation.rest(self._answers.answered(number))
        return self._continue(number, questions) if questions else None

    def validate(self, number: int) -> Candidate:
        """A known candidate to be asked the held-out questions."""
        questions = self._store.manifest.questions.held_out
        self._store.begin(number, Split.HELD_OUT, questions)
        return self._ask(number, Split.HELD_OUT, questions)

    def expected(self) -> Mapping[int, tuple[Estimate, ...]]:
        """What to expect of scored candidates in each objective, by all that is known now."""
        if self._expected is None:
            estimates = self._estimates()
            inside = {
                number: self._recipes[number]
                for number in estimates
                if self._trial_of[number] is not None
            }
            self._expected = self._posterior.of(inside, estimates)
        return self._expected

    def _estimates(self) -> dict[int, tuple[Estimate, ...]]:
        """Every objective's score of the candidates that did not fail."""
        return {
            number: self._objectives(number)
            for number in self._answers.estimates()
            if self._failed.get(number) is False
        }

    def _objectives(self, number: int) -> tuple[Estimate, ...]:
        if self._pareto:
            return self._answers.by_task()[number]
        return (self._answers.estimates()[number],)

    def _combined(self, objectives: Sequence[Estimate]) -> float:
        """The score that values of the objectives come to: their weighted mean."""
        weights = [task.weight for task in self._answers.tasks] if self._pareto else [1.0]
        total = math.fsum(w * one.value for w, one in zip(weights, objectives, strict=True))
        return total / math.fsum(weights)

    def _scored_inside(self) -> int:
        return sum(
            not failed and self._trial_of[number] is not None
            for number, failed in self._failed.items()
        )

    def _leader(self) -> int | None:
        """Who may be promoted, and is raced against: of a front, who was asked the least."""
        expected = self.expected()
        means = [[objective.value for objective in found] for found in expected.values()]
        ahead = [number for number, best in zip(expected, front(means), strict=True) if best]
        return min(ahead, key=lambda n: (len(self._answers.answered(n)), n), default=None)

    def _next_seed(self) -> Seed | None:
        while self._seeds:
            seed = self._seeds.popleft()
            if seed.recipe.key not in self._by_key:
                return seed
        return None

    def _next_trial(self) -> optuna.Trial:
        self._sampler.learn(
            {
                known: estimate
                for number, estimate in self._estimates().items()
                if (known := self._trial_of[number]) is not None
            }
        )
        study = self._store.study
        study.sampler = self._sampler.for_trial(self._trials)
        trial = study.ask()
        self._trials = max(self._trials, trial.number + 1)
        return trial

    def _take_up(self, recipe: Recipe, *, trial: int | None) -> Candidate:
        origin = self._origins.get(recipe.key, self._sampler.name)
        planned = self._rotation.block()
        questions = self._step(planned, 0)
        number = self._store.add(
            recipe, origin=origin, trial=trial, planned=planned, questions=questions
        )
        self._by_key[recipe.key] = number
        self._recipes[number] = recipe
        self._trial_of[number] = trial
        self._planned[number] = planned
        self._note_origin(number, origin)
        return self._ask(number, Split.SEARCH, questions)

    def _step(self, planned: Sequence[str], done: int) -> tuple[str, ...]:
        """The questions of a block up to the next comparison with the leader."""
        return racing.next_step(planned, done) if self._races else tuple(planned[done:])

    @property
    def _races(self) -> bool:
        """Whether there is one leader to compare with; nobody on a front leads the others."""
        return self._rotation.grows and not self._pareto

    def _repeat(self, trial: optuna.Trial, known: int) -> None:
        """Give a trial whose recipe is known the result there is, or is going to be."""
        trial.set_user_attr("candidate", known)
        if known in self._failed:
            self._tell(trial.number, known)
        else:
            self._followers.setdefault(known, []).append(trial.number)

    def _continue(self, number: int, questions: Sequence[str]) -> Candidate:
        self._store.begin(number, Split.SEARCH, questions)
        return self._ask(number, Split.SEARCH, questions)

    def _ask(self, number: int, split: Split, questions: Sequence[str]) -> Candidate:
        self._under_way[number] = split
        if split is Split.SEARCH:
            self.asked += len(questions)
            self._rotation.count(len(questions))
        return Candidate(id=number, recipe=self._recipes[number], questions=tuple(questions))

    def finish(self, result: Result) -> Candidate | None:
        """Record a result, first in our tables, then in the Optuna study.

        Returns:
            The candidate with the next questions of its block; ``None`` when it is done with.
        """
        number = result.candidate.id
        split = self._under_way.pop(number)
        outcome = self._checked(result)
        if split is Split.HELD_OUT:  # never shown to the sampler
            self._store.finish(number, split, outcome, worker=result.worker)
            return None
        self._expected = None
        if isinstance(outcome, Score):
            self._answers.add(number, outcome.outcomes, outcome.tasks)
        further = self._further(number, outcome)
        self._store.finish(number, split, outcome, worker=result.worker, further=further)
        if further:
            return self._ask(number, split, further)
        self._decide(number, outcome)
        return None

    def _checked(self, result: Result) -> Score | Failure:
        """What came back; a failure where the weights are not those that were asked before."""
        outcome = result.outcome
        if isinstance(outcome, Score):
            known = self._store.fingerprint(result.candidate.id)
            if known and known != outcome.fingerprint:
                return Failure(
                    kind=FailureKind.ERROR,
                    message=f"fingerprint: expected {known} as before, got {outcome.fingerprint} "
                    f"on {result.worker}: the same recipe gave other weights",
                    fingerprint=outcome.fingerprint,
                )
        return outcome

    def _further(self, number: int, outcome: Score | Failure) -> tuple[str, ...]:
        """What is left of a candidate's block, unless it failed or is clearly behind."""
        planned = self._planned[number]
        answered = self._answers.answered(number) if isinstance(outcome, Score) else frozenset()
        done = sum(name in answered for name in planned)
        if number in self._failed or not self._races or not 0 < done < len(planned):
            return ()
        leader = self._leader()
        if leader is not None and racing.behind(
            self._answers.of(leader), self._answers.of(number), self._tasks, size=len(planned)
        ):
            return ()
        return self._step(planned, done)

    def _decide(self, number: int, outcome: Score | Failure) -> None:
        """Close the books on a candidate's first block, or note what further questions gave."""
        failed = isinstance(outcome, Failure) and not (
            number in self._answers and outcome.kind in NOT_ITS_OWN
        )
        first = number not in self._failed
        self._failed[number] = failed
        if isinstance(outcome, Score) and len(outcome.outcomes) == self._rotation.total:
            self._scores[number] = outcome.value
        scored = self._scored_inside()
        if self._rotation.grows and any(fits.due(scored) for fits in self._fits):
            self.expected()  # fitted here and now, so that no one else's looking decides when
        if not first:
            return
        trials = self._followers.pop(number, [])
        own = self._trial_of[number]
        for trial in trials if own is None else [own, *trials]:
            self._tell(trial, number)

    def _tell(self, trial: int, number: int) -> None:
        """Tell the Optuna study what came of a candidate."""
        values: list[float] = []
        if not self._pareto and number in self._scores:
            values = [self._scores[number]]  # of all questions, which needs no estimating
        elif number in self._answers.estimates():
            values = [objective.value for objective in self._objectives(number)]
        if self._failed[number] or not values:
            self._store.study.tell(trial, state=TrialState.FAIL)
        else:
            self._store.study.tell(trial, values)
