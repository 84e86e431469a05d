"""Chat templates of merged models are those that mergekit gives them."""

from __future__ import annotations

import importlib.resources
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2 import TemplateError
from mergekit._data import chat_templates
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from transformers import AutoTokenizer

from merging.building.build import write_model
from merging.checkpoints.checkpoint import Checkpoint
from merging.planning.merge_plan import plan
from spaces.mergekit import from_yaml, to_yaml
from spaces.recipes.chat_template import NAMED

MINE = "{% for m in messages %}{{ '<' + m.role + '>' + m.content }}{% endfor %}"
OTHER = "{% for m in messages %}{{ m.content + '|' }}{% endfor %}"


def say(*turns: str) -> list[dict[str, str]]:
    roles = {"s": "system", "u": "user", "a": "assistant"}
    return [{"role": roles[turn[0]], "content": turn[1:]} for turn in turns]


TALKS = [
    say("u Hi \n"),
    say("s Be brief. ", "u Hi \n"),
    say("uHi", "a Yes "),
    say("sBe brief.", "uHi", "aYes", "uMore", "aEnd"),
    say("sBe brief."),
    say("aYes", "uHi"),
    say("uHi", "uMore"),
    say("uHi", "sBe brief."),
]


@pytest.fixture(scope="module")
def tokenizer(tiny_family: dict[str, Path]) -> Any:
    return AutoTokenizer.from_pretrained(tiny_family["base"], bos_token="<s>")


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("talk", TALKS)
@pytest.mark.parametrize("prompt", [True, False])
def test_named_templates_make_mergekits_text(
    name: str, talk: list[dict[str, str]], prompt: bool, tokenizer: Any
) -> None:
    def text(template: str) -> str:
        try:
            result: str = tokenizer.apply_chat_template(
                talk, chat_template=template, tokenize=False, add_generation_prompt=prompt
            )
        except TemplateError:  # a template's own refusal; the words are its own
            return "refused"
        return result

    theirs = importlib.resources.files(chat_templates).joinpath(f"{name}.jinja").read_text()
    assert text(NAMED[name]) == text(theirs)


def test_every_name_of_mergekits() -> None:
    files = importlib.resources.files(chat_templates).iterdir()
    assert {file.name[:-6] for file in files if file.name.endswith(".jinja")} == NAMED.keys()


@pytest.fixture(scope="module")
def talkers(tiny_family: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base has no template; two models have one as a file, one has another in its config."""
    root = tmp_path_factory.mktemp("talkers")
    for name, path in tiny_family.items():
        shutil.copytree(path, root / name)
    for name in ("math", "code"):
        (root / name / "chat_template.jinja").write_text(MINE + "\n")
    config = root / "text" / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"chat_template": OTHER}))
    return root


@pytest.mark.parametrize("source", [None, "union", "base"])
@pytest.mark.parametrize("asked", ["auto", "chatml", MINE, None])
@pytest.mark.parametrize("models", [("text", "math", "code"), ("text",)])
def test_as_mergekit(
    source: str | None, asked: str | None, models: tuple[str, ...], talkers: Path, tmp_path: Path
) -> None:
    file = {
        "merge_method": "task_arithmetic",
        "base_model": str(talkers / "base"),
        "models": [{"model": str(talkers / name)} for name in models],
        "parameters": {"weight": 0.5},
        "dtype": "float32",
        "tokenizer_source": source,
        "chat_template": asked,
    }
    document = from_yaml(yaml.safe_dump(file))
    opened = {
        name: Checkpoint.open(document.locations[name], name=name)
        for name in document.recipe.needed
    }
    write_model(plan(document.recipe, opened), opened, tmp_path / "ours")
    logging.disable(logging.ERROR)
    options = MergeOptions(quiet=True, device="cpu", write_model_card=False)
    run_merge(MergeConfiguration.model_validate(file), str(tmp_path / "theirs"), options)
    logging.disable(logging.NOTSET)
    ours, theirs = (AutoTokenizer.from_pretrained(tmp_path / at) for at in ("ours", "theirs"))
    assert ours.get_vocab() == theirs.get_vocab()
    talk = TALKS[3]
    if theirs.chat_template is None:
        assert ours.chat_template is None
    else:
        expected = theirs.apply_chat_template(talk, tokenize=False)
        assert ours.apply_chat_template(talk, tokenize=False) == expected
    again = from_yaml(to_yaml(document.recipe, document.locations))
    assert again.recipe == document.recipe
    assert again.key == document.recipe.key


def test_the_template_replaces_the_donors(talkers: Path, tmp_path: Path) -> None:
    """Wherever it was, also one that a loader would prefer; the donor is left as it is."""
    base = shutil.copytree(talkers / "math", tmp_path / "base")
    (base / "additional_chat_templates").mkdir()
    (base / "additional_chat_templates" / "tools.jinja").write_text(OTHER)
    text = f"merge_method: passthrough\nmodels: [{{model: {base}}}]\nchat_template: chatml\n"
    document = from_yaml(text)
    opened = {"base": Checkpoint.open(str(base), name="base")}
    write_model(plan(document.recipe, opened), opened, tmp_path / "out")
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == NAMED["chatml"]
    assert (base / "chat_template.jinja").is_file()
