"""Samplers by name."""

import optuna
import pytest

from runs.records import SAMPLERS as CONFIG_NAMES
from runs.records import Estimate
from search.samplers import OURS, SAMPLERS, Sampler
from spaces.draw import draw
from spaces.space import Space

SPACE = Space(parents=("a", "b"), base="base", layers=4, methods=("linear", "ties", "slerp"))


def test_a_config_can_name_every_sampler() -> None:
    assert {*SAMPLERS, OURS, "auto"} == set(CONFIG_NAMES)
    assert Sampler("auto", seed=0, space=SPACE).name == OURS


def test_ours_needs_the_space() -> None:
    with pytest.raises(ValueError, match="space: expected the space to search for sampler surr"):
        Sampler(OURS, seed=0)


def values(name: str, *, parts: tuple[int, ...], seed: int = 3) -> list[dict[str, object]]:
    """Parameters of the trials of a study that is continued by a new driver for each part."""
    study = optuna.create_study(direction="maximize")
    known: list[float] = []
    for count in parts:
        sampler = Sampler(name, seed=seed, trials_so_far=len(study.trials), space=SPACE)
        sampler.learn({n: Estimate(value=v, stderr=0.02) for n, v in enumerate(known)})
        for _ in range(count):
            study.sampler = sampler.for_trial(len(study.trials))
            trial = study.ask()
            recipe = draw(SPACE, trial, flat=sampler.flat)
            value = -((trial.params.get("weight.a", 0.9) - 0.4) ** 2) - 0.1 * len(recipe.title)
            sampler.learn({trial.number: Estimate(value=value, stderr=0.02)})
            known.append(value)
            study.tell(trial, value)
    return [trial.params for trial in study.trials]


@pytest.mark.parametrize("name", [*sorted(SAMPLERS), OURS])
def test_a_seed_decides_everything(name: str) -> None:
    assert values(name, parts=(14,)) == values(name, parts=(14,))
    assert values(name, parts=(14,)) != values(name, parts=(14,), seed=4)


@pytest.mark.parametrize("name", ["tpe", "nsga2", "random", OURS])
def test_a_resumed_run_proposes_what_an_uninterrupted_one_does(name: str) -> None:
    assert values(name, parts=(24,)) == values(name, parts=(12, 12))


@pytest.mark.parametrize("name", ["gp", "cmaes", "qmc"])
def test_a_resumed_run_does_not_repeat_itself(name: str) -> None:
    drawn = values(name, parts=(12, 12))
    assert len({str(params) for params in drawn}) == len(drawn)
