"""An evaluator of a user's own: the page's example is checked, searched and scored."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import search

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "own-evaluator.md").read_text(encoding="utf-8")


@pytest.fixture
def judged(tiny_family: dict[str, Path], tmp_path: Path) -> Path:
    """The page's files, with models where it has them."""
    (tmp_path / "models").mkdir()
    for name in ("base", "math", "code"):
        (tmp_path / "models" / name).symlink_to(tiny_family[name])
    code, *_ = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    (tmp_path / "judge.py").write_text(code)
    (tmp_path / "judged.yaml").write_text(text + "workers: {ray: false}\n")
    return tmp_path / "judged.yaml"


def test_the_page_from_check_to_score(judged: Path, command: Callable[..., Any]) -> None:
    done = command("check", judged)
    assert done.returncode == 0, done.stderr
    assert "Copying," in done.stdout
    done = command("run", judged, "--trials", 8)
    assert done.returncode == 0, done.stderr
    run = search.open_run(judged.parent / "judged")
    frame = run.leaderboard()
    assert (frame["state"] == "complete").all()
    assert frame["held_out"].notna().any()
    scored = search.score(judged, run.recipe(), questions="search")
    assert scored.value == pytest.approx(frame["score"][0], abs=1e-9)
    # other code is another metric
    code = judged.parent / "judge.py"
    code.write_text(code.read_text() + "\n# changed\n")
    done = command("resume", judged.parent / "judged" / "study.db", "--trials", 9)
    assert done.returncode == 2
    assert "tasks: expected the questions that the study was made with" in done.stderr


def test_what_is_missing_is_one_line(judged: Path, command: Callable[..., Any]) -> None:
    values = yaml.safe_load(judged.read_text())
    for change in ({"evaluator": "./none.py:Copying"}, {"tasks": ["other"]}):
        judged.write_text(yaml.safe_dump(values | change))
        done = command("check", judged, "--quick")
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1, done.stderr


DEEDS = """
import itertools, os, sys, time
calls = sys.__dict__.setdefault("_calls", itertools.count())  # of all that are made

def deed(worth):
    match next(calls):
        case 1: sys.exit(0)
        case 2: raise KeyboardInterrupt
        case 3: raise RuntimeError("x" * 50_000_000 + chr(0xD800))
        case 4: return [1e308] * len(worth)
        case 5: return ["0.5"] * len(worth)
        case 6: return [10**400] * len(worth)
        case 7: os.fork()
        case 8: time.sleep(1000)
    return worth
"""


def test_what_it_does_wrong_is_a_failure_of_that_recipe(
    judged: Path, command: Callable[..., Any]
) -> None:
    code = judged.parent / "judge.py"
    code.write_text(code.read_text().replace("return worth", "return deed(worth)") + DEEDS)
    judged.write_text(judged.read_text().replace("ray: false", "ray: false, timeout: 5"))
    done = command("run", judged, "--trials", 16)
    assert done.returncode == 0, done.stderr
    study = judged.parent / "judged" / "study.db"
    frame = search.open_run(study.parent).leaderboard().set_index("candidate")
    assert (frame["state"] == "complete").sum() == 9
    assert list(frame.loc[range(10), "failure"]) == [
        *("", "error", "error", "task", "non_finite", "task", "non_finite", "", "timeout", "")
    ]
    assert max(map(len, frame["message"])) <= 1000
    assert study.stat().st_size < 2_000_000
    assert (study.parent / "report.html").stat().st_size < 10_000_000


@pytest.mark.slow
def test_workers_import_libraries_and_not_what_lies_in_the_folder_of_work(
    judged: Path, command: Callable[..., Any]
) -> None:
    """And what lies beside the evaluator all the same."""
    for name in ("datasets", "evaluate", "evaluators", "merging", "runs", "spaces", "tokenizers"):
        (judged.parent / f"{name}.py").write_text(f"raise RuntimeError('the wrong {name}')")
    (judged.parent / "beside_judge.py").write_text("def deed(worth): return worth")
    code = judged.parent / "judge.py"
    text = code.read_text().replace("import torch", "import torch\nfrom beside_judge import deed")
    code.write_text(text.replace("return worth", "return deed(worth)"))
    judged.write_text(judged.read_text().replace("ray: false", "count: 1"))
    done = command("run", judged, "--trials", 4)
    assert done.returncode == 0, done.stderr
    frame = search.open_run(judged.parent / "judged").leaderboard()
    assert (frame["state"] == "complete").all()


@pytest.mark.parametrize("name", ["datasets.py", "torch/__init__.py"])
def test_a_file_that_hides_a_library_is_named_at_the_start(tmp_path: Path, name: str) -> None:
    """``python -m`` looks into the folder of work first."""
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("raise RuntimeError('the wrong one')")
    (tmp_path / "queue_of_mine.py").touch()
    done = subprocess.run(
        [sys.executable, "-m", "search", "check", "none.yaml"], cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith(f"search: error: {file}: Python imports it in place of the")
    assert len(done.stderr.splitlines()) == 1
