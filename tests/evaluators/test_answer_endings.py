"""Loops: told by exact repetition alone, and ended without a word lost before them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from evaluators.harness.answers.answer_endings import LOOP_REPEATS, LOOP_TOKENS, loops
from evaluators.harness.engines.engine_choice import ENGINES
from evaluators.harness.harness_evaluator import HarnessEvaluator
from evaluators.harness_spec import HarnessSpec
from evaluators.protocol import Candidate, Score

tokens = st.lists(st.integers(0, 2), max_size=40)


def repeated_at_the_end(text: list[int], repeats: int, most: int) -> bool:
    """What the docs say, word by word."""
    return any(
        len(text) >= (span := max(repeats * period, most))
        and all(text[-at] == text[-at - period] for at in range(1, span - period + 1))
        for period in range(1, len(text) // repeats + 1)
    )


@given(tokens, tokens, st.integers(0, 12), st.integers(2, 4), st.integers(1, 12))
def test_loops_are_exact_repetitions(
    before: list[int], block: list[int], times: int, repeats: int, most: int
) -> None:
    text = before + block * times
    assert loops(text, repeats=repeats, most=most) is repeated_at_the_end(text, repeats, most)


@given(st.lists(st.integers(0, 3), max_size=400), st.integers(1, 60))
def test_text_without_exact_repetition_is_no_loop(text: list[int], period: int) -> None:
    for end in (text, text[:period] * 9 + text):
        if loops(end):
            assert any(
                end[-LOOP_REPEATS * n :] == end[-n:] * LOOP_REPEATS
                for n in range(1, len(end) // LOOP_REPEATS + 1)
            )


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.integers(0, 39), st.integers(1, 9))
def test_one_other_token_is_no_loop(block: list[int], at: int, by: int) -> None:
    text = block * (LOOP_TOKENS // len(block) + 1) * LOOP_REPEATS
    assert loops(text)
    last = text[-len(block) :]
    last[at % len(block)] += 10 * by  # a number counts up, say
    assert not loops(text + last)


@pytest.fixture(scope="module")
def parrot(tiny_family: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of the family that says one character for ever, with room for 512."""
    folder = Path(shutil.copytree(tiny_family["math"], tmp_path_factory.mktemp("p") / "parrot"))
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = torch.zeros_like(tensors["lm_head.weight"])
    tensors["lm_head.weight"][5, 0] = 1.0
    tensors["model.norm.weight"] = torch.zeros_like(tensors["model.norm.weight"])
    tensors["model.norm.weight"][0] = 1.0
    tensors["model.embed_tokens.weight"][:, 0] = 5.0
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 512}))
    return folder


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("changes", "length"),
    [
        ({}, LOOP_TOKENS),
        ({"end_loops": False}, 200),
        ({"gen_kwargs": (("max_gen_toks", 100),)}, 100),
    ],
)
def test_a_loop_is_ended_and_marked(
    make_spec: Callable[..., HarnessSpec], mix: Any, parrot: Path,
    changes: dict[str, Any], length: int, engine: str,
) -> None:  # fmt: skip
    spec = make_spec(
        "tiny_write",
        models={"parrot": parrot},
        engine=engine,
        gen_kwargs=(("max_gen_toks", 200),),
        max_length=300,
    )
    evaluator = HarnessEvaluator(replace(spec, **changes))
    ids = tuple(question.id for question in evaluator.catalogue().questions)[:6]
    found = evaluator.evaluate(Candidate(id=0, recipe=mix(parrot=1.0), questions=ids))
    assert isinstance(found, Score), found
    shares = (0.0, 1.0) if length >= LOOP_TOKENS else (1.0, 0.0)
    assert (found.tasks[0].cut_off, found.tasks[0].looped) == shares
    assert found.tasks[0].length == length
