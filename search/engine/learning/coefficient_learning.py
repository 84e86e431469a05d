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

from evaluators.protocol import Candidate, Failure, LossGradient, Outcome, Score, attention
from evaluators.workers.pool import Pool, Result
from runs.config.config_sections import LearnSection
from runs.storage.store import Store
from search.engine.learning.adam_descent import Batches, Descent
from search.engine.learning.learning_plan import (
    BACKWARD,
    FEWEST_STEPS,
    LOOK,
    kept_aside,
    parents_of,
    seed_of,
)
from search.engine.learning.learning_progress import FACT, LearningProgress, standing_of, tracks
from search.engine.learning.parent_answers import ASKED, FEWEST, ParentAnswers
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
        manifest = self.store.manifest
        self._task_of = {one.id: one.task for one in manifest.catalogue.questions}
        searched = {self._task_of[name] for name in manifest.questions.search}
        tasks_asked = [one for one in manifest.catalogue.tasks if one.name in searched]
        self._weights = attention(tasks_asked)  # a task only to be kept is not unlearned
        self._written = {one.name for one in tasks_asked if one.written}
        self._rising = {one.name for one in tasks_asked if one.higher_is_better}
        self._answers = ParentAnswers.of(self.store)
        self._targets: dict[str, str] = {}
        self._taught = False  # whether the parents were asked, where references say nothing
        self._divide()
        self._tracks: dict[str, LearningProgress] = {}
        self._failures: dict[str, int] = {}

    def _divide(self) -> None:
        """Which questions are learned from, and which are kept aside; all have a right answer."""
        manifest = self.store.manifest
        aside = kept_aside(manifest.questions.search, manifest.catalogue.documents())
        tasks: dict[str, list[str]] = {}
        for name in manifest.questions.search:
            if name not in aside and self._speaks(name):
                tasks.setdefault(self._task_of[name], []).append(name)
        self._aside = tuple(name for name in aside if self._speaks(name))
        self._batches = Batches(tasks=tasks, size=self.section.batch, seed=self.seed)

    def _speaks(self, name: str) -> bool:
        """Whether a right answer to a question is known, as far as is known by now."""
        silent = self._taught and self._task_of[name] in self._answers.tasks
        return not silent or name in self._targets

    def _rises(self, name: str) -> bool:
        """Whether 1 is the value of a right answer to a question."""
        return self._task_of[name] in self._rising

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
            self._tracks[name] = replace(known.get(name, start), planned=self.steps)
            self._keep(name)
        if not self._answers.tasks:
            self._go_on()
        if self._answers.tasks and not self.stop.requested:
            self._ask_parents()
            self._go_on()
        return () if self.stop.requested else tuple(self._seeds())

    def _go_on(self) -> None:
        """Take the steps that are left, of all recipes at once."""
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
        tasks, parents = ", ".join(self._answers.tasks), parents_of(self.space)
        wanted = self._answers.wanted(self._batches.tasks, self._aside, self._task_of)
        each = BACKWARD * self.section.batch * len(self._tracks)
        self.steps -= math.ceil(len(parents) * len(wanted) / each)
        if self.steps < FEWEST_STEPS:
            self._fail(f"no right answers in {tasks}, and no budget to ask the parents for theirs")
            return
        for at, (parent, recipe) in enumerate(parents.items()):
            if parent not in self._answers.right:
                self.begun[-1 - at] = parent
                self.pool.submit(
                    Candidate(id=-1 - at, recipe=recipe, questions=wanted, texts=ASKED)
                )
        self._drain(self._hear)
        if self.stop.requested:
            return
        self._targets, self._taught = self._answers.targets(self._task_of), True
        self._divide()
        learned = {task: len(self._batches.tasks.get(task, ())) for task in self._answers.tasks}
        aside = {self._task_of[name] for name in self._aside}
        if few := [one for one, n in learned.items() if n < FEWEST or one not in aside]:
            self._fail(f"no right answers in {', '.join(few)}, and too few of the parents")
            return
        words = self._answers.words(self._targets, self._task_of)
        self.monitor.note(f"learned from, in place of references, {words}")
        for name, track in self._tracks.items():
            self._tracks[name] = replace(track, planned=self.steps, targets=words)
            self._keep(name)

    def _hear(self, result: Result) -> None:
        """Keep what a parent got right, and what that cost."""
        parent, outcome = self.begun.pop(result.candidate.id), result.outcome
        name, track = next(iter(self._tracks.items()))
        answered: tuple[Outcome, ...] = ()
        if isinstance(outcome, Score):
            answered, paid = outcome.outcomes, track.descent
            paid = replace(
                paid,
                questions=paid.questions + len(answered),
                seconds=paid.seconds + outcome.build_seconds + outcome.score_seconds,
            )
            self._tracks[name] = track = replace(track, descent=paid)
        else:
            assert isinstance(outcome, Failure)
            self.monitor.note(f"{parent}: no answers: {outcome.kind}: {outcome.message}")
        right = [one for one in answered if one.value == 1.0 and self._rises(one.question)]
        self._answers = self._answers.heard(parent, right)
        self.store.set_facts({**self._answers.facts(), f"{FACT}{name}": track.to_json()})

    def _fail(self, reason: str) -> None:
        """End the learning of all recipes."""
        self.monitor.note(f"not learned further: {reason}")
        for name, track in self._tracks.items():
            self._tracks[name] = replace(track, descent=replace(track.descent, failed=reason))
            self._keep(name)

    def _submit(self, name: str) -> None:
        """Ask for the next step of a recipe, if there is one."""
        track = self._tracks[name]
        descent = track.descent
        waits = self._answers.tasks and not self._taught
        if self.stop.requested or waits or descent.failed or self._ended(descent):
            return
        weights: dict[str, float] = {}
        if descent.steps < self.steps:
            for task, names in self._batches.of(descent.steps).items():
                weights |= dict.fromkeys(names, self._share(task) / len(names))
        looks = descent.steps % LOOK == 0 or descent.steps >= self.steps
        questions = (*weights, *(self._aside if looks else ()))
        number = -1 - list(self._tracks).index(name)
        self.begun[number] = name
        targets = {one: self._targets[one] for one in questions if one in self._targets}
        self.pool.submit(
            Candidate(
                id=number,
                recipe=track.now(),
                questions=questions,
                weights=weights,
                targets=targets,
            )
        )

    def _ended(self, descent: Descent) -> bool:
        """Whether the last step was taken and looked at."""
        return bool(descent.aside) and descent.aside[-1][0] >= self.steps

    def _share(self, task: str) -> float:
        asked = {name: self._weights[name] for name in self._batches.tasks}
        return asked[task] / sum(asked.values())

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
        self._submit(name)

    def _keep(self, name: str) -> None:
        self.store.set_fact(f"{FACT}{name}", self._tracks[name].to_json())

    def _stepped(self, descent: Descent, asked: Candidate, found: LossGradient) -> Descent:
        weights = asked.weights or {}
        answered = [one for one in weights if one in found.losses]
        aside = [one for one in found.losses if one not in weights]
        heard = {self._task_of[one] for one in found.losses}
        silent = {self._task_of[one] for one in asked.questions} - heard
        descent = replace(
            descent,
            questions=descent.questions + BACKWARD * len(answered) + len(aside),
            seconds=descent.seconds + found.build_seconds + found.seconds,
            tokens=descent.tokens + found.tokens,
        )
        if silent and silent <= self._written and not self._taught:
            self._answers = replace(
                self._answers, tasks=tuple(sorted({*self._answers.tasks, *silent}))
            )
            self.store.set_facts(self._answers.facts())
            return descent
        if silent:
            return replace(descent, failed=f"no right answers in {', '.join(sorted(silent))}")
        if aside:
            descent = descent.look(self._mean(aside, found.losses))
        if not answered:
            return descent
        loss = self._mean(answered, found.losses)
        return descent.step(found.gradient, loss=loss, rate=self.section.rate)

    def _mean(self, names: Iterable[str], losses: Mapping[str, float]) -> float:
        """Mean loss over the tasks by their weights."""
        by_task: dict[str, list[float]] = {}
        for name in names:
            by_task.setdefault(self._task_of[name], []).append(losses[name])
        total = sum(self._weights[task] for task in by_task)
        return sum(
            self._weights[task] * math.fsum(values) / len(values) / total
            for task, values in by_task.items()
        )

    def _seeds(self) -> Iterable[Seed]:
        for name, track in self._tracks.items():
            descent = track.descent
            if not descent.best or len(descent.aside) < 2:
                continue
            self.monitor.note(
                f"{name}: {len(descent.values)} coefficients, loss "
                f"{descent.aside[0][1]:.3f} -> {min(one for _, one in descent.aside):.3f} on "
                f"{len(self._aside)} questions kept aside, {descent.steps} steps"
            )
            yield seed_of(name, track.learned(), self.space)
