"""What others are told of a run while it goes on: loggers, notebooks, programs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from evaluators.protocol import Failure, Score
from evaluators.workers.pool import Result
from runs.config.run_config import RunConfig
from runs.records.record import State
from runs.storage.store import Store
from search.monitoring.monitor import Monitor, PhaseStanding


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """A run begins, or goes on.

    Attributes:
        run: Id of the run, 16 hex digits: the same when it is resumed.
        title: Its name.
        folder: Where its files are.
        config: The config as plain values.
        results: Number of results there were before.
    """

    run: str
    title: str
    folder: Path
    config: Mapping[str, Any]
    results: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Resulted:
    """A result came back.

    Attributes:
        step: Its number, from 1; counts on when a run is resumed.
        phase: ``search``, or that of the final check.
        candidate: Id of the candidate.
        method: How it is made, in a word or two.
        outcome: Score or failure.
        worker: Who it came from.
        best: Score to expect of the recipe that ranks first; NaN before the first. Of many
            candidates it was looked for a moment ago.
        best_parent: Score to expect of the parent that ranks before the others; likewise.
        best_of: Number of scored candidates that it is the best of.
        failures: Number of failures so far.
        questions: Questions answered since this driver began.
        seconds: Time that drivers were at work on the run, all sessions together.
    """

    step: int
    phase: str
    candidate: int
    method: str
    outcome: Score | Failure
    worker: str
    best: float
    best_parent: float
    best_of: int
    failures: int
    questions: int
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """A run has ended, or was stopped.

    Attributes:
        complete: Whether it came to its end.
        verdict: The verdict in words; empty without one.
        files: What it wrote: reports and the best recipe.
    """

    complete: bool
    verdict: str
    files: tuple[Path, ...]


class Callback(Protocol):
    """Is told of a run; whatever goes wrong in it never ends the run."""

    def on_start(self, event: Started) -> None:
        """Before the first question is asked."""
        ...

    def on_result(self, event: Resulted) -> None:
        """After a result was recorded."""
        ...

    def on_finish(self, event: Finished) -> None:
        """After everything was written."""
        ...


class Telling:
    """A monitor that also tells callbacks; one that fails is told nothing further."""

    def __init__(self, monitor: Monitor, callbacks: Sequence[Callback]) -> None:
        self._monitor = monitor
        self._callbacks = list(callbacks)
        self._step = 0

    def start(self, store: Store, config: RunConfig, folder: Path) -> None:
        """A run begins, or goes on."""
        if not self._callbacks:
            return
        self._step = sum(part.state is not State.RUNNING for _, _, part in store.parts())
        event = Started(
            run=run_id(store),
            title=store.title,
            folder=folder,
            config=config.to_dict(),
            results=self._step,
        )
        self._tell("on_start", event)

    def finish(self, *, complete: bool, verdict: str, files: Sequence[Path]) -> None:
        """Everything was written."""
        event = Finished(complete=complete, verdict=verdict, files=tuple(files))
        self._tell("on_finish", event)

    def update(self, standing: PhaseStanding, result: Result | None = None) -> None:
        self._monitor.update(standing, result)
        if result is None:
            return
        self._step += 1
        event = Resulted(
            step=self._step,
            phase=standing.phase,
            candidate=result.candidate.id,
            method=result.candidate.recipe.title,
            outcome=result.scored,
            worker=result.worker,
            best=standing.lead.best,
            best_parent=standing.lead.best_parent,
            best_of=standing.lead.scored,
            failures=standing.failures,
            questions=standing.questions,
            seconds=standing.seconds,
        )
        self._tell("on_result", event)

    def note(self, text: str) -> None:
        self._monitor.note(text)

    def close(self) -> None:
        self._monitor.close()

    def _tell(self, name: str, event: Started | Resulted | Finished) -> None:
        for callback in tuple(self._callbacks):
            try:
                getattr(callback, name)(event)
            except Exception as error:  # noqa: BLE001 - a logger must never cost a run
                self._callbacks.remove(callback)
                cause = f"{type(error).__name__}: {error}".splitlines()[0]
                kind = type(callback).__name__
                self._monitor.note(f"{kind} failed in {name} and is switched off: {cause}")


def run_id(store: Store) -> str:
    """Id of a run: a hash of its config and of when it was created."""
    manifest = store.manifest
    text = f"{manifest.created}\n{manifest.config}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
