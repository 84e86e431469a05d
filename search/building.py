"""``search build``: a recipe file becomes a model folder, and what was scored is what is built."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from merging.build import BuildError, NoSpaceError, write_model
from merging.checkpoint import Checkpoint, CheckpointError, widest_dtype
from merging.compiled import load, try_warm_up
from merging.plan import MergePlan, plan
from merging.warming import large, pays_at_once, variants_of
from runs.export import model_card
from search.errors import InputError, RunFailed
from spaces.mergekit import Document, from_yaml
from spaces.places import exists


def build(recipe: Path, out: Path, *, shard_bytes: int) -> tuple[str, bool | None]:
    """Build the model of a recipe; see ``search build --help``.

    Returns:
        The fingerprint of its weights, and whether they are those that were scored; ``None`` where
        the recipe does not say.
    """
    console = Console(highlight=False)
    document = read_recipe(recipe)
    for line in document.ignored:
        console.print(f"note: {line}", markup=False)
    checkpoints = open_models(document, recipe)
    planned = plan(document.recipe, checkpoints)
    _warm_up(planned, console)
    with _interruptible(out):
        fingerprint = _write(planned, checkpoints, document, out, shard_bytes, console)
    console.print(f"Wrote {out}, fingerprint {fingerprint}", markup=False, soft_wrap=True)
    expected = _expected(document)
    if expected is None:
        return fingerprint, None
    if fingerprint != expected:
        raise RunFailed(
            f"{out}: expected the weights that were scored ({expected}), got others "
            f"({fingerprint}): a model or the recipe changed since"
        )
    console.print("The weights are those that were scored.")
    return fingerprint, True


def _warm_up(planned: MergePlan, console: Console) -> None:
    """Load compiled passes that are there; compile others where one build gains by it."""
    if not large(planned):
        return
    missing = load(variants_of(planned))
    if missing and pays_at_once(planned, len(missing)):
        console.print(
            f"Compiling {len(missing)} passes, which takes less than building such a model without"
        )
        try_warm_up(missing)


def read_recipe(recipe: Path) -> Document:
    """A recipe file, ours or mergekit's.

    Raises:
        InputError: If there is none.
        RecipeError: With everything that is wrong with it.
    """
    try:
        text = recipe.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"{recipe}: expected a recipe file: {reason}") from error
    return from_yaml(text, name=str(recipe))


def _unchanged(document: Document) -> bool:
    """Whether the file is still the recipe that its facts were noted for."""
    return document.key == document.recipe.key


def _expected(document: Document) -> str | None:
    """Fingerprint the file promises, unless the recipe was edited since it was written."""
    found = document.meta.get("fingerprint")
    return found if _unchanged(document) and isinstance(found, str) else None


def open_models(document: Document, recipe: Path) -> dict[str, Checkpoint]:
    """The models of a recipe file; relative paths count from here, else from the file's folder.

    Raises:
        InputError: With every model that cannot be opened.
    """
    opened: dict[str, Checkpoint] = {}
    problems: list[str] = []
    for name in document.recipe.needed:
        location = find_location(document.locations[name], recipe.parent)
        try:
            opened[name] = Checkpoint.open(location, name=name)
        except CheckpointError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return opened


def find_location(location: str, folder: Path) -> str:
    """A location with each part that only exists beside the recipe given from there."""
    if exists(location):
        return location
    if exists(folder / location):
        return str(folder / location)
    return "+".join(
        str(folder / part) if not exists(part) and exists(folder / part) else part
        for part in location.split("+")
    )


@contextmanager
def _interruptible(out: Path) -> Iterator[None]:
    """Let SIGTERM end the block as SIGINT does: with the draft removed, and one line.

    Raises:
        RunFailed: If either came.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    except KeyboardInterrupt:
        kept = "it is whole" if (out / "config.json").exists() else "nothing was kept"
        raise RunFailed(f"{out}: stopped; {kept}") from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _write(
    planned: MergePlan,
    checkpoints: Mapping[str, Checkpoint],
    document: Document,
    out: Path,
    shard_bytes: int,
    console: Console,
) -> str:
    """Write the model with its card; the fingerprint comes back."""

    def card(fingerprint: str) -> dict[str, str]:
        text = model_card(
            document.recipe,
            document.locations,
            fingerprint=fingerprint,
            meta=document.meta if _unchanged(document) else None,
            inputs_dtype=widest_dtype(checkpoints.values()),
            name=out.name,
        )
        return {"README.md": text}

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
                extra_files=card,
            )
        except NoSpaceError as error:
            raise RunFailed(str(error)) from error
        except BuildError as error:
            raise InputError(str(error)) from error
