"""Ask, evaluate, tell: the asynchronous search loop, and the held-out check after it."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from evaluators.base import Candidate, Score
from evaluators.pool import Pool, Result
from runs.records import Split
from runs.store import Store
from search.ledger import Ledger
from search.monitor import Monitor, Standing
from search.stop import Stop

BEAT_SECONDS = 15.0
"""Time between signs of life of the driver, and between savings of the time used."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """When a search is over; whichever comes first.

    Attributes:
        trials: Number of distinct recipes to evaluate, failures included; ``None`` for no limit.
        hours: Hours of searching, over all drivers of the study; ``None`` for no limit.
    """

    trials: int | None
    hours: float | None


class Watch:
    """Seconds spent searching, kept in the study so that a resumed run goes on counting."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._before = float(store.fact("seconds") or 0.0)
        self._start = time.monotonic()
        self._saved = self._start

    @property
    def seconds(self) -> float:
        """Time spent so far, by this driver and those before it."""
        return self._before + time.monotonic() - self._start

    def tick(self) -> None:
        """Give a sign of life and save the time used, every now and then."""
        if time.monotonic() - self._saved >= BEAT_SECONDS:
            self.save()

    def save(self) -> None:
        """Do so now."""
        self._saved = time.monotonic()
        self._store.lock.beat()
        self._store.set_fact("seconds", f"{self.seconds:.1f}")


class Loop:
    """Keeps every worker of a pool busy with the next recipe until the budget is spent."""

    def __init__(
        self, store: Store, ledger: Ledger, *, pool: Pool, monitor: Monitor, stop: Stop
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._pool = pool
        self._monitor = monitor
        self._stop = stop
        self._watch = Watch(store)

    def search(self, budget: Budget) -> None:
        """Search until the budget is spent, the space is exhausted or a stop is requested."""
        standing = self._standing(Split.SEARCH, "search", budget.trials)
        for candidate in self._ledger.recover():
            self._pool.submit(candidate)
        exhausted = False
        while True:
            while not exhausted and self._pool.pending < self._pool.size and self._may_ask(budget):
                proposed = self._ledger.next()
                if proposed is None:
                    exhausted = True
                    self._monitor.note("every recipe of the space was tried, or nearly so")
                else:
                    self._pool.submit(proposed)
            if self._pool.pending == 0:
                break
            self._take(standing)
        self._watch.save()

    def validate(self, numbers: Sequence[int]) -> None:
        """Ask these candidates the held-out questions."""
        standing = self._standing(Split.HELD_OUT, "held-out", len(numbers))
        waiting = list(numbers)
        while waiting or self._pool.pending:
            while waiting and self._pool.pending < self._pool.size and not self._stop.requested:
                self._pool.submit(self._ledger.validate(waiting.pop(0)))
            if self._pool.pending == 0:
                break
            self._take(standing)
        self._watch.save()

    def _may_ask(self, budget: Budget) -> bool:
        if self._stop.requested:
            return False
        if budget.trials is not None and self._ledger.taken_up >= budget.trials:
            return False
        return budget.hours is None or self._watch.seconds < budget.hours * 3600

    def _take(self, standing: Standing) -> None:
        """Wait a moment for a result and record it."""
        standing.running = self._pool.pending
        self._monitor.update(standing)
        result = self._pool.next(timeout=1.0)
        if result is not None:
            self._ledger.finish(result)
            self._count(standing, result)
            self._monitor.update(standing, result)
        self._watch.tick()

    def _count(self, standing: Standing, result: Result) -> None:
        standing.running = self._pool.pending
        standing.done += 1
        if not isinstance(result.outcome, Score):
            standing.failures += 1
        elif standing.phase == "search":
            self._rank(standing, result.candidate, result.outcome.value)

    def _rank(self, standing: Standing, candidate: Candidate, value: float) -> None:
        if math.isnan(standing.best) or value > standing.best:
            standing.best, standing.best_what = value, candidate.recipe.title
        if self._ledger.is_parent(candidate.id) and not value <= standing.best_parent:
            standing.best_parent = value

    def _standing(self, split: Split, phase: str, total: int | None) -> Standing:
        standing = Standing(phase=phase, total=total, workers=self._pool.size)
        for record in self._store.records():
            search = record.evaluations.get(Split.SEARCH)
            if search is not None and not math.isnan(search.value):
                candidate = Candidate(id=record.id, recipe=record.recipe, questions=())
                self._rank(standing, candidate, search.value)
            if split is Split.SEARCH and search is not None and search.finished is not None:
                standing.done += 1
                standing.failures += search.failure_kind is not None
        return standing
