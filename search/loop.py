"""Ask, evaluate, tell: the asynchronous search loop, and the final check after it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable

from evaluators.base import Candidate, FailureKind, Score
from evaluators.pool import Pool, Result
from runs.budget import Budget
from runs.leaderboard import score_of
from runs.records import Split, State
from runs.store import Store
from search.errors import RunFailed
from search.ledger import Ledger
from search.monitor import Monitor, Standing
from search.spending import Spending, Watch
from search.stop import Stop

Asker = Callable[[], Candidate | None]
"""Begins an asking just before it is handed out; ``None`` if there is nothing to ask."""

HOPELESS = 10
"""Candidates after which a run ends if they all failed the same way."""

RANK_SECONDS = 1.0
"""Shortest time between two looks at who is ahead."""


class Loop:
    """Keeps every worker of a pool busy with the next questions until the budget is spent."""

    def __init__(
        self, store: Store, ledger: Ledger, *, pool: Pool, monitor: Monitor, stop: Stop
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._pool = pool
        self._monitor = monitor
        self._stop = stop
        self._watch = Watch(store)
        self._ranked = -math.inf
        scored = any(math.isfinite(score_of(record)) for record in store.records())
        self._hope: set[FailureKind] | None = None if scored else set()

    def search(self, budget: Budget, *, reserve: int = 0) -> None:
        """Search until the budget is spent, the space is exhausted or a stop is requested.

        Args:
            budget: When to end.
            reserve: Questions to keep for the final check.
        """
        records = self._store.records()
        spending = Spending(
            budget,
            records,
            watch=self._watch,
            workers=self._pool.size,
            gpus=self._pool.gpus,
            reserve=reserve,
        )
        standing = self._standing("search", budget.trials)
        for candidate in self._ledger.recover():
            self._pool.submit(candidate)
        exhausted = False
        while True:
            while not exhausted and self._pool.pending < self._pool.size:
                cost = spending.cost(trials=self._ledger.taken_up, asked=self._ledger.asked)
                standing.share, standing.budget = budget.share(cost), budget.words(cost)
                if self._stop.requested or not spending.room_for(self._ledger.block_size, cost):
                    break
                proposed = self._ledger.next()
                if proposed is None:
                    exhausted = True
                    self._monitor.note("every recipe of the space was tried, or nearly so")
                else:
                    self._pool.submit(proposed)
            if self._pool.pending == 0:
                break
            result = self._take(standing)
            if result is not None:
                spending.note(result)
                self._check_hope(result)
        self._watch.save()

    def _check_hope(self, result: Result) -> None:
        """End the run if its first candidates all failed the same way: the set-up is wrong then."""
        if self._hope is None:
            return
        if isinstance(result.outcome, Score) or self._hope - {result.outcome.kind}:
            self._hope = None
            return
        self._hope = {result.outcome.kind}
        if self._ledger.decided >= HOPELESS:
            self._watch.save()
            raise RunFailed(
                f"{self._store.name}: the first {self._ledger.decided} candidates all failed the "
                f"same way ({result.outcome.kind}): {result.outcome.message}; mend that and start "
                "a new run"
            )

    def ask(self, phase: str, asks: Iterable[Asker], total: int) -> None:
        """Ask known candidates further questions.

        Args:
            phase: What to call it.
            asks: One per candidate.
            total: How many there are.
        """
        standing = self._standing(phase, total)
        waiting = list(asks)
        while waiting or self._pool.pending:
            while waiting and self._pool.pending < self._pool.size and not self._stop.requested:
                candidate = waiting.pop(0)()
                if candidate is not None:
                    self._pool.submit(candidate)
            if self._pool.pending == 0:
                break
            self._take(standing)
        self._watch.save()

    def _take(self, standing: Standing) -> Result | None:
        """Wait a moment for a result, record it, and ask on where there is reason to."""
        standing.running = self._pool.pending
        self._monitor.update(standing)
        result = self._pool.next(timeout=1.0)
        if result is not None:
            further = self._ledger.finish(result)
            if further is not None:
                self._pool.submit(further, near=result.worker)
            self._count(standing, result, ended=further is None)
            self._monitor.update(standing, result)
        self._watch.tick()
        return result

    def _count(self, standing: Standing, result: Result, *, ended: bool) -> None:
        standing.running = self._pool.pending
        if standing.phase == "search":
            standing.done = self._ledger.decided
            # Looking at all candidates anew takes a moment, and is for people's eyes only.
            if ended and time.monotonic() - self._ranked > RANK_SECONDS:
                self._rank(standing)
        else:
            standing.done += 1
        standing.failures += not isinstance(result.outcome, Score)

    def _rank(self, standing: Standing) -> None:
        lead, self._ranked = self._ledger.lead(), time.monotonic()
        standing.best, standing.best_what = lead.best, lead.what
        standing.best_parent = lead.best_parent

    def _standing(self, phase: str, total: int | None) -> Standing:
        standing = Standing(phase=phase, total=total, workers=self._pool.size)
        self._rank(standing)
        if phase == "search":
            standing.done = self._ledger.decided
            standing.failures = sum(
                record.evaluations[Split.SEARCH].state is State.FAILED
                for record in self._store.records()
            )
        return standing
