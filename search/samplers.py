"""Optuna samplers by name, with the settings that suit recipes."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from optuna import samplers
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler

from runs.records import Estimate
from search.gp_sampler import GaussianProcessSampler
from search.surrogate import Fits
from spaces.space import Space

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


OURS = "surrogate"
"""The sampler that knows recipes: the only one that needs the space, and standard errors.

Like the stateless ones it decides each trial by the study, the seed and the trial's number alone;
one object serves a whole run, since it keeps what is slow to compute again.
"""

AUTO = OURS
"""What ``auto`` stands for."""


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


def _nsga3(seed: int) -> BaseSampler:
    # With the one score that is searched for, its reference points coincide: it then differs from
    # NSGA-II in how the survivors are picked.
    return samplers.NSGAIIISampler(seed=seed, population_size=20)


def _random(seed: int) -> BaseSampler:
    return samplers.RandomSampler(seed=seed)


def _qmc(seed: int) -> BaseSampler:
    # The points of one scrambled Sobol sequence, told apart by a counter in the study. It has no
    # categoricals: methods and merge orders are drawn at random beside it.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return samplers.QMCSampler(
            seed=seed,
            scramble=True,
            independent_sampler=samplers.RandomSampler(seed=seed),
            warn_independent_sampling=False,
        )


SAMPLERS: dict[str, Choice] = {
    "tpe": Choice(make=_tpe, flat=False, stateless=True),
    "cmaes": Choice(make=_cmaes, flat=True, stateless=False),
    "gp": Choice(make=_gp, flat=True, stateless=False),
    "nsga2": Choice(make=_nsga2, flat=True, stateless=True),
    "nsga3": Choice(make=_nsga3, flat=True, stateless=True),
    "random": Choice(make=_random, flat=False, stateless=True),
    "qmc": Choice(make=_qmc, flat=True, stateless=False),
}
"""Every sampler of Optuna's by the name it has in a config."""


def weighs_scores(name: str) -> bool:
    """Whether the sampler of that name knows how sure each score is."""
    return (AUTO if name == "auto" else name) == OURS


class Sampler:
    """The sampler of a run: gives the Optuna sampler to use for each trial.

    Args:
        name: ``auto``, ``surrogate``, or a name in ``SAMPLERS``.
        seed: Seed of the run.
        trials_so_far: Trials that the study has already.
        space: What is searched; ``surrogate`` needs it.
        fits: Where ``surrogate`` keeps its fits, one for each objective; ``None`` keeps them in
            memory.

    Raises:
        ValueError: If ``surrogate`` is given no space.
    """

    def __init__(
        self,
        name: str,
        *,
        seed: int,
        trials_so_far: int = 0,
        space: Space | None = None,
        fits: Sequence[Fits] | None = None,
    ) -> None:
        self.name = AUTO if name == "auto" else name
        self._seed = seed
        self._estimates: dict[int, Sequence[Estimate]] = {}
        self._choice: Choice | None = None
        self._kept: BaseSampler
        if self.name != OURS:
            self._choice = SAMPLERS[self.name]
            # A sampler with a memory starts elsewhere after a resume, lest it repeat its own draws.
            self._kept = self._choice.make(_mix(seed, trials_so_far))
        elif space is None:
            raise ValueError(f"space: expected the space to search for sampler {OURS}, got none")
        else:
            self._kept = GaussianProcessSampler(
                space, seed=seed, estimates=self._estimates, fits=fits
            )

    @property
    def flat(self) -> bool:
        """Whether trials must draw every parameter."""
        return self._choice is not None and self._choice.flat

    def for_trial(self, number: int) -> BaseSampler:
        """The Optuna sampler for the trial of that number."""
        if self._choice is not None and self._choice.stateless:
            return self._choice.make(_mix(self._seed, number))
        return self._kept

    def learn(self, estimates: Mapping[int, Sequence[Estimate]]) -> None:
        """What is now known of the scores; samplers that have no use for it ignore it.

        Args:
            estimates: Of every objective, by number of the trial; they count instead of what the
                study was told.
        """
        self._estimates.update(estimates)


def _mix(seed: int, number: int) -> int:
    """A seed of 32 bits for one trial; neighbouring numbers give unrelated seeds."""
    digest = hashlib.sha256(f"{seed}:{number}".encode()).digest()
    return int.from_bytes(digest[:4], "little")
