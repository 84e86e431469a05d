"""``search build`` on mergekit files as they are found on model hubs: mergekit's own result."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from mergekit.config import MergeConfiguration
from mergekit.graph import Executor
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from mergekit.scripts.multimerge import load_config, make_tasks
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer

from search.commands.build_command import build
from spaces.mergekit.writer import to_yaml
from spaces.sampling.draw import Fixed, draw
from spaces.search_space.bounds import MERGED
from spaces.search_space.space import Space, Stacking

SLERP = """
slices:
  - sources:
      - model: BASE
        layer_range: [0, 4]
      - model: MATH
        layer_range: [0, 4]
merge_method: slerp
base_model: BASE
parameters:
  t:
    - filter: self_attn
      value: [0, 0.5, 0.3, 0.7, 1]
    - filter: mlp
      value: [1, 0.5, 0.7, 0.3, 0]
    - value: 0.5
dtype: float32
"""
FILES = {
    "slerp with its usual gradients": SLERP,
    "dtype bfloat16": SLERP.replace("float32", "bfloat16"),
    "dtype float16": SLERP.replace("float32", "float16"),
    "out_dtype": SLERP + "out_dtype: bfloat16\n",
    "frankenmerge": """
slices:
- sources:
  - {model: MATH, layer_range: [0, 3]}
- sources:
  - {model: CODE, layer_range: [1, 3]}
- sources:
  - {model: MATH, layer_range: [2, 4]}
merge_method: passthrough
dtype: float16
""",
    "scaled self-merge": """
slices:
  - sources: [{model: MATH, layer_range: [0, 2]}]
  - sources:
      - model: MATH
        layer_range: [1, 3]
        parameters:
          scale: [{filter: o_proj, value: 0.0}, {filter: down_proj, value: 0.0}, {value: 1.0}]
  - sources: [{model: MATH, layer_range: [2, 4]}]
merge_method: passthrough
dtype: float32
""",
    "ties": """
models:
  - model: BASE
    # no parameters necessary for base model
  - model: MATH
    parameters: {density: 0.5, weight: 0.5}
  - model: CODE
    parameters:
      density: [1, 0.7, 0.1]
      weight:
        - filter: mlp
          value: 0.5
        - value: 0
merge_method: ties
base_model: BASE
parameters:
  normalize: true
  int8_mask: true
dtype: float32
name: my-merge
""",
    "breadcrumbs of texts": """
models:
  - {model: MATH, parameters: {weight: "0.4", density: "9e-1", gamma: 0.1}}
  - {model: CODE, parameters: {weight: 0.2, density: 0.9, gamma: 0.1}}
merge_method: breadcrumbs_ties
base_model: BASE
parameters: {normalize: "true", lambda: 1.1}
dtype: float32
""",
    "model soup": """
models:
  - model: MATH
    parameters: {weight: [0.1, 0.5, 1.0]}
  - model: CODE
    parameters: {weight: 0.3}
  - model: TEXT
    parameters:
      weight: [{filter: q_proj, value: [0.2, 0.8]}, {filter: norm, value: 1}, {value: 0.4}]
merge_method: linear
parameters: {normalize: false}
dtype: float32
""",
    "linear with a base": """
merge_method: linear
base_model: BASE
models: [{model: MATH}, {model: CODE}]
parameters: {weight: 1.0}
dtype: float32
""",
    "model_stock": """
models: [{model: MATH}, {model: CODE}, {model: TEXT}]
merge_method: model_stock
base_model: BASE
dtype: float32
""",
    "a module": """
merge_method: task_arithmetic
base_model: BASE
modules:
  default:
    slices:
      - sources:
          - {model: BASE, layer_range: [0, 4]}
          - {model: MATH, layer_range: [0, 4], parameters: {weight: 0.7}}
parameters: {lambda: 0.8}
dtype: float32
""",
    "tokenizer_source: base": SLERP + "tokenizer_source: base\n",
    "tokenizer_source: union": SLERP + "tokenizer_source: union\n",
    "tokenizer_source: a model": SLERP + "tokenizer_source: MATH\n",
    "padded tokenizer": SLERP + "tokenizer: {source: union, pad_to_multiple_of: 64}\n",
    "tokens": SLERP
    + "tokenizer: {source: base, tokens: {a: {source: MATH, force: true}}}\n",
    "chat_template": SLERP + "chat_template: chatml\n",
    "several documents": """
name: inner
merge_method: ties
base_model: BASE
models:
  - {model: MATH, parameters: {weight: 0.6, density: 0.5}}
  - {model: CODE, parameters: {weight: 0.3, density: 0.7}}
dtype: float32
---
merge_method: slerp
base_model: TEXT
models: [{model: TEXT}, {model: inner}]
parameters: {t: [0.2, 0.7]}
dtype: float32
""",
}  # fmt: skip


def theirs(text: str, folder: Path) -> Path:
    """What mergekit-yaml makes, or mergekit-multi where there are several documents."""
    logging.disable(logging.ERROR)
    options = MergeOptions(quiet=True, device="cpu", write_model_card=False)
    out = folder / "out"
    try:
        if "---" not in text:
            run_merge(MergeConfiguration.model_validate(yaml.safe_load(text)), str(out), options)
            return out
        inner = folder / "inner"
        inner.mkdir(parents=True)
        configs, needs = load_config(text, str(inner))
        tasks = make_tasks(configs, needs, options, str(inner), str(out), True)
        Executor(tasks, math_device="cpu", storage_device="cpu").execute(desc="")
        return out
    finally:
        logging.disable(logging.NOTSET)


def close(ours: Mapping[str, Tensor], others: Mapping[str, Tensor], *, exact: bool) -> None:
    """Equal to 1e-6 in float32, to one step in half precision; equal bits where none is added."""
    assert ours.keys() == others.keys()
    step = {torch.float32: 0.0, torch.bfloat16: 2**-7, torch.float16: 2**-10}
    for name, tensor in ours.items():
        other = others[name]
        assert (tensor.dtype, tensor.shape) == (other.dtype, other.shape), name
        if exact:
            assert torch.equal(tensor, other), name
        else:
            torch.testing.assert_close(tensor, other, atol=1e-6, rtol=step[tensor.dtype])


@pytest.fixture(scope="module")
def families(tiny_model: Any, tiny_family: dict[str, Path]) -> dict[str, dict[str, Path]]:
    """Models by dtype: mergekit rounds its inputs to that of the file first."""
    result = {"float32": tiny_family}
    for dtype in ("bfloat16", "float16"):
        base = tiny_model(base=tiny_family["base"], noise=0.0, dtype=dtype)
        result[dtype] = {"base": base} | {
            name: tiny_model(base=base, seed=seed, dtype=dtype)
            for seed, name in enumerate(("math", "code", "text"))
        }
    return result


@pytest.mark.parametrize("name", FILES)
def test_as_mergekit(name: str, families: dict[str, dict[str, Path]], tmp_path: Path) -> None:
    text = FILES[name]
    dtype = next(line for line in text.splitlines() if line.startswith("dtype")).split()[1]
    for model, path in families[dtype].items():
        text = text.replace(model.upper(), str(path))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text)
    ours, other = tmp_path / "ours", theirs(text, tmp_path / "theirs")
    build(recipe, ours, shard_bytes=10**9)
    weights = [load_file(at / "model.safetensors") for at in (ours, other)]
    close(*weights, exact="merge_method: passthrough" in text)
    configs = [json.loads((at / "config.json").read_text()) for at in (ours, other)]
    for key in ("num_hidden_layers", "vocab_size", "tie_word_embeddings", "dtype"):
        assert configs[0][key] == configs[1][key], key
    tokenizers = [AutoTokenizer.from_pretrained(at) for at in (ours, other)]
    assert tokenizers[0].get_vocab() == tokenizers[1].get_vocab()
    if "chat_template" in text:
        talk = [{"role": "user", "content": "1+1"}]
        said = [one.apply_chat_template(talk, tokenize=False) for one in tokenizers]
        assert said[0] == said[1]


@pytest.mark.parametrize("first", ["math", MERGED])
def test_a_drawn_stack_as_mergekit(
    first: str, tiny_family: dict[str, Path], tmp_path: Path
) -> None:
    """Runs of the merged model and of single parents, exported and run by both."""
    space = Space(
        parents=("math", "code"),
        base=None,
        layers=4,
        methods=("linear",),
        stacking=Stacking(min_layers=3, max_layers=8, sources="any", max_repeated=3),
    )
    values = {"weight.math": 0.75, "weight.code": 0.25, "slices": 2, "slice1.end": 3}
    sources = {"slice1.source": first, "slice2.source": "code"}
    drawn = draw(space, Fixed({**values, "slice2.shift": -2, **sources}))
    text = to_yaml(drawn, {name: str(tiny_family[name]) for name in space.parents})
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text)
    ours, other = tmp_path / "ours", theirs(text, tmp_path / "theirs")
    build(recipe, ours, shard_bytes=10**9)
    close(*(load_file(at / "model.safetensors") for at in (ours, other)), exact=first != MERGED)
    assert json.loads((ours / "config.json").read_text())["num_hidden_layers"] == 6
