"""A run that is driven: what the commands run, resume and validate share."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping

from evaluators.workers.pool import Pool
from merging.checkpoints.checkpoint import Checkpoint
from runs.config.budget import Budget, Cost
from runs.config.run_config import RunConfig
from runs.ranking.leaderboard import score_of
from runs.records.record import Split
from runs.storage.store import Store
from search.engine.final_check import (
    asks_all,
    final_check,
    places,
    reserve,
)
from search.engine.learning.coefficient_learning import Learning
from search.engine.learning.learning_plan import filters_of, plan_of, section_of, starts
from search.engine.learning.learning_progress import begun
from search.engine.loop import Loop
from search.engine.processes.driver_process import settled
from search.engine.processes.model_changes import look_again
from search.engine.processes.stop_signals import Stop, on_signals
from search.engine.trials.ask_tell import AskTell
from search.inputs.input_error import InputError, RunFailed
from search.monitoring.monitor import Monitor
from search.samplers.cma_state import check_state
from search.samplers.estimation.posterior import kept_fits
from search.samplers.sampler_choice import Sampler
from spaces.search_space.space import Space


class Session:
    """Drives one study with a pool of workers; holds the study's lock while it is open.

    Args:
        store: The study.
        config: Of the run.
        pool: The workers.
        monitor: Told how it goes.
        checkpoints: The models by name, to learn coefficients; ``None`` learns nothing.

    Raises:
        InputError: If the budget cannot be met with these workers.
    """

    def __init__(
        self,
        store: Store,
        config: RunConfig,
        *,
        pool: Pool,
        monitor: Monitor,
        checkpoints: Mapping[str, Checkpoint] | None = None,
    ) -> None:
        self._checkpoints = checkpoints or {}
        self._store = store
        self._config = config
        self._pool = pool
        self._monitor = monitor
        self._budget = Budget.of(config.search)
        if self._budget.gpu_hours is not None and not pool.gpus:
            raise InputError("search.gpu_hours: expected workers with GPUs, got none; use hours")
        store.set_fact("gpus", f"{pool.gpus:g}")
        store.room = config.output.answers_room
        self._space = Space.from_dict(store.manifest.space)
        if config.search.sampler == "cmaes":
            check_state(store.study.get_trials(deepcopy=False), name=store.name)
        fits = kept_fits(store, self._space)
        sampler = Sampler(
            config.search.sampler,
            seed=config.search.seed,
            space=self._space,
            fits=fits,
        )
        self._ask_tell = AskTell(
            store,
            self._space,
            sampler=sampler,
            seeds=store.manifest.seeds,
            all_at_once=asks_all(config),
            fits=fits,
        )
        self._seeds = len(store.manifest.seeds)

    def run(self) -> bool:
        """Search until the budget is spent, then check the best recipes.

        Returns:
            Whether it came to the end; ``False`` when it was stopped before.

        Raises:
            RunFailed: If not one candidate could be scored, or the models changed meanwhile.
        """
        top = self._top(self._config.search.validate_top)
        with settled(), on_signals(self._monitor.note) as stop:
            loop = self._loop(stop)
            self._learn(stop, top, loop.seconds)
            loop.search(self._budget, reserve=self._reserve(top))
            look_again(self._store, self._config)
            if not stop.requested:
                final_check(self._store, self._ask_tell, loop, top=top, stop=stop)
                look_again(self._store, self._config)
            stopped = stop.requested
        if not stopped:
            _check_any(self._store)
            self._store.set_fact("ended", self._budget.words(Cost()))
        return not stopped

    def _learn(self, stop: Stop, top: int, seconds: Callable[[], float]) -> None:
        """Learn coefficients, where there is something to learn from; the search begins with it."""
        config, space = self._config, self._space
        if self._ask_tell.taken_up and not begun(self._store):
            return  # a study that began without
        plan = plan_of(config, self._store.manifest, space, reserved=self._reserve(top))
        if plan.off:
            if config.search.learn is not None:
                self._monitor.note(f"learning is off: {plan.off}")
            return
        if space.base is None or space.base not in self._checkpoints:
            return
        layers = self._checkpoints[space.base].layout.layers
        learning = Learning(
            store=self._store,
            space=space,
            pool=self._pool,
            monitor=self._monitor,
            stop=stop,
            section=section_of(config.search.learn),
            steps=plan.steps,
            seed=config.search.seed,
            seconds=seconds,
        )
        found = starts(space, layers=len(layers), filters=filters_of(layers), most=plan.recipes)
        self._ask_tell.add_seeds(learning.run(found))

    def validate(self, top: int) -> bool:
        """Check the best recipes on all questions, and the baselines on the held-out ones.

        Returns:
            Whether it came to the end.
        """
        with settled(), on_signals(self._monitor.note) as stop:
            final_check(
                self._store, self._ask_tell, self._loop(stop), top=self._top(top), stop=stop
            )
            look_again(self._store, self._config)
            return not stop.requested

    def _top(self, asked: int) -> int:
        return places(asked, self._store.manifest.objectives)

    def _loop(self, stop: Stop) -> Loop:
        return Loop(self._store, self._ask_tell, pool=self._pool, monitor=self._monitor, stop=stop)

    def _reserve(self, top: int) -> int:
        return reserve(self._config, self._store.manifest.questions, top=top, seeds=self._seeds)


def _check_any(store: Store) -> None:
    records = store.records()
    if any(math.isfinite(score_of(record)) for record in records):
        return
    messages = Counter(
        f"{evaluation.failure_kind}: {evaluation.failure_message}"
        for evaluation in (record.evaluations[Split.SEARCH] for record in records)
    )
    most = messages.most_common(1)[0][0] if messages else "no candidate was evaluated"
    raise RunFailed(f"{store.name}: no candidate could be scored; most often: {most}")
