"""The layout is the architecture: imports go one way, and heavy ones stay where they belong."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ("spaces", "merging", "evaluators", "runs", "search")
HEAVY = ("torch", "transformers", "ray", "lm_eval", "optuna", "pandas", "pydantic", "scipy")


def imports(path: Path) -> set[str]:
    """Top-level names of everything a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add((node.module or "").partition(".")[0])
    return found


def files(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found
    return found


@pytest.mark.parametrize("layer", LAYERS)
def test_a_folder_imports_only_those_before_it(layer: str) -> None:
    later = set(LAYERS[LAYERS.index(layer) + 1 :])
    for path in files(layer):
        assert not imports(path) & later, path


def named(path: Path) -> str:
    """The name that a file is imported by."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def modules_of(path: Path, known: set[str]) -> set[str]:
    """Which of the product's modules a file imports, wherever in it and for whatever."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            parts = {f"{node.module}.{alias.name}" for alias in node.names}
            found.update(part if part in known else node.module for part in parts)
    return found & known


def test_no_module_imports_itself_by_way_of_others() -> None:
    paths = {named(path): path for layer in LAYERS for path in files(layer)}
    graph = {name: modules_of(path, set(paths)) for name, path in paths.items()}
    TopologicalSorter(graph).prepare()  # CycleError names a circle


@pytest.mark.parametrize(
    ("package", "owner"), [("lm_eval", "evaluators/harness"), ("ray", "evaluators/ray_cluster")]
)
def test_one_module_imports_it(package: str, owner: str) -> None:
    users = [
        str(path.relative_to(ROOT).with_suffix(""))
        for layer in LAYERS
        for path in files(layer)
        if package in imports(path)
    ]
    assert users == [owner]


def test_spaces_needs_no_heavy_package() -> None:
    for path in files("spaces"):
        assert not imports(path) & {*HEAVY, "numpy", "sqlalchemy", "safetensors"}, path


def test_mergekit_is_never_imported_by_the_product() -> None:
    for layer in LAYERS:
        for path in files(layer):
            assert "mergekit" not in imports(path), path


def loaded_after(code: str) -> set[str]:
    """Which heavy modules are in memory after running ``code`` in a fresh interpreter."""
    script = f"{code}\nimport sys\nprint(*(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import " + ", ".join(LAYERS),
        "import evaluators.base, evaluators.spec, evaluators.pool, evaluators.fake",
        "import search.cli",
    ],
)
def test_light_imports(code: str) -> None:
    assert loaded_after(code) == set()


def test_reading_a_study_needs_no_models() -> None:
    assert not loaded_after("import search.reading") & {"torch", "transformers", "ray", "lm_eval"}


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['search', '--help']\n"
        "from search.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code"
    )
    assert not loaded_after(code) & set(HEAVY)


def test_no_forbidden_module_names() -> None:
    for layer in LAYERS:
        for path in files(layer):
            assert path.stem not in {"utils", "helpers", "common", "misc"}, path


def test_only_the_command_line_prints() -> None:
    for layer in LAYERS:
        for path in files(layer):
            calls = [
                node
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id == "print"
            ]
            assert not calls or path == ROOT / "search" / "cli.py", path
