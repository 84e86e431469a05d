"""The recipe book of a run: default seeds, recipe files and the best of earlier studies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from merging.checkpoints.checkpoint import Checkpoint, CheckpointError
from merging.planning.merge_plan import PlanError, plan
from runs.config.locations import DEFAULTS, locate, resolved, split_top, twin
from runs.config.run_config import RunConfig
from runs.ranking.leaderboard import ranked
from runs.records.record import BASE, OWN, is_baseline
from runs.storage.store import Store
from search.inputs.input_error import InputError
from search.inputs.recipe_files import read_recipe
from search.samplers.estimation.posterior import judged
from spaces.errors import UserError
from spaces.paths import is_folder
from spaces.recipes.recipe import Merge, Model, Recipe, RecipeError, Source
from spaces.sampling.seed_recipes import Seed, base_alone, seeds
from spaces.search_space.space import Space

TOP = 5
"""How many of the best recipes of an earlier study are tried, unless the config says."""

RECIPES = (".yaml", ".yml")
"""Suffixes of recipe files; any other file is taken for a study."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """A recipe from a file, with the file's own names for models.

    Attributes:
        name: What to call it, on the leaderboard too.
        recipe: The recipe.
        locations: Path or hub id of every model by the file's name for it.
        hashes: Input hash of every model, where the file knows it.
        folder: What relative locations may be relative to.
        study: Whether it comes from a study; its models are then also known by equal names, and a
            recipe that these models do not allow is left out instead of refused.
    """

    name: str
    recipe: Recipe
    locations: Mapping[str, str]
    hashes: Mapping[str, str]
    folder: Path
    study: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedBook:
    """The recipes of a config's list of seeds, in its order; ``None`` stands for the defaults.

    Attributes:
        entries: Recipes as the files have them.
        notes: What to tell the user of the files.
    """

    entries: tuple[Written | None, ...]
    notes: tuple[str, ...] = ()


def read_book(config: RunConfig) -> SeedBook:
    """Read the files that a config names as seeds; no model is looked at.

    Raises:
        InputError: With every file that cannot be read.
    """
    listed = config.search.seeds
    if isinstance(listed, str):
        return SeedBook(entries=(None,) if listed == "default" else ())
    entries: list[Written | None] = []
    notes: list[str] = []
    problems: list[str] = []
    for entry in listed:
        if entry in DEFAULTS:
            entries.append(None)
            continue
        try:
            files = _files(entry)
        except InputError as error:
            problems += error.problems
            continue
        for path, top in files:
            try:
                entries += [_written(path, notes)] if path.suffix in RECIPES else _best(path, top)
            except UserError as error:
                problems += error.problems
    if problems:
        raise InputError([f"search.seeds: {problem}" for problem in problems])
    return SeedBook(entries=tuple(entries), notes=tuple(notes))


def resolve_book(
    book: SeedBook, config: RunConfig, space: Space, checkpoints: Mapping[str, Checkpoint]
) -> tuple[tuple[Seed, ...], tuple[str, ...]]:
    """The seeds of a run, and a line for the user on each one that is not as it was written.

    Returns:
        Parents, average and base, then the others as listed, every recipe once; and the notes.

    Raises:
        InputError: With every recipe whose models are not in this run, or that they do not allow.
    """
    defaults = seeds(space)
    first = [seed for seed in defaults if is_baseline(seed.name)]
    base = base_alone(space)
    if base is not None and twin(config.locations, BASE) is None:
        first.append(base)
    found = {seed.recipe.key: seed for seed in first}
    notes, problems = list(book.notes), []
    known = _RunModels(config, checkpoints)
    for entry in book.entries:
        if entry is None:
            for seed in defaults:
                found.setdefault(seed.recipe.key, seed)
            continue
        try:
            seed = Seed.of(_translated(entry, known, notes), space, name=entry.name)
            if seed.params is None:
                plan(seed.recipe, checkpoints)
        except (PlanError, RecipeError) as error:
            lines = [f"{entry.name}: {problem}" for problem in error.problems]
            if entry.study:
                notes += [f"left out: {line}" for line in lines]
            else:
                problems += [f"search.seeds: {line}" for line in lines]
            continue
        except InputError as error:
            problems += error.problems
            continue
        if seed.reason:
            notes.append(f"{seed.name}: outside the space, tried unchanged: {seed.reason}")
        found.setdefault(seed.recipe.key, seed)
    if problems:
        raise InputError(list(dict.fromkeys(problems)))
    return tuple(found.values()), tuple(dict.fromkeys(notes))


def _files(entry: str) -> list[tuple[Path, int]]:
    """The files of one entry, each with how many recipes to take of it if it is a study."""
    place, top = split_top(entry)
    path = Path(place)
    if not is_folder(path):
        return [(path, TOP if top is None else top)]
    files = sorted(file for file in path.iterdir() if file.suffix in RECIPES)
    if not files:
        raise InputError(f"{path}: expected recipe files (.yaml) in this folder, got none")
    return [(file, 1) for file in files]


def _written(path: Path, notes: list[str]) -> Written:
    document = read_recipe(path)
    notes += [f"seed {line}" for line in document.ignored]
    return Written(
        name=_name(path), recipe=document.recipe, locations=document.locations,
        hashes={}, folder=path.parent, study=False,
    )  # fmt: skip


def _best(path: Path, top: int) -> Iterator[Written]:
    """The best of a study but for its baselines: every run has those of its own."""
    with Store.open(str(path)) as store:
        chosen = [record for record in ranked(judged(store)) if not record.is_baseline][:top]
        manifest = store.manifest
    if not chosen:
        raise InputError(f"{path}: expected a study with a scored recipe, got one without")
    locations = RunConfig.from_text(manifest.config, name=str(path)).locations
    for rank, record in enumerate(chosen, start=1):
        yield Written(
            name=f"{_name(path)} #{rank}", recipe=record.recipe, locations=locations,
            hashes=manifest.inputs, folder=path.parent, study=True,
        )  # fmt: skip


def _name(path: Path) -> str:
    """What a file is called: with its folder, since many are called ``study.db``."""
    return f"{OWN}{path.parent.name}/{path.name}"


class _RunModels:
    """The models of a run, found by where they lie, by what they are, and by name."""

    def __init__(self, config: RunConfig, checkpoints: Mapping[str, Checkpoint]) -> None:
        self.names = tuple(config.locations)
        self._places = {resolved(text): name for name, text in config.locations.items()}
        self._checkpoints = checkpoints

    def at(self, location: str, folder: Path) -> str | None:
        """The model at a location of a file, which may be relative to the file or to here."""
        for text in (location, locate(location, folder), locate(location, Path.cwd())):
            if resolved(text) in self._places:
                return self._places[resolved(text)]
        for text in (locate(location, folder), locate(location, Path.cwd())):
            if is_folder(text):
                try:
                    return self.like(Checkpoint.open(text, name="seed").sampled_hash)
                except CheckpointError:
                    return None
        return None

    def like(self, input_hash: str | None) -> str | None:
        """The model with the same files."""
        matching = (name for name, model in self._checkpoints.items() if model.matches(input_hash))
        return None if input_hash is None else next(matching, None)


def _translated(entry: Written, known: _RunModels, notes: list[str]) -> Recipe:
    """The recipe with this run's names for its models."""
    names: dict[str, str] = {}
    source = entry.name.removeprefix(OWN).partition(" #")[0]
    for name in entry.recipe.models:
        found = known.at(entry.locations[name], entry.folder)
        found = found or known.like(entry.hashes.get(name))  # which may have to read all of them
        if found is not None:
            names[name] = found
    for name in entry.recipe.models:
        spoken = name if entry.study else entry.locations[name]
        if name not in names and spoken in known.names and spoken not in names.values():
            names[name] = spoken
            if entry.study:
                notes.append(f"{source}: model {name}: other files than this run's, same name")
    missing = [entry.locations[name] for name in entry.recipe.models if name not in names]
    if missing:
        raise InputError(
            f"search.seeds: {source}: expected models of this run ({', '.join(known.names)}), "
            f"got {', '.join(missing)}"
        )
    return Recipe(root=_renamed(entry.recipe.root, names))


def _renamed(merge: Merge, names: Mapping[str, str]) -> Merge:
    """The merge with other names for its models."""

    def node(of: Model | Merge) -> Model | Merge:
        return Model(names[of.name]) if isinstance(of, Model) else _renamed(of, names)

    def sources(group: tuple[Source, ...]) -> tuple[Source, ...]:
        return tuple(replace(source, of=node(source.of)) for source in group)

    return replace(
        merge,
        sources=sources(merge.sources),
        slices=tuple(replace(part, sources=sources(part.sources)) for part in merge.slices),
        base=None if merge.base is None else node(merge.base),
    )
