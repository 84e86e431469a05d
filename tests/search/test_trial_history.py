"""What the default sampler keeps between proposals changes nothing."""

import math
from datetime import timedelta

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from runs.records.record import Estimate
from search.samplers.estimation.estimates import Estimates
from search.samplers.features.recipe_features import RecipeFeatures
from search.samplers.gp_sampler import GaussianProcessSampler
from search.samplers.surrogate.gaussian_process import variances
from search.samplers.surrogate.hyperparameters import Fits
from search.samplers.trial_history import HistoryReader
from spaces.sampling.draw import Fixed, NotInSpace, draw
from spaces.search_space.space import Space

TWO = Space(parents=("a", "b"), base="base", layers=4, methods=("task_arithmetic", "ties"))


class Run:
    """A study in which things happen in any order."""

    def __init__(self, seed: int, sampler: optuna.samplers.BaseSampler, objectives: int) -> None:
        directions = ["maximize", "minimize"][:objectives]
        self.study = optuna.create_study(directions=directions, sampler=sampler)
        self.rng = np.random.default_rng(seed)
        self.open: list[optuna.Trial] = []
        self.estimates: dict[int, tuple[Estimate, ...]] = {}
        self.objectives = objectives

    def ask(self) -> None:
        done = [trial for trial in self.study.trials if trial.state.is_finished() and trial.params]
        if done and self.rng.random() < 0.3:  # a recipe that is known
            self.study.enqueue_trial(done[int(self.rng.integers(len(done)))].params)
        trial = self.study.ask()
        if self.rng.random() < 0.9:
            draw(TWO, trial)
        self.open.append(trial)

    def tell(self) -> None:
        trial = self.open.pop(int(self.rng.integers(len(self.open))))
        chance = self.rng.random()
        if chance < 0.2:
            self.study.tell(trial, state=TrialState.FAIL)
        elif chance < 0.25:
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self.study.tell(trial, self.rng.normal(size=self.objectives).tolist())
        if self.rng.random() < 0.1:  # the clock was set back meanwhile
            kept = self.study.get_trials(deepcopy=False)[trial.number]
            kept.datetime_complete -= timedelta(seconds=float(self.rng.random()))

    def learn(self) -> None:
        """Estimates of some trials, now and then of one that failed, or one that is not known."""
        self.estimates = {
            trial.number: tuple(
                Estimate(value=math.nan if self.rng.random() < 0.03 else value, stderr=spread)
                for value, spread in self.rng.random((self.objectives, 2)).tolist()
            )
            for trial in self.study.get_trials(deepcopy=False)
            if self.rng.random() < 0.6
        }

    def step(self) -> None:
        for _ in range(int(self.rng.integers(1, 4))):
            if self.open and self.rng.random() < 0.5:
                self.tell()
            else:
                self.ask()
        if self.rng.random() < 0.5:
            self.learn()


def plainly(run: Run, number: int, features: RecipeFeatures) -> dict[str, object]:
    """The history, by looking at one trial after the other."""
    scored: dict[str, tuple[int, tuple[Estimate, ...]]] = {}
    failed: dict[str, np.ndarray] = {}
    pending: dict[str, np.ndarray] = {}
    vectors, repeats = {}, 0

    def when(trial: optuna.trial.FrozenTrial) -> tuple[float, int]:
        done = trial.datetime_complete
        return (math.inf if done is None else done.timestamp()), trial.number

    for trial in sorted(run.study.get_trials(deepcopy=False), key=when):
        unused = (TrialState.WAITING, TrialState.PRUNED)
        if trial.number == number or trial.state in unused:
            continue
        try:
            recipe = draw(TWO, Fixed(trial.params))
        except NotInSpace:
            continue
        key, vector = recipe.key, features.vector(recipe)
        vectors[trial.number] = vector
        repeats = repeats + 1 if key in scored or key in failed else 0
        if trial.state is TrialState.COMPLETE:
            told = tuple(Estimate(value=value, stderr=math.nan) for value in trial.values)
            found = run.estimates.get(trial.number, told)
            if all(math.isfinite(one.value) for one in found):
                scored.setdefault(key, (trial.number, found))
        elif trial.state is TrialState.FAIL:
            failed[key] = vector
        else:
            pending[key] = vector
    signs = np.array([1.0, -1.0][: run.objectives])
    stderrs = [[one.stderr for one in found] for _, found in scored.values()]
    return {
        "trials": [trial for trial, _ in scored.values()],
        "x": [vectors[trial] for trial, _ in scored.values()],
        "y": [[one.value for one in found] * signs for _, found in scored.values()],
        "noise": np.array([variances(column) for column in zip(*stderrs, strict=True)]).T,
        "failed": [vector for key, vector in failed.items() if key not in scored],
        "pending": [vector for key, vector in pending.items() if key not in scored],
        "keys": {*scored, *failed, *pending},
        "repeats": repeats,
    }


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), objectives=st.sampled_from([1, 2]))
def test_a_history_is_the_same_however_often_it_was_read(seed: int, objectives: int) -> None:
    run = Run(seed, optuna.samplers.RandomSampler(seed=seed), objectives)
    features = RecipeFeatures(TWO)
    reader, keys = HistoryReader(TWO, features), set()
    for _ in range(14):
        run.step()
        number = int(run.rng.integers(len(run.study.trials) + 1))
        if any(trial.number == number for trial in run.study.trials if trial.state.is_finished()):
            number = -1
        found = reader.read(run.study, number, Estimates.of(run.estimates))
        right = plainly(run, number, features)
        for name in ("trials", "x", "y", "noise", "failed", "pending"):
            table = np.asarray(right[name], dtype=float)
            np.testing.assert_array_equal(getattr(found, name).ravel(), table.ravel(), name)
        assert found.repeats == right["repeats"]
        keys |= right["keys"]
        assert {key for key in keys if key in found.known} == right["keys"]


@pytest.mark.parametrize(("seed", "objectives"), [(0, 1), (1, 1), (2, 2)])
def test_a_new_sampler_proposes_what_one_that_was_kept_does(seed: int, objectives: int) -> None:
    """With estimates that change, failures, recipes under way, and the clock set back."""
    fits = [Fits(RecipeFeatures(TWO).groups) for _ in range(objectives)]
    kept = GaussianProcessSampler(TWO, seed=seed, fits=fits)
    run, compared = Run(seed, kept, objectives), 0
    while compared < 12:
        run.step()
        kept.learn(run.estimates)
        trial = run.study.get_trials(deepcopy=False)[-1]
        if trial.state is TrialState.RUNNING and len(run.study.trials) > 12:
            anew = GaussianProcessSampler(TWO, seed=seed, fits=fits)
            anew.learn(run.estimates)
            first = kept.sample_relative(run.study, trial, {})
            assert first == anew.sample_relative(run.study, trial, {})
            compared += 1


def test_what_was_learned_is_forgotten_once_it_is_not_known_any_more() -> None:
    """A recipe that failed on further questions has no estimate: as after a crash."""
    sampler = GaussianProcessSampler(TWO, seed=0)
    run = Run(0, sampler, 1)
    for _ in range(8):
        trial = run.study.ask()
        draw(TWO, trial)
        run.study.tell(trial, float(trial.number))
    estimates = {number: (Estimate(value=-float(number), stderr=0.1),) for number in range(8)}
    sampler.learn(estimates)
    del estimates[7]
    sampler.learn(estimates)
    history = sampler._history.read(run.study, -1, sampler._estimates)
    assert history.y[:, 0].tolist() == [0.0, -1.0, -2.0, -3.0, -4.0, -5.0, -6.0, 7.0]


def test_recipes_with_other_features_are_told_apart_without_drawing_them() -> None:
    study = optuna.create_study(direction="maximize")
    for value in (0.5, 0.6):
        study.tell(study_trial(study, value), value)
    study_trial(study, 0.7)
    features = RecipeFeatures(TWO)
    history = HistoryReader(TWO, features).read(study, -1, Estimates.of({}))
    for value, known in ((0.5, True), (0.6, True), (0.7, True), (0.5001, False), (0.8, False)):
        trial = Fixed({**study.trials[0].params, "weight.a": value})
        recipe = draw(TWO, trial)
        assert (recipe.key in history.known) is known
        assert history.known.resembles(features.vector(recipe)) is known


def study_trial(study: optuna.Study, value: float) -> optuna.Trial:
    """A trial of one recipe but for the weight of its first parent."""
    rest = {"method": "task_arithmetic", "weight.b": 0.4, "lambda": 0.9}
    study.enqueue_trial({"weight.a": value, **rest})
    trial = study.ask()
    draw(TWO, trial)
    return trial
