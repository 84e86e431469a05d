"""Whether the imports get our packages: their names are short, and others use them too."""

from __future__ import annotations

import importlib.util
from importlib import metadata
from importlib.machinery import ModuleSpec
from pathlib import Path

from evaluators.workers.cluster.shadowed_imports import OURS, hidden_library


def shadowed() -> str | None:
    """A line that says which package hides one of ours, or ``None`` when all are ours."""
    home = Path(__file__).resolve().parents[2]
    for name in OURS:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            return f"package {name!r}: expected it in {home}, got {_instead(spec)}"
        found = Path(spec.origin).resolve().parent
        if found.parent != home:
            return (
                f"package {name!r}: expected the one in {home}, got {found}{_owner(name)}; "
                "install merge-search into an environment of its own"
            )
    if (file := hidden_library()) is not None:
        return (
            f"{file}: Python imports it in place of the library of that name; rename it, or start "
            "from another folder"
        )
    return None


def _instead(spec: ModuleSpec | None) -> str:
    """What stands in a package's place: a folder of that name, such as a run's, or nothing."""
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    if folders:
        return f"the folder {folders[0]}; start from another folder, or rename it"
    return "none; install merge-search again"


def _owner(name: str) -> str:
    owners = [
        owner
        for owner in metadata.packages_distributions().get(name, [])
        if owner != "merge-search"
    ]
    return f" (from {', '.join(sorted(set(owners)))})" if owners else ""


def version() -> str:
    """The installed version of merge-search."""
    return metadata.version("merge-search")
