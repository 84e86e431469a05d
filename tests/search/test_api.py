"""The Python API: its names are pinned, its page runs, and it is light."""

import importlib.util
import inspect
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import PathFinder
from pathlib import Path

import pandas as pd
import pytest

import search
from search import api
from search.cli.installation import shadowed
from search.commands.run_handle import Run
from search.commands.score_command import Scored

PAGE = (Path(__file__).parents[2] / "docs" / "python.md").read_text(encoding="utf-8")
Project = Callable[..., Path]

PUBLIC = [
    "Built", "Recipe", "RunConfig", "RunFailed", "UserError", "build", "check", "load_config",
    "load_recipe", "open_run", "resume", "run", "score", "validate",
]  # fmt: skip


def test_the_public_names_are_these() -> None:
    assert search.__all__ == PUBLIC
    assert all(getattr(search, name) is getattr(api, name) for name in PUBLIC)
    assert set(PUBLIC) <= set(dir(search))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        search.nothing  # noqa: B018


@pytest.mark.parametrize("name", PUBLIC)
def test_everything_is_documented(name: str) -> None:
    assert inspect.getdoc(getattr(search, name))
    assert re.search(rf"\b{name}\b", PAGE)


def test_importing_is_light() -> None:
    code = (
        "import sys, search, search.api; search.load_config\n"
        "heavy = {'torch', 'transformers', 'ray', 'lm_eval', 'optuna', 'pandas'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_page_runs(
    project: Project,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.move(project(), tmp_path / "search.yaml")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(compile(block, "docs/python.md", "exec"), names)
    shown = capsys.readouterr().out
    assert "<Run first/study.db: 10 candidates, best " in shown
    assert ", of 10 scored>" in shown
    assert "nowhere.yaml: expected a config file" in shown
    run = names["run"]
    assert isinstance(run, Run)
    frame = run.leaderboard()
    assert isinstance(frame, pd.DataFrame)
    assert len(frame) == 12
    by_task = run.by_task()
    assert list(by_task["role"]).count("parent") == 3 * by_task["task"].nunique() > 0
    assert (by_task["change"] != "").sum() <= by_task["task"].nunique()
    html = run._repr_html_()
    assert "<table" in html
    assert str(frame["key"][0]) in html
    built = names["built"]
    assert isinstance(built, search.Built)
    assert built.verified is True
    assert built.fingerprint == frame["fingerprint"][1]
    assert "those that were scored" in built._repr_html_()
    # a model is scored as a search scores its recipe
    config = names["config"]
    assert isinstance(config, search.RunConfig)
    whole = search.score(config, "second.yaml", questions="search")
    assert whole.value == pytest.approx(frame["score"][1], abs=1e-12)
    assert search.score(config, "merged", questions="search").value == whole.value
    parent = search.score(config, "math", questions="search")
    alone = frame[frame["origin"] == "parent math"].iloc[0]
    assert (parent.value, parent.fingerprint) == (alone["score"], alone["fingerprint"])
    assert "math" in parent._repr_html_()
    assert re.match(r"<Scored math: 0\.\d+ ± 0\.\d+ \(98 questions\)>", repr(parent))
    assert isinstance(parent, Scored)


def test_what_cannot_be_used(project: Project, tmp_path: Path) -> None:
    config = search.load_config(project())
    with pytest.raises(search.UserError, match="expected search, held-out or all"):
        search.score(config, "math", questions="some")  # type: ignore[arg-type]
    with pytest.raises(search.UserError, match="nowhere"):
        search.score(config, "./nowhere")
    with pytest.raises(search.UserError, match=r"expected a run's folder with study\.db"):
        search.open_run(tmp_path)
    with pytest.raises(search.UserError):
        search.open_run(tmp_path / "study.db")
    with pytest.raises(search.UserError, match="expected a recipe file"):
        search.load_recipe(tmp_path / "none.yaml")


def test_a_folder_of_its_name_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's folder may be called as a package is; the message says so."""
    (tmp_path / "search").mkdir()
    spec = PathFinder.find_spec("search", [str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    line = shadowed()
    assert line is not None
    assert f"got the folder {tmp_path / 'search'}" in line
