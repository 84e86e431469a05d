"""The default sampler inside Optuna: proposals, pending and failed trials, noise."""

import math
import runpy
from pathlib import Path

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from runs.records.record import Estimate
from search.samplers import gp_sampler
from search.samplers.estimation.estimates import Estimates
from search.samplers.gp_sampler import GaussianProcessSampler
from search.samplers.surrogate import hyperparameters
from search.samplers.surrogate.gaussian_process import FEWEST
from search.samplers.surrogate.hyperparameters import milestone
from spaces.recipes.model_shares import model_shares
from spaces.recipes.recipe import Recipe
from spaces.sampling.draw import Fixed, draw, params
from spaces.search_space.space import Order, Range, Space

ANY_SPACE = runpy.run_path(str(Path(__file__).parents[1] / "spaces" / "conftest.py"))["spaces"]()
TWO = Space(parents=("a", "b"), base="base", layers=4, methods=("task_arithmetic", "ties"))
LINE = Space(parents=("a",), base="base", layers=4, methods=("task_arithmetic",))


def study_with(sampler: GaussianProcessSampler, direction: str = "maximize") -> optuna.Study:
    return optuna.create_study(direction=direction, sampler=sampler)


def ask(study: optuna.Study, space: Space) -> tuple[optuna.Trial, Recipe]:
    trial = study.ask()
    return trial, draw(space, trial)


def factor(trial: optuna.Trial) -> float:
    """How much of ``a`` a recipe of LINE holds."""
    return trial.params["weight.a"] * trial.params["lambda"]


def hill(trial: optuna.Trial, top: float = 0.9) -> float:
    return math.exp(-((factor(trial) - top) ** 2) / 0.1)


def enqueue(study: optuna.Study, value: float) -> optuna.Trial:
    study.enqueue_trial({"weight.a": value, "lambda": 1.0})
    return ask(study, LINE)[0]


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_it_climbs_in_either_direction(direction: str) -> None:
    study = study_with(GaussianProcessSampler(LINE, seed=1), direction)
    sign = 1.0 if direction == "maximize" else -1.0
    for _ in range(25):
        trial, _ = ask(study, LINE)
        study.tell(trial, sign * hill(trial))
    assert sign * study.best_value > 0.999


def test_it_finds_more_than_chance_does() -> None:
    def best(sampler: optuna.samplers.BaseSampler) -> float:
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for _ in range(24):
            trial, recipe = ask(study, TWO)
            shares = model_shares(recipe.root)
            off = (shares["a"] - 0.9) ** 2 + (shares["b"] - 0.4) ** 2
            study.tell(trial, -off - 0.3 * (recipe.title == "ties"))
        return study.best_value

    ours = [best(GaussianProcessSampler(TWO, seed=seed)) for seed in range(3)]
    chance = [best(optuna.samplers.RandomSampler(seed=seed)) for seed in range(3)]
    assert np.median(ours) > 0.2 * np.median(chance)  # both are below 0


def test_what_is_kept_in_memory_changes_nothing() -> None:
    """A new sampler for every trial proposes what one sampler for all of them does."""
    drawn = []
    for anew in (False, True):
        study = study_with(GaussianProcessSampler(TWO, seed=3))
        for _ in range(14):
            if anew:
                study.sampler = GaussianProcessSampler(TWO, seed=3)
            trial, _ = ask(study, TWO)
            study.tell(trial, -((trial.params["weight.a"] - 0.5) ** 2))
        drawn.append([trial.params for trial in study.trials])
    assert drawn[0] == drawn[1]


def test_recipes_under_way_are_not_proposed_again() -> None:
    study = study_with(GaussianProcessSampler(LINE, seed=2))
    for value in np.linspace(0.0, 1.5, FEWEST + 2):
        trial = enqueue(study, value)
        study.tell(trial, hill(trial))
    asked = [ask(study, LINE) for _ in range(6)]
    assert len({recipe.key for _, recipe in asked}) == 6
    history = study.sampler._history.read(study, -1, Estimates.of({}))
    (model,) = study.sampler._models(history, np.arange(len(history.y)))
    x = study.sampler._features.matrix([asked[0][1]])
    _, pending = model.predict(x)
    for trial, _ in asked:
        study.tell(trial, state=TrialState.FAIL)
    study.sampler = GaussianProcessSampler(LINE, seed=2)
    history = study.sampler._history.read(study, -1, Estimates.of({}))
    assert len(history.pending) == 0
    assert len(history.failed) == 6
    assert pending[0] < np.std(history.y)


def test_where_recipes_fail_fewer_are_proposed() -> None:
    """The scores point upwards, and everything above a limit fails: it stays near the limit."""
    beyond = 0
    study = study_with(GaussianProcessSampler(LINE, seed=4))
    for number in range(30):
        trial, _ = ask(study, LINE)
        failed = factor(trial) > 1.0
        beyond += number >= 10 and factor(trial) > 1.25
        if failed:
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, factor(trial))
    assert beyond <= 6
    assert study.best_value > 0.9


def test_a_run_in_which_all_fail_goes_on_at_random() -> None:
    study = study_with(GaussianProcessSampler(LINE, seed=4))
    for _ in range(FEWEST + 4):
        study.tell(ask(study, LINE)[0], state=TrialState.FAIL)
    assert len({str(trial.params) for trial in study.trials}) == FEWEST + 4


def test_trials_without_a_recipe_do_no_harm() -> None:
    study = study_with(GaussianProcessSampler(LINE, seed=5))
    for number in range(FEWEST + 2):
        trial, _ = ask(study, LINE)
        study.tell(trial, float(number))
    study.tell(study.ask(), state=TrialState.FAIL)  # asked for, and then the driver died
    study.add_trial(optuna.trial.create_trial(state=TrialState.PRUNED))
    study.ask()
    assert ask(study, LINE)[1].title == "task_arithmetic"


def test_estimates_replace_what_the_study_was_told() -> None:
    """The scores told rise with the weight, the estimates fall: proposals follow the estimates."""
    estimates: dict[int, tuple[Estimate, ...]] = {}
    sampler = GaussianProcessSampler(LINE, seed=6)
    study = study_with(sampler)
    for value in np.linspace(0.1, 1.4, 8):
        trial = enqueue(study, value)
        study.tell(trial, value)
        estimates[trial.number] = (Estimate(value=-value, stderr=0.01),)
    proposed = []
    for _ in range(6):
        sampler.learn(estimates)
        trial, _ = ask(study, LINE)
        proposed.append(trial.params["weight.a"])
        estimates[trial.number] = (Estimate(value=-proposed[-1], stderr=0.01),)
        study.tell(trial, proposed[-1])
    assert np.median(proposed) < 0.3


def test_hyper_parameters_are_fitted_when_the_history_has_grown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[int] = []
    original = hyperparameters.fit
    monkeypatch.setattr(
        hyperparameters,
        "fit",
        lambda data, groups: sizes.append(len(data.y)) or original(data, groups),
    )
    study = study_with(GaussianProcessSampler(LINE, seed=1))
    for _ in range(32):
        trial, _ = ask(study, LINE)
        study.tell(trial, hill(trial))
    assert sizes == sorted(set(sizes))
    assert all(milestone(size) == size for size in sizes)
    assert [milestone(n) for n in (6, 7, 8, 9, 10, 1000)] == [6, 6, 8, 8, 10, milestone(1000)]
    assert milestone(1000) > 1000 / 1.2


def test_a_name_that_is_not_the_spaces_is_drawn_at_random() -> None:
    study = study_with(GaussianProcessSampler(LINE, seed=1))
    drawn = [study.ask().suggest_float("other", 2.0, 3.0) for _ in range(3)]
    assert all(2.0 <= value <= 3.0 for value in drawn)
    assert len(set(drawn)) == 3


def test_a_space_with_one_recipe_is_no_trouble() -> None:
    space = Space(parents=("a",), base=None, layers=2, methods=("linear",), order=Order.ANY,
                  weight=Range(low=1.0, high=1.0))  # fmt: skip
    study = study_with(GaussianProcessSampler(space, seed=1))
    for _ in range(FEWEST + 3):
        study.tell(ask(study, space)[0], 0.5)
    assert len(study.trials) == FEWEST + 3


def test_an_exhausted_space_is_soon_drawn_from_at_random(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four parents can be merged in 15 orders; the model is not asked in vain for ever."""
    only = Range(low=0.5, high=0.5)
    space = Space(parents=("a", "b", "c", "d"), base=None, layers=2, methods=("slerp",), t=only)
    asked: list[int] = []
    original = GaussianProcessSampler._best
    monkeypatch.setattr(
        GaussianProcessSampler, "_best", lambda *args: asked.append(1) or original(*args)
    )
    study = study_with(GaussianProcessSampler(space, seed=1))
    keys = set()
    for _ in range(60):
        trial, recipe = ask(study, space)
        keys.add(recipe.key)
        study.tell(trial, float(int(recipe.key[0], 16)))
    assert len(keys) == 15
    assert len(asked) <= 25


@settings(max_examples=6)
@given(space=ANY_SPACE, seed=st.integers(0, 2**31))
def test_it_proposes_legal_recipes_in_every_space(space: Space, seed: int) -> None:
    study = study_with(GaussianProcessSampler(space, seed=seed))
    for number in range(FEWEST + 4):
        trial, recipe = ask(study, space)
        assert draw(space, Fixed(params(recipe, space))).key == recipe.key
        if number % 5 == 4:
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, float(len(recipe.key.strip("0123456789"))))


def test_two_objectives_it_covers_the_front_better_than_chance() -> None:
    """Objectives that want different shares of both models; a front of compromises between."""

    def hypervolume(sampler: optuna.samplers.BaseSampler) -> float:
        study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
        for _ in range(30):
            trial, recipe = ask(study, TWO)
            shares = model_shares(recipe.root)
            off = [(shares["a"] - a) ** 2 + (shares["b"] - 0.6) ** 2 for a in (0.3, 0.9)]
            study.tell(trial, [-off[0], off[1]])
        points = sorted((1.0 + v[0], 1.0 - v[1]) for t in study.trials if (v := t.values))
        area, height = 0.0, 0.0
        for x, y in reversed(points):  # strips above what lies further to the right
            area += max(0.0, x) * max(0.0, y - height)
            height = max(height, y)
        return area

    ours = [hypervolume(GaussianProcessSampler(TWO, seed=seed)) for seed in range(3)]
    chance = [hypervolume(optuna.samplers.RandomSampler(seed=seed)) for seed in range(3)]
    assert min(ours) > max(chance)


def test_a_long_history_is_cut_to_what_says_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proposals are the same function of the history, and still climb."""
    monkeypatch.setattr(gp_sampler, "MAX_POINTS", 12)
    drawn = []
    for anew in (False, True):
        study = study_with(GaussianProcessSampler(LINE, seed=4))
        for _ in range(30):
            if anew:
                study.sampler = GaussianProcessSampler(LINE, seed=4)
            trial, _ = ask(study, LINE)
            study.tell(trial, hill(trial))
        drawn.append([trial.params for trial in study.trials])
        assert study.best_value > 0.999
    assert drawn[0] == drawn[1]
