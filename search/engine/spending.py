"""What a run has spent of its budget while it goes on, and what it must keep for the end."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from evaluators.protocol import Score
from evaluators.workers import clock
from evaluators.workers.pool import Result
from runs.config.budget import Budget, Cost, cost_of
from runs.records.record import Record
from runs.storage.store import Store
from search.engine.learning.learning_progress import spent

SAVE_SECONDS = 15.0
"""Time between savings of the time used."""


_SESSION = "session:"


class Watch:
    """Seconds spent searching, kept in the study so that a resumed run goes on counting.

    It also keeps when this driver was at work, so that moments of the run can be told in them.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._before = store.number("seconds")
        self._session = f"{_SESSION}{len(store.facts(_SESSION))}"
        self._began = clock.now()
        self._start = time.monotonic()
        self._saved = self._start

    @property
    def seconds(self) -> float:
        """Time spent so far, by this driver and those before it."""
        return self._before + time.monotonic() - self._start

    def tick(self) -> bool:
        """Save the time used, every now and then.

        Returns:
            Whether it was time.
        """
        due = time.monotonic() - self._saved >= SAVE_SECONDS
        if due:
            self.save()
        return due

    def save(self) -> None:
        """Save the time used."""
        self._saved = time.monotonic()
        seconds = self.seconds
        session = [self._began, self._began + seconds - self._before]
        self._store.set_facts({"seconds": f"{seconds:.1f}", self._session: json.dumps(session)})


def sessions(store: Store) -> tuple[tuple[float, float], ...]:
    """When drivers were at work, in seconds since the epoch; none where not all of it is known.

    Earlier versions kept only how long it was altogether.
    """
    known = tuple(store.numbered(_SESSION, _session))
    total = math.fsum(end - start for start, end in known)
    return known if abs(total - store.number("seconds")) <= 1.0 else ()


def _session(at: int, text: str) -> tuple[float, float]:
    """What was written of a session; refused where it is not as we write it."""
    start, end = map(float, json.loads(text))
    if not (math.isfinite(start) and math.isfinite(end) and start <= end):
        raise ValueError(f"session {at}: expected two times, got {text}")
    return start, end


class Spending:
    """Counts what is spent, in all units at once.

    Args:
        budget: The limits.
        records: What was spent before.
        watch: The clock.
        workers: Gives the number of workers, which may change.
        gpus: GPUs of one worker.
        reserve: Most questions that the final check can take.
        before: What was spent on something other than candidates.
    """

    def __init__(
        self,
        budget: Budget,
        records: Sequence[Record],
        *,
        watch: Watch,
        workers: Callable[[], int],
        gpus: float,
        reserve: int,
        before: Cost,
    ) -> None:
        self._budget = budget
        self._watch = watch
        self._workers = workers
        self._gpus = gpus
        self._reserve = reserve
        self._before = before
        spent = cost_of(records, seconds=0.0, gpus=1.0)
        self._busy, self._tokens = spent.gpu_hours, spent.tokens  # hours of all workers
        self._answered = sum(
            evaluation.questions
            for record in records
            for evaluation in record.evaluations.values()
            if not math.isnan(evaluation.score_seconds)
        )

    def note(self, result: Result) -> None:
        """Take note of the time and tokens that a result took."""
        if isinstance(result.scored, Score):
            seconds = result.scored.build_seconds + result.scored.score_seconds
            self._busy += seconds / 3600
            self._tokens += sum(task.tokens for task in result.scored.tasks)
            self._answered += len(result.scored.outcomes)

    def cost(self, *, trials: int, asked: int) -> Cost:
        """What was spent so far."""
        return Cost(
            trials=trials,
            questions=asked + self._before.questions,
            tokens=self._tokens + self._before.tokens,
            hours=self._watch.seconds / 3600,
            gpu_hours=self._busy * self._gpus + self._before.gpu_hours,
        )

    def room_for(self, questions: int, cost: Cost) -> bool:
        """Whether so many more questions can be asked with enough left for the final check."""
        budget, pace = self._budget, self._busy / max(1.0, self._answered)
        needed = (questions + self._reserve) * pace
        if budget.trials is not None and cost.trials >= budget.trials:
            return False
        if budget.questions is not None:
            left = budget.questions - cost.questions - self._reserve
            if questions > left:
                return False
        if budget.tokens is not None:
            each = self._tokens / max(1.0, self._answered)
            if cost.tokens + (questions + self._reserve) * each >= budget.tokens:
                return False
        if budget.hours is not None and cost.hours + needed / self._workers() >= budget.hours:
            return False
        return budget.gpu_hours is None or cost.gpu_hours + needed * self._gpus < budget.gpu_hours


def cost_so_far(store: Store, records: tuple[Record, ...]) -> Cost:
    """What a run has cost."""
    seconds, gpus = (store.number(name) for name in ("seconds", "gpus"))
    cost, learned = cost_of(records, seconds=seconds, gpus=gpus), spent(store)
    return replace(
        cost,
        questions=cost.questions + learned.questions,
        tokens=cost.tokens + learned.tokens,
        gpu_hours=cost.gpu_hours + learned.gpu_hours,
    )
