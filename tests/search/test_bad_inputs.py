"""What people give by mistake: one clear line for each fault, exit code 2, nothing written."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from search.setup.demo_models.model_family import make_family
from tests.command import Done, search

TASK = {
    "task": "skills",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "skills.jsonl"}},
    "test_split": "test",
    "output_type": "generate_until",
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{answer}}",
    "metric_list": [{"metric": "exact_match"}],
}
CONFIG: dict[str, Any] = {
    "base": "./base",
    "models": {"sort": "./sort", "reverse": "./reverse"},
    "tasks": [{"name": "skills"}],
    "include_path": ["."],
    "search": {"trials": 12},
    "workers": {"ray": False},
}
EVOLVE: dict[str, Any] = {
    "genome": {"models": ["sort", "reverse"], "merge_method": "ties", "base_model": "base"},
    "tasks": [{"name": "skills", "metric": "exact_match,none"}],
}
RECIPE: dict[str, Any] = {
    "merge_method": "linear",
    "models": [{"model": name, "parameters": {"weight": 1}} for name in ("sort", "reverse")],
}
TUNING = {"base_model": "x", "datasets": ["y"], "learning_rate": 1e-4}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a family, a task, a finished study, and much that is not in order."""
    root = tmp_path_factory.mktemp("bad")
    make_family(root / "family", quick=True)
    for name in ("base", "sort", "reverse"):
        (root / "family" / name).rename(root / name)
    shutil.rmtree(root / "family")
    lines = [json.dumps({"question": f"s{n:06}=", "answer": "1"}) + "\n" for n in range(80)]
    _tasks(root, "".join(lines))
    _models(root)
    _files(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert search("run", "good.yaml", "--dry-run", "--out", "run").code == 0
    return root


def _tasks(root: Path, questions: str) -> None:
    def task(name: str, data: str = questions, **changes: object) -> None:
        folder = root / name
        folder.mkdir(exist_ok=True)
        (folder / "task.yaml").write_text(yaml.safe_dump(TASK | changes))
        (folder / "skills.jsonl").write_text(data)

    task("nothing", "")
    task("faulty", '{"question": 1\nno json\n')
    task("few", "".join(questions.splitlines(keepends=True)[:5]))
    task("split", test_split="train2")
    task("metric", metric_list=[{"metric": "applause"}])
    task("dance", output_type="dance")
    task("absent", dataset_kwargs={"data_files": {"test": "nowhere.jsonl"}})
    task("seeing", doc_to_image=["question"])
    task("column", doc_to_text="{{enquiry}}")
    for name in ("skills.yaml", "twin.yaml"):
        (root / name).write_text(yaml.safe_dump(TASK))
    (root / "skills.jsonl").write_text(questions)


def _models(root: Path) -> None:
    for name in ("no-config", "no-weights", "bad-config"):
        shutil.copytree(root / "sort", root / name)
    (root / "no-config" / "config.json").unlink()
    (root / "no-weights" / "model.safetensors").unlink()
    (root / "bad-config" / "config.json").write_text("{oops")


def _files(root: Path) -> None:
    (root / "hollow").mkdir()
    (root / "blank.yaml").write_text("")
    (root / "blank.db").write_text("")
    (root / "broken.yaml").write_text("a: [1,\nb: }")
    (root / "list.yaml").write_text("- a\n- b\n")
    (root / "binary.yaml").write_bytes(b"\xff\xfe\x00\x80abc")
    genome, task = EVOLVE["genome"], EVOLVE["tasks"][0]
    files: dict[str, Any] = {
        "good": CONFIG,
        "recipe": RECIPE,
        "evolve": EVOLVE,
        "tuning": TUNING,
        "model": CONFIG | {"models": {"sort": "./sort", "a": "./nowhere"}},
        "metric": CONFIG | {"tasks": [{"name": "skills", "metric": "acc,none"}]},
        "few": CONFIG | {"include_path": ["./few"]},
        "seeing": CONFIG | {"include_path": ["./seeing"]},
        "key": CONFIG | {"search": {"trails": 12}},
        "folder": CONFIG | {"include_path": ["./nofolder"]},
        "unknown": RECIPE | {"merge_method": "superties"},
        "moved": RECIPE | {"models": [{"model": "nowhere", "parameters": {"weight": 1}}]},
        "other": RECIPE | {"models": [{"model": "base", "parameters": {"weight": 1}}]},
        "moe": {"base_model": "sort", "experts": [{"source_model": "sort"}]},
        "evolve-method": {"genome": genome | {"merge_method": "superties"}, "tasks": [task]},
        "evolve-tasks": {"genome": genome},
        "evolve-base": {"genome": genome | {"base_model": None}, "tasks": [task]},
        "evolve-list": {"genome": ["a"], "tasks": [task]},
    }
    for name, data in files.items():
        (root / f"{name}.yaml").write_text(yaml.safe_dump(data, sort_keys=False))


def contents(root: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in root.rglob("*")
    }


@pytest.fixture
def refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """Runs a command line that has to be refused without a trace."""

    def run(line: str) -> Done:
        monkeypatch.chdir(place)
        before = contents(place)
        done = search(*line.split())
        assert done.code == 2, done
        assert contents(place) == before
        assert done.lines
        assert all(text.startswith("search: error: ") for text in done.lines), done.err
        return done

    return run


INIT = "init sort reverse --base base --task"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("init nowhere sort --base base --task skills.yaml", "nowhere: no such model folder"),
        ("init skills.yaml sort --base base --task skills.yaml", "a model folder, got a file"),
        ("init no-config sort --base base --task skills.yaml", "config.json: missing"),
        ("init no-weights sort --base base --task skills.yaml", "expected model.safetensors"),
        ("init bad-config sort --base base --task skills.yaml", "config.json: cannot be read"),
        ("init a=sort a=reverse --base base --task skills.yaml", "each name once, got 'a' twice"),
        ("init sort reverse --base nobase --task skills.yaml", "nobase: no such model folder"),
        (f"{INIT} missing.yaml", "--task missing.yaml: expected an lm-eval task file, got no such"),
        (f"{INIT} hollow", "--task hollow: expected lm-eval task files there, got none"),
        (f"{INIT} blank.yaml", "--task blank.yaml:1: expected a mapping of keys, got an empty"),
        (f"{INIT} broken.yaml", "--task broken.yaml:2: expected YAML"),
        (f"{INIT} good.yaml", "--task good.yaml: expected an lm-eval task file with a key 'task'"),
        (f"{INIT} skills.jsonl", "--task skills.jsonl: expected an lm-eval task file (.yaml)"),
        (f"{INIT} twin.yaml", "its name 'skills' is that of"),
        (f"{INIT} absent/task.yaml", "absent/nowhere.jsonl"),
        (f"{INIT} split/task.yaml", "its data has no split or column 'train2'"),
        (f"{INIT} metric/task.yaml", "a metric in metric_list is not known to lm-eval"),
        (f"{INIT} dance/task.yaml", "invalid output_type 'dance'"),
        (f"{INIT} column/task.yaml", "'enquiry' is undefined"),
        (f"{INIT} nothing/task.yaml", "its data holds no question"),
        (f"{INIT} faulty/task.yaml", "JSON"),
        (f"{INIT} skills.yaml --hours 0", "search.hours: expected a number above 0, got 0.0"),
        (f"{INIT} skills.yaml --out good.yaml", "good.yaml: expected no file yet, got one"),
        (f"{INIT} skills.yaml --out hollow", "hollow: expected a file to write, got a folder"),
        (f"{INIT} skills.yaml --out skills.yaml/x.yaml", "cannot be written"),
        (f"{INIT} skills.yaml --include-path nofolder", "expected a folder with task files"),
        ("check nowhere.yaml --quick", "nowhere.yaml: expected a config file, got no such file"),
        ("check hollow --quick", "hollow: expected a config file, got: Is a directory"),
        ("check blank.yaml --quick", "expected a mapping of keys, got an empty file"),
        ("check broken.yaml --quick", "broken.yaml:2: expected YAML"),
        ("check list.yaml --quick", "expected a mapping of keys, got ['a', 'b']"),
        ("check binary.yaml --quick", "expected UTF-8 text"),
        ("check recipe.yaml --quick", "expected a config, got a merge; `search build` makes"),
        ("check evolve.yaml --quick", "expected a config, got one of mergekit-evolve"),
        ("check skills.yaml --quick", "expected a config, got an lm-eval task"),
        ("check tuning.yaml --quick", "the keys base_model, datasets, learning_rate"),
        ("check model.yaml --quick", "nowhere: no such model folder"),
        ("check metric.yaml --quick", "metric: expected one of exact_match,none, got 'acc,none'"),
        ("check few.yaml --quick", "expected at least 20 questions of a task, got 2 of 5"),
        ("check seeing.yaml --quick", "task skills: task: expected one of text only"),
        ("check seeing.yaml", "task skills: task: expected one of text only"),
        ("run seeing.yaml", "task skills: task: expected one of text only"),
        ("check key.yaml --quick", "search.trails: unknown key; did you mean 'trials'?"),
        ("check folder.yaml --quick", "include_path[0]: expected a folder with task files"),
        ("check good.yaml --quick --html hollow", "expected a file to write, got a folder"),
        ("check good.yaml --quick --html good.yaml", "expected a name that ends in .html"),
        ("check good.yaml --quick --html blank.db/x.html", "blank.db/x.html: cannot be written"),
        ("report nowhere.db", "nowhere.db: expected a study, got no such file"),
        ("report hollow", "expected a run's folder with study.db, got one without"),
        ("report blank.db", "expected a study made by `search run`"),
        ("report good.yaml", "expected a study made by `search run`"),
        ("report run/report.html", "expected a study made by `search run`"),
        ("report run/study.db --format docx", "expected one of html, markdown"),
        ("report run/study.db --out blank.db", "blank.db/report.html: cannot be written"),
        ("export run/study.db --rank 999", "rank: expected 1 to "),
        ("import nowhere.yaml", "No such file"),
        ("import hollow", "Is a directory"),
        ("import blank.yaml", "expected a merge, got an empty file"),
        ("import broken.yaml", "expected YAML"),
        ("import binary.yaml", "it is not UTF-8 text"),
        ("import good.yaml", "got a config of merge-search already"),
        ("import skills.yaml", "got an lm-eval task"),
        ("import tuning.yaml", "the keys base_model, datasets, learning_rate"),
        ("import moe.yaml", "got a file for mergekit-moe"),
        ("import unknown.yaml", "got 'superties'"),
        ("import moved.yaml", "nowhere: no such model folder"),
        ("import evolve-method.yaml", "did you mean 'ties'?"),
        ("import evolve-tasks.yaml", "tasks: expected a list of tasks, got none"),
        ("import evolve-base.yaml", "genome.base_model: expected a base for ties"),
        ("import evolve-list.yaml", "genome: expected a mapping of keys"),
        (
            "import evolve.yaml --include-path nofolder",
            "--include-path nofolder: expected",
        ),
        ("import evolve.yaml --config good.yaml", "expected a merge (a recipe) with --config"),
        ("import recipe.yaml --config nowhere.yaml", "expected a config file, got no such file"),
        ("import recipe.yaml --config recipe.yaml", "expected a config, got a merge"),
        ("import other.yaml --config model.yaml", "nowhere: no such model folder"),
        ("import recipe.yaml --out good.yaml", "good.yaml: expected no file yet, got one"),
        ("import recipe.yaml --out blank.db/x.yaml", "cannot be written"),
    ],
)
def test_one_clear_line_and_nothing_written(
    refused: Callable[..., Done], line: str, said: str
) -> None:
    done = refused(line)
    assert said in done.err
    assert len(done.lines) <= 2
    assert max(map(len, done.lines)) < 400


def test_problems_are_told_all_at_once(refused: Callable[..., Done]) -> None:
    done = refused("init nowhere no-config --base base --task skills.yaml --trials 20")
    assert "nowhere: no such model folder" in done.err
    assert "config.json: missing" in done.err


def test_data_beside_the_task_file_comes_before_that_of_another_folder(
    place: Path, refused: Callable[..., Done]
) -> None:
    """Where the program runs there is a file of that name as well, with questions enough."""
    assert (place / "skills.jsonl").stat().st_size > (place / "few" / "skills.jsonl").stat().st_size
    assert "got 2 of 5" in refused("check few.yaml --quick").err


def test_a_run_is_not_written_into_a_package(
    place: Path, refused: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as the folder ``search`` of a clone, by a config of that name."""
    (place / "package").mkdir()
    (place / "package" / "__init__.py").write_text("")
    done = refused("run few.yaml --dry-run --out package")
    assert "package: expected a folder of a run, got a Python package; use --out" in done.err
