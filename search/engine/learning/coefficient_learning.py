"""Coefficients learned from search questions, before the search: recipes it then starts with.

Two recipes are learned, at once where there are workers for both: task arithmetic with a weight
for every parent, layer and kind of tensor, which no search would find, and the same with the
space's own few weights over depth, around which the search goes on. Every step is one request to a
worker, as of a candidate, and is in the study before the next: what was complete is not repeated.
Held-out questions are never asked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from evaluators.protocol import Candidate, Failure, LossGradient, Score
from evaluators.workers.pool import Pool, Result
from runs.config.config_sections import LearnSection
from runs.storage.store import Store
from search.engine.learning.adam_descent import Descent
from search.engine.learning.learning_plan import (
    BACKWARD,
    FEWEST_STEPS,
    LOOK,
    parents_of,
    seed_of,
)
from search.engine.learning.learning_progress import FACT, LearningProgress, standing_of, tracks
from search.engine.learning.parent_answers import ASKED
from search.engine.learning.task_sources import TaskSources
from search.engine.processes.stop_signals import Stop
from search.monitoring.monitor import Monitor
from spaces.recipes.coefficients import Coefficients
from spaces.recipes.recipe import Recipe
from spaces.sampling.seed_recipes import Seed
from spaces.search_space.space import Space

PATIENCE = 3
"""Failures in a row after which a recipe is learned no further."""


@dataclass(kw_only=True)
class Learning:
    """Learns the coefficients of some recipes with a pool of workers.

    Attributes:
        store: Keeps every step.
        space: What is searched afterwards.
        pool: Takes the requests; nothing else may be pending in it.
        monitor: Told how it goes.
        stop: Ends it early.
        section: How to learn.
        steps: Of each recipe.
        seed: Of the order of the questions.
        seconds: Gives the time that drivers were at work on the run.
        begun: Requests under way, by the number of the candidate.
    """

    store: Store
    space: Space
    pool: Pool
    monitor: Monitor
    stop: Stop
    section: LearnSection
    steps: int
    seed: int
    seconds: Callable[[], float] = float
    begun: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._sources = TaskSources(self.store, batch=self.section.batch, seed=self.seed)
        self._tracks: dict[str, LearningProgress] = {}
        self._failures: dict[str, int] = {}
        self._said: set[str] = set()

    def run(self, starts: Mapping[str, Recipe]) -> tuple[Seed, ...]:
        """Learn until every recipe had its steps, or a stop is requested.

        Args:
            starts: Recipes to begin with, by name; those that the study knows go on from there.

        Returns:
            What was learned; nothing where it was stopped before.
        """
        known = tracks(self.store)
        for name, recipe in starts.items():
            start = LearningProgress(
                recipe=recipe, descent=Descent(values=Coefficients(recipe).values)
            )
            track = known.get(name, start)
            self._tracks[name] = track if track.over else replace(track, planned=self.steps)
            self._keep(name)
        if not self._sources.answers.tasks:
            self._go_on()
        if self._sources.answers.tasks and not self.stop.requested:
            self._ask_parents()
            self._go_on()
        return () if self.stop.requested else tuple(self._seeds())

    def _go_on(self) -> None:
        """Take the steps that are left, of all recipes at once."""
        self._settle()
        for name in self._tracks:
            self._submit(name)
        self._drain(self._take)

    def _drain(self, take: Callable[[Result], None]) -> None:
        """Hand over what comes back, until nothing is under way."""
        while self.pool.pending:
            result = self.pool.next(timeout=1.0)
            self.pool.begun()
            for news in self.pool.news():
                self.monitor.note(news)
            if result is not None:
                take(result)
            if self.stop.requested:
                self.pool.withdraw()
            standing = standing_of(self._tracks, title=self.store.title, workers=self.pool.size)
            standing.running = len(self.begun)
            standing.seconds = self.seconds()
            self.monitor.update(standing)

    def _ask_parents(self) -> None:
        """Ask for what takes the place of references that say nothing, where that is paid for."""
        parents, wanted = parents_of(self.space), self._sources.to_ask()
        each = BACKWARD * self._sources.size * len(self._tracks)
        steps = self.steps - math.ceil(len(parents) * len(wanted) / each)
        if steps < min(FEWEST_STEPS, self.steps // 2):
            self._sources.give_up()
            return
        self.steps = steps
        for at, (parent, recipe) in enumerate(parents.items()):
            if parent not in self._sources.answers.right:
                self.begun[-1 - at] = parent
                self.pool.submit(
                    Candidate(id=-1 - at, recipe=recipe, questions=wanted, texts=ASKED)
                )
        self._drain(self._hear)
        if not self.stop.requested:
            self._sources.teach()

    def _hear(self, result: Result) -> None:
        """Keep what a parent wrote, and what that cost."""
        parent, outcome = self.begun.pop(result.candidate.id), result.outcome
        name, track = next(iter(self._tracks.items()))
        score = outcome if isinstance(outcome, Score) else None
        if score is not None:
            paid = replace(
                track.descent,
                questions=track.descent.questions + len(score.outcomes),
                tokens=track.descent.tokens + sum(task.tokens for task in score.tasks),
                seconds=track.descent.seconds + score.build_seconds + score.score_seconds,
            )
            self._tracks[name] = track = replace(track, descent=paid)
        else:
            assert isinstance(outcome, Failure)
            self.monitor.note(f"{parent}: no answers: {outcome.kind}: {outcome.message}")
        facts = self._sources.hear(parent, score)
        self.store.set_facts({**facts, f"{FACT}{name}": track.to_json()})

    def _settle(self) -> None:
        """Say what is learned from where that is no reference; the end where nothing is left."""
        lines = [line for line in self._sources.lines() if line not in self._said]
        for line in lines:
            self._said.add(line)
            self.monitor.note(line)
        for name, track in self._tracks.items() if lines else ():
            failed = track.descent.failed or self._sources.nothing
            self._tracks[name] = replace(
                track,
                descent=replace(track.descent, failed=failed),
                planned=track.planned if track.over else self.steps,
                targets=self._sources.words(),
            )
            self._keep(name)

    def _submit(self, name: str) -> None:
        """Ask for the next step of a recipe, if there is one."""
        track = self._tracks[name]
        descent = track.descent
        if self.stop.requested or self._sources.waits or descent.failed or track.over:
            return
        weights: dict[str, float] = {}
        if descent.steps < track.planned:
            for task, names in self._sources.batches.of(descent.steps).items():
                weights |= dict.fromkeys(names, self._sources.share(task) / len(names))
        looks = descent.steps % LOOK == 0 or descent.steps >= track.planned
        questions = (*weights, *(self._sources.aside if looks else ()))
        number = -1 - list(self._tracks).index(name)
        self.begun[number] = name
        known = self._sources.targets
        targets = {one: known[one] for one in questions if one in known}
        self.pool.submit(
            Candidate(
                id=number,
                recipe=track.now(),
                questions=questions,
                weights=weights,
                targets=targets,
            )
        )

    def _take(self, result: Result) -> None:
        """Take a step, keep it, and ask for the next one."""
        name = self.begun.pop(result.candidate.id)
        track, outcome = self._tracks[name], result.outcome
        if isinstance(outcome, LossGradient):
            self._failures[name] = 0
            descent = self._stepped(track.descent, result.candidate, outcome)
        else:
            assert isinstance(outcome, Failure)
            self._failures[name] = self._failures.get(name, 0) + 1
            last = self._failures[name] >= PATIENCE
            failed = f"{outcome.kind}: {outcome.message}" if last else ""
            descent = replace(track.descent, failed=failed)
        if descent.failed:
            self.monitor.note(f"{name}: not learned further: {descent.failed}")
        self._tracks[name] = replace(track, descent=descent)
        self._keep(name)
        self._settle()
        self._submit(name)

    def _keep(self, name: str) -> None:
        self.store.set_fact(f"{FACT}{name}", self._tracks[name].to_json())

    def _stepped(self, descent: Descent, asked: Candidate, found: LossGradient) -> Descent:
        weights = asked.weights or {}
        answered = [one for one in weights if one in found.losses]
        aside = [one for one in found.losses if one not in weights]
        descent = replace(
            descent,
            questions=descent.questions + found.passes * len(answered) + len(aside),
            seconds=descent.seconds + found.build_seconds + found.seconds,
            tokens=descent.tokens + found.tokens,
        )
        if not descent.aside and self._sources.silent(asked.questions, found.losses):
            return descent
        if aside:
            descent = descent.look(self._sources.mean(aside, found.losses))
        if not weights:
            return descent
        loss = (
            self._sources.mean(answered, found.losses) if answered else (0.0, *descent.losses)[-1]
        )
        return descent.step(found.gradient, loss=loss, rate=self.section.rate)

    def _seeds(self) -> Iterable[Seed]:
        for name, track in self._tracks.items():
            descent = track.descent
            if not descent.best or len(descent.aside) < 2:
                continue
            self.monitor.note(
                f"{name}: {len(descent.values)} coefficients, loss "
                f"{descent.aside[0][1]:.3f} -> {min(one for _, one in descent.aside):.3f} on "
                f"{len(self._sources.aside)} questions kept aside, {descent.steps} steps"
            )
            yield seed_of(name, track.learned(), self.space)
