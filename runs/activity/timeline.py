"""When each worker was busy, and how much of the time that was."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

from runs.records.record import Part, Split, State

PAUSE_SECONDS = 300.0
"""Where sessions are not known, a longer time without anything under way is a pause."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """A worker at work on one candidate.

    Attributes:
        worker: Its name; empty while the candidate is under way.
        start: When the questions were handed out, in seconds since the epoch.
        end: When the answers were back; for those under way, the latest time known of the run.
        candidate: Id of the candidate.
        split: Which questions it was asked.
        state: What came of it.
        questions: Number of questions asked.
    """

    worker: str
    start: float
    end: float
    candidate: int
    split: Split
    state: State
    questions: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeline:
    """All that the workers of a run did, in the order it began.

    Attributes:
        spans: By start.
        sessions: Start and end of each time that a driver was at work, in seconds since the
            epoch; none where that is not known.
    """

    spans: tuple[Span, ...]
    sessions: tuple[tuple[float, float], ...] = ()

    @classmethod
    def of(
        cls,
        parts: Iterable[tuple[int, Split, Part]],
        *,
        sessions: tuple[tuple[float, float], ...] = (),
    ) -> Timeline:
        """From the parts of all evaluations, as the store gives them."""
        known = list(parts)
        times = [time for _, _, part in known for time in (part.started, part.finished) if time]
        last = max(times, default=datetime.fromtimestamp(0, UTC)).timestamp()
        spans = (
            Span(
                worker=part.worker,
                start=part.started.timestamp(),
                end=max(
                    part.started.timestamp(),
                    last if part.finished is None else part.finished.timestamp(),
                ),
                candidate=candidate,
                split=split,
                state=part.state,
                questions=part.questions,
            )
            for candidate, split, part in known
        )
        return cls(spans=tuple(sorted(spans, key=lambda span: span.start)), sessions=sessions)

    @property
    def workers(self) -> tuple[str, ...]:
        """Names of all workers that gave an answer, in order of appearance."""
        return tuple(dict.fromkeys(span.worker for span in self.spans if span.worker))

    @property
    def busy_seconds(self) -> float:
        """Time at work of all workers together."""
        return sum(span.end - span.start for span in self.spans)

    @property
    def most_at_once(self) -> int:
        """The largest number of candidates under way at the same time."""
        return max((count for _, _, count in self.levels()), default=0)

    @property
    def utilisation(self) -> float:
        """Busy share of as many workers as were busy at once, in [0, 1]; pauses do not count."""
        open_for = self.clock().total * self.most_at_once
        return min(1.0, self.busy_seconds / open_for) if open_for > 0 else 0.0

    def levels(self) -> list[tuple[float, float, int]]:
        """Start, end and number of candidates under way, for each time between two changes."""
        changes = sorted(
            [(span.start, 1) for span in self.spans] + [(span.end, -1) for span in self.spans]
        )
        found, count = [], 0
        for (at, change), (until, _) in pairwise(changes):
            count += change
            if until > at:
                found.append((at, until, count))
        return found

    def clock(self) -> Clock:
        """The time of the run without its pauses: those of drivers at work, where it is known."""
        if self.sessions:
            return Clock.without_pauses(self.sessions, pause=0.0)
        return Clock.without_pauses([(span.start, span.end) for span in self.spans])


@dataclass(frozen=True, slots=True)
class Clock:
    """Seconds of a run from moments of the calendar; pauses take no time.

    Attributes:
        starts: Beginnings of the times without a pause, seconds since the epoch, rising.
        ends: Their ends.
    """

    starts: tuple[float, ...]
    ends: tuple[float, ...]

    @classmethod
    def without_pauses(
        cls, busy: Sequence[tuple[float, float]], *, pause: float = PAUSE_SECONDS
    ) -> Clock:
        """From the times at which somebody was at work; what is longer than a pause is cut out."""
        merged: list[list[float]] = []
        for start, end in sorted(busy):
            if merged and start - merged[-1][1] <= pause:
                merged[-1][1] = max(merged[-1][1], end)
            else:
                merged.append([start, end])
        return cls(tuple(one[0] for one in merged), tuple(one[1] for one in merged))

    @property
    def total(self) -> float:
        """All of it, in seconds."""
        return sum(end - start for start, end in zip(self.starts, self.ends, strict=True))

    def at(self, moment: float) -> float:
        """Seconds of the run at a moment; those of the last stop for a moment in a pause."""
        here = bisect.bisect_right(self.starts, moment)
        before = sum(
            end - start
            for start, end in zip(self.starts[: here - 1], self.ends[: here - 1], strict=True)
        )
        if here == 0:
            return 0.0
        return before + min(moment, self.ends[here - 1]) - self.starts[here - 1]
