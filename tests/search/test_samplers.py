"""Samplers by name."""

import optuna
import pytest

from runs.sections import SAMPLERS as CONFIG_NAMES
from search.samplers import SAMPLERS, Sampler


def test_a_config_can_name_every_sampler() -> None:
    assert {*SAMPLERS, "auto"} == set(CONFIG_NAMES)
    assert Sampler("auto", seed=0).name == "tpe"


def values(name: str, *, parts: tuple[int, ...], seed: int = 3) -> list[dict[str, object]]:
    """Parameters of the trials of a study that is continued by a new driver for each part."""
    study = optuna.create_study(direction="maximize")
    for count in parts:
        sampler = Sampler(name, seed=seed, trials_so_far=len(study.trials))
        for _ in range(count):
            study.sampler = sampler.for_trial(len(study.trials))
            trial = study.ask()
            x = trial.suggest_float("weight.a", 0, 1.5)
            method = trial.suggest_categorical("method", ["ties", "linear"])
            density = 0.5
            if method == "ties" or sampler.flat:
                density = trial.suggest_float("density.a", 0.1, 1)
            study.tell(trial, -((x - 0.4) ** 2) - (density - 0.3) ** 2)
    return [trial.params for trial in study.trials]


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_a_seed_decides_everything(name: str) -> None:
    assert values(name, parts=(14,)) == values(name, parts=(14,))
    assert values(name, parts=(14,)) != values(name, parts=(14,), seed=4)


@pytest.mark.parametrize("name", ["tpe", "nsga2", "random"])
def test_a_resumed_run_proposes_what_an_uninterrupted_one_does(name: str) -> None:
    assert values(name, parts=(24,)) == values(name, parts=(12, 12))


@pytest.mark.parametrize("name", ["gp", "cmaes"])
def test_a_resumed_run_does_not_repeat_itself(name: str) -> None:
    drawn = values(name, parts=(12, 12))
    assert len({str(params) for params in drawn}) == len(drawn)
