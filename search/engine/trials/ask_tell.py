"""The books of a run: which recipe is next, what is under way, what came back.

Keeps study.db and the Optuna study in step. Each in-space candidate has one Optuna trial; a recipe
that the sampler proposes again is told the known result and not evaluated twice. What is asked of a
candidate beyond its first block of questions has no trial of its own: the sampler learns of it
through the candidate's estimate.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from evaluators.protocol import Candidate, Failure, FailureKind, Score
from evaluators.workers.pool import Result
from runs.records.record import LEARNED, Part, Split, State, is_baseline
from runs.storage.kept_texts import LONGEST_TEXT
from runs.storage.store import Store
from search.engine.trials import racing
from search.engine.trials.candidates import Candidates
from search.engine.trials.question_schedule import QuestionSchedule
from search.samplers.sampler_choice import Sampler, weighs_scores
from search.samplers.surrogate.hyperparameters import Fits
from spaces.recipes.recipe import Recipe
from spaces.sampling.draw import draw
from spaces.sampling.seed_recipes import Seed
from spaces.search_space.space import Space

MAX_REPEATS = 200
"""Proposals in a row that were all known before the space counts as exhausted."""

PROMOTED_SHARE = 0.1
"""Share of the questions that may go to candidates which have answered their first block."""


class AskTell:
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
        trials = store.study.get_trials(deepcopy=False)
        # Those that wait were enqueued by a driver that died before it asked for them.
        self._trials = sum(trial.state is not TrialState.WAITING for trial in trials)
        self._half_asked: deque[FrozenTrial] = deque()  # asked for by a driver that then died
        self._followers: dict[int, list[int]] = {}  # trials that wait for a running candidate
        self._under_way: dict[int, Split] = {}  # what is asked of the candidates under way
        self._fingerprints: dict[int, str] = {}  # of the weights that answered, as far as known
        still_open = {
            trial.number
            for trial in store.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        }
        self._candidates = Candidates(store, space, fits=fits, still_open=still_open)
        self._schedule = QuestionSchedule(
            store.manifest.catalogue, store.manifest.questions.search, all_at_once=all_at_once
        )
        self.asked, self.promoted = 0, 0
        answered: Counter[int] = Counter()
        for number, split, part in store.parts():
            if split is Split.SEARCH and part.state is not State.RUNNING:
                self._count(number, part, answered)
        self._schedule.resume(tuple(self._candidates.planned.values()), asked=self.asked)
        self._seeds = deque(seeds)
        self._origins = {seed.recipe.key: seed.name for seed in reversed(seeds)}

    def _count(self, number: int, part: Part, answered: Counter[int]) -> None:
        """Take note of questions that were asked before, whether they were answered or not."""
        self.asked += part.questions
        left = max(0, len(self._candidates.planned[number]) - answered[number])
        self.promoted += max(0, part.questions - left)
        if part.state is State.COMPLETE:
            answered[number] += part.questions

    @property
    def taken_up(self) -> int:
        """Number of distinct recipes that were handed out or finished."""
        return len(self._candidates.recipes)

    @property
    def decided(self) -> int:
        """Number of those that came to an end, or were stopped, or failed."""
        return len(self._candidates.failed)

    @property
    def block_size(self) -> int:
        """Number of questions that the next new candidate is to be asked."""
        return self._schedule.size

    def recover(self) -> list[Candidate]:
        """Put the books in order after a crash; what was under way comes back, to be asked again.

        A trial whose result was committed but not told is told now. A trial that was asked for but
        never became a candidate is drawn from again next, as if nothing had happened.
        """
        by_trial = {
            trial: number
            for number, trial in self._candidates.trial_of.items()
            if trial is not None
        }
        for trial in self._store.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            candidate = by_trial.get(trial.number, trial.user_attrs.get("candidate"))
            if candidate is None:
                self._half_asked.append(trial)
            elif candidate in self._candidates.failed:
                self._tell(trial.number, candidate)
            elif by_trial.get(trial.number) is None:
                self._followers.setdefault(candidate, []).append(trial.number)
        handed_out = [one for one in self._store.under_way() if one.split is Split.SEARCH]
        for asking in handed_out:
            self._store.begin(asking.candidate, asking.split)
            self.promoted += self._beyond(asking.candidate, asking.questions)
        return [self._ask(one.candidate, one.split, one.questions) for one in handed_out]

    def next(self) -> Candidate | None:
        """The next questions: of the leader, or of a new recipe, seeds first.

        Returns:
            ``None`` when the space holds no new recipe.
        """
        self._candidates.look_again()
        promoted = self._promote()
        if promoted is not None:
            return promoted
        for _ in range(MAX_REPEATS):
            if self._half_asked:
                trial = self._asked_again(self._half_asked.popleft())
            else:
                seed = self._next_seed()
                if seed is not None:
                    if seed.params is None:
                        # Outside the space: scored and shown like any other, but no Optuna trial.
                        return self._take_up(seed.recipe, trial=None)
                    self._enqueue(seed.params)
                trial = self._next_trial()
            recipe = draw(self._space, trial, flat=self._sampler.flat)
            known = self._candidates.find(recipe)
            if known is None:
                return self._take_up(recipe, trial=trial.number)
            self._repeat(trial, known)
        return None

    def _promote(self) -> Candidate | None:
        """The leader with further questions, while it has any and others had their share."""
        if not self._schedule.grows or self.promoted >= PROMOTED_SHARE * self.asked:
            return None
        leader = self._candidates.leader()
        if leader is None or leader in self._under_way:
            return None
        questions = self._schedule.more(self._candidates.answered(leader))
        if not questions:
            return None
        self.promoted += self._beyond(leader, questions)
        return self._continue(leader, questions)

    def _beyond(self, number: int, questions: Sequence[str]) -> int:
        """How many of them are more than a block; one that was stopped has some of its own left.

        Counted from what is in the study alone, so that a resumed run comes to the same.
        """
        left = len(self._candidates.planned[number]) - len(self._candidates.answered(number))
        return len(questions) - min(max(0, left), len(questions))

    def complete(self, number: int) -> Candidate | None:
        """A known candidate with the search questions it has not answered; ``None`` without any."""
        questions = self._schedule.rest(self._candidates.answered(number))
        return self._continue(number, questions) if questions else None

    def validate(self, number: int) -> Candidate:
        """A known candidate to be asked the held-out questions."""
        questions = self._store.manifest.questions.held_out
        self._store.begin(number, Split.HELD_OUT, questions)
        return self._ask(number, Split.HELD_OUT, questions)

    def may_continue(self, candidate: Candidate) -> bool:
        """Whether more of a candidate's block may be asked once these questions are answered."""
        if not self._races or candidate.id in self._candidates.failed:
            return False
        planned = self._candidates.planned[candidate.id]
        return bool(planned) and planned[-1] not in candidate.questions

    def add_seeds(self, seeds: Sequence[Seed]) -> None:
        """Try these recipes too, right after the parents and their average."""
        waiting = [*self._seeds]
        first = [seed for seed in waiting if is_baseline(seed.name)]
        rest = [seed for seed in waiting if not is_baseline(seed.name)]
        self._seeds = deque([*first, *seeds, *rest])
        self._origins |= {seed.recipe.key: seed.name for seed in seeds}

    def _next_seed(self) -> Seed | None:
        while self._seeds:
            seed = self._seeds.popleft()
            if self._candidates.find(seed.recipe) is None:
                return seed
        return None

    def _enqueue(self, params: Mapping[str, Any]) -> None:
        """Have the next trial take these parameters; a crash may have come just after this."""
        waiting = self._store.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        if not any(trial.system_attrs.get("fixed_params") == params for trial in waiting):
            self._store.study.enqueue_trial(dict(params))

    def _asked_again(self, trial: FrozenTrial) -> optuna.Trial:
        """A trial of a driver that died before it drew all parameters: those there are stay."""
        self._teach()
        study = self._store.study
        study.sampler = self._sampler.for_trial(trial.number)
        return optuna.Trial(study, trial._trial_id)

    def _next_trial(self) -> optuna.Trial:
        self._teach()
        study = self._store.study
        study.sampler = self._sampler.for_trial(self._trials)
        trial = study.ask()
        self._trials = max(self._trials, trial.number + 1)
        return trial

    def _teach(self) -> None:
        """Let the sampler know what is known by now; others go by what the study was told."""
        if not weighs_scores(self._sampler.name):
            return
        self._sampler.learn(self._candidates.estimates_by_trial(), self._candidates.limits())

    def _take_up(self, recipe: Recipe, *, trial: int | None) -> Candidate:
        origin = self._origins.get(recipe.key, self._sampler.origin)
        # A learned recipe has too many coefficients for others to tell of it: on one block alone
        # its score would stay in doubt.
        planned = self._schedule.block(whole=origin.startswith(LEARNED))
        questions = self._step(planned, 0)
        number = self._store.add(
            recipe, origin=origin, trial=trial, planned=planned, questions=questions
        )
        self._candidates.add(number, recipe, trial=trial, planned=planned, origin=origin)
        self._fingerprints[number] = ""
        return self._ask(number, Split.SEARCH, questions)

    def _step(self, planned: Sequence[str], done: int) -> tuple[str, ...]:
        """The questions of a block up to the next comparison with the leader."""
        return racing.next_step(planned, done) if self._races else tuple(planned[done:])

    @property
    def _races(self) -> bool:
        """Whether there is one leader to compare with; nobody on a front leads the others."""
        return self._schedule.grows and not self._candidates.pareto

    def _repeat(self, trial: optuna.Trial, known: int) -> None:
        """Give a trial whose recipe is known the result there is, or is going to be."""
        trial.set_user_attr("candidate", known)
        if known in self._candidates.failed:
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
            self._schedule.count(len(questions))
        return Candidate(
            id=number,
            recipe=self._candidates.recipes[number],
            questions=tuple(questions),
            texts=LONGEST_TEXT if self._store.room else 0,
        )

    def finish(self, result: Result, begun: Collection[int] = ()) -> Candidate | None:
        """Record a result, first in our tables, then in the Optuna study.

        Returns:
            The candidate with the next questions of its block; ``None`` when it is done with.
        """
        number = result.candidate.id
        split = self._under_way.pop(number)
        outcome, span = self._checked(result), (result.began, result.ended)
        if split is Split.HELD_OUT:  # never shown to the sampler
            self._store.finish(number, split, outcome, worker=result.worker, span=span, begun=begun)
            return None
        self._candidates.take(number, outcome)
        further = self._further(number, outcome)
        self._store.finish(
            number, split, outcome, worker=result.worker, further=further, span=span, begun=begun
        )
        if further:
            return self._ask(number, split, further)
        self._decide(number, outcome)
        return None

    def _checked(self, result: Result) -> Score | Failure:
        """What came back; a failure where the weights are not those that were asked before."""
        outcome = result.scored
        if isinstance(outcome, Score):
            number = result.candidate.id
            known = self._fingerprints.get(number)
            if known is None:  # an earlier driver may have asked it
                known = self._store.fingerprint(number)
            self._fingerprints[number] = known or outcome.fingerprint
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
        planned = self._candidates.planned[number]
        answered = self._candidates.answered(number) if isinstance(outcome, Score) else frozenset()
        done = sum(name in answered for name in planned)
        if number in self._candidates.failed or not self._races or not 0 < done < len(planned):
            return ()
        if self._candidates.behind(number, size=len(planned)):
            return ()
        return self._step(planned, done)

    def _decide(self, number: int, outcome: Score | Failure) -> None:
        """Close the books on a candidate's first block, or note what further questions gave."""
        first = self._candidates.decide(number, outcome)
        if self._schedule.grows:
            self._candidates.fit_if_due()
        if not first:
            return
        trials = self._followers.pop(number, [])
        own = self._candidates.trial_of[number]
        for trial in trials if own is None else [own, *trials]:
            self._tell(trial, number)

    def _tell(self, trial: int, number: int) -> None:
        """Tell the Optuna study what came of a candidate."""
        values = self._candidates.values(number)
        if values:
            if self._sampler.constrained:
                self._constrain(trial, self._candidates.below(number))
            self._store.study.tell(trial, values)
        else:
            self._store.study.tell(trial, state=TrialState.FAIL)

    def _constrain(self, number: int, below: Mapping[str, float]) -> None:
        """Let Optuna know by how much a trial is below each floor, before it is told the values."""
        if not below:
            return
        study = self._store.study
        known = study.get_trials(deepcopy=False)[number]
        trial = optuna.Trial(study, known._trial_id)
        for name, missing in below.items():
            if name not in known.constraints:
                trial.set_constraint(name, missing)
