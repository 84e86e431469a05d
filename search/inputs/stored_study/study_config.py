"""The config of a study as it is by now."""

from __future__ import annotations

from runs.config.run_config import RunConfig
from runs.storage.store import Store
from search.inputs.moved_locations import KEYS, moved_values
from search.inputs.overrides import BUDGET, Overrides


def config_of(store: Store, overrides: Overrides = Overrides()) -> RunConfig:  # noqa: B008
    """The config of a study as it is to be used.

    With the budget and the places that it was given since, and what the command line says.
    """
    config = RunConfig.from_text(store.manifest.config, name=store.name)
    if "end_loops" not in store.manifest.config:  # made by a version that ended none
        config = config.replaced({"harness.end_loops": False})
    # Where --map has found models and tasks, then the budget that was kept.
    places = {key: value for key, value in store.mapping("places").items() if key in KEYS}
    config = config.replaced({**places, **kept_budget(store), **overrides.values()})
    return config.replaced(moved_values(config, overrides.moves))


def kept_budget(store: Store) -> dict[str, int | float]:
    """The budget that ``resume`` was told to keep, by dotted key."""
    return store.mapping("budget")


def new_budget(store: Store, overrides: Overrides) -> dict[str, int | float]:
    """The budget that is kept with a study from now on, by dotted key."""
    given = {key: value for key, value in overrides.values().items() if key in BUDGET}
    return {**kept_budget(store), **given}
