"""Every command that a page shows runs here, or is listed with the reason why it does not."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from search.setup.demo_models.model_family import make_family
from tests.command import search

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "examples" / "README.md"]
BLOCK = re.compile(r"^```(?:sh|bash|console)\n(.*?)^```", re.M | re.S)

HERE = ("README.md", "check.md", "mergekit-evolve.md", "models.md", "own-tasks.md", "running.md")
HERE += ("reliability.md", "report.md", "start.md")
"""Pages whose commands run here; each block starts in a folder as the page takes for granted."""

ELSEWHERE = {
    "tutorial.md": "test_a_new_user_types_the_readme_and_the_tutorial",
    "resume.md": "test_stopping_and_resuming_as_the_page_says",
    "own-evaluator.md": "test_the_page_from_check_to_score",
    "examples/README.md": "test_killed_in_the_middle_and_resumed",
}
"""Pages whose commands a test of their own runs."""

CLUSTER, NETWORK = "runs in tests/faults/test_machines.py", "installs packages from the network"
TYPED = "tests/test_install.py types it, without a network"
SERVER = "runs until it is stopped; tests/browser/test_live_page.py asks it"
HUB = "needs a hub; tests/search/test_push_command.py has a stand-in"
HEAD = "needs the dashboard of a cluster, whose libraries no test has"
EXEMPT = {
    "make demo": "the tutorial's test runs `search demo`; .ci/run installs as make does",
    "make test": "would run this test in itself",
    "git clone REPOSITORY merge-search": TYPED,
    "cd merge-search": TYPED,
    "python3 -m venv .venv": TYPED,
    "source .venv/bin/activate": TYPED,
    "pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu": TYPED,
    "pip install -c constraints.txt .": TYPED,
    "mkdir ../merges && cd ../merges": TYPED,
    '(umask 077; python -c "import secrets; print(secrets.token_hex(32))" > /shared/ray-token)': (
        CLUSTER
    ),
    "export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=/shared/ray-token": CLUSTER,
    "export RAY_health_check_timeout_ms=5000 RAY_health_check_failure_threshold=3": CLUSTER,
    "search push merged/ me/math-code": HUB,
    "search push merged/ me/math-code --public": HUB,
    "search validate night --max-gen-toks 768":
        "models made here have no room for it; tests/search/test_thinking_models.py asks for 16",
    "search validate night --quantize nf4":
        "the study made here is a dry run; tests/search/test_thinking_models.py asks a real one",
    "pip install 'merge-search[serve]'": NETWORK,
    "pip install optuna-dashboard": NETWORK,
    "search serve search/study.db": SERVER,
    "search serve search/study.db --host 0.0.0.0": SERVER,
    "optuna-dashboard sqlite:///search/study.db": "a server; tests/search/test_storage.py asks it",
    "search init math=org/name@v2 code=./models/code --task arc_easy --out mix.yaml --hours 8":
        "needs a model and a data set from the hub",
    "export RAY_worker_niceness=0": CLUSTER,
    "ray start --head": CLUSTER,
    "ray start --address=FIRST_MACHINE:6379": CLUSTER,
    "search run search.yaml --ray-address auto": CLUSTER,
    "ray job submit --address http://HEAD:8265 --working-dir . -- search run search.yaml "
    "--ray-address auto": HEAD,
    "kubectl apply -f raycluster.yaml": "needs Kubernetes",
    "kubectl port-forward service/merge-search-head-svc 8265 &": "needs Kubernetes",
    "export RAY_AUTH_MODE=token": "needs Kubernetes",
    "export RAY_AUTH_TOKEN=$(kubectl get secret merge-search -o 'jsonpath={.data.auth_token}' | "
    "base64 -d)": "needs Kubernetes",
    "ray job submit --address http://localhost:8265 -- search run /shared/search.yaml "
    "--out /runs/night --ray-address auto": HEAD,
    "sbatch slurm.sbatch search.yaml runs/night": "needs SLURM",
}  # fmt: skip
"""Lines of shell blocks that do not run in a test, and why."""


def label(page: Path) -> str:
    return page.relative_to(ROOT).as_posix().removeprefix("docs/")


def blocks(page: Path) -> list[list[str]]:
    """The lines of each shell block, without comments."""
    found = []
    for text in BLOCK.findall(page.read_text("utf-8")):
        lines = [re.sub(r"\s+#.*$", "", line).strip() for line in text.splitlines()]
        found.append([line for line in lines if line and not line.startswith("#")])
    return found


def runnable(name: str) -> list[list[list[str]]]:
    """The commands of each block that are not exempt, as words after ``search``."""
    (page,) = (page for page in PAGES if label(page) == name)
    chosen = [[line for line in block if line not in EXEMPT] for block in blocks(page)]
    return [[shlex.split(line)[1:] for line in block] for block in chosen if block]


def test_every_command_runs_in_a_test_or_has_a_reason_not_to() -> None:
    shown = {line: label(page) for page in PAGES for block in blocks(page) for line in block}
    assert not EXEMPT.keys() - shown.keys(), "no page shows these any more"
    assert not (set(HERE) | set(ELSEWHERE)) - set(shown.values()), "no commands on these pages"
    for line, page in shown.items():
        assert line in EXEMPT or page in HERE or page in ELSEWHERE, (page, line)
        assert line in EXEMPT or line.startswith("search "), (page, line)
    tests = "".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    for test in ELSEWHERE.values():
        assert f"def {test}(" in tests, test


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("family") / "family"
    make_family(folder, quick=True)
    return folder


@pytest.fixture(scope="session")
def template(family: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, tasks, a config, a finished study, and files of mergekit, where pages have them."""
    root = tmp_path_factory.mktemp("workplace")
    for name, skill in {"base": "base", "math": "sort", "code": "reverse"}.items():
        shutil.copytree(family / skill, root / "models" / name)
    shutil.copytree(family / "tasks", root / "tasks")
    task = (root / "tasks" / "demo_sort.yaml").read_text()
    (root / "tasks" / "sums.yaml").write_text(task.replace("task: demo_sort", "task: sums"))
    genome = {"models": ["models/math", "models/code"], "base_model": "models/base"}
    evolve = {
        "genome": genome | {"merge_method": "ties", "layer_granularity": 1},
        "tasks": [{"name": "demo_sort", "metric": "exact_match,none"}],
        "apply_chat_template": False,
    }
    (root / "evolve.yaml").write_text(yaml.safe_dump(evolve))
    recipe = {"merge_method": "linear", "models": [
        {"model": f"models/{name}", "parameters": {"weight": 0.5}} for name in ("math", "code")
    ]}  # fmt: skip
    (root / "recipe.yaml").write_text(yaml.safe_dump(recipe | {"dtype": "float32"}))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        given = ("models/math", "models/code", "--base", "models/base", "--task", "tasks/sums.yaml")
        assert search("init", *given, "--trials", 12).code == 0
        assert search("run", "search.yaml", "--dry-run").code == 0
    return root


@pytest.fixture
def workplace(family: Path, template: Path, tmp_path: Path) -> Path:
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "family").symlink_to(family)
    return tmp_path


def prepare(words: list[str], folder: Path) -> None:
    """What lies between two lines of a block: they are ways to choose from, not one after another.

    A config that is searched for real gets a small budget and no worker processes.
    """
    if words[0] in ("init", "import", "schema") and "--config" not in words:
        if "--out" not in words:
            (folder / "search.yaml").unlink(missing_ok=True)
        (folder / "search.schema.json").unlink(missing_ok=True)
    if words[0] == "run":
        shutil.rmtree(folder / "search")
        config = yaml.safe_load((folder / "search.yaml").read_text())
        config["search"] = {"trials": 12}
        config["workers"] = {"ray": False}
        (folder / "search.yaml").write_text(yaml.safe_dump(config))
    if words[0] == "build":
        shutil.rmtree(folder / words[2], ignore_errors=True)


BLOCKS = [(name, at) for name in HERE for at in range(len(runnable(name)))]


@pytest.mark.parametrize(("name", "at"), BLOCKS)
def test_commands_shown_run(
    name: str, at: int, workplace: Path, command: Callable[..., Any]
) -> None:
    config = workplace / "search.yaml"
    written = ""
    for words in runnable(name)[at]:
        prepare(words, workplace)
        done = command(*words)
        assert done.returncode == 0, (words, done.stderr)
        if name == "README.md" and words[0] == "init":
            written = config.read_text()
        elif (
            name == "README.md" and words[0] == "import"
        ):  # a way to choose: init's is gone on with
            config.write_text(written)
    if name == "README.md":  # from models and tasks to a built model and a report
        assert "The weights are those that were scored." in done.stdout
        assert (workplace / "merged" / "model.safetensors").exists()
        assert (workplace / "search" / "report.html").stat().st_size > 1_000_000


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
    ((first, second, third),) = runnable("resume.md")
    in_a_shell(first, tmp_path)
    in_a_shell(second, tmp_path)
    assert "14 of 14 recipes" in in_a_shell(third, tmp_path)
