"""Commands that write a config or a seed recipe: ``search init`` and ``search import``.

What brings torch is imported once the request is checked: a missing file, or one that is not
mergekit's, is told at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from runs.config import yaml_document
from runs.config.file_kinds import not_of_mergekit
from runs.config.run_config import ConfigError, RunConfig
from search.inputs.input_error import InputError
from search.inputs.recipe_files import read_text
from search.monitoring.console import console, say_line, say_lines, say_written
from search.setup.commented_yaml import CommentedYaml, text_of
from search.setup.config_files import check_free, write_config
from search.setup.config_request import ConfigRequest, all_named
from search.setup.mergekit_evolve.evolve_config import evolve_draft
from spaces.mergekit import from_yaml

CONFIG = Path("search.yaml")
"""Where a config goes if nothing else is said."""


def init(wanted: ConfigRequest, out: Path, *, force: bool) -> None:
    """Write a config; see ``search init --help``."""
    check_free(out, force=force)
    asked = all_named(wanted)
    from search.setup.config_draft import drafted

    draft, remarks = drafted(asked, out)
    screen = console()
    say_lines(screen, (f"note: {remark}" for remark in remarks))
    say_written(screen, write_config(draft, out))
    say_line(screen, f"Next: `search check {out}`, then `search run {out}`.")


def asks() -> bool:
    """Whether there is somebody at a terminal to be asked for what is missing."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def import_file(
    path: Path, *, out: Path | None, config: Path | None, include_path: tuple[str, ...], force: bool
) -> None:
    """Turn a file of mergekit's into one of ours; see ``search import --help``."""
    text = read_text(path, "a mergekit-evolve config or a mergekit YAML")
    parsed = yaml_document.parse(text, str(path))
    if parsed.data is not None and not isinstance(parsed.data, dict):
        raise InputError(parsed.messages(list(parsed.problems)))
    if isinstance(parsed.data, dict):
        _check_kind(path, parsed.data, include_path)
    if isinstance(parsed.data, dict) and "genome" in parsed.data:
        if config is not None:
            raise InputError(
                f"{path}: expected a merge (a recipe) with --config, got a mergekit-evolve config"
            )
        target = CONFIG if out is None else out
        check_free(target, force=force)
        draft, remarks = evolve_draft(parsed, out=target, include_path=include_path)
        _check_draft(draft, path)
        written = write_config(draft, target)
        remarks.append(f"Next: `search check {target}`; the comments in it say what maps to what.")
    else:
        target = Path(f"seed-{path.stem}.yaml") if out is None else out
        check_free(target, force=force)
        found = from_yaml(text, name=str(path))
        from search.setup.seed_files import write_seed

        written, remarks = [target], write_seed(found, path, target, config)
    screen = console()
    say_written(screen, written)
    say_lines(screen, remarks)


def _check_kind(path: Path, data: dict[str, Any], include_path: tuple[str, ...]) -> None:
    """Refuse what is not of mergekit, and folders that are none."""
    problems = [
        f"--include-path {folder}: expected a folder with task files, got none"
        for folder in include_path
        if not Path(folder).is_dir()
    ]
    if (other := not_of_mergekit(data)) is not None:
        problems.append(f"{path}: {other}")
    if problems:
        raise InputError(problems)


def _check_draft(draft: CommentedYaml, path: Path) -> None:
    """Make sure that what is written can be read.

    Raises:
        InputError: With what a config does not take, such as bounds that leave nothing to draw.
    """
    try:
        RunConfig.from_text(text_of(draft), name=str(path))
    except ConfigError as error:
        lines = [line.split(": ", 1)[-1] for line in error.problems]
        raise InputError([f"{path}: {line}" for line in lines]) from error
