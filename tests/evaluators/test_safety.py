"""Code that comes with models, tokenizers or tasks does not run unless the user says so."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evaluators.harness.harness_evaluator import HarnessEvaluator
from evaluators.harness.lm_eval_adapter import check
from evaluators.harness_spec import HarnessSpec
from evaluators.protocol import Candidate, EvaluatorError, Score
from runs.config.run_config import RunConfig
from spaces.recipes.recipe import Recipe

CODE = """
from pathlib import Path
Path({mark!r}).write_text("ran")
from transformers import LlamaConfig as Config, LlamaForCausalLM as Model, PreTrainedTokenizerFast
class Tokenizer(PreTrainedTokenizerFast): pass
class Rows: pass
"""


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """A file that is there once foreign code has run."""
    return tmp_path / "mark"


def with_code(source: Path, target: Path, mark: Path, **files: dict[str, Any]) -> Path:
    """A copy of a model that brings code, with other values in its JSON files."""
    shutil.copytree(source, target)
    (target / "evil.py").write_text(CODE.format(mark=str(mark)))
    for name, values in files.items():
        path = target / f"{name}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return target


AUTO = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
TOKENIZER = {"AutoTokenizer": ["evil.Tokenizer", "evil.Tokenizer"]}


def evaluated(spec: HarnessSpec, recipe: Recipe) -> Any:
    evaluator = HarnessEvaluator(spec)
    names = tuple(question.id for question in evaluator.catalogue().questions)
    try:
        return evaluator.evaluate(Candidate(id=0, recipe=recipe, questions=names))
    finally:
        evaluator.close()


@pytest.mark.parametrize("kind", ["known", "own", "tokenizer"])
def test_a_model_with_code(
    make_spec: Callable[..., HarnessSpec], mix: Callable[..., Recipe],
    tiny_family: dict[str, Path], tmp_path: Path, mark: Path, kind: str,
) -> None:  # fmt: skip
    files = {
        "known": {"config": {"auto_map": AUTO}},
        "own": {"config": {"auto_map": AUTO, "model_type": "evil"}},
        "tokenizer": {"tokenizer_config": {"auto_map": TOKENIZER, "tokenizer_class": "Evil"}},
    }[kind]
    models = {
        name: with_code(tiny_family[name], tmp_path / name, mark, **files)
        for name in ("math", "code")
    }
    spec = make_spec("tiny_pick", models=models)
    assert not spec.trust_remote_code
    try:
        outcome = evaluated(spec, mix(math=0.5, code=0.5))
        scored = isinstance(outcome, Score)
    except EvaluatorError as error:
        outcome, scored = error.problems, False
    assert scored or kind != "known", outcome  # transformers has a class of its own for it
    assert not scored or kind != "own"
    assert not mark.exists()


def test_a_task_with_a_script_for_its_data(
    make_spec: Callable[..., HarnessSpec], tmp_path: Path, mark: Path
) -> None:
    (tmp_path / "evil.py").write_text(CODE.format(mark=str(mark)))
    (tmp_path / "evil.yaml").write_text(
        f"task: evil\ndataset_path: {tmp_path / 'evil.py'}\n"
        "dataset_kwargs: {trust_remote_code: true}\ntest_split: test\n"
        "output_type: generate_until\ndoc_to_text: q\ndoc_to_target: a\n"
    )
    spec = replace(make_spec("evil"), include_path=(str(tmp_path),))
    with pytest.raises(EvaluatorError, match="task evil"):
        check(spec)
    assert not mark.exists()


def test_nothing_but_the_config_turns_it_on() -> None:
    text = "models: {a: ./a, b: ./b}\ntasks: [t]\n"
    assert not RunConfig.from_text(text).harness_spec().trust_remote_code
    asked = text + "harness: {trust_remote_code: true}\n"
    assert RunConfig.from_text(asked).harness_spec().trust_remote_code
