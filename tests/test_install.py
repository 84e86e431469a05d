"""The program installs as its pages say, in an environment that has nothing of it.

No test has a network: the libraries that the program needs are those of the tests, made visible
to the new environment by ``PYTHONPATH``, so that pip finds them installed.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
LAYERS = ("spaces", "merging", "evaluators", "runs", "search")
NOT_LINKED = re.compile(r"__editable__|merge_search|pip\b|_virtualenv|.*\.pth$")
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.M | re.S)


def shell_blocks(page: str) -> list[list[str]]:
    """The lines of each shell block of a page, without comments."""
    found = []
    for text in BLOCK.findall((ROOT / page).read_text("utf-8")):
        lines = [re.sub(r"\s+#.*$", "", line).strip() for line in text.splitlines()]
        found.append([line for line in lines if line])
    return found


def installing(page: str) -> list[str]:
    """The block of a page that installs the program."""
    (block,) = [
        block for block in shell_blocks(page) if "pip install -c constraints.txt ." in block
    ]
    return block


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables of a shell that sees every library but this program, and no index."""
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    libraries = tmp_path_factory.mktemp("libraries")
    for entry in Path(spec.origin).parent.parent.iterdir():
        if not NOT_LINKED.match(entry.name):
            (libraries / entry.name).symlink_to(entry)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    return kept | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(libraries),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # of a negative option: 0 switches isolation off
    }


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository with the files as they are now, committed or not."""
    folder = tmp_path_factory.mktemp("origin")
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, done.stdout.splitlines()):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    for line in ("init -q", "add -A", "-c user.name=n -c user.email=e commit -q -m all"):
        subprocess.run(["git", *line.split()], cwd=folder, check=True, capture_output=True)
    return folder


def typed(lines: list[str], folder: Path, environment: dict[str, str]) -> str:
    """Type lines into one shell; what they print comes back."""
    done = subprocess.run(
        ["bash", "-ec", "\n".join(lines)], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_new_user_types_the_readme_and_the_tutorial(
    repository: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """From `git clone` to an open report and a built model, line by line, in one shell."""
    block = installing("README.md")
    install = [line.replace("REPOSITORY", str(repository)) for line in block]
    first, *steps = shell_blocks("docs/tutorial.md")
    assert install[0].startswith("git clone ")
    assert [line for line in first if line not in block] == [], "the tutorial installs otherwise"
    python = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "docs/tutorial.md").read_text(), re.M | re.S
    )
    (load,) = python
    lines = [line for step in steps for line in step]
    said = typed([*install, *lines, "python - <<'END'", load, "END", "pwd"], tmp_path, environment)
    assert "On held-out questions, " in said
    assert "These models merge" in said
    assert said.count("Verdict:") >= 2
    assert "16 of 16 recipes" in said
    assert "The weights are those that were scored." in said
    work = Path(said.splitlines()[-1])
    assert work.parent == tmp_path, "a run in the clone would write into the program"
    assert (work / "search" / "report.html").stat().st_size > 10_000
    assert (work / "check.html").exists()
    assert (work / "demo" / "family" / "search.yaml").exists()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_wheel_from_the_source_archive_is_whole(
    repository: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    build = "from setuptools import build_meta as b; print(b.build_sdist('{}'))"
    archive = typed([f'python -c "{build.format(tmp_path)}" | tail -n 1'], repository, environment)
    with tarfile.open(tmp_path / archive.strip()) as opened:
        opened.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    lines = [
        f"python -m venv {tmp_path}/venv", f"source {tmp_path}/venv/bin/activate",
        f"pip wheel --quiet --no-deps --wheel-dir {tmp_path} {source}",
        f"pip install --quiet {tmp_path}/merge_search-*.whl",
    ]  # fmt: skip
    typed(lines, tmp_path, environment)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        packed = {name for name in opened.namelist() if ".dist-info/" not in name}
    ours = {
        path.relative_to(repository).as_posix()
        for layer in LAYERS
        for path in (repository / layer).rglob("*")
        if path.is_file()
    }
    assert packed == ours
    here = [
        f"{tmp_path}/venv/bin/search --version",
        f"{tmp_path}/venv/bin/search schema | head -n 1",
    ]
    assert typed(here, tmp_path, environment) == f"merge-search {version()}\n{{\n"


def version() -> str:
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def test_every_page_installs_in_the_same_way() -> None:
    lines = installing("README.md")
    assert installing("docs/install.md") == lines
    torch = re.findall(r"^torch==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)
    assert [f"torch=={torch[0]}" in line for line in lines].count(True) == 1
    assert f'"torch=={torch[0]}"' in (ROOT / "Makefile").read_text()


def test_the_citation_is_of_this_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == version()
    assert {"cff-version", "title", "message", "authors", "license"} <= cited.keys()


def test_a_tag_publishes_without_a_stored_token() -> None:
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text()
    flow = yaml.safe_load(text)
    assert flow[True] == {"push": {"tags": ["v*"]}}  # YAML reads `on` as true
    assert flow["permissions"] == {"contents": "read"}
    publish = flow["jobs"]["publish"]
    assert (publish["needs"], publish["environment"]) == ("build", "pypi")
    assert publish["permissions"] == {"id-token": "write"}
    assert publish["steps"][-1]["uses"].startswith("pypa/gh-action-pypi-publish@")
    assert "secrets." not in text
    for job in flow["jobs"].values():
        for step in job["steps"]:
            if str(step.get("run", "")).startswith("."):
                assert os.access(ROOT / step["run"], os.X_OK)
