"""What other packages add to the program, by Python's entry points: methods, samplers, evaluators.

A package names a group in its ``pyproject.toml``, and in it what it adds by name; installing the
package is all there is to do. Nothing of it is imported before it is asked for.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points

from spaces.errors import UserError
from spaces.text.error_text import class_and_last_line

METHODS_GROUP = "merge_search.methods"
SAMPLERS_GROUP = "merge_search.samplers"
EVALUATORS_GROUP = "merge_search.evaluators"


class ExtensionError(UserError):
    """What an installed package adds cannot be used."""


@cache
def additions(group: str) -> dict[str, EntryPoint]:
    """What the installed packages add to a group, by name.

    Raises:
        ExtensionError: If two packages add something by one name.
    """
    found: dict[str, EntryPoint] = {}
    for entry in sorted(entry_points(group=group), key=lambda one: (one.name, one.value)):
        other = found.setdefault(entry.name, entry)
        if other.value != entry.value:
            raise ExtensionError(
                f"{group}: expected one package with {entry.name!r}, got {other.value} and "
                f"{entry.value}; uninstall one of them"
            )
    return found


def loaded(entry: EntryPoint) -> object:
    """What an entry point names.

    Raises:
        ExtensionError: If it cannot be imported.
    """
    try:
        return entry.load()
    except (Exception, SystemExit) as error:
        raise ExtensionError(
            f"{entry.group}: expected {entry.name} to be at {entry.value}{_origin(entry)}, got "
            f"{class_and_last_line(error)}; mend or uninstall it"
        ) from error


def _origin(entry: EntryPoint) -> str:
    return "" if entry.dist is None else f" of the package {entry.dist.name}"
