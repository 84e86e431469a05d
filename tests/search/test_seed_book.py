"""Seeds from files: recipes, folders of them and earlier studies, from a config to a run."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from runs.storage.store import Store
from search.commands import run_command
from search.engine.preparation.run_preparation import PreparedRun, prepare
from search.inputs.given_config import read
from search.inputs.input_error import InputError
from search.inputs.overrides import Overrides

Project = Callable[..., Path]


def checked(config: Path) -> PreparedRun:
    return prepare(read(config, Overrides()), dry_run=True)


def ran(config: Path, out: Path, trials: int = 8) -> list[tuple[str, int | None]]:
    """Origin and trial of every candidate of a dry run."""
    run_command.run(config, out=out, overrides=Overrides(trials=trials), dry_run=True)
    return candidates(out)


def candidates(out: Path) -> list[tuple[str, int | None]]:
    store = Store.open(str(out / "study.db"))
    try:
        return [(record.origin, record.trial) for record in store.records()]
    finally:
        store.close()


def recipe(path: Path, weights: dict[str, float], method: str = "linear", **keys: object) -> Path:
    path.parent.mkdir(exist_ok=True)
    models = [
        {"model": str(model), "parameters": {"weight": weight}} for model, weight in weights.items()
    ]
    path.write_text(yaml.safe_dump({"merge_method": method, "models": models, **keys}))
    return path


@pytest.fixture
def book(tiny_family: dict[str, Path], tmp_path: Path) -> Path:
    """A folder with a recipe inside the default space, by path, and one outside, by name."""
    folder = tmp_path / "book"
    weights = {"math": 0.7, "code": 0.2, "text": 0.1}
    recipe(folder / "in.yaml", {str(tiny_family[name]): w for name, w in weights.items()})
    recipe(folder / "out.yml", {"math": 9.0, "code": 1.0, "text": 1.0})
    return folder


def test_a_book_of_recipes_is_tried_after_parents_and_average(
    project: Project, book: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = project(search={"seeds": ["book/out.yml", "./book"], "seed": 1})
    found = ran(config, tmp_path / "run")
    assert [origin for origin, _ in found[:7]] == [
        "parent code", "parent math", "parent text", "plain average", "base",
        "seed book/out.yml", "seed book/in.yaml",
    ]  # fmt: skip
    assert found[5][1] is None
    assert found[6][1] is not None
    assert {origin for origin, _ in found[7:]} == {"surrogate"}
    said = capsys.readouterr().out
    assert said.count("outside the space") == 1
    reason = "seed book/out.yml: outside the space, tried unchanged: weight.math: expected a number"
    assert reason in said


def test_a_run_goes_on_without_the_files(
    project: Project, book: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = project(search={"seeds": ["book", "defaults"], "seed": 1})
    whole = ran(config, tmp_path / "whole", trials=12)
    assert ran(config, tmp_path / "parts", trials=4) == whole[:4]
    assert "outside the space" in capsys.readouterr().out
    shutil.rmtree(book)
    run_command.resume(
        str(tmp_path / "parts" / "study.db"), overrides=Overrides(trials=12), consent=bool
    )
    assert candidates(tmp_path / "parts") == whole
    assert whole[7][0] == "specialist code"
    assert "outside the space" not in capsys.readouterr().out


def test_the_best_of_an_earlier_study_under_other_names(
    project: Project, tiny_family: dict[str, Path], tmp_path: Path
) -> None:
    ran(project(), tmp_path / "earlier", trials=14)
    names = {"eins": "math", "zwei": "code", "drei": "text"}
    models = {name: str(tiny_family[other]) for name, other in names.items()}
    config = project(models=models, search={"seeds": ["earlier/study.db:2"]})
    seeds = checked(config).manifest.seeds
    assert [seed.name for seed in seeds[4:]] == [
        "base",
        "seed earlier/study.db #1",
        "seed earlier/study.db #2",
    ]
    assert set(seeds[5].recipe.models) <= {"base", *names}
    assert [seed.name for seed in seeds if seed.params is None] == ["base"]
    five = project(search={"seeds": ["earlier/study.db"]})
    assert len(checked(five).manifest.seeds) == 5 + 5


def test_a_study_of_models_that_changed_is_taken_by_name(
    project: Project, tiny_family: dict[str, Path], tmp_path: Path
) -> None:
    ran(project(), tmp_path / "earlier", trials=10)
    copy = tmp_path / "newer"
    shutil.copytree(tiny_family["math"], copy)
    settings = json.loads((copy / "config.json").read_text()) | {"note": "another"}
    (copy / "config.json").write_text(json.dumps(settings))
    models = {"math": str(copy)} | {name: str(tiny_family[name]) for name in ("code", "text")}
    found = checked(project(models=models, search={"seeds": ["earlier/study.db:1"]}))
    assert found.notes == ("earlier/study.db: model math: other files than this run's, same name",)


def test_a_study_of_other_parents_is_refused_in_one_line(
    project: Project, tiny_family: dict[str, Path], tmp_path: Path
) -> None:
    ran(project(), tmp_path / "earlier", trials=10)
    models = {name: str(tiny_family[name]) for name in ("math", "code")}
    config = project(models=models, search={"seeds": ["earlier/study.db"]})
    with pytest.raises(InputError) as caught:
        checked(config)
    (problem,) = caught.value.problems
    assert problem == (
        f"{config}: search.seeds: earlier/study.db: expected models of this run "
        f"(base, code, math), got {tiny_family['text']}"
    )


def test_a_copy_of_a_model_is_that_model(
    project: Project, tiny_family: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(tiny_family["math"], tmp_path / "copy")
    recipe(tmp_path / "mine.yaml", {"./copy": 0.5, "code": 0.3, "text": 0.2})
    seeds = checked(project(search={"seeds": ["mine.yaml"]})).manifest.seeds
    assert seeds[-1].params is not None
    assert seeds[-1].params["weight.math"] == 0.5


def test_every_bad_file_and_every_other_problem_at_once(project: Project, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.yaml").write_text("merge_method: mix\nmodels: [{model: math}]\n")
    (tmp_path / "old.db").write_text("nothing")
    config = project(
        models={"math": str(tmp_path / "gone"), "code": "./gone-too"},
        search={"seeds": ["empty", "bad.yaml", "old.db:3"]},
    )
    with pytest.raises(InputError) as caught:
        checked(config)
    text = "\n".join(caught.value.problems)
    assert "search.seeds: " in text
    for part in ("empty: expected recipe files", "bad.yaml: ", "old.db: expected", "model math: "):
        assert part in text
    (tmp_path / "bad.yaml").unlink()
    with pytest.raises(InputError, match=r"search\.seeds\[1\]: expected a recipe file, a folder"):
        checked(config)


def test_unknown_and_unfit_models_of_recipes_are_named(project: Project, tmp_path: Path) -> None:
    recipe(tmp_path / "one.yaml", {"math": 1.0, "org/other": 1.0})
    layers = {"sources": [{"model": "math", "layer_range": [0, 99]}]}
    (tmp_path / "two.yaml").write_text(
        yaml.safe_dump({"merge_method": "passthrough", "slices": [layers]})
    )
    config = project(search={"seeds": ["one.yaml", "two.yaml"]})
    with pytest.raises(InputError) as caught:
        checked(config)
    one, two = caught.value.problems
    assert "one.yaml: expected models of this run (base, code, math, text), got org/other" in one
    assert "two.yaml: " in two
    assert "99" in two
