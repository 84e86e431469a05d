"""`search import`: our space holds what mergekit-evolve would try, and recipes are checked."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from merging.checkpoints.checkpoint import Checkpoint
from runs.config.run_config import load_config
from spaces.mergekit import from_yaml
from spaces.sampling.seed_recipes import Seed

Command = Callable[..., Any]

GENOME = {
    "models": ["models/math", "models/code"],
    "merge_method": "ties",
    "base_model": "models/base",
}


@pytest.fixture
def here(tmp_path: Path, tiny_family: dict[str, Path], tasks_folder: Path) -> Path:
    for name, folder in tiny_family.items():
        shutil.copytree(folder, tmp_path / "models" / name)
    shutil.copytree(tasks_folder, tmp_path / "tasks")
    return tmp_path


@pytest.fixture
def evolve(here: Path) -> Callable[..., Path]:
    """Writes a mergekit-evolve config; keywords go into the genome, ``top`` beside it."""

    def write(top: dict[str, Any] | None = None, **genome: Any) -> Path:
        tasks = [{"name": "write", "metric": "exact_match,none", "weight": 2}, "pick"]
        data = {"genome": GENOME | genome, "tasks": tasks} | (top or {})
        path = here / "evolve.yaml"
        path.write_text(yaml.safe_dump(data))
        return path

    return write


def test_a_config_becomes_a_search(
    evolve: Callable[..., Path], here: Path, command: Command
) -> None:
    top = {"limit": 60, "num_fewshot": 0, "apply_chat_template": False, "shuffle": True}
    evolve(top, layer_granularity=2, filters=["self_attn", "mlp"], allow_negative_weights=True)
    done = command("import", "evolve.yaml", "--include-path", "tasks")
    assert done.returncode == 0, done.stderr
    config = load_config(here / "search.yaml")
    assert config.base == str(here / "models" / "base")
    assert list(config.models) == ["math", "code"]
    assert [(task.name, task.metric, task.weight) for task in config.tasks] == [
        ("write", "exact_match,none", 2.0),
        ("pick", "acc,none", 1.0),
    ]
    assert config.held_out == 0.34  # 20 of 60 questions
    assert {(task.limit, task.num_fewshot) for task in config.tasks} == {(60, 0)}
    assert config.harness.apply_chat_template is False
    assert config.harness.fewshot_as_multiturn is True
    assert config.methods == ("ties",)
    assert config.bounds.weight == (-1.5, 1.5)
    assert config.bounds.depth is not None
    assert config.bounds.depth.groups == 2  # four layers, two share a value
    assert config.bounds.depth.parameters == ("weight", "density")
    assert config.bounds.filters == ("self_attn", "mlp")
    assert config.bounds.filter_parameters == ("weight", "density")
    assert config.bounds.order == "all-at-once"
    assert (config.search.trials, config.output.dtype) == (100, "bfloat16")
    text = (here / "search.yaml").read_text()
    assert "# genome.layer_granularity: 2 of 4 layers share a value." in text
    assert command("check", "search.yaml", "--quick").returncode == 0


@pytest.mark.parametrize(
    "genome",
    [
        {"merge_method": "linear", "base_model": None},
        {"merge_method": "task_arithmetic"},
        {"smooth": True, "layer_granularity": 1},
        {"smooth": True, "layer_granularity": 2, "filters": ["self_attn"]},
        {"models": ["models/math", "models/code", "models/base"]},
    ],
    ids=str,
)
def test_our_space_holds_what_mergekit_evolve_draws(
    genome: dict[str, Any],
    evolve: Callable[..., Path],
    here: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A merge drawn by mergekit-evolve itself is one that the imported space draws."""
    from mergekit.evo.config import EvolMergeConfiguration
    from mergekit.evo.genome import ModelGenome

    path = evolve(**genome)
    assert command("import", path, "--include-path", "tasks").returncode == 0
    config = load_config(here / "search.yaml")
    monkeypatch.chdir(here)
    theirs = ModelGenome(
        EvolMergeConfiguration.model_validate(yaml.safe_load(path.read_text())).genome
    )
    start = theirs.initial_genotype()
    noise = torch.rand(start.shape, generator=torch.Generator().manual_seed(3)) / 3
    merge = from_yaml(theirs.genotype_merge_config(start - noise).to_yaml())
    locations = {name: str(Path(place).resolve()) for name, place in merge.locations.items()}
    assert set(locations.values()) == set(config.locations.values())
    seed = Seed.of(merge.recipe, config.space(4), name="theirs")
    assert seed.params is not None, seed.reason


def test_slerp_and_what_does_not_carry_over(
    evolve: Callable[..., Path], here: Path, command: Command
) -> None:
    evolve(merge_method="slerp", models=["models/math", "models/code", "models/text"])
    assert command("import", "evolve.yaml", "--include-path", "tasks").returncode == 0
    assert load_config(here / "search.yaml").bounds.order == "pairwise"
    evolve({"other": 1}, merge_method="dare_ties", tokenizer_source="base")
    done = command("import", "evolve.yaml", "--include-path", "tasks", "--force")
    assert "genome.normalize: true does not carry over" in done.stdout
    assert "other is not a key of mergekit-evolve" in done.stdout
    assert load_config(here / "search.yaml").output.vocabulary == "base"
    assert "normalize: false" in (here / "search.yaml").read_text()


def test_models_that_are_elsewhere_and_test_sets(
    evolve: Callable[..., Path], here: Path, command: Command
) -> None:
    evolve({"tasks": ["gsm8k"]}, models=["org/a", "org/b"], base_model="org/c", layer_granularity=8)
    done = command("import", "evolve.yaml")
    assert done.returncode == 0, done.stderr
    assert "not on this machine" in done.stdout
    text = (here / "search.yaml").read_text()
    assert "number of layers divided by 8" in text
    assert "GSM8K is a well-known test set" in text
    assert load_config(here / "search.yaml").bounds.depth is None


@pytest.mark.slow
def test_tasks_that_a_run_would_refuse_are_named(
    evolve: Callable[..., Path], here: Path, command: Command
) -> None:
    """lm-eval would not know what to ask; the file may be elsewhere, so the config is written."""
    evolve({"tasks": ["gsm8kk", "gsm8k", "blimp", "write"]})
    done = command("import", "evolve.yaml")
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if line.startswith("warning: ")]
    unknown, elsewhere = said
    assert unknown.startswith("warning: tasks.0.name: expected a task of lm-eval ")
    assert "got 'gsm8kk'; did you mean " in unknown
    assert "got 'write'" in elsewhere
    assert all(line.endswith("; a run refuses it.") for line in said)
    assert "give --include-path" in done.stdout
    assert "# A run refuses it: name: expected a task" in (here / "search.yaml").read_text()
    with_files = command("import", "evolve.yaml", "--include-path", "tasks", "--force")
    assert "got 'write'" not in with_files.stdout
    assert "got 'gsm8kk'" in with_files.stdout


def test_tasks_that_are_known_need_no_warning(
    evolve: Callable[..., Path], here: Path, command: Command
) -> None:
    evolve({"tasks": ["gsm8k", "write"]})
    done = command("import", "evolve.yaml", "--include-path", "tasks")
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stdout
    assert "refuses it:" not in (here / "search.yaml").read_text()


def test_all_problems_of_a_config_at_once(
    evolve: Callable[..., Path], here: Path, command: Command
) -> None:
    evolve(
        {"tasks": [{"metric": "acc"}], "limit": "many"}, merge_method="tie", models=[3],
        layer_granularity=True,
    )  # fmt: skip
    done = command("import", "evolve.yaml")
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    for key in (
        "genome.models[0]", "genome.merge_method", "tasks[0]", "limit",
    ):  # fmt: skip
        assert any(f": {key}: expected" in line for line in lines), (key, lines)
    assert "did you mean 'ties'" in done.stderr
    evolve(layer_granularity=3)
    done = command("import", "evolve.yaml")
    assert "genome.layer_granularity: expected a divisor of the 4 layers, got 3" in done.stderr
    evolve(base_model=None)
    assert "expected a base for ties" in command("import", "evolve.yaml").stderr
    assert not (here / "search.yaml").exists()
    for text in ("", "genome: [", "- 1"):
        (here / "bad.yaml").write_text(text)
        done = command("import", "bad.yaml")
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1, done.stderr
    assert len(command("import", "none.yaml").stderr.splitlines()) == 1


RECIPE = """
merge_method: ties
base_model: models/base
models:
  - {model: models/math, parameters: {weight: 0.7, density: 0.5}}
  - {model: models/code, parameters: {weight: 0.4, density: 0.5}}
dtype: float32
"""


def test_a_recipe_becomes_a_seed(here: Path, command: Command) -> None:
    (here / "mine.yaml").write_text(RECIPE)
    done = command("import", "mine.yaml")
    assert done.returncode == 0, done.stderr
    assert "can be built: " in done.stdout
    written = from_yaml((here / "seed-mine.yaml").read_text())
    assert written.key == written.recipe.key
    assert written.recipe.root == from_yaml(RECIPE).recipe.root
    assert command("import", "mine.yaml").returncode == 2  # it is there
    command("init", "models/math", "models/code", "--base", "models/base", "--task", "tasks")
    done = command("import", "mine.yaml", "--config", "search.yaml", "--force")
    assert "its space has this recipe" in done.stdout
    values = yaml.safe_load((here / "search.yaml").read_text())
    values["space"]["density"] = [0.6, 1.0]
    (here / "search.yaml").write_text(yaml.safe_dump(values))
    done = command("import", "mine.yaml", "--config", "search.yaml", "--force")
    assert "outside the space" in done.stdout


def test_a_recipe_that_cannot_be_built_is_refused(here: Path, command: Command) -> None:
    (here / "mine.yaml").write_text(
        RECIPE.replace("density: 0.5", "density: 2").replace("ties", "x")
    )
    done = command("import", "mine.yaml")
    assert done.returncode == 2
    (here / "mine.yaml").write_text(RECIPE.replace("models/code", "models/none"))
    done = command("import", "mine.yaml")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    weights = here / "models" / "code" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    (here / "mine.yaml").write_text(RECIPE)
    assert command("import", "mine.yaml").returncode == 2
    assert not (here / "seed-mine.yaml").exists()
    with pytest.raises(ValueError, match="code"):
        Checkpoint.open(str(here / "models" / "code"), name="code")
