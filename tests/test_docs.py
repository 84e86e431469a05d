"""The pages say what there is, and what they show works."""

import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

from runs.config import RunConfig
from search.cli import app

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
    (text,) = blocks(ROOT / "README.md", "yaml")
    config = RunConfig.from_text(text)
    assert config.search.trials == 300
    assert list(config.models) == ["math", "code"]


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
