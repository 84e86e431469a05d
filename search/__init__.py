"""merge-search: search for merge recipes of language models.

The functions of ``search.api`` are here too, imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search.api import (
        Built,
        Recipe,
        RunConfig,
        RunFailed,
        UserError,
        build,
        check,
        load_config,
        load_recipe,
        open_run,
        resume,
        run,
        score,
        validate,
    )

__all__ = [
    "Built",
    "Recipe",
    "RunConfig",
    "RunFailed",
    "UserError",
    "build",
    "check",
    "load_config",
    "load_recipe",
    "open_run",
    "resume",
    "run",
    "score",
    "validate",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from search import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
