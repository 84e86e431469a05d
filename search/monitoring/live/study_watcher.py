"""``search status --watch``: the live view of a run from any terminal; it only reads."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rich.console import Console, RenderableType
from rich.live import Live

from runs.activity.timeline import Timeline
from runs.config.budget import Budget, Cost
from runs.config.run_config import RunConfig
from runs.ranking.lead import Lead
from runs.records.record import Part, Record, Split, State
from runs.storage.database.connection import file_of, shown
from runs.storage.database.reconnection import SERVER_SECONDS
from runs.storage.store import Store
from runs.storage.study_creation import exists
from search.engine.learning.learning_progress import LearningProgress, standing_of, tracks
from search.engine.spending import SAVE_SECONDS, cost_so_far
from search.engine.trials.leading import Leading
from search.inputs.stored_study.study_config import config_of
from search.inputs.stored_study.study_path import STUDY
from search.monitoring.console import say_line
from search.monitoring.live.live_view import Active, PhasePace, PhaseStanding, line, view

LOOKING_SHARE = 0.1
"""Most of the time that is spent on looking at who is ahead."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Seen:
    """What is read of a study in one look.

    Attributes:
        config: With the budget that it has by now.
        records: Its candidates.
        parts: What they were asked.
        cost: What was spent.
        seconds: Of drivers at work, as last saved.
        driven: Whether somebody is at work on the run.
        complete: Whether the budget is spent and nobody is at work.
        learned: The recipes whose coefficients are learned, by name.
        over: Whether nobody is, and the last driver ended well: its budget was spent, or it was
            stopped, or it failed. One that was killed leaves its lock: `resume` may follow.
    """

    config: RunConfig
    records: tuple[Record, ...]
    parts: tuple[tuple[int, Split, Part], ...]
    cost: Cost
    seconds: float
    driven: bool
    complete: bool
    learned: Mapping[str, LearningProgress]
    over: bool

    @classmethod
    def of(cls, store: Store) -> _Seen:
        """By several queries, which should be of the same moment."""
        config, records, holder = config_of(store), store.records(), store.holder()
        driven = holder is not None and holder.alive
        ended = store.fact("ended") == Budget.of(config.search).words(Cost())
        return cls(
            config=config,
            records=records,
            parts=store.parts(),
            cost=cost_so_far(store, records),
            seconds=store.number("seconds"),
            driven=driven,
            complete=ended and not driven,
            learned=tracks(store),
            over=holder is None and store.fact("gpus") is not None,
        )


class Watcher:
    """Reads where a run stands, again and again."""

    def __init__(self, store: Store) -> None:
        self.store = store
        store.patience = SERVER_SECONDS
        self.driven = False
        self.over = False
        self._leading = Leading(store, share=LOOKING_SHARE)
        self._lead = Lead()
        self._seconds = -1.0  # as the driver last saved them
        self._saved_at = 0.0
        self._shown = 0.0

    def standing(self) -> PhaseStanding:
        """As it is now."""
        self.store.check_there()
        seen = self.store.at_once(lambda: _Seen.of(self.store))
        self.driven, self.over = seen.driven, seen.over
        if seen.seconds != self._seconds:
            self._seconds, self._saved_at = seen.seconds, time.monotonic()
        results = sum(part.state is not State.RUNNING for _, _, part in seen.parts)
        self._lead = self._leading.look(results)
        found = self._standing(seen)
        self.store.rest()  # a driver that ends makes one plain file of the study, if nobody is in
        return found

    def seconds(self) -> float:
        """Seconds that drivers have worked on the run, all sessions together; pauses take none."""
        since = time.monotonic() - self._saved_at if self.driven else 0.0
        self._shown = max(self._shown, self._seconds + min(since, SAVE_SECONDS))
        return self._shown

    def _standing(self, seen: _Seen) -> PhaseStanding:
        records, parts, budget = seen.records, seen.parts, Budget.of(seen.config.search)
        by_id = {record.id: record for record in records}
        searching = [r for r in records if r.evaluations[Split.SEARCH].state is State.RUNNING]
        held_out = [r for r in records if Split.HELD_OUT in r.evaluations]
        phase = "held-out" if held_out and not searching else "search"
        workers = max(1, Timeline.of(parts).most_at_once)
        if not searching and any(track.under_way for track in seen.learned.values()):
            learning = standing_of(seen.learned, title=self.store.title, workers=workers)
            learning.seconds = self.seconds()
            learning.notice = self._notice(seen)
            return learning
        found = PhaseStanding(
            phase=phase,
            title=self.store.title,
            total=len(held_out) if phase == "held-out" else budget.trials,
            share=math.nan if phase == "held-out" else budget.share(seen.cost),
            budget="" if phase == "held-out" else budget.words(seen.cost),
            done=_done(held_out if phase == "held-out" else records, phase),
            lead=self._lead,
            seconds=self.seconds(),
            workers=workers,
            questions=sum(p.questions for _, _, p in parts if p.state is State.COMPLETE),
            notice=self._notice(seen),
        )
        for record in records:
            if (kind := record.evaluations[Split.SEARCH].failure_kind) is not None:
                found.fail(kind.value)
        found.active = {
            number: Active(
                candidate=number,
                what=by_id[number].recipe.title,
                questions=part.questions,
                since=part.started.timestamp(),
            )
            for number, _, part in parts
            if part.state is State.RUNNING and seen.driven
        }
        found.running = min(len(found.active), found.workers)
        return found

    def _notice(self, seen: _Seen) -> str:
        if seen.driven or seen.complete:
            return ""
        return f"no driver is running; `search resume {self.store.name}` continues it"


def _done(records: tuple[Record, ...] | list[Record], phase: str) -> int:
    split = Split.HELD_OUT if phase == "held-out" else Split.SEARCH
    return sum(r.evaluations[split].state is not State.RUNNING for r in records)


def await_study(
    study: str, console: Console, *, interval: float, sleep: Callable[[float], None] = time.sleep
) -> str:
    """Wait until there is a study.

    Args:
        study: Its file, the run's folder, or the URL of its database.
        console: Told that it is waited for.
        interval: Seconds between two looks.
        sleep: Waits so many seconds.

    Returns:
        Where it is.

    Raises:
        StoreError: If its database cannot be reached.
    """

    def place() -> str:  # what becomes the run's folder may not be there yet
        path = file_of(study)
        return study if path is None or not path.is_dir() else str(path / STUDY)

    if not exists(place()):
        text = f"waiting for {shown(study)}; Ctrl-C stops"
        say_line(console, text)
    while not exists(place()):
        sleep(interval)
    return place()


def watch(
    store: Store,
    console: Console,
    *,
    interval: float,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Show a run until it is over or the user stops watching.

    Args:
        store: The study; only read.
        console: Where to; lines instead of a view where it is no terminal.
        interval: Seconds between two looks.
        sleep: Waits so many seconds.
    """
    watcher = Watcher(store)
    standing, pace = watcher.standing(), PhasePace(watcher.seconds)
    if standing.phase == "search":
        pace.since(standing, watcher.seconds())
    pace.see(standing)

    def shown() -> RenderableType:
        standing.seconds = watcher.seconds()
        return view(standing, pace)

    live = Live(console=console, get_renderable=shown, refresh_per_second=2)
    if console.is_terminal:
        live.start()
    try:
        while True:
            if not console.is_terminal:
                stamp = time.strftime("%H:%M:%S")
                text = f"{stamp}  {line(standing, pace)}"
                say_line(console, text)
            if watcher.over:
                break
            sleep(interval)
            standing = watcher.standing()
            pace.see(standing)
    except KeyboardInterrupt:
        pass  # the way to stop watching; the run itself does not notice
    finally:
        if console.is_terminal:
            live.stop()
