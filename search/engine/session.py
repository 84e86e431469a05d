"""One run from its first check to its end: what the commands run, resume and validate share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.console import Console

from evaluators.harness.engines.engine_choice import STATIC, engine_versions
from evaluators.harness.tasks.task_facts import TaskFacts
from evaluators.protocol import Catalogue, EvaluatorError, QuestionText
from evaluators.workers.cluster.node_check import versions
from evaluators.workers.pool import Pool
from merging.checkpoints.checkpoint import Checkpoint, widest_dtype
from runs.config.budget import Budget, Cost
from runs.config.run_config import ConfigError, RunConfig, open_inputs, space_of
from runs.ranking.leaderboard import score_of
from runs.records.manifest import Manifest
from runs.records.question_split import divide, document_notes, emptied, held_out_problems
from runs.records.record import Split
from runs.storage.store import Store
from search.engine.final_check import (
    asks_all,
    budget_problems,
    final_check,
    places,
    reserve,
)
from search.engine.learning.coefficient_learning import Learning
from search.engine.learning.learning_plan import filters_of, plan_of, section_of, starts
from search.engine.learning.learning_progress import begun
from search.engine.loop import Loop
from search.engine.processes.driver_process import settled
from search.engine.processes.model_changes import look_again, same_models
from search.engine.processes.stop_signals import Stop, on_signals
from search.engine.task_survey import (
    length_problems,
    survey_of,
    template_problems,
    test_set_problems,
    with_engine,
)
from search.engine.trials.ask_tell import AskTell
from search.engine.trials.seed_book import SeedBook, read_book, resolve_book
from search.inputs.given_config import GivenConfig
from search.inputs.input_error import InputError, RunFailed
from search.monitoring.monitor import Monitor
from search.samplers.cma_state import check_state
from search.samplers.estimation.objectives import objectives, sizes_of
from search.samplers.estimation.posterior import kept_fits
from search.samplers.sampler_choice import Sampler, check_sampler
from spaces.catalogue.extensions import ExtensionError
from spaces.sampling.seed_recipes import seeds
from spaces.search_space.space import Space, SpaceError


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedRun:
    """A run that passed every check and has written nothing yet.

    Attributes:
        config: As the user gave it, with the command line's values.
        space: The bounds of the search.
        manifest: What study.db will hold.
        checkpoints: The models, opened by their headers.
        notes: What the user should know of the seeds.
        tasks: What each task is; empty for a dry run.
        texts: Gives what the questions say, by id.
    """

    config: RunConfig
    space: Space
    manifest: Manifest
    checkpoints: Mapping[str, Checkpoint]
    notes: tuple[str, ...] = ()
    tasks: tuple[TaskFacts, ...] = ()
    texts: Callable[[], Mapping[str, QuestionText]] = dict


def prepare(
    given: GivenConfig, *, dry_run: bool, begun: Callable[[str], None] = lambda _: None
) -> PreparedRun:
    """Check a config's models (headers only) and tasks.

    Args:
        given: The config.
        dry_run: Whether candidates are only pretended; tasks are not looked at then.
        begun: Told each step as it begins.

    Raises:
        InputError: With everything that is wrong with any of them.
    """
    config, path = given.config, given.name
    problems: list[str] = []
    engine_notes: tuple[str, ...] = ()
    begun("reading the models' headers")
    try:
        checkpoints = open_inputs(config)
    except ConfigError as error:
        problems += error.problems
    begun("loading the tasks")
    try:
        survey = survey_of(config, dry_run=dry_run)
        problems += [f"{path}: {problem}" for problem in test_set_problems(config, survey)]
    except EvaluatorError as error:
        problems += error.problems
    if not problems and not dry_run:
        problems += template_problems(config, checkpoints)
        if any(task.written for task in survey.catalogue.tasks):
            problems += [f"{path}: {problem}" for problem in length_problems(config, checkpoints)]
        try:
            config, engine_notes = with_engine(config, checkpoints)
        except InputError as error:
            problems += [f"{path}: {problem}" for problem in error.problems]
    try:
        check_sampler(config.search.sampler)
    except ExtensionError as error:
        problems += error.problems
    try:
        book = read_book(config)
    except InputError as error:
        problems += [f"{path}: {problem}" for problem in error.problems]
    if problems:
        raise InputError(problems)
    try:
        space = space_of(config, checkpoints)
        manifest, notes = manifest_of(
            config, survey.catalogue, space, checkpoints=checkpoints, book=book, dry_run=dry_run
        )
    except SpaceError as error:
        raise InputError([f"{path}: space: {problem}" for problem in error.problems]) from error
    except InputError as error:
        raise InputError([f"{path}: {problem}" for problem in error.problems]) from error
    return PreparedRun(
        config=config,
        space=space,
        manifest=manifest,
        checkpoints=checkpoints,
        notes=(
            *(note for task in survey.tasks for note in task.notes),
            *engine_notes,
            *document_notes(manifest.questions, manifest.catalogue, config.held_out),
            *notes,
        ),
        tasks=survey.tasks,
        texts=survey.texts,
    )


def manifest_of(
    config: RunConfig,
    catalogue: Catalogue,
    space: Space,
    *,
    book: SeedBook,
    checkpoints: Mapping[str, Checkpoint],
    dry_run: bool,
) -> tuple[Manifest, tuple[str, ...]]:
    """What study.db holds of a run, and what the user should know of its seeds.

    Args:
        config: With the command line's values.
        catalogue: What can be asked.
        space: What is searched.
        book: Further seeds.
        checkpoints: The models, opened by their headers.
        dry_run: Whether candidates are only pretended: the number of questions is made up too.

    Raises:
        InputError: If the seeds, the split, the objectives or the budget do not go together.
    """
    first, notes = resolve_book(book, config, space, checkpoints)
    held_out = config.held_out
    questions = divide(catalogue, held_out, seed=config.search.seed)
    if isinstance(held_out, tuple) and (none := emptied(questions, catalogue, held_out)):
        raise InputError(none)
    if not questions.search:
        raise InputError(["held_out: expected to leave questions to search on, got none"])
    few = [] if dry_run else held_out_problems(questions, catalogue, held_out)
    if few:
        raise InputError(few)
    searched_for = objectives(config, catalogue, questions)
    small = budget_problems(config, questions, seeds=len(first), objectives=searched_for)
    if small:
        raise InputError(small)
    manifest = Manifest(
        config=config.to_yaml(),
        space=space.to_dict(),
        inputs={name: checkpoint.sampled_hash for name, checkpoint in checkpoints.items()},
        inputs_dtype=widest_dtype(checkpoints.values()),
        catalogue=catalogue,
        questions=questions,
        versions=versions() | engine_versions(config.harness.engine),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        dry_run=dry_run,
        objectives=searched_for,
        seeds=first,
        sizes=sizes_of(seeds(space)[0], checkpoints),
    )
    return manifest, notes


def check_unchanged(
    store: Store, config: RunConfig, screen: Console | None = None
) -> Mapping[str, Checkpoint]:
    """Make sure that models and tasks are still those that the study was made with.

    Returns:
        The models, opened by their headers.

    Raises:
        InputError: With every model or task that is gone or changed.
    """
    manifest = store.manifest
    problems: list[str] = []
    checkpoints: Mapping[str, Checkpoint] = {}
    try:
        checkpoints = same_models(store, config, screen)
    except InputError as error:
        problems += error.problems
    try:
        asked = survey_of(config, dry_run=manifest.dry_run).catalogue
        if asked != manifest.catalogue:
            problems.append(f"{store.name}: {_others(manifest.catalogue, asked)}")
    except EvaluatorError as error:
        problems += error.problems
    problems += [
        f"{store.name}: {name}: expected {manifest.versions.get(name)} as the study was made "
        f"with, got {now}; its scores would not be comparable: start a new run"
        for name, now in engine_versions(config.harness.engine).items()
        if now != manifest.versions.get(name, STATIC)
    ]
    if problems:
        raise InputError(problems)
    return checkpoints


def _others(before: Catalogue, now: Catalogue) -> str:
    """How the questions differ from those that a study was made with."""
    still = {question.id for question in now.questions}
    gone = sum(question.id not in still for question in before.questions)
    aside = {task.name: task.aside for task in now.tasks}
    if gone and gone == sum(aside.values()) - sum(task.aside for task in before.tasks):
        names = ", ".join(name for name, count in aside.items() if count)
        return (
            f"tasks: the study asked questions that prompts of {names} showed with their answers; "
            f"{gone} of them are set aside for worked examples now: start a new run"
        )
    return (
        "tasks: expected the questions that the study was made with, got others; put the task "
        "files back or start a new run"
    )


class Session:
    """Drives one study with a pool of workers; holds the study's lock while it is open.

    Args:
        store: The study.
        config: Of the run.
        pool: The workers.
        monitor: Told how it goes.
        checkpoints: The models by name, to learn coefficients; ``None`` learns nothing.

    Raises:
        InputError: If the budget cannot be met with these workers.
    """

    def __init__(
        self,
        store: Store,
        config: RunConfig,
        *,
        pool: Pool,
        monitor: Monitor,
        checkpoints: Mapping[str, Checkpoint] | None = None,
    ) -> None:
        self._checkpoints = checkpoints or {}
        self._store = store
        self._config = config
        self._pool = pool
        self._monitor = monitor
        self._budget = Budget.of(config.search)
        if self._budget.gpu_hours is not None and not pool.gpus:
            raise InputError("search.gpu_hours: expected workers with GPUs, got none; use hours")
        store.set_fact("gpus", f"{pool.gpus:g}")
        store.room = config.output.answers_room
        self._space = Space.from_dict(store.manifest.space)
        if config.search.sampler == "cmaes":
            check_state(store.study.get_trials(deepcopy=False), name=store.name)
        fits = kept_fits(store, self._space)
        sampler = Sampler(
            config.search.sampler,
            seed=config.search.seed,
            space=self._space,
            fits=fits,
        )
        self._ask_tell = AskTell(
            store,
            self._space,
            sampler=sampler,
            seeds=store.manifest.seeds,
            all_at_once=asks_all(config),
            fits=fits,
        )
        self._seeds = len(store.manifest.seeds)

    def run(self) -> bool:
        """Search until the budget is spent, then check the best recipes.

        Returns:
            Whether it came to the end; ``False`` when it was stopped before.

        Raises:
            RunFailed: If not one candidate could be scored, or the models changed meanwhile.
        """
        top = self._top(self._config.search.validate_top)
        with settled(), on_signals(self._monitor.note) as stop:
            loop = self._loop(stop)
            self._learn(stop, top, loop.seconds)
            loop.search(self._budget, reserve=self._reserve(top))
            look_again(self._store, self._config)
            if not stop.requested:
                final_check(self._store, self._ask_tell, loop, top=top, stop=stop)
                look_again(self._store, self._config)
            stopped = stop.requested
        if not stopped:
            _check_any(self._store)
            self._store.set_fact("ended", self._budget.words(Cost()))
        return not stopped

    def _learn(self, stop: Stop, top: int, seconds: Callable[[], float]) -> None:
        """Learn coefficients, where there is something to learn from; the search begins with it."""
        config, space = self._config, self._space
        if self._ask_tell.taken_up and not begun(self._store):
            return  # a study that began without
        plan = plan_of(config, self._store.manifest, space, reserved=self._reserve(top))
        if plan.off:
            if config.search.learn is not None:
                self._monitor.note(f"learning is off: {plan.off}")
            return
        if space.base is None or space.base not in self._checkpoints:
            return
        layers = self._checkpoints[space.base].layout.layers
        learning = Learning(
            store=self._store,
            space=space,
            pool=self._pool,
            monitor=self._monitor,
            stop=stop,
            section=section_of(config.search.learn),
            steps=plan.steps,
            seed=config.search.seed,
            seconds=seconds,
        )
        found = starts(space, layers=len(layers), filters=filters_of(layers), most=plan.recipes)
        self._ask_tell.add_seeds(learning.run(found))

    def validate(self, top: int) -> bool:
        """Check the best recipes on all questions, and the baselines on the held-out ones.

        Returns:
            Whether it came to the end.
        """
        with settled(), on_signals(self._monitor.note) as stop:
            final_check(
                self._store, self._ask_tell, self._loop(stop), top=self._top(top), stop=stop
            )
            look_again(self._store, self._config)
            return not stop.requested

    def _top(self, asked: int) -> int:
        return places(asked, self._store.manifest.objectives)

    def _loop(self, stop: Stop) -> Loop:
        return Loop(self._store, self._ask_tell, pool=self._pool, monitor=self._monitor, stop=stop)

    def _reserve(self, top: int) -> int:
        return reserve(self._config, self._store.manifest.questions, top=top, seeds=self._seeds)


def _check_any(store: Store) -> None:
    records = store.records()
    if any(math.isfinite(score_of(record)) for record in records):
        return
    messages: Mapping[str, int] = {}
    for record in records:
        evaluation = record.evaluations[Split.SEARCH]
        text = f"{evaluation.failure_kind}: {evaluation.failure_message}"
        messages = {**messages, text: messages.get(text, 0) + 1}
    most = max(messages, key=lambda text: messages[text], default="no candidate was evaluated")
    raise RunFailed(f"{store.name}: no candidate could be scored; most often: {most}")
