"""``search status --watch``: the live view of a run from any terminal; it only reads."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live

from runs.budget import Budget, Cost
from runs.config import RunConfig
from runs.leaderboard import ranked
from runs.progress import expected
from runs.records import Record, Role, Split, State, role_of
from runs.store import Store
from runs.timeline import Timeline
from search.live_view import Active, Pace, Standing, line, view
from search.posterior import judged
from search.summary import cost_so_far

RANKING_SHARE = 0.1
"""Most of the time that is spent on looking at who is ahead."""


@dataclass
class Watcher:
    """Reads where a run stands, again and again.

    Args:
        store: The study.
        config: Its config.
    """

    store: Store
    config: RunConfig
    _ranked_at: float = -math.inf
    _ranking_took: float = 0.0
    _ranked_parts: int = -1
    _lead: tuple[float, str, float] = field(default=(math.nan, "", math.nan))

    def standing(self) -> Standing:
        """As it is now."""
        records = self.store.records()
        parts = self.store.parts()
        finished = sum(part.state is not State.RUNNING for _, _, part in parts)
        self._look(finished)
        by_id = {record.id: record for record in records}
        searching = [r for r in records if r.evaluations[Split.SEARCH].state is State.RUNNING]
        held_out = [r for r in records if Split.HELD_OUT in r.evaluations]
        phase = "held-out" if held_out and not searching else "search"
        budget = Budget.of(self.config.search)
        cost = cost_so_far(self.store, records)
        best, what, parent = self._lead
        found = Standing(
            phase=phase,
            title=self.store.title,
            total=len(held_out) if phase == "held-out" else budget.trials,
            share=math.nan if phase == "held-out" else budget.share(cost),
            budget="" if phase == "held-out" else budget.words(cost),
            done=_done(held_out if phase == "held-out" else records, phase),
            best=best,
            best_what=what,
            best_parent=parent,
            workers=max(1, Timeline.of(parts).most_at_once),
            questions=sum(p.questions for _, _, p in parts if p.state is State.COMPLETE),
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
            if part.state is State.RUNNING and self.driven()
        }
        if not self.driven() and not self.over():
            found.notice = f"nobody is at work on it; `search resume {self.store.name}` goes on"
        found.running = min(len(found.active), found.workers)
        return found

    def driven(self) -> bool:
        """Whether somebody is at work on the run."""
        holder = self.store.lock.holder()
        return holder is not None and holder.alive

    def over(self) -> bool:
        """Whether the run came to its end."""
        ended = self.store.fact("ended") == Budget.of(self.config.search).words(Cost())
        return ended and not self.driven()

    def _look(self, finished: int) -> None:
        """See who is ahead, if that can have changed and was not looked at a moment ago."""
        now = time.monotonic()
        wait = self._ranking_took / RANKING_SHARE
        if finished == self._ranked_parts or now - self._ranked_at < wait:
            return
        order = ranked(judged(self.store))
        parents = [expected(r) for r in order if role_of(r.origin) is Role.PARENT]
        if order:
            first = order[0]
            self._lead = (expected(first), first.recipe.title, max(parents, default=math.nan))
        self._ranking_took = time.monotonic() - now
        self._ranked_at, self._ranked_parts = time.monotonic(), finished


def _done(records: tuple[Record, ...] | list[Record], phase: str) -> int:
    split = Split.HELD_OUT if phase == "held-out" else Split.SEARCH
    return sum(r.evaluations[split].state is not State.RUNNING for r in records)


def watch(
    store: Store,
    config: RunConfig,
    console: Console,
    *,
    interval: float,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Show a run until it is over or the user stops watching.

    Args:
        store: The study; only read.
        config: Its config.
        console: Where to; lines instead of a view where it is no terminal.
        interval: Seconds between two looks.
        sleep: Waits so many seconds.
    """
    watcher, pace = Watcher(store, config), Pace()
    standing = watcher.standing()
    if standing.phase == "search":
        pace.since(standing, float(store.fact("seconds") or 0.0))
    pace.see(standing)
    live = Live(console=console, get_renderable=lambda: view(standing, pace), refresh_per_second=2)
    if console.is_terminal:
        live.start()
    try:
        while True:
            if not console.is_terminal:
                stamp = time.strftime("%H:%M:%S")
                text = f"{stamp}  {line(standing, pace)}"
                console.print(text, markup=False, highlight=False, soft_wrap=True)
            if watcher.over():
                break
            sleep(interval)
            standing = watcher.standing()
            pace.see(standing)
    except KeyboardInterrupt:
        pass  # the way to stop watching; the run itself does not notice
    finally:
        if console.is_terminal:
            live.stop()
