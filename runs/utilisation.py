"""Who worked on a run, for how long they were there, and how much of that they worked."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict

from evaluators.pool import Attendance
from runs.store import Store

_PREFIX = "worker:"


class Register:
    """Keeps the attendance of a pool's workers in the study.

    Workers of earlier drivers stay in it.

    Args:
        store: The run's study.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._before = len(store.facts(_PREFIX))
        self._written: dict[str, str] = {}

    def save(self, attendances: Sequence[Attendance]) -> None:
        """Write what changed; a worker that is still there is noted as there until now."""
        now, changed = time.time(), {}
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
    known = store.facts(_PREFIX)
    order = sorted(known, key=lambda key: int(key.removeprefix(_PREFIX)))
    return tuple(Attendance(**json.loads(known[key])) for key in order)


def busy_share(attendances: Sequence[Attendance]) -> float:
    """Share of the time that workers were there in which they had a candidate; NaN without any."""
    there = math.fsum(one.left - one.joined for one in attendances if one.left is not None)
    busy = math.fsum(one.busy for one in attendances if one.left is not None)
    return min(1.0, busy / there) if there > 0 else math.nan


def _rounded(value: str | float | None) -> str | float | None:
    return round(value, 3) if isinstance(value, float) else value
