"""`search init` and `search schema`: a config from what there is, never over what there is."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from runs.config.run_config import load_config
from search.setup.commented_yaml import CommentedYaml, flow, located, text_of
from search.setup.config_request import named

Command = Callable[..., Any]
TinyModel = Callable[..., Path]


@pytest.fixture
def here(tmp_path: Path, tiny_family: dict[str, Path], tasks_folder: Path) -> Path:
    """A folder as a user has it: models beside a folder of tasks."""
    for name, folder in tiny_family.items():
        shutil.copytree(folder, tmp_path / "models" / name)
    shutil.copytree(tasks_folder, tmp_path / "tasks")
    return tmp_path


def test_a_config_for_models_and_tasks(here: Path, command: Command) -> None:
    models = [f"models/{name}" for name in ("math", "code", "text")]
    done = command(
        "init", *models, "--base", "models/base", "--task", "tasks/write.yaml", "--hours", 2
    )
    assert done.returncode == 0, done.stderr
    text = (here / "search.yaml").read_text()
    assert "70 questions (json:train), generate_until" in text
    assert "metrics: exact_match,none" in text
    config = load_config(here / "search.yaml")
    assert list(config.models) == ["math", "code", "text"]
    assert config.base == str(here / "models" / "base")
    assert config.tasks[0].metric == "exact_match,none"
    assert (config.search.hours, config.search.trials) == (2.0, None)
    values = yaml.safe_load(text)
    assert values["models"]["math"] == "./models/math"  # it can be moved with its folder
    schema = json.loads((here / "search.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(values)
    first = text.splitlines()[0]
    assert first == "# yaml-language-server: $schema=./search.schema.json"
    assert command("check", "search.yaml", "--quick").returncode == 0


def test_what_is_commented_out_can_be_uncommented(here: Path, command: Command) -> None:
    done = command("init", "models/math", "models/code", "--base", "models/base", "--task", "tasks")
    assert done.returncode == 0, done.stderr
    lines = []
    for line in (here / "search.yaml").read_text().splitlines():
        key = line.strip().removeprefix("# ").partition(":")[0]
        offered = line.startswith("  # ") and ":" in line and "  # " in line[4:]
        assert not offered or key.isidentifier()
        lines.append(line.replace("  # ", "  ", 1) if offered and key != "vocabulary" else line)
    (here / "all.yaml").write_text("\n".join(lines))
    config = load_config(here / "all.yaml")
    assert config.bounds.depth is not None
    assert config.search.validate_top == 3
    assert config.output.dtype == "bfloat16"


def test_nothing_is_overwritten(here: Path, command: Command) -> None:
    (here / "search.yaml").write_text("mine")
    (here / "search.schema.json").write_text("{}")
    arguments = ("init", "models/math", "models/code", "--task", "tasks/write.yaml")
    done = command(*arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "--force" in line
    assert (here / "search.yaml").read_text() == "mine"
    done = command(*arguments, "--force")
    assert done.returncode == 0, done.stderr
    assert "models" in yaml.safe_load((here / "search.yaml").read_text())
    assert (here / "search.schema.json").read_text() == "{}"  # not ours


def test_all_problems_at_once(here: Path, command: Command) -> None:
    done = command("init", "models/math", "models/nowhere", "--task", "tasks/none.yaml")
    assert done.returncode == 2
    assert "tasks/none.yaml: expected an lm-eval task file" in done.stderr
    done = command("init", "models/math", "./models/nowhere", "--task", "tasks/write.yaml")
    assert done.returncode == 2
    assert "nowhere" in done.stderr
    done = command("init")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 2
    assert not list(here.glob("search*"))


def test_the_base_is_what_the_cards_say(here: Path, command: Command) -> None:
    base = here / "models" / "base"
    for name in ("math", "code"):
        (here / "models" / name / "README.md").write_text(f"---\nbase_model: {base}\n---\nHello\n")
    done = command("init", "models/math", "models/code", "--task", "tasks/write.yaml")
    assert "as the models' cards say" in done.stdout
    assert load_config(here / "search.yaml").base == str(base)
    (here / "models" / "code" / "README.md").write_text("---\nbase_model: org/other\n---\n")
    done = command("init", "models/math", "models/code", "--task", "tasks/write.yaml", "--force")
    assert "different bases" in done.stdout
    config = load_config(here / "search.yaml")
    assert config.base is None
    assert "ties" not in config.methods


def test_other_vocabularies_and_short_tasks(
    here: Path, command: Command, tiny_model: TinyModel
) -> None:
    tiny_model(here / "models" / "greek", layers=4, vocab="0123456789abcdefghi=\n \u03b1\u03b2")
    tasks = here / "short"
    tasks.mkdir()
    rows = [{"question": f"{n}=", "answer": "a"} for n in range(30)]
    (tasks / "rows.json").write_text("\n".join(map(json.dumps, rows)))
    task = yaml.safe_load((here / "tasks" / "write.yaml").read_text())
    task |= {"task": "short", "dataset_kwargs": {"data_files": str(tasks / "rows.json")}}
    (tasks / "short.yaml").write_text(yaml.safe_dump(task))
    done = command("init", "models/math", "models/greek", "--task", "short/short.yaml")
    assert done.returncode == 0, done.stderr
    assert "The vocabularies differ" in done.stdout
    assert "tokenizers differ" in done.stdout
    assert "too few questions" in done.stdout
    config = load_config(here / "search.yaml")
    assert config.output.vocabulary == "union"
    assert config.held_out == 0.0


def test_schema_is_printed_or_written(command: Command, tmp_path: Path) -> None:
    for _ in range(2):
        assert command("schema", "--out", "a.json").returncode == 0
    assert json.loads((tmp_path / "a.json").read_text())["title"] == "merge-search config"
    (tmp_path / "b.json").write_text("{}")
    assert command("schema", "--out", "b.json").returncode == 2
    done = command("schema")
    assert done.returncode == 0
    assert json.loads(done.stdout)["$id"] == "urn:merge-search:config"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["a/math", "b/math"], {"math": "a/math", "math-2": "b/math"}),
        (["mine=org/model@v1"], {"mine": "org/model@v1"}),
        (["models/base"], {"parent": "models/base"}),
        (["org/name+./adapters/x/"], {"name-x": "org/name+./adapters/x/"}),
    ],
)
def test_names_of_models(given: list[str], expected: dict[str, str]) -> None:
    problems: list[str] = []
    assert named(given, problems) == expected
    assert not problems
    named(["a=x", "a=y"], problems)
    assert problems


def test_locations_are_relative_to_the_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models" / "a").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert located("models/a", tmp_path) == "./models/a"
    assert located("models/a", tmp_path / "configs") == "../models/a"
    assert located("org/name@v1", tmp_path) == "org/name@v1"
    assert located("org/name+models/a", tmp_path / "models") == "org/name+./a"
    assert located(str(tmp_path / "models" / "a"), tmp_path) == str(tmp_path / "models" / "a")


@pytest.mark.parametrize("value", ["no", "a: b", "#", "1e-3", "x,y", True, 3, [1.5, 2], {"k": "v"}])
def test_values_are_read_back(value: object) -> None:
    assert yaml.safe_load(f"key: {flow(value)}")["key"] == value
    text = text_of(CommentedYaml(values={"models": {"a": "./a"}, "tasks": ["t"]}, head=["one", ""]))
    assert yaml.safe_load(text)["models"] == {"a": "./a"}
