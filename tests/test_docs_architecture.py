"""The page on the architecture names what there is, and all of it."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
LAYERS = ("spaces", "merging", "evaluators", "runs", "search")
NAMED = set(re.findall(r"`((?:[\w.-]+/)+(?:[\w.-]+\.\w+)?)`", PAGE))


def test_every_folder_and_file_that_the_page_names_is_there() -> None:
    assert len(NAMED) > 100
    assert not [name for name in sorted(NAMED) if not (ROOT / name).exists()]


@pytest.mark.parametrize("layer", LAYERS)
def test_every_package_is_named(layer: str) -> None:
    packages = [path.parent for path in (ROOT / layer).rglob("__init__.py")]
    assert packages
    assert not [one for one in packages if f"{one.relative_to(ROOT)}/" not in NAMED]


@pytest.mark.parametrize("layer", LAYERS)
def test_every_module_beside_packages_is_named(layer: str) -> None:
    modules = [path for path in (ROOT / layer).glob("*.py") if not path.name.startswith("__")]
    assert not [one for one in modules if str(one.relative_to(ROOT)) not in NAMED]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "mkdocs.yml"])
def test_the_page_can_be_found(page: str) -> None:
    assert "architecture.md" in (ROOT / page).read_text("utf-8")
