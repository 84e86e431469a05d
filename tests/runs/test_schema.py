"""The JSON Schema that editors get says what a config says."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from runs.config.run_config import ConfigError, RunConfig, json_schema
from search.setup.demo_models.demo_tasks import config_text
from search.setup.demo_models.exercises import THREE

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
LEAST: dict[str, Any] = {"models": {"a": "./a", "b": "./b"}, "tasks": ["t"], "base": "./c"}

VALIDATOR = jsonschema.Draft202012Validator(json_schema())


def test_every_key_is_described() -> None:
    schema = json_schema()
    sections = [schema, *schema["$defs"].values()]
    keys = {key: one for section in sections for key, one in section.get("properties", {}).items()}
    assert len(keys) > 60
    assert [key for key, one in keys.items() if not one.get("description")] == []


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    assert json_schema()["$id"] == "urn:merge-search:config"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_valid(path: Path) -> None:
    VALIDATOR.validate(yaml.safe_load(path.read_text("utf-8")))


def test_the_demo_and_all_defaults_are_valid() -> None:
    VALIDATOR.validate(yaml.safe_load(config_text(THREE, 0)))
    VALIDATOR.validate(RunConfig.from_text(yaml.safe_dump(LEAST)).to_dict())


@pytest.mark.parametrize(
    "more",
    [
        {"search": None, "space": None, "harness": None, "workers": None, "output": None},
        {"include_path": "./tasks"},
        {"include_path": ["./tasks", "./more"]},
        {"held_out": ["t"], "tasks": ["t", {"name": "u", "weight": 2}]},
        {"space": {"slices": "off"}},
        {"space": {"slices": {"max_slices": 3}, "lambda": [0.5, 1]}},
        {"search": {"seeds": ["defaults", "my.yaml"], "sampler": "tpe"}},
        {"workers": {"count": 2, "gpus": 0.5}},
        {"x-kept": {"limit": 5}},
    ],
)
def test_what_a_config_takes_the_schema_takes(more: dict[str, Any]) -> None:
    RunConfig.from_text(yaml.safe_dump(LEAST | more))
    VALIDATOR.validate(LEAST | more)


@pytest.mark.parametrize(
    "wrong",
    [
        {"modles": {}},
        {"models": {}},
        {"models": {"base": "./a"}},
        {"models": {"a b": "./a"}},
        {"tasks": []},
        {"tasks": [{"metric": "acc"}]},
        {"tasks": [{"name": "t", "weight": 0}]},
        {"held_out": 0.95},
        {"space": {"methods": ["tie"]}},
        {"space": {"weight": [0.0, 1.0, 2.0]}},
        {"space": {"depth": {"knots": 1}}},
        {"space": {"depth": {"knots": 3, "parameters": ["wieght"]}}},
        {"search": {"sampler": "magic"}},
        {"search": {"hours": 0}},
        {"workers": {"count": "many"}},
        {"output": {"dtype": "int8"}},
    ],
)
def test_what_a_config_refuses_the_schema_refuses(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        RunConfig.from_text(yaml.safe_dump(LEAST | wrong))
    assert list(VALIDATOR.iter_errors(LEAST | wrong))
