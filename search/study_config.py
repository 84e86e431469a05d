"""The config of a study as it is by now."""

from __future__ import annotations

from runs.config import RunConfig
from runs.store import Store
from search.overrides import Overrides


def config_of(store: Store, overrides: Overrides) -> RunConfig:
    """The config of a study, with the budget it was given since and what the command line says."""
    config = RunConfig.from_text(store.manifest.config, name=store.name)
    return config.replaced({**kept_budget(store), **overrides.values()})


def kept_budget(store: Store) -> dict[str, int | float]:
    """The budget that ``resume`` was told to keep, by dotted key."""
    return store.mapping("budget")
