"""Optuna samplers by name, with the settings that suit recipes."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass

from optuna import samplers
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler

STARTUP_TRIALS = 10
"""Trials drawn at random (seeds count) before a model of the scores is trusted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """How one sampler is used.

    Attributes:
        make: Builds it from a seed.
        flat: It knows only fixed spaces, so every trial draws every parameter.
        stateless: All it knows is in the study, so it is made anew for each trial from a seed of
            that trial: a resumed run then goes on exactly as an uninterrupted one would.
    """

    make: Callable[[int], BaseSampler]
    flat: bool
    stateless: bool


def _tpe(seed: int) -> BaseSampler:
    # Groups: recipes of one structure are modelled together, whatever others draw. The constant
    # liar keeps parallel workers from being sent to one place.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # for multivariate and group
        return samplers.TPESampler(
            seed=seed,
            multivariate=True,
            group=True,
            constant_liar=True,
            n_startup_trials=STARTUP_TRIALS,
            n_ei_candidates=48,
        )


def _cmaes(seed: int) -> BaseSampler:
    # CMA-ES has no categoricals: methods and merge orders are drawn at random beside it.
    return samplers.CmaEsSampler(
        seed=seed,
        n_startup_trials=STARTUP_TRIALS,
        independent_sampler=samplers.RandomSampler(seed=seed),
    )


def _gp(seed: int) -> BaseSampler:
    return samplers.GPSampler(
        seed=seed,
        n_startup_trials=STARTUP_TRIALS,
        independent_sampler=samplers.RandomSampler(seed=seed),
        deterministic_objective=False,
    )


def _nsga2(seed: int) -> BaseSampler:
    return samplers.NSGAIISampler(seed=seed, population_size=20)


def _random(seed: int) -> BaseSampler:
    return samplers.RandomSampler(seed=seed)


SAMPLERS: dict[str, Choice] = {
    "tpe": Choice(make=_tpe, flat=False, stateless=True),
    "cmaes": Choice(make=_cmaes, flat=True, stateless=False),
    "gp": Choice(make=_gp, flat=True, stateless=False),
    "nsga2": Choice(make=_nsga2, flat=True, stateless=True),
    "random": Choice(make=_random, flat=False, stateless=True),
}
"""Every sampler by the name it has in a config."""


class Sampler:
    """The sampler of a run: gives the Optuna sampler to use for each trial."""

    def __init__(self, name: str, *, seed: int, trials_so_far: int = 0) -> None:
        self.name = "tpe" if name == "auto" else name
        self._choice = SAMPLERS[self.name]
        self._seed = seed
        # A sampler with a memory starts elsewhere after a resume, lest it repeat its own draws.
        self._kept = self._choice.make(_mix(seed, trials_so_far))

    @property
    def flat(self) -> bool:
        """Whether trials must draw every parameter."""
        return self._choice.flat

    def for_trial(self, number: int) -> BaseSampler:
        """The Optuna sampler for the trial of that number."""
        if self._choice.stateless:
            return self._choice.make(_mix(self._seed, number))
        return self._kept


def _mix(seed: int, number: int) -> int:
    """A seed of 32 bits for one trial; neighbouring numbers give unrelated seeds."""
    digest = hashlib.sha256(f"{seed}:{number}".encode()).digest()
    return int.from_bytes(digest[:4], "little")
