"""What was mistyped is told before anything heavy is loaded, and reading a study needs no models.

Which modules a command loads is what decides how long it takes to say its line.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from search.commands import run_command
from search.inputs.overrides import Overrides

ROOT = Path(__file__).parents[2]
Project = Callable[..., Path]

MODELS = {"torch", "transformers", "ray", "lm_eval"}
HEAVY = MODELS | {"optuna", "pandas", "scipy", "sqlalchemy", "numpy"}

SCRIPT = f"""
import sys
from search.cli.app import main
code = None
try:
    main()
except SystemExit as stop:
    code = stop.code
print("LOADED", code, *sorted({HEAVY} & set(sys.modules)))
"""

TYPO = """\
models: {math: ./math, code: ./code}
tasks: [{name: arc}]
serach: {trials: 3}
"""

EVOLVE_TYPO = """\
genome: {models: [./math, ./code], merge_method: tise}
tasks: [{name: arc}]
"""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended, and which heavy modules it had loaded by then."""

    code: str
    loaded: set[str]
    err: str


def ended(folder: Path, *arguments: object) -> Ended:
    """Run a command in a process of its own."""
    command = [sys.executable, "-c", SCRIPT, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=folder, check=True, env=environment
    )
    mark, code, *loaded = done.stdout.splitlines()[-1].split()
    assert mark == "LOADED"
    return Ended(code=code, loaded=set(loaded), err=done.stderr)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "typo.yaml").write_text(TYPO)
    (tmp_path / "evolve.yaml").write_text(EVOLVE_TYPO)
    (tmp_path / "recipe.yaml").write_text("merge_method: linear\nmodles: []\n")
    return tmp_path


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("run typo.yaml", "typo.yaml:3: serach: "),
        ("run none.yaml --dry-run", "none.yaml: expected a config file"),
        ("check typo.yaml", "typo.yaml:3: serach: "),
        ("import evolve.yaml", "evolve.yaml:1: genome.merge_method: expected one of"),
        ("import none.yaml", "none.yaml: expected a mergekit-evolve config"),
        ("import recipe.yaml", "recipe.yaml: expected exactly one of models, slices and modules"),
        ("init --out new.yaml ./math", "--task: expected at least one task"),
        ("build none.yaml out", "none.yaml: expected a recipe file"),
        (
            "build recipe.yaml out",
            "recipe.yaml: expected exactly one of models, slices and modules",
        ),
    ],
)
def test_a_mistyped_file_is_told_before_anything_heavy_is_loaded(
    command: str, line: str, folder: Path
) -> None:
    found = ended(folder, *command.split())
    assert found.code == "2"
    assert line in found.err
    assert found.loaded == set()


@pytest.mark.parametrize("command", ["--help", "--version", "run --help", "schema"])
def test_what_only_prints_loads_nothing_heavy(command: str, folder: Path) -> None:
    found = ended(folder, *command.split())
    assert found.code in {"0", "None"}
    assert found.loaded == set()


@pytest.mark.parametrize("command", ["resume", "validate", "status", "report", "export"])
def test_a_study_that_is_not_there_is_told_without_models(command: str, folder: Path) -> None:
    found = ended(folder, command, "none.db")
    assert found.code == "2"
    assert "none.db: expected a study, got no such file" in found.err
    assert not found.loaded & MODELS


def test_a_study_is_read_without_models(project: Project, tmp_path: Path) -> None:
    out = tmp_path / "out"
    study = run_command.run(project(), out=out, overrides=Overrides(trials=4), dry_run=True)
    for command in ("status", "report", "export"):
        found = ended(tmp_path, command, study)
        assert found.code in {"0", "None"}, found.err
        assert not found.loaded & MODELS
    refused = ended(tmp_path, "run", project(), "--out", out)  # there is a study already
    assert "expected no such file, got one" in refused.err
    assert not refused.loaded & MODELS
