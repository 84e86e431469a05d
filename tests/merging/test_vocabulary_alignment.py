"""Models of different vocabularies, held against mergekit through the YAML that we export."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from merging.building.build import tensors, write_model
from merging.building.fingerprint import fingerprint_checkpoint
from merging.building.output_checks import NonFiniteError
from merging.checkpoints.checkpoint import Checkpoint
from merging.checkpoints.compatibility import check_parents
from merging.planning.expressions import leaves
from merging.planning.merge_plan import PlanError, plan
from spaces.mergekit import from_yaml, to_yaml
from spaces.recipes.recipe import Recipe
from spaces.recipes.vocabulary import TokenRule, Vocabulary

VOCAB = ("model.embed_tokens.weight", "lm_head.weight")


@pytest.fixture(scope="module")
def models(tiny_model: Any) -> dict[str, Path]:
    """Three models that share some characters, in other places, and have some of their own."""
    base = tiny_model(seed=1, vocab="abcdefgh")
    made = {
        "base": base,
        "math": tiny_model(seed=2, vocab="0123cbaZ"),
        "code": tiny_model(seed=3, vocab="{}bdxZ0"),
    }
    tokenizer = AutoTokenizer.from_pretrained(made["math"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<think>"]})
    tokenizer.save_pretrained(made["math"])
    return resized(made, "math", len(tokenizer))


def resized(models: dict[str, Path], name: str, rows: int) -> dict[str, Path]:
    """Give a model so many rows."""
    file = models[name] / "model.safetensors"
    stored = load_file(file)
    for tensor in VOCAB:
        old = stored[tensor]
        more = torch.randn((rows, old.shape[1]), generator=torch.Generator().manual_seed(rows))
        more[: min(rows, len(old))] = old[:rows]
        stored[tensor] = more
    save_file(stored, file, metadata={"format": "pt"})
    config = json.loads((models[name] / "config.json").read_text())
    (models[name] / "config.json").write_text(json.dumps(config | {"vocab_size": rows}))
    return models


def opened(models: Mapping[str, Path]) -> dict[str, Checkpoint]:
    return {name: Checkpoint.open(str(folder), name=name) for name, folder in models.items()}


def merge(method: str, *names: str, **parameters: Any) -> dict[str, Any]:
    shared = {"weight": 0.6, **parameters} if method != "slerp" else {"t": 0.3}
    result = {"method": method, "sources": [{"of": name} for name in names], "parameters": shared}
    if method == "slerp":
        result["base"] = names[0]
    if method in ("ties", "task_arithmetic"):
        result["base"] = "base"
    return result


def recipe(node: Mapping[str, Any], vocabulary: Vocabulary, **more: Any) -> Recipe:
    return Recipe.from_dict({"merge": node, "vocabulary": vocabulary.to_dict(), **more})


def reference(made: Recipe, models: Mapping[str, Path], out: Path) -> Path:
    """What mergekit makes of the recipe's YAML, tokenizer and all."""
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    text = to_yaml(made, {name: str(path) for name, path in models.items()})
    logging.disable(logging.ERROR)
    try:
        config = MergeConfiguration.model_validate(yaml.safe_load(text))
        run_merge(config, str(out), MergeOptions(quiet=True, device="cpu", write_model_card=False))
    finally:
        logging.disable(logging.NOTSET)
    return out


def by_token(folder: Path) -> dict[str, dict[str, Tensor]]:
    """Rows by token, for each tensor that has them; the rows after the last token under ``''``."""
    tokens = AutoTokenizer.from_pretrained(folder).get_vocab()
    stored = load_file(folder / "model.safetensors")
    return {
        name: {token: stored[name][row] for token, row in tokens.items()}
        | {"": stored[name][max(tokens.values()) + 1 :]}
        for name in VOCAB
    }


ZERO = TokenRule(token="a")
RULES = (
    TokenRule(token="b", model="math", source="0", force=True),
    TokenRule(token="g", model="math", source=4),
    TokenRule(token="<new>", model="base", source="<eos>"),
    TokenRule(token="<none>"),
    TokenRule(token="c", model="base", force=True),
    TokenRule(token="Z", model="math"),
)
CASES: dict[str, tuple[dict[str, Any], Vocabulary]] = {
    "union linear": (merge("linear", "base", "math"), Vocabulary()),
    "union slerp": (merge("slerp", "base", "math"), Vocabulary()),
    "union ties": (merge("ties", "math", "code", density=0.7), Vocabulary()),
    "union of three": (merge("linear", "base", "math", "code"), Vocabulary()),
    "union task arithmetic": (merge("task_arithmetic", "math", "code"), Vocabulary()),
    "base ties": (merge("ties", "math", "code", density=0.7), Vocabulary(model="base")),
    "base slerp": (merge("slerp", "math", "code"), Vocabulary(model="math")),
    "other model": (merge("ties", "math", "code", density=0.7), Vocabulary(model="math")),
    "other of linear": (merge("linear", "base", "math", "code"), Vocabulary(model="code")),
    "padded": (merge("linear", "base", "math"), Vocabulary(pad_to_multiple_of=16)),
    "padded base": (
        merge("ties", "math"),  # padding rows are equal: what a density keeps of them is open
        Vocabulary(model="base", pad_to_multiple_of=7),
    ),
    "rules": (merge("linear", "base", "math"), Vocabulary(tokens=RULES)),
    "rules and base": (merge("ties", "math", "code"), Vocabulary(model="base", tokens=RULES)),
    "forced zero": (
        merge("linear", "base", "math"),
        Vocabulary(tokens=(TokenRule(token="a", force=True),), pad_to_multiple_of=10),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_as_mergekit(case: str, models: dict[str, Path], tmp_path: Path) -> None:
    node, vocabulary = CASES[case]
    made = recipe(node, vocabulary)
    used = {name: models[name] for name in made.models}
    theirs = reference(made, used, tmp_path / "mergekit")
    checkpoints = opened(used)
    ours = tmp_path / "ours"
    fingerprint = write_model(plan(made, checkpoints), checkpoints, ours)
    assert fingerprint_checkpoint(Checkpoint.open(str(ours), name="x")) == fingerprint
    expected, got = load_file(theirs / "model.safetensors"), load_file(ours / "model.safetensors")
    assert {n: t.shape for n, t in got.items()} == {n: t.shape for n, t in expected.items()}
    for name in sorted(set(expected) - set(VOCAB)):
        torch.testing.assert_close(got[name], expected[name], rtol=1e-6, atol=1e-6)
    left, right = by_token(ours), by_token(theirs)  # mergekit numbers new tokens in any order
    for name in VOCAB:
        assert left[name].keys() == right[name].keys()
        for token, row in left[name].items():
            torch.testing.assert_close(row, right[name][token], rtol=1e-6, atol=1e-6)
    configs = [json.loads((at / "config.json").read_text()) for at in (ours, theirs)]
    assert configs[0]["vocab_size"] == configs[1]["vocab_size"]


@pytest.mark.parametrize("case", CASES)
def test_yaml_round_trip(case: str, models: dict[str, Path]) -> None:
    made = recipe(*CASES[case])
    places = {name: str(path) for name, path in models.items()}
    found = from_yaml(to_yaml(made, places))
    assert (found.recipe, found.key) == (made, made.key)
    assert Recipe.from_dict(json.loads(json.dumps(made.to_dict()))) == made


def test_the_result_works(models: dict[str, Path], tmp_path: Path) -> None:
    """transformers loads it; the tokenizer knows all characters; special tokens are renumbered."""
    made = recipe(merge("ties", "math", "code"), Vocabulary(model="math"))
    checkpoints = opened(models)
    write_model(plan(made, checkpoints), checkpoints, tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.get_vocab() == AutoTokenizer.from_pretrained(models["math"]).get_vocab()
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.get_input_embeddings().num_embeddings == len(tokenizer)
    union = recipe(merge("linear", "base", "math", "code"), Vocabulary(), tokenizer="code")
    write_model(plan(union, checkpoints), checkpoints, tmp_path / "union")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "union")
    text = "abcdefgh0123Z{}x"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode("<think>") == [tokenizer.get_vocab()["<think>"]]
    first = AutoTokenizer.from_pretrained(models["code"]).get_vocab()
    assert {t: n for t, n in tokenizer.get_vocab().items() if t in first} == first


def test_special_tokens_get_their_new_numbers(tiny_model: Any, tmp_path: Path) -> None:
    base, other = tiny_model(vocab="ab"), tiny_model(vocab="ba")
    file = other / "tokenizer.json"
    content = json.loads(file.read_text())
    swap = {"<pad>": 1, "<eos>": 0}
    content["model"]["vocab"] |= swap
    for token in content["added_tokens"]:
        token["id"] = swap.get(token["content"], token["id"])
    file.write_text(json.dumps(content))
    (base / "generation_config.json").write_text('{"eos_token_id": [1, 2], "pad_token_id": 0}')
    models = {"base": base, "other": other}
    checkpoints = opened(models)
    made = plan(recipe(merge("ties", "other"), Vocabulary(model="other")), checkpoints)
    assert (made.config["eos_token_id"], made.config["pad_token_id"]) == (0, 1)
    write_model(made, checkpoints, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert (written["eos_token_id"], written["pad_token_id"]) == ([0, 2], 1)


def test_answers_end_where_the_tokenizer_ends(tiny_model: Any, tmp_path: Path) -> None:
    """A tokenizer with another end of turn than the config's model: both end an answer."""
    base, chat = tiny_model(vocab="abT"), tiny_model(vocab="baT")
    (base / "generation_config.json").write_text('{"eos_token_id": 1, "pad_token_id": 0}')
    settings = json.loads((chat / "tokenizer_config.json").read_text())
    (chat / "tokenizer_config.json").write_text(json.dumps(settings | {"eos_token": "T"}))
    turn = AutoTokenizer.from_pretrained(chat).eos_token_id
    assert turn > 2
    checkpoints = opened({"base": base, "chat": chat})
    for source, ends, generated in (("chat", turn, [turn, 1]), ("base", 1, 1), (None, 1, 1)):
        vocabulary = Vocabulary(model=source)
        made = plan(recipe(merge("ties", "chat"), vocabulary), checkpoints)
        assert made.config["eos_token_id"] == ends
        write_model(made, checkpoints, tmp_path / str(source))
        written = json.loads((tmp_path / str(source) / "generation_config.json").read_text())
        assert written["eos_token_id"] == generated
        assert made.config["pad_token_id"] == written["pad_token_id"] == 0


def test_tokens_without_a_row(models: dict[str, Path], tiny_model: Any) -> None:
    """Such a model lacks the token; the other lends its row."""
    short = resized({"math": tiny_model(vocab="abcdXY", seed=5)}, "math", 7)
    checkpoints = opened({"base": models["base"]} | short)
    made = plan(recipe(merge("ties", "math"), Vocabulary()), checkpoints)
    got = dict(tensors(made, checkpoints))[VOCAB[0]]
    base = AutoTokenizer.from_pretrained(models["base"]).get_vocab()
    old = load_file(models["base"] / "model.safetensors")[VOCAB[0]]
    assert got.shape == old.shape  # X and Y have no row anywhere: they are no tokens of the union
    for token in "efgh":
        assert torch.equal(got[base[token]], old[base[token]])


def test_without_a_base_the_first_listed_lends(models: dict[str, Path]) -> None:
    """Also in the YAML that is exported: it names that model as ``base_model``."""
    checkpoints = opened(models)
    made = recipe(merge("linear", "code", "base", "math"), Vocabulary())
    text = to_yaml(made, {name: str(path) for name, path in models.items()})
    assert yaml.safe_load(text)["base_model"] == str(models["code"])
    planned = plan(made, checkpoints)
    got = dict(tensors(planned, checkpoints))[VOCAB[0]]
    row = AutoTokenizer.from_pretrained(planned.folder).get_vocab()["Z"]

    def own(name: str) -> Tensor:
        number = AutoTokenizer.from_pretrained(models[name]).get_vocab()["Z"]
        return load_file(models[name] / "model.safetensors")[VOCAB[0]][number]

    torch.testing.assert_close(got[row], (2 * own("code") + own("math")) / 3)


def test_mixed_dtypes(models: dict[str, Path], tmp_path: Path) -> None:
    """The type of the output is that of the models, though means are taken in float32."""
    half = {}
    for name in ("base", "math"):
        half[name] = tmp_path / name
        half[name].mkdir()
        for file in models[name].iterdir():
            (half[name] / file.name).write_bytes(file.read_bytes())
        stored = load_file(half[name] / "model.safetensors")
        low = {key: tensor.bfloat16() for key, tensor in stored.items()}
        save_file(low, half[name] / "model.safetensors", metadata={"format": "pt"})
    made = plan(
        recipe(merge("linear", "base", "math"), Vocabulary(pad_to_multiple_of=32)), opened(half)
    )
    assert {job.dtype for job in made.jobs} == {torch.bfloat16}
    mixed = plan(
        recipe(merge("linear", "base", "math"), Vocabulary()),
        opened({"base": models["base"], "math": half["math"]}),
    )
    assert {job.dtype for job in mixed.jobs} == {torch.float32}


@pytest.mark.parametrize("tied", ["base", "math"])
def test_tied_and_untied(tied: str, tiny_model: Any, tmp_path: Path) -> None:
    """The embeddings stand in for the head of the tied one, in its own rows."""
    models = {
        "base": tiny_model(seed=1, vocab="abcd", tied=tied == "base"),
        "math": tiny_model(seed=2, vocab="dcxy", tied=tied == "math"),
    }
    made = recipe(merge("linear", "base", "math"), Vocabulary())
    checkpoints = opened(models)
    write_model(plan(made, checkpoints), checkpoints, tmp_path / "ours")
    reference(made, models, tmp_path / "theirs")
    stored = load_file(tmp_path / "ours" / "model.safetensors")
    assert (VOCAB[1] in stored) == (tied == "math")  # as the config of the output has it
    theirs = load_file(tmp_path / "theirs" / "model.safetensors")
    tokens = [AutoTokenizer.from_pretrained(tmp_path / n).get_vocab() for n in ("ours", "theirs")]
    for name in VOCAB[: 1 + (tied == "math")]:
        for token, row in tokens[0].items():
            expected = theirs[name][tokens[1][token]]
            torch.testing.assert_close(stored[name][row], expected, rtol=1e-6, atol=1e-6)


def test_nan_in_embeddings(models: dict[str, Path], tiny_model: Any, tmp_path: Path) -> None:
    bad = tiny_model(tmp_path / "bad", vocab="xyz")
    stored = load_file(bad / "model.safetensors")
    stored[VOCAB[0]][3] = float("nan")
    save_file(stored, bad / "model.safetensors")
    checkpoints = opened({"base": models["base"], "math": bad})
    planned = plan(recipe(merge("linear", "base", "math"), Vocabulary()), checkpoints)
    file = re.escape(str(bad / "model.safetensors"))
    with pytest.raises(NonFiniteError, match=rf"model math: {file}: model\.embed_tokens\.weight"):
        dict(tensors(planned, checkpoints))


def test_statistics_know_what_is_in_a_view(
    models: dict[str, Path], tiny_model: Any, tmp_path: Path
) -> None:
    """A view that takes rows of a changed model has another name."""
    names = []
    for seed in (1, 2):
        base = tiny_model(tmp_path / f"{seed}", vocab="abcdefgh", seed=seed)
        made = recipe(merge("linear", "base", "math"), Vocabulary())
        planned = plan(made, opened({"base": base, "math": models["math"]}))
        job = next(job for job in planned.jobs if job.name == VOCAB[0])
        names.append([leaf.tensor for leaf in leaves(job.expression) if leaf.model == "math"])
    assert names[0] != names[1]


def test_padding_alone_needs_no_vocabulary(
    models: dict[str, Path], tiny_model: Any, tmp_path: Path
) -> None:
    """Same tokens, more rows: the result has the rows of the model that gives the config."""
    base = tiny_model(vocab="abcdef", seed=1)
    rows = Checkpoint.open(str(base), name="x").rows or 0
    tuned = tiny_model(base=base, seed=2)
    long = resized({"math": tiny_model(base=base, seed=3)}, "math", rows + 5)["math"]
    for donor, other in ((base, long), (long, tuned)):
        checkpoints = opened({"base": donor, "math": other})
        assert check_parents(checkpoints, "base") == []
        made = Recipe.from_dict({"merge": merge("task_arithmetic", "math")})
        got = dict(tensors(plan(made, checkpoints), checkpoints))
        for name in VOCAB:
            first, second = (load_file(at / "model.safetensors")[name] for at in (donor, other))
            common = min(len(first), len(second))
            expected = first.clone()
            expected[:common] += 0.6 * (second[:common] - first[:common])
            torch.testing.assert_close(got[name], expected)
    other = opened({"base": models["base"], "math": models["math"]})
    with pytest.raises(PlanError, match="of different vocabularies can only be merged by a recipe"):
        plan(Recipe.from_dict({"merge": merge("ties", "math")}), other)


def tree(*inner: str) -> dict[str, Any]:
    return merge("linear", "x") | {
        "sources": [{"of": merge("linear", *inner)}, {"of": "code"}],
    }


def test_trees(models: dict[str, Path], tiny_model: Any, build: Any, mergekit: Any) -> None:
    """A tree works where no merge has to fill in for another."""
    base = tiny_model(vocab="abcd", seed=1)
    same = {
        "base": base,
        "math": tiny_model(base=base, seed=2),
        "code": tiny_model(vocab="dcba", seed=3),
    }
    made = recipe(tree("base", "math"), Vocabulary(model="base"))
    checkpoints = opened(same)
    got = dict(tensors(plan(made, checkpoints), checkpoints))
    expected = mergekit(tree("base", "math"), same, vocabulary={"model": "base"})
    for name, tensor in expected.items():
        torch.testing.assert_close(got[name], tensor, rtol=1e-6, atol=1e-6)
    with pytest.raises(PlanError, match=r"expected a tree in which .* know all tokens"):
        plan(recipe(tree("base", "math"), Vocabulary()), opened(models))


def problems(made: Recipe, models: Mapping[str, Path]) -> str:
    with pytest.raises(PlanError) as caught:
        plan(made, opened(models))
    return str(caught.value)


def test_what_cannot_be_brought_together(
    models: dict[str, Path], tiny_model: Any, tmp_path: Path
) -> None:
    two = merge("linear", "base", "math")
    lacks = Vocabulary(tokens=(TokenRule(token="Q", model="math", source="h"),))
    assert problems(recipe(two, lacks), models) == "tokens: Q: expected a token of math, got 'h'"
    beyond = Vocabulary(tokens=(TokenRule(token="Q", model="base", source=99),))
    assert "tokens: Q: expected one of the 11 rows of base, got 99" in problems(
        recipe(two, beyond), models
    )
    bare = tiny_model(vocab="ab")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (bare / name).unlink()
    found = problems(recipe(two, Vocabulary()), {"base": models["base"], "math": bare})
    assert found.startswith(f"model math: tokenizer: {bare}: cannot be loaded")
    short = resized({"base": tiny_model(vocab="abcdef")}, "base", 7)
    found = problems(recipe(two, Vocabulary()), short | {"math": models["math"]})
    assert "model base: expected a tokenizer with a row of the embeddings for every" in found


def test_plans_are_quick_the_second_time(models: dict[str, Path]) -> None:
    """Tokenizers are loaded once per set of checkpoints, and the folder is made once."""
    checkpoints = opened(models)
    made = recipe(merge("ties", "math", "code"), Vocabulary())
    first, second = plan(made, checkpoints), plan(made, checkpoints)
    assert first.folder == second.folder
    assert (first.folder / "tokenizer.json").is_file()
    assert (first.folder / "config.json").is_file()
