"""Ways to search for a recipe, all with the same meter: ours, and those that people use today."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cmaes
import numpy as np
import optuna
from numpy.typing import NDArray

from benchmarks.asking import Meter
from evaluators.protocol import Candidate, Score
from evaluators.workers.pool import Result, SerialPool
from runs.config.budget import Budget
from runs.ranking.leaderboard import ranked, score_of
from runs.records.manifest import Manifest
from runs.records.question_split import Questions
from runs.storage.store import Store
from search.engine.loop import Loop
from search.engine.processes.stop_signals import Stop
from search.engine.trials.ask_tell import AskTell
from search.monitoring.monitor import PhaseStanding
from search.samplers.estimation.posterior import judged
from search.samplers.sampler_choice import Sampler, weighs_scores
from spaces.recipes.recipe import Gradient, Merge, Model, Recipe, Source, parameters
from spaces.sampling.draw import draw
from spaces.sampling.seed_recipes import seeds
from spaces.search_space.space import Space

Strategy = Callable[["Problem", Meter], None]
"""Asks through the meter until it is spent."""

RUNGS = (100, 300)
"""Questions after which Hyperband may give up on a recipe; it starts with the first number."""

SIGMA = 1.0 / 6.0
"""First step size of mergekit-evolve."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """What is searched, for all strategies.

    Attributes:
        space: What recipes may be.
        questions: The split of the questions, in the order of the run.
        seed: Of the strategy's own choices.
        granularity: Layers that share their values in mergekit-evolve's way; divides the layers.
    """

    space: Space
    questions: Questions
    seed: int
    granularity: int


class Quiet:
    """A monitor that shows nothing."""

    def update(self, standing: PhaseStanding, result: Result | None = None) -> None:
        """Nothing to do."""

    def note(self, text: str) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


class _Quick(Store):
    """A study whose Optuna trials are kept in memory: to write them takes longer than all else."""

    @property
    def study(self) -> optuna.Study:
        """The Optuna study, which is lost with the process."""
        if self._study is None:
            self._study = optuna.create_study(direction="maximize")
        return self._study


class _Watched(SerialPool):
    """A pool of one that looks at its meter before every candidate and ends the run in time."""

    def __init__(self, meter: Meter, stop: Stop, leader: Callable[[], Recipe]) -> None:
        super().__init__(lambda: meter)
        self._meter, self._stop, self._leader = meter, stop, leader

    def next(self, timeout: float | None = None) -> Result | None:
        # What came back before is in the books by now.
        self._meter.look(self._leader)
        self._stop.requested = self._meter.spent
        return super().next(timeout)


def product(
    problem: Problem, meter: Meter, *, sampler: str, seeded: bool = True, growing: bool = False
) -> None:
    """The product's own loop and ledger, with one of its samplers.

    Args:
        problem: What is searched.
        meter: Whom to ask.
        sampler: Name of the sampler.
        seeded: Whether parents, average and known-good recipes come first.
        growing: Whether candidates are asked growing blocks instead of all questions.
    """
    manifest = Manifest(
        config="",
        space=problem.space.to_dict(),
        inputs={},
        inputs_dtype="float32",
        catalogue=meter.catalogue(),
        questions=problem.questions,
        versions={},
        created="",
    )
    with tempfile.TemporaryDirectory() as folder:
        store = _Quick.create(str(Path(folder) / "study.db"), manifest)
        store.lock.acquire()
        ledger = AskTell(
            store,
            problem.space,
            sampler=Sampler(sampler, seed=problem.seed, space=problem.space),
            seeds=seeds(problem.space) if seeded else (),
            all_at_once=not growing,
        )

        def leader() -> Recipe:
            if weighs_scores(sampler):
                return ranked(judged(store))[0].recipe
            return max(store.records(), key=score_of).recipe

        stop = Stop()
        pool = _Watched(meter, stop, leader)
        Loop(store, ledger, pool=pool, monitor=Quiet(), stop=stop).search(Budget())
        meter.look(leader)
        store.close()


class _Asked:
    """Scores of recipes outside any study, and the best of those asked the most."""

    def __init__(self, meter: Meter, questions: Sequence[str]) -> None:
        self._meter, self._questions = meter, tuple(questions)
        self._best: tuple[int, float, Recipe] | None = None
        self._count = 0

    def score(self, recipe: Recipe, *, since: int = 0, until: int | None = None) -> float:
        """Ask some more questions; the mean over these alone."""
        names = self._questions[since:until]
        outcome = self._meter.evaluate(Candidate(id=self._count, recipe=recipe, questions=names))
        self._count += 1
        if not isinstance(outcome, Score):
            return 0.0
        return outcome.value

    def done(self, recipe: Recipe, *, questions: int, score: float) -> None:
        """Note a final score, and look at the meter."""
        best = self._best
        if best is None or (questions, score) > best[:2]:
            self._best = best = questions, score, recipe
        self._meter.look(lambda: best[2])


def evolve(problem: Problem, meter: Meter, *, method: str) -> None:
    """mergekit-evolve's way: CMA-ES for one method, all questions each, the best score wins.

    Per group of layers and parent a weight, and a density where the method has one; absolute
    values are taken, densities are at most 1, weights are normalised (not for task arithmetic).
    The start is the plain average with nothing trimmed; population and all else are CMA-ES's
    defaults (Hansen 2016, arXiv:1604.00772).
    """
    space = problem.space
    groups, parents = space.layers // problem.granularity, len(space.parents)
    thinned = method in ("ties", "dare_ties")
    start = np.full(groups * parents, 1.0 / parents)
    if thinned:
        start = np.concatenate([start, np.ones(groups * parents)])
    optimizer = cmaes.CMA(mean=start, sigma=SIGMA, seed=problem.seed + 1)
    asked, total = _Asked(meter, problem.questions.search), len(problem.questions.search)
    while not meter.spent:
        generation: list[tuple[NDArray[np.float64], float]] = []
        for _ in range(optimizer.population_size):
            point = optimizer.ask()
            recipe = _evolved(space, method, np.abs(point).reshape(-1, parents, groups))
            score = asked.score(recipe)
            asked.done(recipe, questions=total, score=score)
            generation.append((point, -score))
        optimizer.tell(generation)


def _evolved(space: Space, method: str, genes: NDArray[np.float64]) -> Recipe:
    weights = genes[0]
    if method != "task_arithmetic":
        weights = weights / np.maximum(weights.sum(axis=0), 1e-6)
    step = space.layers // weights.shape[1]
    tables = [{"weight": Gradient(tuple(np.repeat(row, step).tolist()))} for row in weights]
    if len(genes) > 1:
        for table, row in zip(tables, np.clip(genes[1], 0.01, 1.0), strict=True):
            table["density"] = Gradient(tuple(np.repeat(row, step).tolist()))
    sources = tuple(
        Source(of=Model(name), parameters=parameters(**table))
        for name, table in zip(space.parents, tables, strict=True)
    )
    base = Model(space.base) if space.base is not None and method != "linear" else None
    return Recipe(root=Merge(method=method, sources=sources, base=base))


def hyperband(problem: Problem, meter: Meter) -> None:
    """TPE with Optuna's Hyperband pruner over the number of questions, and our seeds."""
    questions = _interleaved(problem.questions.search)
    asked, rungs = _Asked(meter, questions), (*RUNGS, len(questions))
    study = optuna.create_study(
        study_name="hyperband",
        direction="maximize",
        sampler=Sampler("tpe", seed=problem.seed).for_trial(0),
        pruner=optuna.pruners.HyperbandPruner(
            min_resource=RUNGS[0], max_resource=len(questions), reduction_factor=3
        ),
    )
    for seed in seeds(problem.space):
        if seed.params is not None:
            study.enqueue_trial(seed.params)
    while not meter.spent:
        trial = study.ask()
        recipe, mean, since = draw(problem.space, trial), 0.0, 0
        for until in rungs:
            score = asked.score(recipe, since=since, until=until)
            mean, since = (mean * since + score * (until - since)) / until, until
            trial.report(mean, until)
            if until < len(questions) and trial.should_prune():
                break
        asked.done(recipe, questions=since, score=mean)
        pruned = since < len(questions)
        state = optuna.trial.TrialState.PRUNED if pruned else optuna.trial.TrialState.COMPLETE
        study.tell(trial, None if pruned else mean, state=state)


def _interleaved(questions: Sequence[str]) -> tuple[str, ...]:
    """The questions of the tasks in turn, each task's in the run's order."""
    by_task: dict[str, list[str]] = {}
    for name in questions:
        by_task.setdefault(name.rpartition("/")[0], []).append(name)
    turns = [(at / len(names), name) for names in by_task.values() for at, name in enumerate(names)]
    return tuple(name for _, name in sorted(turns))
