"""Every example runs; one of them is killed on the way and goes on."""

import shutil
import signal
from pathlib import Path

import pandas as pd
import pytest

from runs.records.record import Split, State
from runs.storage.store import Store
from search.setup.demo_models.model_family import make_family
from tests.command import apart as search

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.yaml"))


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the examples, and a quickly made family where the demo leaves its own."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "examples", folder / "examples")
    make_family(folder / "demo" / "family", quick=True)
    return folder


def test_all_examples_are_listed() -> None:
    text = (ROOT / "examples" / "README.md").read_text("utf-8")
    assert len(EXAMPLES) >= 5
    for name in EXAMPLES:
        assert f"[{name}]({name})" in text


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_as_a_dry_run(checkout: Path, tmp_path: Path, name: str) -> None:
    config = checkout / "examples" / name
    done = search("run", config, "--dry-run", "--trials", 14, "--out", tmp_path / "x", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    frame = pd.read_parquet(tmp_path / "x" / "leaderboard.parquet")
    assert len(frame) == 14
    assert (frame["state"] == "complete").all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pairwise.yaml", "stacking.yaml", "weighted-tasks.yaml"])
def test_example_for_real(checkout: Path, tmp_path: Path, name: str) -> None:
    """Trees and stacks through workers, held-out check, export, build and its fingerprint."""
    config = checkout / "examples" / name
    done = search("run", config, "--trials", 12, "--out", tmp_path / "x", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    frame = pd.read_parquet(tmp_path / "x" / "leaderboard.parquet")
    assert (frame["state"] == "complete").all(), frame[["state", "message"]]
    for rank in (1, 12):
        recipe = tmp_path / f"{rank}.yaml"
        study = tmp_path / "x" / "study.db"
        done = search("export", study, "--rank", rank, "--out", recipe, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        built = search("build", recipe, tmp_path / f"model-{rank}", cwd=tmp_path)
        assert built.returncode == 0, built.stderr
        assert "The weights are those that were scored." in built.stdout


@pytest.mark.slow
def test_killed_in_the_middle_and_resumed(checkout: Path, tmp_path: Path) -> None:
    """SIGKILL of the driver with Ray workers: nothing complete is lost, nothing is done twice."""
    study = tmp_path / "x" / "study.db"
    config = checkout / "examples" / "first.yaml"
    run = ("run", config, "--workers", 2, "--out", tmp_path / "x")
    killed = search(*run, cwd=tmp_path, dies_after=8)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    complete = finished(study)
    assert len(complete) == 8
    refused = search("run", config, "--out", tmp_path / "x", cwd=tmp_path)
    assert refused.returncode == 2
    assert "search resume" in refused.stderr
    done = search("resume", study, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    after = finished(study)
    assert len(after) == 20
    for number, evaluation in complete.items():
        assert after[number] == evaluation
    store = Store.open(str(study))
    attempts = [record.evaluations[Split.SEARCH].attempts for record in store.records()]
    assert sum(attempts) <= 20 + 2  # no more were at work; what was kept ready was not begun with
    assert all(attempts[number] == 1 for number in complete)
    assert len({record.recipe.key for record in store.records()}) == 20
    store.close()


def finished(study: Path) -> dict[int, object]:
    """Complete search evaluations by candidate; none while there is no study yet."""
    if not study.exists():
        return {}
    store = Store.open(str(study))
    try:
        return {
            record.id: record.evaluations[Split.SEARCH]
            for record in store.records()
            if record.evaluations[Split.SEARCH].state is State.COMPLETE
        }
    finally:
        store.close()
