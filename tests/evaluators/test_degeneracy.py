"""Telling models that hear what they are asked from those that do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from evaluators.resident_models.degeneracy import (
    LEAST_POSITIONS,
    DegenerateError,
    check_hears,
    listen,
    look,
)

FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "gemma", "gpt_neox", "gpt2")
CPU = torch.device("cpu")


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("logits", "degenerate"),
    [
        (noise(64, 100), False),
        (1e-3 * noise(64, 100), False),  # untrained: all small, but they follow the input
        (noise(1, 100).expand(64, 100), True),
        (torch.zeros(64, 100), True),
        (10 * noise(1, 100).expand(64, 100) + 1e-3 * noise(64, 100, seed=1), True),
        (10 * noise(1, 100).expand(64, 100) + 5 * noise(64, 100, seed=1), False),
        (noise(1, 100).expand(LEAST_POSITIONS - 1, 100), False),  # too little was seen
    ],
)
def test_what_counts(logits: torch.Tensor, degenerate: bool) -> None:
    assert look(logits).degenerate is degenerate


def test_one_token_everywhere() -> None:
    same = torch.zeros(64, 100)
    same[:, 7] = 1e4
    assert look(same + 10 * noise(64, 100)).degenerate
    assert look(same + 10 * noise(64, 100)).one


def test_a_masked_vocabulary_changes_nothing() -> None:
    logits = noise(64, 100)
    logits[:, :10] = -torch.inf
    seen = look(logits)
    assert not seen.degenerate
    assert 0 < seen.heard <= 1
    assert 0 < seen.spread <= 1


@pytest.mark.parametrize("family", FAMILIES)
def test_no_parent_is_taken_for_one(family: str, tiny_model: Any) -> None:
    """Not even one with random weights."""
    folder: Path = tiny_model(family=family)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompts = [tokenizer(f"max:{n}{n * 7 % 10}{n * 3 % 10}>").input_ids for n in range(8)]
    check_hears(AutoModelForCausalLM.from_pretrained(folder).eval(), prompts, CPU)


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_of_any_length_are_heard_as_each_alone(family: str, tiny_model: Any) -> None:
    folder: Path = tiny_model(family=family)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    prompts = [tokenizer("max:" + "73" * n + ">").input_ids for n in (1, 9, 4, 20)]
    for prompt, found in zip(prompts, listen(model, prompts, CPU), strict=True):
        (alone,) = listen(model, [prompt], CPU)
        torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-5)


def test_a_broken_model_is(tiny_model: Any) -> None:
    folder = tiny_model()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompts = [tokenizer(f"max:{n}>").input_ids for n in range(8)]
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "embed" in name:
                weight.fill_(0.1)
    with pytest.raises(DegenerateError, match="gives the same answer to every prompt"):
        check_hears(model, prompts, CPU)
