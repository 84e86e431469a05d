"""Optuna samplers by name, with the settings that suit recipes."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from optuna import samplers
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler

from runs.records.record import SAMPLED, Estimate
from search.samplers.gp_sampler import GaussianProcessSampler
from search.samplers.surrogate.hyperparameters import Fits
from spaces.catalogue.extensions import SAMPLERS_GROUP, ExtensionError, additions, loaded
from spaces.search_space.space import Space
from spaces.text.error_text import class_and_last_line

Array = NDArray[np.float64]

STARTUP_TRIALS = 10
"""Trials drawn at random (seeds count) before a model of the scores is trusted."""


class Seeds(NamedTuple):
    """What randomness comes from.

    Attributes:
        run: The same in all trials of a run.
        trial: Another one in each of them.
    """

    run: int
    trial: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """How one sampler is used.

    It is made anew for each trial, from the study and seeds alone: a resumed run then goes on
    exactly as an uninterrupted one would.

    Attributes:
        make: Builds it.
        flat: It knows only fixed spaces, so every trial draws every parameter.
        constrained: It takes floors into account, as constraints that the trials have.
    """

    make: Callable[[Seeds], BaseSampler]
    flat: bool
    constrained: bool = False


OURS = "surrogate"
"""The sampler that knows recipes: the only one that needs the space, and standard errors.

Like the others it decides each trial by the study, the seed and the trial's number alone; one
object serves a whole run, since it keeps what is slow to compute again.
"""

AUTO = OURS
"""What ``auto`` stands for."""


def chosen(name: str) -> str:
    """The sampler that a config's ``search.sampler`` means."""
    return AUTO if name == "auto" else name


def _tpe(seeds: Seeds) -> BaseSampler:
    # Groups: recipes of one structure are modelled together, whatever others draw. The constant
    # liar keeps parallel workers from being sent to one place.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # for multivariate and group
        return samplers.TPESampler(
            seed=seeds.trial,
            multivariate=True,
            group=True,
            constant_liar=True,
            n_startup_trials=STARTUP_TRIALS,
            n_ei_candidates=48,
        )


def _cmaes(seeds: Seeds) -> BaseSampler:
    # CMA-ES has no categoricals: methods and merge orders are drawn at random beside it.
    return samplers.CmaEsSampler(
        seed=seeds.trial,
        n_startup_trials=STARTUP_TRIALS,
        independent_sampler=samplers.RandomSampler(seed=seeds.trial),
    )


def _gp(seeds: Seeds) -> BaseSampler:
    return samplers.GPSampler(
        seed=seeds.trial,
        n_startup_trials=STARTUP_TRIALS,
        independent_sampler=samplers.RandomSampler(seed=seeds.trial),
        deterministic_objective=False,
    )


def _qmc(seeds: Seeds) -> BaseSampler:
    # The points of one scrambled Sobol sequence, told apart by a counter in the study. It has no
    # categoricals: methods and merge orders are drawn at random beside it.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return samplers.QMCSampler(
            seed=seeds.run,  # one sequence for the whole run
            scramble=True,
            independent_sampler=samplers.RandomSampler(seed=seeds.trial),
            warn_independent_sampling=False,
        )


SAMPLERS: dict[str, Choice] = {
    "tpe": Choice(make=_tpe, flat=False, constrained=True),
    "cmaes": Choice(make=_cmaes, flat=True),
    "gp": Choice(make=_gp, flat=True, constrained=True),
    "nsga2": Choice(
        make=lambda seeds: samplers.NSGAIISampler(seed=seeds.trial, population_size=20),
        flat=True,
        constrained=True,
    ),
    # With the one score that is searched for, its reference points coincide: it then differs from
    # NSGA-II in how the survivors are picked.
    "nsga3": Choice(
        make=lambda seeds: samplers.NSGAIIISampler(seed=seeds.trial, population_size=20),
        flat=True,
        constrained=True,
    ),
    "random": Choice(make=lambda seeds: samplers.RandomSampler(seed=seeds.trial), flat=False),
    "qmc": Choice(make=_qmc, flat=True),
}
"""Every sampler of Optuna's by the name it has in a config."""


def _choice(name: str) -> Choice:
    """How the sampler of that name is used: one of Optuna's, or of another package.

    Raises:
        ExtensionError: If it is of a package that gives no ``Choice``.
    """
    if name in SAMPLERS:
        return SAMPLERS[name]
    entry = additions(SAMPLERS_GROUP)[name]
    found = loaded(entry)
    if not isinstance(found, Choice):
        raise ExtensionError(
            f"{SAMPLERS_GROUP}: expected {name} to be a "
            f"search.samplers.sampler_choice.Choice, got {found!r} at {entry.value}"
        )
    return found


def _made(name: str, choice: Choice, seeds: Seeds) -> BaseSampler:
    """The Optuna sampler of a choice.

    Raises:
        ExtensionError: If another package's cannot be made, or is none.
    """
    try:
        found = choice.make(seeds)
    except Exception as error:
        if name in SAMPLERS:
            raise
        raise ExtensionError(
            f"{SAMPLERS_GROUP}: expected {name} to make a sampler, got {class_and_last_line(error)}"
        ) from error
    if not isinstance(found, BaseSampler):
        raise ExtensionError(
            f"{SAMPLERS_GROUP}: expected {name} to make an Optuna sampler, got {found!r}"
        )
    return found


def check_sampler(name: str) -> None:
    """Make a sampler once, to find out before a run whether that can be done.

    Raises:
        ExtensionError: If it cannot, or if a package's sampler hides behind one of ours.
    """
    name = chosen(name)
    if name == OURS or name in SAMPLERS:
        entry = additions(SAMPLERS_GROUP).get(name)
        if entry is not None:
            raise ExtensionError(
                f"{SAMPLERS_GROUP}: expected another name than {name!r} for {entry.value}: it is "
                "one of merge-search's own; rename or uninstall it"
            )
        return
    _made(name, _choice(name), Seeds(run=0, trial=0))


def weighs_scores(name: str) -> bool:
    """Whether the sampler of that name knows how sure each score is."""
    return chosen(name) == OURS


class Sampler:
    """The sampler of a run: gives the Optuna sampler to use for each trial.

    Args:
        name: ``auto``, ``surrogate``, a name in ``SAMPLERS`` or of another package's sampler.
        seed: Seed of the run.
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
        space: Space | None = None,
        fits: Sequence[Fits] | None = None,
    ) -> None:
        self.name = chosen(name)
        self._seed = seed
        self._choice = None if self.name == OURS else _choice(self.name)
        self._ours: GaussianProcessSampler | None = None
        if self._choice is None:
            if space is None:
                raise ValueError(f"space: expected the space to search for {OURS}, got none")
            self._ours = GaussianProcessSampler(space, seed=seed, fits=fits)

    @property
    def origin(self) -> str:
        """The origin of the recipes that it proposes."""
        return self.name if self._choice is None or self.name in SAMPLERS else SAMPLED + self.name

    @property
    def flat(self) -> bool:
        """Whether trials must draw every parameter."""
        return self._choice is not None and self._choice.flat

    @property
    def constrained(self) -> bool:
        """Whether it takes floors into account."""
        return self._choice is None or self._choice.constrained

    def for_trial(self, number: int) -> BaseSampler:
        """The Optuna sampler for the trial of that number."""
        if self._choice is None:
            assert self._ours is not None
            return self._ours
        seeds = Seeds(run=_mix(self._seed, -1), trial=_mix(self._seed, number))
        return _made(self.name, self._choice, seeds)

    def learn(
        self, estimates: Mapping[int, Sequence[Estimate]], floors: Sequence[float] | Array = ()
    ) -> None:
        """All that is now known of the scores; samplers that have no use for it ignore it.

        Args:
            estimates: Of every objective, then of every task with a floor, by number of the trial;
                they count instead of what the study was told.
            floors: What these tasks must not fall below, larger is better.
        """
        if self._ours is not None:
            self._ours.learn(estimates, floors)


def _mix(seed: int, number: int) -> int:
    """A seed of 32 bits for one trial, or -1 for the run; neighbours give unrelated seeds."""
    digest = hashlib.sha256(f"{seed}:{number}".encode()).digest()
    return int.from_bytes(digest[:4], "little")
