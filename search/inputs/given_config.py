"""What a command was given: its config, read before anything heavy is imported.

A mistyped key is then told at once, not after torch and all the others have been loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runs.config.run_config import ConfigError, RunConfig, load_config
from search.inputs.input_error import InputError
from search.inputs.overrides import Overrides


@dataclass(frozen=True, kw_only=True, slots=True)
class GivenConfig:
    """A config that can be read, with the command line's values.

    Attributes:
        config: The config.
        written: The same without the command line's values.
        path: Its file; ``None`` where it was made in Python.
    """

    config: RunConfig
    written: RunConfig
    path: Path | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        return "config" if self.path is None else str(self.path)


def read(given: Path | RunConfig, overrides: Overrides) -> GivenConfig:
    """Read a config and put the command line's values in place of its own.

    Raises:
        InputError: With everything that is wrong with it, before a model or task is looked at.
    """
    try:
        written = load_config(given) if isinstance(given, Path) else given
        config = written.replaced(overrides.values())
    except ConfigError as error:
        raise InputError(error.problems) from error
    path = given if isinstance(given, Path) else None
    return GivenConfig(config=config, written=written, path=path)
