"""``search build``: a recipe file becomes a model folder, and what was scored is what is built.

What brings torch is imported when the recipe was read: a mistyped key is told at once.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from search.inputs.input_error import InputError, RunFailed
from search.inputs.moved_locations import read_moves
from search.inputs.recipe_files import read_recipe, unchanged
from search.monitoring.console import console as terminal
from search.monitoring.console import say_line, tell
from spaces.mergekit import Document
from spaces.recipes.recipe import merges

if TYPE_CHECKING:  # torch stays out until the recipe was read
    from merging.planning.merge_plan import MergePlan


def build(
    recipe: Path, out: Path, *, shard_bytes: int, mapped: Sequence[str] = ()
) -> tuple[str, bool | None]:
    """Build the model of a recipe; see ``search build --help``.

    Returns:
        The fingerprint of its weights, and whether they are those that were scored; ``None`` where
        the recipe does not say.
    """
    console = terminal()
    moves = read_moves(mapped)
    document = read_recipe(recipe)
    for line in document.ignored:
        console.print(f"note: {line}", markup=False)
    from merging.planning.merge_plan import plan
    from search.inputs.recipe_models import open_models, warm_up, write

    checkpoints = open_models(document, recipe, moves)
    planned = plan(document.recipe, checkpoints)
    _check_whole(planned, out)
    warm_up(planned, console)
    with _interruptible(out):
        fingerprint = write(planned, checkpoints, document, out, shard_bytes, console)
    say_line(console, f"Wrote {out}, fingerprint {fingerprint}")
    tell(written=[str(out)], fingerprint=fingerprint)
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


def _check_whole(planned: MergePlan, out: Path) -> None:
    """Compare stacked layers with what their config asks for: names, shapes, nothing left empty.

    Raises:
        InputError: If the folder would not load whole.
    """
    if not any(node.slices for node in merges(planned.recipe.root)):
        return
    import torch

    from evaluators.resident_models.resident_model import ResidentModel
    from evaluators.resident_models.skeleton import ResidentError

    try:
        skeleton = ResidentModel(device=torch.device("meta")).skeleton(planned, planned.folder)
    except ResidentError:
        return  # a class that transformers does not have, or none with a head for text
    try:
        skeleton.targets(planned.jobs)
    except ResidentError as error:
        raise InputError(
            [f"{out}: the stacked model would not load: {line}" for line in error.problems]
        ) from error


def _expected(document: Document) -> str | None:
    """Fingerprint the file promises, unless the recipe was edited since it was written."""
    found = document.meta.get("fingerprint")
    return found if unchanged(document) and isinstance(found, str) else None


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
