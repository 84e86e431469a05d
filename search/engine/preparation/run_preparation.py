"""What is checked before a run, or before one goes on: its models, tasks, seeds and budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.console import Console

from evaluators.harness.engines.engine_choice import STATIC, engine_versions
from evaluators.harness.tasks.task_facts import TaskFacts
from evaluators.protocol import Catalogue, QuestionText
from evaluators.workers.cluster.node_check import versions
from merging.checkpoints.checkpoint import Checkpoint, widest_dtype
from runs.config.run_config import RunConfig, open_inputs, space_of
from runs.records.manifest import Manifest
from runs.records.question_split import divide, document_notes, emptied, held_out_problems
from runs.storage.store import Store
from search.engine.final_check import budget_problems
from search.engine.preparation.task_survey import (
    length_problems,
    survey_of,
    template_problems,
    test_set_problems,
    with_engine,
)
from search.engine.processes.model_changes import same_models
from search.engine.trials.seed_book import SeedBook, read_book, resolve_book
from search.inputs.given_config import GivenConfig
from search.inputs.input_error import InputError
from search.samplers.estimation.objectives import objectives, sizes_of
from search.samplers.sampler_choice import check_sampler
from spaces.errors import UserError
from spaces.sampling.seed_recipes import seeds
from spaces.search_space.bounds import SpaceError
from spaces.search_space.space import Space


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
    with _noting(problems):
        checkpoints = open_inputs(config)
    begun("loading the tasks")
    with _noting(problems):
        survey = survey_of(config, dry_run=dry_run)
        problems += [f"{path}: {problem}" for problem in test_set_problems(config, survey)]
    if not problems and not dry_run:
        problems += template_problems(config, checkpoints)
        if any(task.written for task in survey.catalogue.tasks):
            problems += [f"{path}: {problem}" for problem in length_problems(config, checkpoints)]
        with _noting(problems, f"{path}: "):
            config, engine_notes = with_engine(config, checkpoints, survey.catalogue)
    with _noting(problems):
        check_sampler(config.search.sampler)
    with _noting(problems, f"{path}: "):
        book = read_book(config)
    if problems:
        raise InputError(problems)
    with _noting(problems, f"{path}: "), _noting(problems, f"{path}: space: ", SpaceError):
        space = space_of(config, checkpoints)
        manifest, notes = manifest_of(
            config, survey.catalogue, space, checkpoints=checkpoints, book=book, dry_run=dry_run
        )
    if problems:
        raise InputError(problems)
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


@contextmanager
def _noting(
    problems: list[str], prefix: str = "", kind: type[UserError] = UserError
) -> Iterator[None]:
    """Note what a step finds wrong, and go on with the next one."""
    try:
        yield
    except kind as error:
        problems += [f"{prefix}{problem}" for problem in error.problems]


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
    if not dry_run and (few := held_out_problems(questions, catalogue, held_out)):
        raise InputError(few)
    searched_for = objectives(config, catalogue, questions)
    if small := budget_problems(config, questions, seeds=len(first), objectives=searched_for):
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
    with _noting(problems):
        checkpoints = same_models(store, config, screen)
    with _noting(problems):
        asked = survey_of(config, dry_run=manifest.dry_run).catalogue
        if asked != manifest.catalogue:
            problems.append(f"{store.name}: {_others(manifest.catalogue, asked)}")
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
