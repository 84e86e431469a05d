"""merge-search from Python: what the commands do, as functions.

``import search`` has all of it: ``search.run("search.yaml")``. Nothing heavy is imported before it
is needed. Errors are ``search.UserError`` (something that was given cannot be used; its
``problems`` are lines for people) and ``search.RunFailed``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from runs.config.run_config import RunConfig as RunConfig
from runs.config.run_config import load_config as _load
from search.inputs.given_config import read
from search.inputs.input_error import RunFailed as RunFailed
from search.inputs.overrides import Overrides
from search.monitoring.console import printing
from spaces.errors import UserError as UserError
from spaces.mergekit.reader import Document
from spaces.recipes.recipe import Recipe as Recipe

if TYPE_CHECKING:  # what brings torch or pandas is imported when it is called
    from search.commands.run_handle import Run
    from search.commands.score_command import Part, Scored
    from search.monitoring.callbacks import Callback
    from search.preflight.preflight_result import Preflight


@dataclass(frozen=True, kw_only=True, slots=True)
class Built:
    """A model that was built.

    Attributes:
        folder: Where it is.
        fingerprint: Hash of its weights.
        verified: Whether they are the weights that a search has scored; ``None`` where the recipe
            does not say.
    """

    folder: Path
    fingerprint: str
    verified: bool | None

    def _repr_html_(self) -> str:
        said = "the weights are those that were scored" if self.verified else "not from a search"
        return f"<p>{escape(str(self.folder))}: {escape(self.fingerprint)}, {said}</p>"


def load_config(path: str | Path) -> RunConfig:
    """Read a config; paths in it are relative to its folder.

    ``config.replaced({"search.trials": 50})`` gives one with other values.

    Raises:
        UserError: With every problem there is.
    """
    return _load(Path(path))


def check(
    config: str | Path | RunConfig,
    *,
    weights: bool = True,
    smoke: bool = True,
    allow_test_sets: bool = False,
) -> Preflight:
    """What there is to know before a run, as ``search check``.

    Args:
        config: A config, or its file.
        weights: Whether to sample the models' weights.
        smoke: Whether to try a candidate.
        allow_test_sets: Confirms well-known test sets.

    Raises:
        UserError: With everything that a run would refuse.
    """
    from search.commands.check_command import preflight
    from search.preflight.preflight_depth import PreflightDepth

    overrides = Overrides(allow_test_sets=allow_test_sets or None)
    depth = PreflightDepth(weights=weights, smoke=smoke)
    return preflight(_given(config), overrides=overrides, depth=depth)


def run(
    config: str | Path | RunConfig,
    *,
    out: str | Path | None = None,
    storage: str | None = None,
    trials: int | None = None,
    questions: int | None = None,
    tokens: int | None = None,
    hours: float | None = None,
    gpu_hours: float | None = None,
    workers: int | None = None,
    ray_address: str | None = None,
    dry_run: bool = False,
    allow_test_sets: bool = False,
    callbacks: Sequence[Callback] = (),
    quiet: bool = False,
    progress: bool = True,
) -> Run:
    """Search, as ``search run``: it comes back when the budget is spent.

    Args:
        config: A config, or its file.
        out: Folder for the run; by default named after the file, ``run`` for a config.
        storage: Where the study goes, by default ``study.db`` in that folder.
        trials: Replaces the config's value, as all that follow.
        questions: Likewise.
        tokens: Likewise.
        hours: Likewise.
        gpu_hours: Likewise.
        workers: Likewise.
        ray_address: Likewise.
        dry_run: Made-up scores instead of models.
        allow_test_sets: Confirms well-known test sets.
        callbacks: Told of the run as it goes on; see ``search.monitoring.callbacks``.
        quiet: Print nothing.
        progress: Show how far the run is: in a notebook one line that changes in place.

    Raises:
        UserError: With everything that is wrong with what was given.
        RunFailed: If not one candidate could be scored, or it was stopped at once.
    """
    from search.commands import run_command
    from search.commands.run_handle import Run

    overrides = Overrides(
        trials=trials,
        questions=questions,
        tokens=tokens,
        hours=hours,
        gpu_hours=gpu_hours,
        workers=workers,
        ray_address=ray_address,
        allow_test_sets=allow_test_sets or None,
    )
    folder = None if out is None else Path(out)
    with printing(quiet=quiet, progress=progress):
        study = run_command.run(
            _given(config),
            out=folder,
            overrides=overrides,
            storage=storage,
            dry_run=dry_run,
            callbacks=callbacks,
        )
    return Run(study)


def resume(
    study: str | Path,
    *,
    trials: int | None = None,
    questions: int | None = None,
    tokens: int | None = None,
    hours: float | None = None,
    gpu_hours: float | None = None,
    workers: int | None = None,
    ray_address: str | None = None,
    moved: Mapping[str, str] | None = None,
    trust_study: bool = False,
    callbacks: Sequence[Callback] = (),
    quiet: bool = False,
    progress: bool = True,
) -> Run:
    """Go on with a search, as ``search resume``.

    Args:
        study: ``study.db``, its folder, or the URL of a database.
        trials: A larger budget, which stays, as the four that follow.
        questions: Likewise.
        tokens: Likewise.
        hours: Likewise.
        gpu_hours: Likewise.
        workers: For this time.
        ray_address: For this time.
        moved: Where models and task files are now, by a model's name or the start of a path; kept
            with the study.
        trust_study: Lets code run that the study names, though it was not made here; remembered.
        callbacks: Told of the run as it goes on.
        quiet: Print nothing.
        progress: Show how far the run is.

    Raises:
        UserError: If it cannot be gone on with, or names code and is not trusted.
    """
    from search.commands import run_command
    from search.commands.run_handle import Run

    overrides = Overrides(
        trials=trials,
        questions=questions,
        tokens=tokens,
        hours=hours,
        gpu_hours=gpu_hours,
        workers=workers,
        ray_address=ray_address,
        moves=_moves(moved),
    )
    with printing(quiet=quiet, progress=progress):
        run_command.resume(
            study, overrides=overrides, consent=lambda _: trust_study, callbacks=callbacks
        )
    return Run(study)


def validate(
    study: str | Path,
    *,
    top: int = 3,
    max_gen_toks: int | None = None,
    quantize: str | None = None,
    workers: int | None = None,
    moved: Mapping[str, str] | None = None,
    trust_study: bool = False,
    quiet: bool = False,
    progress: bool = True,
) -> Run:
    """Score the best recipes and all baselines on held-out questions, as ``search validate``."""
    from search.commands import run_command
    from search.commands.run_handle import Run

    overrides = Overrides(workers=workers, moves=_moves(moved))
    with printing(quiet=quiet, progress=progress):
        run_command.validate(
            study,
            top=top,
            overrides=overrides,
            consent=lambda _: trust_study,
            max_gen_toks=max_gen_toks,
            quantize=quantize,
        )
    return Run(study)


def open_run(study: str | Path) -> Run:
    """A run to read: ``study.db``, its folder, or the URL of a database."""
    from search.commands.run_handle import Run

    return Run(study)


def load_recipe(path: str | Path) -> Document:
    """Read a recipe file, ours or mergekit's: ``.recipe``, ``.locations``, ``.meta``."""
    from search.inputs.recipe_files import read_recipe

    return read_recipe(Path(path))


def build(
    recipe: str | Path,
    out: str | Path,
    *,
    shard_size: float = 5.0,
    moved: Mapping[str, str] | None = None,
) -> Built:
    """Build the model of a recipe file, as ``search build``.

    Args:
        recipe: Recipe or mergekit YAML.
        out: Model folder to make; must not exist.
        shard_size: Largest weight file, in GB.
        moved: Where models are now, by name or the start of a path.

    Raises:
        UserError: If the recipe or a model cannot be used.
        RunFailed: If the disk is full, or the weights are not those that were scored.
    """
    from search.commands.build_command import build as build_model

    fingerprint, verified = build_model(
        Path(recipe),
        Path(out),
        shard_bytes=int(shard_size * 1e9),
        mapped=[f"{old}={new}" for old, new in (moved or {}).items()],
    )
    return Built(folder=Path(out), fingerprint=fingerprint, verified=verified)


def score(
    config: str | Path | RunConfig,
    what: str | Path | Recipe,
    *,
    questions: Part = "held-out",
    limit: int | None = None,
    allow_test_sets: bool = False,
) -> Scored:
    """Score a model or a recipe on the questions of a config, in this process.

    Args:
        config: A config, or its file.
        what: A model's name in it, a model folder or hub id, a recipe file, or a recipe with the
            config's names.
        questions: ``search``, ``held-out`` or ``all``.
        limit: Most questions; the first ones in the run's order.
        allow_test_sets: Confirms well-known test sets.

    Raises:
        UserError: If something that was given cannot be used.
        RunFailed: If it could not be scored.
    """
    given = read(_given(config), Overrides(allow_test_sets=allow_test_sets or None))
    from search.commands.score_command import score as score_one

    return score_one(given, what, questions=questions, limit=limit)


def _moves(moved: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    from search.inputs.moved_locations import read_moves

    return read_moves(f"{old}={new}" for old, new in (moved or {}).items())


def _given(config: str | Path | RunConfig) -> Path | RunConfig:
    return Path(config) if isinstance(config, str) else config
