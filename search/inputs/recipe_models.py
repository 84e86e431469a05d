"""The models of a recipe file, and the model that comes of them, written to a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import MofNCompleteColumn, TimeRemainingColumn

from merging.building.build import write_model
from merging.building.output_checks import BuildError, NoSpaceError
from merging.checkpoints.checkpoint import Checkpoint, CheckpointError, widest_dtype
from merging.kernels.native.native_library import load, try_warm_up
from merging.planning.merge_plan import MergePlan
from runs.config.locations import locate, portable
from runs.export.card_metadata import declared_license
from runs.export.model_card import model_card
from search.inputs.input_error import InputError, RunFailed
from search.inputs.moved_locations import Move, moved_locations
from search.inputs.recipe_files import find_location, unchanged
from search.monitoring.console import progress_bar
from spaces.mergekit import Document

_GAINS = 50_000_000  # elements whose build gains more time than it takes to compile


def open_models(
    document: Document, recipe: Path, moves: Sequence[Move] = ()
) -> dict[str, Checkpoint]:
    """The models of a recipe file.

    Args:
        document: What the file holds.
        recipe: The file. Relative paths count from here, else from its folder; the other way round
            in files that we wrote.
        moves: What lies elsewhere than the file says.

    Raises:
        InputError: With every model that cannot be opened.
    """
    opened: dict[str, Checkpoint] = {}
    problems: list[str] = []
    for name, place in moved_locations(document.locations, moves).items():
        location = find_location(place, recipe.parent, ours=document.key is not None)
        try:
            opened[name] = Checkpoint.open(location, name=name)
        except CheckpointError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return {name: opened[name] for name in document.recipe.needed}


def warm_up(planned: MergePlan, console: Console) -> None:
    """Load the compiled passes if they are there; compile them where one build gains by it."""
    if load() or sum(job.size // job.dtype.itemsize for job in planned.jobs) < _GAINS:
        return
    console.print("Compiling, once on this machine: building such a model without takes longer")
    try_warm_up()


def write(
    planned: MergePlan,
    checkpoints: Mapping[str, Checkpoint],
    document: Document,
    out: Path,
    shard_bytes: int,
    console: Console,
) -> str:
    """Write the model of a plan with its card.

    Returns:
        The fingerprint of its weights.
    """
    places = {
        name: portable(locate(one.location, Path.cwd()), out) for name, one in checkpoints.items()
    }

    def card(fingerprint: str) -> dict[str, str]:
        text = model_card(
            document.recipe,
            places,
            fingerprint=fingerprint,
            licenses={name: declared_license(one.folder) for name, one in checkpoints.items()},
            meta=document.meta if unchanged(document) else None,
            inputs_dtype=widest_dtype(checkpoints.values()),
            name=out.name,
        )
        return {"README.md": text}

    columns, total = (MofNCompleteColumn(), TimeRemainingColumn()), len(planned.jobs)
    with progress_bar(console, "tensors", *columns, total=total) as progress:
        try:
            return write_model(
                planned,
                checkpoints,
                out,
                max_shard_bytes=shard_bytes,
                progress=progress,
                extra_files=card,
            )
        except NoSpaceError as error:
            raise RunFailed(str(error)) from error
        except BuildError as error:
            raise InputError(str(error)) from error
