"""Who worked on a run, for how long they were there, and how much of that they worked."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import asdict

from evaluators.workers import clock
from evaluators.workers.pool import Attendance
from runs.storage.store import Store

_PREFIX = "worker:"


class WorkerRegister:
    """Keeps the attendance of a pool's workers in the study.

    Workers of earlier drivers stay in it.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._before = len(store.facts(_PREFIX))
        self._written: dict[str, str] = {}

    def save(self, attendances: Sequence[Attendance]) -> None:
        """Write what changed; a worker that is still there is noted as there until now."""
        now, changed = clock.now(), {}
        for at, one in enumerate(attendances, start=self._before):
            key, known = f"{_PREFIX}{at}", asdict(one)
            if one.left is None:
                known["left"] = now
            text = json.dumps({name: _rounded(value) for name, value in known.items()})
            if self._written.get(key) != text:
                changed[key] = text
        self._store.set_facts(changed)
        self._written |= changed


def attended(store: Store) -> tuple[Attendance, ...]:
    """Every worker of a run, in the order they joined."""
    return tuple(store.numbered(_PREFIX, _attendance))


def _attendance(at: int, text: str) -> Attendance:
    """What was written of a worker; refused where it is not as we write it."""
    one = Attendance(**json.loads(text))
    texts, numbers = (one.worker, one.node), (one.gpus, one.joined, one.left, one.busy)
    if not all(isinstance(text, str) for text in texts):
        raise TypeError(f"worker {at}: expected names, got {texts}")
    if not all(math.isfinite(number) for number in numbers if number is not None):
        raise ValueError(f"worker {at}: expected times, got {numbers}")
    return one


def busy_share(attendances: Sequence[Attendance]) -> float:
    """Share of the time that workers were there in which they had a candidate; NaN without any."""
    there = math.fsum(
        max(0.0, one.left - one.joined) for one in attendances if one.left is not None
    )
    busy = math.fsum(one.busy for one in attendances if one.left is not None)
    return min(1.0, busy / there) if there > 0 else math.nan


def most_at_once(attendances: Sequence[Attendance]) -> int:
    """The largest number of workers that were there at the same time, whatever sessions there were.

    A run that was resumed three times with one worker had four workers, one at a time.
    """
    return _most((one.joined, one.left, index) for index, one in enumerate(attendances))


def machines(attendances: Sequence[Attendance]) -> int:
    """Number of machines that workers were on.

    A machine has another id in each of Ray's sessions, but the same host name; of nodes that have
    one name too, as many are machines as were there at the same time.
    """
    hosts = {one.node.partition(" (")[0] for one in attendances}
    return max(len(hosts), _most((one.joined, one.left, one.node) for one in attendances))


def _most(spans: Iterable[tuple[float, float | None, Hashable]]) -> int:
    """The largest number of distinct things that were there at the same time."""
    changes: list[tuple[float, bool, Hashable]] = []
    for joined, left, what in spans:
        changes.append((joined, True, what))
        if left is not None:
            changes.append((max(joined, left), False, what))
    here: Counter[Hashable] = Counter()
    most = 0
    for _, came, what in sorted(changes, key=lambda change: change[:2]):  # who left goes first
        here[what] += 1 if came else -1
        most = max(most, sum(count > 0 for count in here.values()))
    return most


def _rounded(value: str | float | None) -> str | float | None:
    return round(value, 3) if isinstance(value, float) else value
