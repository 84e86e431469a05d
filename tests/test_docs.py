"""The pages say what there is, and what they show works."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from runs.config import RunConfig
from search.cli import app
from search.family import make_family

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


NOT_HERE = "<!-- docs: not here -->\n"
"""Before a block that cannot run in a test: other machines, downloads."""

RUN = ("check.md", "mergekit-evolve.md", "own-tasks.md", "start.md")
"""Pages whose commands run here; each block starts in a folder as the page takes for granted."""


def runnable(page: Path) -> list[list[list[str]]]:
    """The commands of each shell block that can run here, as words."""
    text = page.read_text("utf-8")
    found = []
    for match in BLOCK.finditer(text):
        if match[1] != "sh" or text[: match.start()].endswith(NOT_HERE):
            continue
        lines = [line for line in match[2].splitlines() if line.startswith("search ")]
        found.append([shlex.split(line, comments=True)[1:] for line in lines])
    return [block for block in found if block]


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("family") / "family"
    make_family(folder, quick=True)
    return folder


@pytest.fixture
def workplace(family: Path, tmp_path: Path) -> Path:
    """Models, tasks, a config, and files of mergekit, where the pages have them."""
    shutil.copytree(family, tmp_path / "demo" / "family")
    for name, skill in {"base": "base", "math": "sort", "code": "reverse"}.items():
        shutil.copytree(family / skill, tmp_path / "models" / name)
    shutil.copytree(family / "tasks", tmp_path / "tasks")
    task = (tmp_path / "tasks" / "demo_sort.yaml").read_text()
    (tmp_path / "tasks" / "sums.yaml").write_text(task.replace("task: demo_sort", "task: sums"))
    genome = {"models": ["models/math", "models/code"], "base_model": "models/base"}
    evolve = {
        "genome": genome | {"merge_method": "ties", "layer_granularity": 1},
        "tasks": [{"name": "demo_sort", "metric": "exact_match,none"}],
        "apply_chat_template": False,
    }
    (tmp_path / "evolve.yaml").write_text(yaml.safe_dump(evolve))
    recipe = {"merge_method": "linear", "models": [
        {"model": f"models/{name}", "parameters": {"weight": 0.5}} for name in ("math", "code")
    ]}  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe | {"dtype": "float32"}))
    return tmp_path


BLOCKS = [(name, at) for name in RUN for at in range(len(runnable(ROOT / "docs" / name)))]


@pytest.mark.parametrize(("name", "at"), BLOCKS)
def test_commands_shown_run(
    name: str, at: int, workplace: Path, command: Callable[..., Any]
) -> None:
    if name == "check.md":
        made = command(
            "init", "models/math", "models/code", "--base", "models/base", "--task", "tasks"
        )
        assert made.returncode == 0, made.stderr
    for words in runnable(ROOT / "docs" / name)[at]:
        done = command(*words)
        assert done.returncode == 0, (words, done.stderr)


def in_a_shell(words: list[str], folder: Path) -> str:
    """Run a command as a user does; what it prints comes back."""
    line = [str(Path(sys.executable).parent / "search"), *words]
    done = subprocess.run(line, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout


@pytest.mark.slow
def test_stopping_and_resuming_as_the_page_says(family: Path, tmp_path: Path) -> None:
    config = yaml.safe_load((family / "search.yaml").read_text())
    for name in ("base", *config["models"]):
        shutil.copytree(family / name, tmp_path / name)
    shutil.copytree(family / "tasks", tmp_path / "tasks")
    config["workers"] = {"ray": False}
    (tmp_path / "search.yaml").write_text(yaml.safe_dump(config))
    ((first, second, third),) = runnable(ROOT / "docs" / "resume.md")
    in_a_shell(first, tmp_path)
    in_a_shell(second, tmp_path)
    assert "14 of 14 recipes" in in_a_shell(third, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_new_user_follows_the_tutorial(tmp_path: Path) -> None:
    """From three fine-tunes and their tasks to an open report and a built model."""
    commands = [words for block in runnable(ROOT / "docs" / "tutorial.md") for words in block]
    said = {words[0]: in_a_shell(words, tmp_path) for words in commands}
    assert list(said) == [
        "demo", "init", "check", "run", "resume", "status", "report", "build",
    ]  # fmt: skip
    assert "These models merge" in said["check"]
    assert "Verdict:" in said["resume"]
    assert "16 of 16 recipes" in said["status"]
    assert "The weights are those that were scored." in said["build"]
    assert (tmp_path / "search" / "report.html").stat().st_size > 10_000
    assert (tmp_path / "check.html").exists()
    load = "from transformers import AutoModelForCausalLM as M; M.from_pretrained('merged').eval()"
    subprocess.run([sys.executable, "-c", load], cwd=tmp_path, check=True, capture_output=True)


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
