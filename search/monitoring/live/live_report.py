"""A study as a page that grows with it: its report, made anew as results come, and its standing."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

from runs.report.html.page import page
from runs.report.report_content import Report
from runs.storage.database.connection import check_file, file_of, shown
from runs.storage.database.study_copies import identity
from runs.storage.store import Store
from search.inputs.stored_study.study_config import config_of
from search.monitoring.live.live_view import PhasePace, PhaseStanding
from search.monitoring.live.study_watcher import Watcher
from search.monitoring.study_report import make_report

REPORT_SHARE = 0.1
"""Most of the time that is spent on making reports, as one of a large study takes seconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MadeReport:
    """A report, and how far the run was when it was made.

    Attributes:
        report: The report.
        html: As a page.
        state: Results that it knows of, and whether the run was over.
        due: When another one may be made, on the clock of ``time.monotonic``.
    """

    report: Report
    html: str
    state: tuple[int, bool]
    due: float


class LiveReport:
    """What the page shows. All reading is done by one thread, as requests come."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._watcher = Watcher(store)
        self._pace = PhasePace(self._watcher.seconds)
        self._made: MadeReport | None = None

    def standing(self) -> dict[str, Any]:
        """Where the run stands, as JSON; ``results`` grows when a reload would show more."""
        standing = self._watcher.standing()
        self._pace.see(standing)
        return {
            "results": self._results(standing),
            "over": self._watcher.over,
            "driven": self._watcher.driven,
            "phase": standing.phase,
            "share": None if math.isnan(standing.progress) else standing.progress,
            "done": standing.amount(),
            "time": self._pace.text(standing),
            "best": standing.best_text(),
            "workers": f"{standing.running} of {standing.workers} busy",
            "failures": standing.failed_text() if standing.failures else "",
            "notice": standing.notice,
        }

    def _results(self, standing: PhaseStanding) -> int:
        return standing.questions + standing.failures

    def report(self) -> MadeReport:
        """The newest report; one that took long to make is shown for a while."""
        made, now = self._made, time.monotonic()
        if made is not None and now < made.due:
            return made
        standing = self._watcher.standing()
        state = (self._results(standing), self._watcher.over)
        if made is not None and made.state == state:
            return made
        try:
            report = make_report(self._store, config_of(self._store))
        finally:
            self._store.rest()
        html = page(report, live=state[0])
        took = time.monotonic() - now
        due = time.monotonic() + took * (1 / REPORT_SHARE - 1)
        self._made = MadeReport(report=report, html=html, state=state, due=due)
        return self._made

    def recipe(self, candidate: int) -> str | None:
        """A candidate's recipe as YAML; ``None`` where there is none of that number."""
        details = self.report().report.details
        found = (one for one in details.records if one.id == candidate) if details else ()
        record = next(iter(found), None)
        return None if record is None or details is None else details.recipe(record)


class ServedStudy:
    """The study that is served: opened anew where another file took its place."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._file: str | None = None
        self._store: Store | None = None
        self._live: LiveReport | None = None

    def live(self) -> LiveReport:
        """What is to be seen of it now.

        Raises:
            StoreError: If there is none, or none that can be read.
        """
        path = file_of(self._place)
        if path is not None:
            check_file(path, shown(self._place))  # to open what is gone would make an empty file
        file = None if path is None else identity(path)
        if self._live is None or file != self._file:
            self.close()
            self._store = Store.open(self._place)
            self._file, self._live = file, LiveReport(self._store)
        return self._live

    def close(self) -> None:
        """Close it until it is asked for again."""
        if self._store is not None:
            self._store.close()
        self._store = self._live = None
