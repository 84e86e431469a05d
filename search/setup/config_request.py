"""What a user wants a config for: models, tasks and a budget, each with a name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluators.harness.tasks.task_files import task_files, task_name
from runs.config.config_checks import BASE
from runs.config.yaml_document import parse
from search.inputs.input_error import InputError
from spaces.mergekit.plain_values import short_name
from spaces.paths import exists, is_folder


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfigRequest:
    """What a user wants a config for.

    Attributes:
        models: Locations, each with ``name=`` before it if it is to have another name.
        base: Location of the base; ``None`` where the models' cards may say it.
        tasks: Names of lm-eval tasks, task files, or folders of them.
        include_path: Further folders of task files.
        hours: Budget in hours.
        trials: Budget in recipes.
    """

    models: tuple[str, ...]
    base: str | None = None
    tasks: tuple[str, ...] = ()
    include_path: tuple[str, ...] = ()
    hours: float | None = None
    trials: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedRequest:
    """A request in which every model and every task has a name.

    Attributes:
        wanted: As the user said it.
        models: Locations by name.
        tasks: Names of the tasks.
        folders: Folders that have their files.
    """

    wanted: ConfigRequest
    models: Mapping[str, str]
    tasks: tuple[str, ...]
    folders: tuple[str, ...]


def all_named(wanted: ConfigRequest) -> NamedRequest:
    """Find names for models and tasks.

    Raises:
        InputError: With everything that is missing or is something else.
    """
    problems: list[str] = []
    models = named(wanted.models, problems)
    tasks, folders = _tasks(wanted, problems)
    if not models:
        problems.append("models: expected at least one location, got none")
    if not tasks and not wanted.tasks:
        problems.append("--task: expected at least one task's name or file, got none")
    if problems:
        raise InputError(problems)
    return NamedRequest(wanted=wanted, models=models, tasks=tuple(tasks), folders=tuple(folders))


def named(locations: Sequence[str], problems: list[str]) -> dict[str, str]:
    """Locations by name: the one before ``=``, else the last part of the location."""
    found: dict[str, str] = {}
    for text in locations:
        name, given, location = text.partition("=")
        if not given or exists(text):
            location = text
            stem = name = short_name(text.rstrip("/"))
            stem = name = "parent" if name == BASE else name
            number = 2
            while name in found:
                name, number = f"{stem}-{number}", number + 1
        if name in found:
            problems.append(f"models: expected each name once, got {name!r} twice")
        found[name] = location
    return found


def _tasks(wanted: ConfigRequest, problems: list[str]) -> tuple[list[str], list[str]]:
    """Names of the tasks, and the folders that their files are in."""
    names: list[str] = []
    folders = list(wanted.include_path)
    for given in wanted.tasks:
        path = Path(given)
        if is_folder(path):
            inside = task_files(path.resolve())
            names += sorted(inside)
            if not inside:
                problems.append(f"--task {given}: expected lm-eval task files there, got none")
            folders.append(given)
        elif path.suffix in (".yaml", ".yml"):
            name = _task_name(path, problems)
            names += [name] if name is not None else []
            folders.append(str(path.parent))
        elif path.is_file():
            problems.append(
                f"--task {given}: expected an lm-eval task file (.yaml), got another file; "
                "questions need one beside them that says how they are asked"
            )
        else:
            names.append(given)
    return list(dict.fromkeys(names)), list(dict.fromkeys(folders))


def _task_name(path: Path, problems: list[str]) -> str | None:
    """The name that an lm-eval task file gives its task."""
    if not path.is_file():
        problems.append(f"--task {path}: expected an lm-eval task file, got no such file")
        return None
    name = task_name(path)
    if name is not None:
        other = task_files(path.parent.resolve())[name]
        if other.samefile(path):
            return name
        problems.append(f"--task {path}: its name {name!r} is that of {other} as well; change one")
        return None
    try:
        document = parse(path.read_text(encoding="utf-8-sig"), str(path))
    except UnicodeDecodeError:
        problems.append(f"--task {path}: expected an lm-eval task file, got no UTF-8 text")
        return None
    # A task file may hold tags (!function) that plain YAML does not know: only faults count.
    if document.data is None and document.problems:
        problems.append(f"--task {document.messages(list(document.problems))[0]}")
    else:
        problems.append(f"--task {path}: expected an lm-eval task file with a key 'task', got none")
    return None
