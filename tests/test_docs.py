"""The pages say what there is, and what they show works."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

from runs.config.run_config import RunConfig
from search.cli.app import app
from search.setup.config_draft import drafted
from search.setup.config_request import ConfigRequest, all_named

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "examples" / "README.md"]
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(page.read_text("utf-8")) if kind == language]


def shown() -> list[tuple[str, str]]:
    """Every ``search ...`` line in the shell blocks of all pages."""
    found = []
    for page in PAGES:
        for block in blocks(page, "sh"):
            for line in block.splitlines():
                if line.startswith("search "):
                    found.append((page.name, line))
    return found


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_is_in_the_docs(command: str) -> None:
    assert f"`search {command}" in (ROOT / "docs" / "running.md").read_text("utf-8")
    assert f"search {command}" in (ROOT / "README.md").read_text("utf-8") or command == "demo"


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_option_is_in_the_docs(command: str) -> None:
    text = (ROOT / "docs" / "running.md").read_text("utf-8")
    for parameter in COMMANDS[command].params:
        for name in parameter.opts:
            assert not name.startswith("--") or name in text or name == "--help", name


def test_there_are_commands_shown() -> None:
    assert len(shown()) > 8


@pytest.mark.parametrize(("page", "line"), shown())
def test_commands_shown_can_be_typed(page: str, line: str) -> None:
    _, name, *arguments = shlex.split(line, comments=True)
    COMMANDS[name].make_context(name, arguments)


def test_the_readme_config_is_one() -> None:
    text, _ = blocks(ROOT / "README.md", "yaml")
    config = RunConfig.from_text(text)
    assert config.search.trials == 300
    assert list(config.models) == ["math", "code"]


def test_the_task_file_of_the_readme_is_one(tmp_path: Path, tiny_family: dict[str, Path]) -> None:
    page = (ROOT / "README.md").read_text("utf-8")
    _, text = blocks(ROOT / "README.md", "yaml")
    (line,) = re.findall(r'^`(\{"question".*\})`', page, re.M)
    (tmp_path / "sums.yaml").write_text(text)
    lines = [line.replace("17", str(17 + n)) for n in range(67)]  # 67 questions, not one 67 times
    (tmp_path / "sums.jsonl").write_text("\n".join(lines))
    wanted = ConfigRequest(
        models=(str(tiny_family["math"]), str(tiny_family["code"])),
        base=str(tiny_family["base"]),
        tasks=(str(tmp_path / "sums.yaml"),),
    )
    draft, _ = drafted(all_named(wanted), tmp_path / "search.yaml")
    assert draft.values["tasks"] == [{"name": "sums", "metric": "exact_match,none", "weight": 1.0}]
    assert draft.values["held_out"] == 0.3


@pytest.mark.parametrize("text", blocks(ROOT / "docs" / "cluster.md", "yaml"))
def test_cluster_settings_are_settings(text: str) -> None:
    least = {"models": {"a": "a", "b": "b"}, "tasks": ["t"]}
    RunConfig.from_text(yaml.safe_dump(least | yaml.safe_load(text)))


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8")):
            assert target.startswith("http") or (page.parent / target).exists(), (page, target)


def test_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"^make (\w+)", (ROOT / "README.md").read_text("utf-8"), re.M):
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_the_changelog_starts_with_what_is_unreleased() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert text.index("## Unreleased") < 40


def test_the_site_builds_and_asks_nobody(tmp_path: Path) -> None:
    site = tmp_path / "site"
    line = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(site)]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    pages = sorted(site.glob("*.html"))
    assert {page.stem for page in pages} >= {page.stem for page in (ROOT / "docs").glob("*.md")}
    for page in pages:
        text = page.read_text("utf-8")
        assert not re.search(r"<(?:script|img|iframe)[^>]*\ssrc=\"https?:", text), page
        assert not re.search(r"<link[^>]*rel=\"stylesheet\"[^>]*href=\"https?:", text), page


def test_every_page_is_in_the_site() -> None:
    text = (ROOT / "mkdocs.yml").read_text("utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert f": {page.name}\n" in text, page.name
