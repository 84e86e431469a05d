"""Looking at who is ahead while a run goes on, as often as it may cost time."""

from __future__ import annotations

import math
import time
from contextlib import suppress

from runs.ranking.lead import Lead, lead
from runs.storage.database.connection import StoreError
from runs.storage.store import Store
from search.samplers.estimation.posterior import judged


class Leading:
    """Says who is ahead by the study alone: whoever looks at the same results sees the same.

    Args:
        store: The study.
        share: Most of the time that is spent on looking.
    """

    def __init__(self, store: Store, *, share: float) -> None:
        self._store, self._share = store, share
        self._lead = Lead()
        self._seen, self._looked, self._took = -1, -math.inf, 0.0

    def look(self, results: int, *, at_once: bool = False) -> Lead:
        """Who is ahead, now or a moment ago.

        Args:
            results: Number of results that are there: without a new one nobody else is ahead.
            at_once: Look now, however long ago it was looked last.
        """
        started = time.monotonic()
        due = at_once or started - self._looked >= self._took / self._share
        if results != self._seen and due:
            with suppress(StoreError):  # who writes next waits for the database, or says it is gone
                self._lead = lead(judged(self._store, apart=False))
                self._seen = results
            self._looked = time.monotonic()
            self._took = self._looked - started
        return self._lead
