"""The layout is the architecture: imports go one way, and heavy ones stay where they belong."""

import ast
import subprocess
import sys
from collections import defaultdict
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ("spaces", "merging", "evaluators", "runs", "search")
HEAVY = ("torch", "transformers", "ray", "lm_eval", "optuna", "pandas", "pydantic", "scipy")

MOST_ENTRIES = 9
"""Modules and sub-packages that somebody who opens a folder can take in."""

MORE_ENTRIES: dict[str, int] = {}
"""Folders whose field has more nouns, and how many."""


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> set[str]:
    """Top-level names of everything a file imports, wherever in it."""
    found = set()
    for node in ast.walk(tree_of(path)):
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


def everything() -> list[Path]:
    return [path for layer in LAYERS for path in files(layer)]


def named(path: Path) -> str:
    """The name that a file is imported by."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("layer", LAYERS)
def test_a_folder_imports_only_those_before_it(layer: str) -> None:
    later = set(LAYERS[LAYERS.index(layer) + 1 :])
    for path in files(layer):
        assert not imports(path) & later, path


def modules_of(path: Path, known: set[str]) -> set[str]:
    """Which of the product's modules a file imports, wherever in it and for whatever."""
    found = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            parts = {f"{node.module}.{alias.name}" for alias in node.names}
            found.update(part if part in known else node.module for part in parts)
    return found & known


def test_no_module_imports_itself_by_way_of_others() -> None:
    paths = {named(path): path for path in everything()}
    graph = {name: modules_of(path, set(paths)) for name, path in paths.items()}
    TopologicalSorter(graph).prepare()  # CycleError names a circle


def entries(folder: Path) -> list[str]:
    """Modules and sub-packages of a folder, but those that Python asks for."""
    return sorted(
        one.name
        for one in folder.iterdir()
        if (one.suffix == ".py" and not one.name.startswith("__")) or (one / "__init__.py").exists()
    )


def test_folders_can_be_taken_in() -> None:
    folders = {path.parent for path in everything()}
    large = {
        str(folder.relative_to(ROOT)): len(entries(folder))
        for folder in folders
        if len(entries(folder)) > MOST_ENTRIES
    }
    assert large == MORE_ENTRIES


def test_every_folder_with_modules_is_a_package_that_says_what_it_is() -> None:
    for folder in {path.parent for path in everything()}:
        assert ast.get_docstring(tree_of(folder / "__init__.py")), folder


def test_no_file_or_folder_name_stands_twice() -> None:
    places = defaultdict(set)
    for path in everything():
        for one in (path, *path.relative_to(ROOT).parents):
            if not one.name.startswith("__") and one.name:
                places[one.stem].add(str(one.parent / one.stem))
    assert not {name: sorted(where) for name, where in places.items() if len(where) > 1}


def test_no_class_name_stands_twice() -> None:
    assert not doubled_classes(everything())


def test_no_class_name_of_the_tests_stands_twice() -> None:
    assert not doubled_classes(files("tests"))


def doubled_classes(paths: list[Path]) -> dict[str, list[str]]:
    """Class names that modules share, private ones too, and where they stand."""
    places = defaultdict(list)
    for path in paths:
        for node in tree_of(path).body:
            if isinstance(node, ast.ClassDef):
                places[node.name.removeprefix("_")].append(named(path))
    return {name: where for name, where in places.items() if len(where) > 1}


@pytest.mark.parametrize(
    ("package", "owner"),
    [
        ("lm_eval", "evaluators.harness.lm_eval_adapter"),
        ("ray", "evaluators.workers.cluster.ray_cluster"),
        ("vllm", "evaluators.harness.engines.vllm_engine"),
    ],
)
def test_one_module_imports_it(package: str, owner: str) -> None:
    assert [named(path) for path in everything() if package in imports(path)] == [owner]


def test_spaces_needs_no_heavy_package() -> None:
    for path in files("spaces"):
        assert not imports(path) & {*HEAVY, "numpy", "sqlalchemy", "safetensors"}, path


def test_mergekit_is_never_imported_by_the_product() -> None:
    for path in everything():
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
        "import "
        + ", ".join(sorted({named(path.parent / "__init__.py") for path in everything()})),
        "import evaluators.protocol, evaluators.harness_spec, evaluators.workers.pool\n"
        "import evaluators.synthetic_evaluator",
        "import search.cli.app",
    ],
    ids=["packages", "evaluators", "command line"],
)
def test_light_imports(code: str) -> None:
    assert loaded_after(code) == set()


def test_reading_a_study_needs_no_models() -> None:
    loaded = loaded_after("import search.commands.study_commands")
    assert not loaded & {"torch", "transformers", "ray", "lm_eval"}


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['search', '--help']\n"
        "from search.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code"
    )
    assert not loaded_after(code) & set(HEAVY)


def test_no_forbidden_module_names() -> None:
    for path in everything():
        assert path.stem not in {"utils", "helpers", "common", "misc"}, path


def test_only_the_command_line_prints() -> None:
    for path in everything():
        calls = [
            node
            for node in ast.walk(tree_of(path))
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "print"
        ]
        assert not calls or path == ROOT / "search" / "cli" / "app.py", path
