"""A mergekit YAML as a seed recipe: checked against its models, and against a search's config."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from merging.checkpoints.checkpoint import widest_dtype
from merging.planning.merge_plan import plan
from runs.config.locations import locate
from runs.config.run_config import ConfigError, load_config, open_inputs, space_of
from runs.output_files import write_text
from search.engine.trials.seed_book import read_book, resolve_book
from search.inputs.input_error import InputError
from search.inputs.recipe_models import open_models
from search.setup.commented_yaml import located
from spaces.mergekit import Document, to_yaml


def write_seed(found: Document, path: Path, target: Path, config: Path | None) -> list[str]:
    """Write a recipe that was checked against its models.

    Returns:
        Sentences for the user.

    Raises:
        InputError: If the models, or the config, do not go with the recipe.
    """
    checkpoints = open_models(found, path)
    planned = plan(found.recipe, checkpoints)
    folder = target.parent
    content = to_yaml(
        found.recipe,
        {name: located(checkpoints[name].location, folder) for name in found.recipe.needed},
        inputs_dtype=widest_dtype(checkpoints.values()),
    )
    remarks = [f"note: {line}" for line in found.ignored]
    remarks.append(
        f"The recipe ({found.recipe.title}, key {found.recipe.key}) can be built: "
        f"{len(planned.jobs)} tensors."
    )
    if config is None:
        remarks.append(f"Try it first in a search with search.seeds: [defaults, {target}].")
    else:
        places = {name: locate(one.location, Path.cwd()) for name, one in checkpoints.items()}
        remarks += _fits(to_yaml(found.recipe, places), target, config)
    write_text(target, content)
    return remarks


def _fits(recipe: str, seed: Path, config: Path) -> list[str]:
    """Whether a run could try the recipe, and how; nothing is written where it could not."""
    with TemporaryDirectory() as folder:
        draft = Path(folder) / seed.absolute().parent.name / seed.name
        write_text(draft, recipe)
        try:
            read = load_config(config).replaced({"search.seeds": [str(draft)]})
            checkpoints = open_inputs(read)
        except ConfigError as error:
            raise InputError(error.problems) from error
        space = space_of(read, checkpoints)
        _, notes = resolve_book(read_book(read), read, space, checkpoints)
    if not notes:
        notes = (f"{config}: its space has this recipe; the search can learn from it.",)
    return [*notes, f"Add it there: search.seeds: [defaults, {seed}]."]
