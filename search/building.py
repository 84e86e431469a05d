"""``search build``: a recipe file becomes a model folder, and what was scored is what is built."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from merging.build import BuildError, write_model
from merging.checkpoint import Checkpoint, CheckpointError, widest_dtype
from merging.plan import MergePlan, plan
from runs.export import model_card
from search.errors import InputError, RunFailed
from spaces.mergekit import Document, from_yaml


def build(recipe: Path, out: Path, *, shard_bytes: int) -> None:
    """Build the model of a recipe; see ``search build --help``."""
    console = Console(highlight=False)
    document = _read(recipe)
    for line in document.ignored:
        console.print(f"note: {line}", markup=False)
    checkpoints = _open(document, recipe)
    planned = plan(document.recipe, checkpoints)
    card = {
        "README.md": model_card(
            document.recipe,
            document.locations,
            fingerprint=_expected(document) or "not recorded",
            inputs_dtype=widest_dtype(checkpoints.values()),
            name=out.name,
        )
    }
    fingerprint = _write(planned, checkpoints, out, shard_bytes, card, console)
    console.print(f"Wrote {out}, fingerprint {fingerprint}", markup=False, soft_wrap=True)
    expected = _expected(document)
    if expected is None:
        return
    if fingerprint != expected:
        raise RunFailed(
            f"{out}: expected the weights that were scored ({expected}), got others "
            f"({fingerprint}): a model or the recipe changed since"
        )
    console.print("The weights are those that were scored.")


def _read(recipe: Path) -> Document:
    try:
        text = recipe.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"{recipe}: expected a recipe file: {reason}") from error
    return from_yaml(text, name=str(recipe))


def _expected(document: Document) -> str | None:
    """Fingerprint the file promises, unless the recipe was edited since it was written."""
    found = document.meta.get("fingerprint")
    if document.key != document.recipe.key or not isinstance(found, str):
        return None
    return found


def _open(document: Document, recipe: Path) -> dict[str, Checkpoint]:
    """The models; relative paths count from here, as in mergekit, else from the file's folder."""
    opened: dict[str, Checkpoint] = {}
    problems: list[str] = []
    for name in document.recipe.models:
        location = document.locations[name]
        beside = recipe.parent / location
        if not Path(location).exists() and beside.exists():
            location = str(beside)
        try:
            opened[name] = Checkpoint.open(location, name=name)
        except CheckpointError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return opened


def _write(
    planned: MergePlan,
    checkpoints: Mapping[str, Checkpoint],
    out: Path,
    shard_bytes: int,
    files: Mapping[str, str],
    console: Console,
) -> str:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("tensors", total=len(planned.jobs))
        try:
            return write_model(
                planned,
                checkpoints,
                out,
                max_shard_bytes=shard_bytes,
                progress=lambda done, total: progress.update(task, completed=done, total=total),
                extra_files=files,
            )
        except BuildError as error:
            raise InputError(str(error)) from error
