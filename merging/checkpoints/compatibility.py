"""Whether models can be merged with each other: architecture, depth, shapes, vocabulary."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from merging.checkpoints.checkpoint import Checkpoint
from merging.checkpoints.files.model_layout import is_head, is_head_part
from merging.checkpoints.files.safetensors_header import TensorInfo
from merging.problems import Problems

ONLY_WITH_A_VOCABULARY = (
    "can only be merged by a recipe that says whose the result gets (tokenizer_source; in a "
    "search, output.vocabulary)"
)
"""End of a sentence on them."""


def has_rows_of_tokens(key: str) -> bool:
    """Whether a tensor outside the layers has a row per token: embeddings, head, its bias."""
    return is_head_part(key) or "embed" in key or "wte" in key


def check_parents(
    checkpoints: Mapping[str, Checkpoint], base: str | None, *, same_tokens: bool = True
) -> list[str]:
    """Every reason why these models cannot be merged as whole models.

    Args:
        checkpoints: The models by short name.
        base: The one the others are compared with; ``None`` takes the first.
        same_tokens: Their vocabularies must be the same, but for padding.

    Returns:
        One line per problem, naming models and tensors; empty if all is well.
    """
    problems = Problems()
    if base is not None and base not in checkpoints:
        return [f"base: expected one of {', '.join(checkpoints)}, got {base!r}"]
    reference = checkpoints[base] if base is not None else next(iter(checkpoints.values()), None)
    if reference is None:
        return []
    _check_alone(reference, problems)
    for other in checkpoints.values():
        if other is reference:
            continue
        _check_alone(other, problems)
        check_architecture(reference, other, problems)
        depth, expected = len(other.layout.layers), len(reference.layout.layers)
        if depth != expected:
            problems.add(
                f"model {other.name}: expected {expected} layers as in {reference.name}, "
                f"got {depth}"
            )
        _check_tensors(reference, other, problems, same_tokens=same_tokens)
        if same_tokens:
            _check_tokens(reference, other, problems)
    return problems.lines()


def check_architecture(reference: Checkpoint, other: Checkpoint, problems: Problems) -> None:
    """Note it if two models are of different kinds."""
    for key in ("model_type", "architectures"):
        expected, got = reference.config.get(key), other.config.get(key)
        if expected and got and expected != got:
            problems.add(
                f"model {other.name}: expected {key} {_text(expected)} as in {reference.name}, "
                f"got {_text(got)}"
            )
            return


def differ_by_padding(first: Checkpoint, second: Checkpoint) -> bool:
    """Whether two models have the same tokens, with a row for each, and only more rows after."""
    ours, theirs = _tokens(first.tokenizer_folder), _tokens(second.tokenizer_folder)
    fewest = min(first.rows or 0, second.rows or 0)
    return bool(ours) and ours == theirs and max(ours.values()) < fewest


def check_shape(
    key: str,
    expected: tuple[str, TensorInfo],
    got: tuple[str, str, TensorInfo],
    problems: Problems,
    *,
    padded: bool = False,
) -> None:
    """Note it if a tensor has another shape than in another model.

    Args:
        key: The tensor's place, to tell embeddings from the rest.
        expected: Name of the model compared with, and its tensor.
        got: Name of the model, the tensor's name in it, and the tensor.
        problems: Where to note it.
        padded: Its number of rows may differ: the vocabularies differ only by padding.
    """
    (reference, first), (model, name, second) = expected, got
    if first.shape == second.shape or (padded and first.shape[1:] == second.shape[1:]):
        return
    if first.shape[1:] == second.shape[1:] and has_rows_of_tokens(key):
        problems.add(
            f"model {model}: expected a vocabulary of {first.shape[0]} tokens as in {reference}, "
            f"got {second.shape[0]} ({name} in {second.file.name}); models of different "
            f"vocabularies {ONLY_WITH_A_VOCABULARY}",
            group=(model, "vocabulary"),
        )
        return
    problems.add(
        f"model {model}: {name} in {second.file.name}: expected shape {list(first.shape)} "
        f"as in {reference}, got {list(second.shape)}",
        group=(model, reference, "shape"),
    )


def _check_alone(checkpoint: Checkpoint, problems: Problems) -> None:
    if not checkpoint.tied and checkpoint.layout.head is None:
        problems.add(
            f"model {checkpoint.name}: expected an output head (config.json says "
            "tie_word_embeddings: false), got none in its files"
        )


def _check_tensors(
    reference: Checkpoint, other: Checkpoint, problems: Problems, *, same_tokens: bool
) -> None:
    """Layers that both have, and what lies outside: the same names and shapes."""
    pairs = [*zip(reference.layout.layers, other.layout.layers, strict=False)]
    pairs.append((reference.layout.outside, other.layout.outside))
    for here, there in pairs:
        outside = here is reference.layout.outside
        for key in sorted({*here, *there}):
            if key in here and key in there:
                expected = (reference.name, reference.tensors[here[key]])
                got = (other.name, there[key], other.tensors[there[key]])
                padded = (
                    outside
                    and has_rows_of_tokens(key)
                    and (not same_tokens or differ_by_padding(reference, other))
                )
                check_shape(key, expected, got, problems, padded=padded)
            elif key in here:
                if not outside or _misses(reference, other, key):
                    _add_missing(other.name, here[key], reference.name, problems)
            elif not outside or _misses(other, reference, key):
                _add_missing(reference.name, there[key], other.name, problems)


def _misses(has: Checkpoint, lacks: Checkpoint, key: str) -> bool:
    """Whether it is a fault that one model has ``key`` and the other does not."""
    if is_head(key):  # a tied model need not store it; an untied one is checked alone
        return False
    return has.layout.is_required(key) or (lacks.layout.has_module(key))


def _add_missing(model: str, tensor: str, reference: str, problems: Problems) -> None:
    problems.add(
        f"model {model}: {tensor} is missing; {reference} has it", group=(model, reference, "lack")
    )


def _check_tokens(reference: Checkpoint, other: Checkpoint, problems: Problems) -> None:
    """Tokens that both tokenizers know must have one number."""
    expected, got = _tokens(reference.tokenizer_folder), _tokens(other.tokenizer_folder)
    moved = sorted(token for token in expected.keys() & got.keys() if expected[token] != got[token])
    if moved:
        token = moved[0]
        problems.add(
            f"model {other.name}: expected the token numbers of {reference.name}, got others for "
            f"{len(moved)} tokens (first {token!r}: {got[token]} instead of {expected[token]}); "
            f"models of different vocabularies {ONLY_WITH_A_VOCABULARY}"
        )


def _tokens(folder: Path) -> dict[str, int]:
    """Token -> number from ``tokenizer.json``; empty where there is none to read."""
    try:
        data: Any = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        vocabulary = data["model"]["vocab"]
        if isinstance(vocabulary, list):  # a unigram model: pairs of token and score
            vocabulary = {token: number for number, (token, _) in enumerate(vocabulary)}
        added = {token["content"]: token["id"] for token in data.get("added_tokens") or ()}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {**vocabulary, **added}


def _text(value: Any) -> str:
    return "/".join(map(str, value)) if isinstance(value, list) else str(value)
