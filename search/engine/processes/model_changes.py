"""The models of a run as they were when it began: read in full once, and looked at again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import DownloadColumn, TransferSpeedColumn

from merging.checkpoints.checkpoint import Checkpoint, CheckpointError
from merging.checkpoints.files.content_hashes import ContentHashes
from runs.config.run_config import ConfigError, RunConfig, open_inputs
from runs.records.manifest import MODELS_CHANGED
from runs.storage.store import Store
from search.engine.processes.worker_setup import STATISTICS
from search.inputs.input_error import InputError, RunFailed
from search.monitoring.console import progress_bar

MOVED = (
    "models that lie elsewhere now: say where with --map OLD=NEW, a model's name or the start of "
    "its path"
)
"""What to do about models that are not where they were."""


def read_whole(
    checkpoints: Mapping[str, Checkpoint], folder: Path, screen: Console | None = None
) -> dict[str, Checkpoint]:
    """The same models, with the hash of every byte known; says how far it has come.

    Args:
        checkpoints: Models by name.
        folder: The run's; hashes of files are kept there, and no file is read again that is as it
            was.
        screen: Where to say it; ``None`` for nowhere.

    Raises:
        InputError: If a file cannot be read.
    """
    contents = ContentHashes(folder.resolve() / STATISTICS)
    known = {name: replace(one, contents=contents) for name, one in checkpoints.items()}
    files = [file for one in known.values() for file in one.files]
    columns = (DownloadColumn(), TransferSpeedColumn())
    try:
        with progress_bar(screen, "Reading the models (once)", *columns) as progress:
            contents.hashes(files, progress=progress)
        for one in known.values():
            one.input_hash  # noqa: B018 - found once here
    except CheckpointError as error:
        raise InputError(error.problems) from error
    except OSError as error:
        raise InputError(f"models: cannot be read: {error}") from error
    return known


def same_models(
    store: Store, config: RunConfig, screen: Console | None = None
) -> dict[str, Checkpoint]:
    """The models of a study, if their files are those that it was made with.

    Raises:
        InputError: With every model that is gone or changed.
    """
    manifest = store.manifest
    try:
        checkpoints = open_inputs(config)
    except ConfigError as error:
        raise InputError([*error.problems, MOVED]) from error
    if not manifest.dry_run:
        checkpoints = read_whole(checkpoints, store.folder, screen)
    problems = [
        f"{store.name}: model {name!r} at {config.locations[name]}: expected the files that the "
        "study was made with, got others; put them back or start a new run"
        for name, checkpoint in checkpoints.items()
        if not checkpoint.matches(manifest.inputs.get(name))
    ]
    if problems:
        raise InputError(problems)
    return checkpoints


def look_again(store: Store, config: RunConfig) -> None:
    """Make sure that the models did not change while they were scored.

    Raises:
        RunFailed: If one did; the study remembers it, and gives no verdict any more.
    """
    if store.manifest.dry_run or not store.manifest.inputs:
        return
    try:
        same_models(store, config)
    except InputError as error:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        store.set_fact(MODELS_CHANGED, json.dumps({"seen": now, "problems": error.problems}))
        text = "the models changed during the run, so its scores belong to no single set of models"
        lines = "; ".join(error.problems)
        raise RunFailed(f"{store.name}: {text}: there is no verdict ({lines})") from error
