"""Which files imports get: a user's, in the folder of work, may have a library's name.

``python -m`` looks into that folder before all libraries, and so would Ray's workers.
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from pathlib import Path

OURS = ("spaces", "merging", "evaluators", "runs", "search")
"""The packages of this program, each importing only those before it."""

LIBRARIES = (
    "accelerate", "datasets", "evaluate", "huggingface_hub", "jinja2", "lm_eval", "numpy", "optuna",
    "pandas", "peft", "plotly", "pydantic", "ray", "rich", "sacrebleu", "safetensors", "scipy",
    "sklearn", "sqlalchemy", "sympy", "tokenizers", "torch", "tqdm", "transformers", "typer",
    "yaml",
)  # fmt: skip
"""Libraries that are imported by some command, sooner or later."""

HOME = Path(__file__).resolve().parents[3]
"""The folder that this program lies in."""


def hidden_library() -> Path | None:
    """A file that imports get in place of a library, for lying where they look first."""
    scripts = {Path.cwd(), Path(sys.argv[0]).resolve().parent} - {HOME}
    others = [entry for entry in sys.path if Path(entry).resolve() not in scripts]
    for name in LIBRARIES if len(others) < len(sys.path) else ():
        file = _found(name, sys.path)
        if file is None or not scripts & {file.parent, file.parent.parent}:
            continue
        if _found(name, others) is not None:
            return file
    return None


def _found(name: str, places: list[str]) -> Path | None:
    """The file that an import would get."""
    spec = PathFinder.find_spec(name, places)
    return None if spec is None or spec.origin is None else Path(spec.origin).resolve()
