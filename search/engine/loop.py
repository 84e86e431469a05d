"""Ask, evaluate, tell: the asynchronous search loop, and the final check after it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

from evaluators.protocol import Candidate, FailureKind, Score
from evaluators.workers import clock
from evaluators.workers.pool import Pool, Result
from runs.activity.worker_register import WorkerRegister
from runs.config.budget import Budget, Cost
from runs.ranking.leaderboard import score_of
from runs.records.record import Split, State
from runs.storage.store import Store
from search.engine.learning.learning_progress import spent
from search.engine.processes.stop_signals import Stop
from search.engine.spending import Spending, Watch
from search.engine.trials.ask_tell import AskTell
from search.engine.trials.leading import Leading
from search.engine.trials.prefetch import Prefetch
from search.inputs.input_error import RunFailed
from search.monitoring.monitor import Active, Monitor, PhaseStanding

Asker = Callable[[], Candidate | None]
"""Begins an asking just before it is handed out; ``None`` if there is nothing to ask."""

HOPELESS = 10
"""Candidates after which a run ends if they all failed the same way."""

EXHAUSTED = "exhausted"
"""The fact that says for which budget no further recipe was found."""

LOOKING_SHARE = 0.03
"""Most of a driver's time that is spent on looking at who is ahead: for people's eyes only."""


class Loop:
    """Keeps every worker of a pool busy with the next questions until the budget is spent."""

    def __init__(
        self, store: Store, ask_tell: AskTell, *, pool: Pool, monitor: Monitor, stop: Stop
    ) -> None:
        self._store = store
        self._ask_tell = ask_tell
        self._pool = pool
        self._monitor = monitor
        self._stop = stop
        self._watch = Watch(store)
        self._register = WorkerRegister(store)
        self._ahead = Prefetch()
        self._leading = Leading(store, share=LOOKING_SHARE)
        self._results = 0
        self._active: dict[int, Active] = {}
        self._hope: set[FailureKind] | None = None

    def seconds(self) -> float:
        """Time that drivers were at work on the run, this one included."""
        return self._watch.seconds

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
            workers=lambda: self._pool.size,
            gpus=self._pool.gpus,
            reserve=reserve,
            before=spent(self._store),
        )
        scored = any(math.isfinite(score_of(record)) for record in records)
        self._hope = None if scored else set()
        standing = self._standing("search", budget.trials)
        standing.done = self._ask_tell.decided
        for record in records:
            evaluation = record.evaluations[Split.SEARCH]
            if evaluation.state is State.FAILED and evaluation.failure_kind is not None:
                standing.fail(evaluation.failure_kind.value)
        for candidate in self._ask_tell.recover():
            self._submit(candidate)
        # An answer that was under way then may have made another the leader since.
        exhausted = self._store.fact(EXHAUSTED) == budget.words(Cost())
        while True:
            wanted = self._pool.size + self._ahead.wanted(self._pool.size)
            more = not exhausted and not self._stop.requested
            while more and self._pool.pending < wanted:
                cost = spending.cost(trials=self._ask_tell.taken_up, asked=self._ask_tell.asked)
                standing.share, standing.budget = budget.share(cost), budget.words(cost)
                more = spending.room_for(self._ask_tell.block_size, cost)
                if more:
                    with self._ahead.thinking():
                        proposed = self._ask_tell.next()
                    if proposed is None:
                        exhausted, more = True, False
                        self._store.set_fact(EXHAUSTED, budget.words(Cost()))
                        self._monitor.note("the space is exhausted, or nearly so")
                    else:
                        self._submit(proposed)
            if self._stop.requested:
                self._pool.withdraw()  # under way in the study, so a resumed run hands it out
            if self._pool.pending == 0:
                break
            for result in self._take_all(standing, last=not more):
                spending.note(result)
                self._check_hope(result)
        self._end(standing)

    def _take_all(self, standing: PhaseStanding, *, last: bool) -> Iterator[Result]:
        """Wait a moment for a result, and take those with it that are there already.

        What is asked next then goes by all of them, and several proposals by the same process.
        """
        result = self._take(standing, last=last)
        for _ in range(1, self._pool.size):
            if result is None:
                return
            yield result
            result = self._take(standing, last=last, patient=False)
        if result is not None:
            yield result

    def _check_hope(self, result: Result) -> None:
        """End the run if its first candidates all failed the same way: the set-up is wrong then."""
        if self._hope is None:
            return
        if isinstance(result.scored, Score) or self._hope - {result.scored.kind}:
            self._hope = None
            return
        self._hope = {result.scored.kind}
        if self._ask_tell.decided >= HOPELESS:
            self._save()
            raise RunFailed(
                f"{self._store.name}: the first {self._ask_tell.decided} candidates all failed the "
                f"same way ({result.scored.kind}): {result.scored.message}; mend that and start "
                "a new run"
            )

    def ask(self, phase: str, asks: Iterable[Asker], total: int) -> None:
        """Ask known candidates further questions."""
        standing = self._standing(phase, total)
        waiting = list(asks)
        while waiting or self._pool.pending:
            while waiting and self._pool.pending < self._pool.size and not self._stop.requested:
                candidate = waiting.pop(0)()
                if candidate is not None:
                    self._note_active(candidate)
                    self._pool.submit(candidate)
            if self._pool.pending == 0:
                break
            self._take(standing, last=not waiting)
        self._end(standing)

    def _submit(self, candidate: Candidate, *, near: str = "") -> None:
        self._note_active(candidate)
        self._pool.submit(candidate, near=near, keep=self._ask_tell.may_continue(candidate))

    def _note_active(self, candidate: Candidate) -> None:
        self._active[candidate.id] = Active(
            candidate=candidate.id,
            what=candidate.recipe.title,
            questions=len(candidate.questions),
            since=clock.now(),
        )

    def _take(self, standing: PhaseStanding, *, last: bool, patient: bool = True) -> Result | None:
        """Take a result, record it, and ask on where there is reason to.

        Args:
            standing: Where the phase stands.
            last: Whether nothing is left but what is under way: then no straggler is waited for.
            patient: Whether to wait a moment where there is none.
        """
        standing.workers = self._pool.size
        standing.running = min(self._pool.pending, standing.workers)
        standing.active = dict(self._active)
        standing.seconds = self._watch.seconds
        self._monitor.update(standing)
        self._pool.hurry(last)
        result = self._next() if patient else self._pool.next(timeout=0.0)
        if result is not None:
            self._active.pop(result.candidate.id, None)
            with self._ahead.thinking():
                further = self._ask_tell.finish(result, self._pool.begun())
            self._ahead.note(result.ended - result.began)
            if further is not None:
                self._submit(further, near=result.worker)
            self._count(standing, result)
            self._monitor.update(standing, result)
        for news in self._pool.news():
            self._monitor.note(news)
        if self._watch.tick():
            self._register.save(self._pool.attendance())
        return result

    def _next(self) -> Result | None:
        """The next result; before it is waited for, it is on record what workers began with."""
        if self._pool.size > 1:  # a result that is there is recorded together with that
            result = self._pool.next(timeout=0.0)
            if result is not None:
                return result
        self._store.began(self._pool.begun())
        return self._pool.next(timeout=1.0)

    def _save(self) -> None:
        self._watch.save()
        self._register.save(self._pool.attendance())

    def _end(self, standing: PhaseStanding) -> None:
        """Keep what was spent in a phase that has ended, and show how it ended."""
        self._save()
        standing.lead = self._leading.look(self._results, at_once=True)
        standing.seconds = self._watch.seconds
        self._monitor.update(standing)

    def _count(self, standing: PhaseStanding, result: Result) -> None:
        standing.running = min(self._pool.pending, self._pool.size)
        standing.active = dict(self._active)
        if isinstance(result.scored, Score):
            standing.questions += len(result.scored.outcomes)
        else:
            standing.fail(result.scored.kind.value)
        if standing.phase == "search":
            standing.done = self._ask_tell.decided
        else:
            standing.done += 1
        self._results += 1
        standing.lead = self._leading.look(self._results)

    def _standing(self, phase: str, total: int | None) -> PhaseStanding:
        return PhaseStanding(
            phase=phase,
            total=total,
            title=self._store.title,
            workers=self._pool.size,
            lead=self._leading.look(self._results, at_once=True),
            seconds=self._watch.seconds,
        )
